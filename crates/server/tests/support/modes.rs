//! Servers that are set up otherwise than most tests want.

use ligand_server::config::{Auth, Config};

use super::ADMIN;

/// Like `both!`, for a server that is set up by `$adjust`.
macro_rules! adjusted {
    ($adjust:expr; $($(#[$meta:meta])* async fn $name:ident($app:ident: TestApp) $body:block)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            $crate::support::engine::on_each(stringify!($name), |db| async move {
                let $app = $crate::support::TestApp::new(db, $adjust);
                $body
            });
        }
    )*};
}
pub(crate) use adjusted;

/// The contract's open doors, without an administrator's token.
pub(crate) fn compat(config: &mut Config) {
    config.auth = Auth::Compat;
    config.open_registration = true;
    config.admin_token = ligand_server::config::Secret::new(String::new());
}

/// The contract's open doors, with an administrator's token.
pub(crate) fn compat_with_admin(config: &mut Config) {
    compat(config);
    config.admin_token = ligand_server::config::Secret::new(ADMIN.to_owned());
}

/// In development, with the canvas under the server's own address.
pub(crate) fn development(config: &mut Config) {
    config.development = true;
}
