//! The keys that secrets are encrypted with.

use ligand_domain::secrets::{Key, Keys};

use super::layers::Layers;

/// The key that encrypts and decrypts.
const CURRENT: &str = "SECRETS_ENCRYPTION_KEY";
/// The key before, which only decrypts, until `ligand secret rotate` has encrypted everything anew.
const PREVIOUS: &str = "SECRETS_ENCRYPTION_KEY_PREVIOUS";

/// Resolve; `environment` is what `MOLECULE_ENV` says. In production nothing is stored in plain text: without a
/// key that is a mistake.
pub(super) fn resolve(said: &mut Layers<'_>, environment: &str) -> Keys {
    let keys = Keys {
        current: said.key("secrets_encryption_key", CURRENT),
        previous: said.key("secrets_encryption_key_previous", PREVIOUS),
    };
    let production = matches!(environment.to_lowercase().as_str(), "prod" | "production");
    if production && keys.current.is_none() {
        said.required("secrets_encryption_key", CURRENT, "in production secrets are encrypted");
    }
    keys
}

impl Layers<'_> {
    /// A key that only a variable has. Its value is never shown.
    pub fn key(&mut self, name: &'static str, variable: &'static str) -> Option<Key> {
        let said = self.hidden(name, variable)?;
        let key = Key::parse(said.reveal().trim()).or_else(|| Key::parse(said.reveal()));
        if key.is_none() {
            self.mistake(name, variable, "expected base64 of 32 bytes, or exactly 32 bytes");
        }
        key
    }

    /// A setting that must be there for this reason.
    fn required(&mut self, name: &'static str, variable: &'static str, why: &str) {
        let expected =
            format!("{why}: expected {variable}, base64 of 32 bytes (openssl rand -base64 32)");
        self.mistake(name, "MOLECULE_ENV", &expected);
    }
}
