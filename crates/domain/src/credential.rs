//! Credentials: what a caller proves itself with.
//!
//! The secret is 32 random bytes as base64url without padding (43 characters). It is shown once and
//! stored as the SHA-256 of its text; everywhere else a credential is named by its id or its first eight
//! characters.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::id::{CredentialId, Generation};
use crate::time::Timestamp;

/// Characters of a secret that may be shown.
pub const PREFIX_LEN: usize = 8;
/// Length of a secret's text.
pub const TOKEN_LEN: usize = 43;
/// Shortest `Idempotency-Key` that counts at register: 22 characters of base64url carry 128 bits.
pub const MIN_IDEMPOTENCY_KEY: usize = 22;

/// The secret itself. It has no `Display`, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A secret from 32 bytes of the caller's randomness.
    #[must_use]
    pub fn from_entropy(bytes: [u8; 32]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The text, for the one answer or file that delivers it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }

    /// What is shown.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0[..PREFIX_LEN]
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// SHA-256 of a secret's text. A fast hash is enough for 256 bits of entropy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hash any presented text, whatever its length.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// From bytes that order it among others.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, as stores bind them.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The bearer in an `Authorization` header: exactly `Bearer ` and a non-empty remainder, trimmed.
#[must_use]
pub fn bearer(header: &str) -> Option<&str> {
    let rest = header.strip_prefix("Bearer ")?.trim();
    (!rest.is_empty()).then_some(rest)
}

/// What a workspace's credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Held by the running agent; belongs to one generation.
    Instance,
    /// Held by a caller of the platform.
    Api,
}

impl Kind {
    /// Text form in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Api => "api",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Instance, Self::Api].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a credential stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Delivered or about to be; not used yet.
    Pending,
    /// Used at least once, and valid.
    Active,
    /// Ended by the first use of a newer one.
    Superseded,
    /// Ended by a person.
    Revoked,
    /// Ended because its start was given up, or it was never used.
    Lapsed,
}

impl State {
    const ALL: [Self; 5] =
        [Self::Pending, Self::Active, Self::Superseded, Self::Revoked, Self::Lapsed];

    /// Text form in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
            Self::Lapsed => "lapsed",
        }
    }

    /// From the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether a holder may still be let in by it.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Active)
    }
}

/// A credential of one workspace, without its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credential {
    /// Its name.
    pub id: CredentialId,
    /// What it is for.
    pub kind: Kind,
    /// The generation it belongs to. `None` only for an api credential that outlives instances.
    pub generation: Option<Generation>,
    /// Where it stands.
    pub state: State,
    /// Whether an admitted register or heartbeat ever presented it.
    pub used: bool,
    /// Whether a credential minted after it in the same generation has been used.
    pub newer_used: bool,
}

/// Where a passport stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PassportState {
    /// May be presented, for the first time or again: nothing that it minted has been used.
    Open,
    /// Something that it minted has been used.
    Spent,
    /// Ended with its generation.
    Revoked,
}

/// The single-use right to become one generation of one workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passport {
    /// The generation it opens.
    pub generation: Generation,
    /// Where it stands.
    pub state: PassportState,
    /// It opens nothing afterwards.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wt_11_only_the_exact_scheme_is_a_bearer() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("Bearer   abc  "), Some("abc"));
        for header in
            ["bearer abc", "BEARER abc", "Bearerabc", "Basic abc", "Bearer ", "Bearer    ", ""]
        {
            assert_eq!(bearer(header), None, "{header:?}");
        }
    }

    #[test]
    fn states_survive_their_text() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("expired"), None);
        assert_eq!(Kind::parse("api"), Some(Kind::Api));
    }

    proptest! {
        #[test]
        fn a_secret_is_43_safe_characters_and_never_printed(bytes: [u8; 32]) {
            let token = Token::from_entropy(bytes);
            prop_assert_eq!(token.reveal().len(), TOKEN_LEN);
            prop_assert!(token.reveal().chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
            let shown = format!("{token:?}");
            prop_assert!(!shown.contains(token.reveal()));
            prop_assert_eq!(token.hash(), TokenHash::of(token.reveal()));
            prop_assert_eq!(token.prefix().len(), PREFIX_LEN);
        }
    }
}
