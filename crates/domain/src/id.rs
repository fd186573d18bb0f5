//! Typed identifiers. A workspace's id can never be passed where an instance's is expected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct NotAnId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A version 4 UUID from 16 bytes of the caller's randomness.
            #[must_use]
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// Wrap a UUID read from a store.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The plain UUID, as stores bind it.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            /// Hyphenated, plain hex, braced and `urn:uuid:` forms are accepted.
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)
            }
        }
    };
}

id!(
    /// The durable role: outlives every process.
    WorkspaceId
);
id!(
    /// One incarnation of a workspace on a backend.
    InstanceId
);
id!(
    /// One credential. Safe to show: it is not the secret.
    CredentialId
);
id!(
    /// One passport. Safe to show: it is not the secret.
    PassportId
);
id!(
    /// One token of the organisation. Safe to show: it is not the secret.
    OrgTokenId
);
id!(
    /// One recorded event.
    EventId
);

id!(
    /// One message in the ledger.
    MessageId
);

/// Which incarnation: raised durably before an instance is asked for. 0 means that there was none yet.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(i64);

impl Generation {
    /// Before the first instance.
    pub const NONE: Self = Self(0);

    /// From a store, or a test. Negative numbers do not exist and become 0.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(if number < 0 { 0 } else { number })
    }

    /// The number, as stores bind it.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The generation that supersedes this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_of_a_uuid_is_the_same_id() {
        let id = WorkspaceId::from_random([7; 16]);
        let plain = id.uuid().simple().to_string();
        for text in [id.to_string(), plain.clone(), format!("{{{id}}}"), format!("urn:uuid:{id}")] {
            assert_eq!(text.parse::<WorkspaceId>(), Ok(id), "{text}");
        }
        for text in ["", "hello", "../etc/passwd", &plain[1..]] {
            assert_eq!(text.parse::<WorkspaceId>(), Err(NotAnId), "{text}");
        }
    }

    #[test]
    fn an_id_is_one_json_string() {
        let id = InstanceId::from_random([1; 16]);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    }
}
