//! Settings of backends of the kind `provider`.

use super::file::{BackendConfig, BackendKind};
use crate::backend::provider::Address;

impl BackendConfig {
    /// Whether it has settings that only a provider has.
    fn speaks_of_a_provider(&self) -> bool {
        let url = self.url.is_some() && self.kind != BackendKind::Fleet;
        url || self.token_file.is_some() || self.token_env.is_some()
    }

    /// Read where the provider is and what it lets us in by.
    ///
    /// # Errors
    /// The setting that cannot be used, and what was expected. Never a value.
    pub fn resolve(
        &mut self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), (&'static str, String)> {
        if self.kind != BackendKind::Provider {
            return match self.speaks_of_a_provider() {
                true => Err((
                    "url",
                    "url, token_file and token_env are settings of the kind provider".into(),
                )),
                false => Ok(()),
            };
        }
        let url = self.url.as_deref().ok_or_else(|| {
            ("url", "expected the address of the provider: https://HOST/PATH".to_owned())
        })?;
        let token = match (&self.token_file, &self.token_env) {
            (Some(path), None) => std::fs::read_to_string(path).map_err(|cause| {
                ("token_file", format!("expected a file that can be read: {cause}"))
            })?,
            (None, Some(name)) => env(name).ok_or_else(|| {
                ("token_env", "expected the name of a variable that is set".to_owned())
            })?,
            _ => return Err(("token_file", "expected this, or token_env".to_owned())),
        };
        self.reached = Some(Address::new(url, &token).map_err(|expected| ("url", expected))?);
        Ok(())
    }
}
