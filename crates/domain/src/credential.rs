//! Credentials: what a caller proves itself with.
//!
//! The secret is 32 random bytes as base64url without padding (43 characters). It is shown once and
//! stored as the SHA-256 of its text; everywhere else a credential is named by its id or its first eight
//! characters.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::guards::{Guard, Guards};
use crate::id::{CredentialId, Generation};
use crate::time::Timestamp;

/// Characters of a secret that may be shown.
pub const PREFIX_LEN: usize = 8;
/// Length of a secret's text.
pub const TOKEN_LEN: usize = 43;
/// Shortest `Idempotency-Key` that counts at register: 22 characters of base64url carry 128 bits.
pub const MIN_IDEMPOTENCY_KEY: usize = 22;
/// A credential that came in the answer to a bootstrap and was never used is given up after this long, so
/// that a lost reply never locks anybody out.
pub const UNUSED: Duration = Duration::from_secs(600);

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

    /// Where a stored credential stands at this time: what was not used before it lapses has lapsed.
    #[must_use]
    pub fn at(self, lapses_at: Option<Timestamp>, now: Timestamp) -> Self {
        let late = lapses_at.is_some_and(|at| at <= now);
        if late && self == Self::Pending { Self::Lapsed } else { self }
    }
}

/// What an instance credential was minted for. It decides when it lapses without ever being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A start: the instance finds it there.
    Start,
    /// The answer to a register that presented a passport.
    Passport,
    /// The answer to a rotation.
    Rotation,
    /// The answer to a register without a valid credential.
    Bootstrap,
}

/// When a credential that is minted now lapses, if it is not used before. `None`: only together with the
/// start or the generation that it belongs to.
#[must_use]
pub fn lapses_at(origin: Origin, now: Timestamp, guards: Guards) -> Option<Timestamp> {
    let alone = match origin {
        Origin::Start | Origin::Passport | Origin::Rotation => !guards.hold(Guard::LapseWithStart),
        Origin::Bootstrap => guards.hold(Guard::UnusedLapses),
    };
    alone.then(|| now.after(UNUSED))
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
    /// Whether another one of its generation, still live, has been used since.
    pub newer_used: bool,
}

impl Credential {
    /// Whether it keeps its workspace from being taken up without a credential.
    #[must_use]
    pub fn protects(&self, guards: Guards) -> bool {
        let counts = match self.state {
            State::Pending => guards.hold(Guard::PendingIsLive),
            State::Active => true,
            State::Superseded | State::Revoked | State::Lapsed => false,
        };
        self.kind == Kind::Instance && counts
    }

    /// Whether it ends when `generation` becomes current: it belongs to an older instance.
    #[must_use]
    pub fn elder_of(&self, generation: Generation, guards: Guards) -> bool {
        let older = self.generation.is_some_and(|own| own < generation);
        older && self.state.is_live() && guards.hold(Guard::OneWriter)
    }

    /// Whether the first use of an instance credential of `generation`, named `used`, ends this one: its
    /// siblings, and everything of older instances, unless it is a migration's candidate that calls.
    #[must_use]
    pub fn ended_by(
        &self,
        used: CredentialId,
        generation: Generation,
        candidate: bool,
        guards: Guards,
    ) -> bool {
        let alike = self.kind == Kind::Instance && self.generation == Some(generation);
        let sibling = alike && self.state.is_live() && self.id != used;
        sibling || (!candidate && self.elder_of(generation, guards))
    }
}

/// Where a passport stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PassportState {
    /// Never presented.
    Open,
    /// Presented, and nothing that it minted has been used: it may be presented again.
    Redeemed,
    /// Something that it minted has been used.
    Spent,
    /// Not used up before its time was over.
    Expired,
    /// Ended with its generation.
    Revoked,
}

impl PassportState {
    /// From the times that a store keeps.
    #[must_use]
    pub fn at(times: PassportTimes, now: Timestamp) -> Self {
        if times.ended.is_some() {
            Self::Revoked
        } else if times.spent.is_some() {
            Self::Spent
        } else if times.until <= now {
            Self::Expired
        } else if times.redeemed.is_some() {
            Self::Redeemed
        } else {
            Self::Open
        }
    }

    /// Whether it may still open its generation.
    #[must_use]
    pub const fn opens(self) -> bool {
        matches!(self, Self::Open | Self::Redeemed)
    }
}

/// What happened to a passport, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassportTimes {
    /// It opens nothing from then on.
    pub until: Timestamp,
    /// First presented.
    pub redeemed: Option<Timestamp>,
    /// Something that it minted was used.
    pub spent: Option<Timestamp>,
    /// Ended with its generation.
    pub ended: Option<Timestamp>,
}

/// The single-use right to become one generation of one workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passport {
    /// The generation it opens.
    pub generation: Generation,
    /// Where it stands.
    pub state: PassportState,
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

    fn credential(id: u8, kind: Kind, generation: Option<i64>, state: State) -> Credential {
        Credential {
            id: CredentialId::from_random([id; 16]),
            kind,
            generation: generation.map(Generation::new),
            state,
            used: state == State::Active,
            newer_used: false,
        }
    }

    #[test]
    fn a_first_use_ends_siblings_and_elders_and_nothing_else() {
        let used = CredentialId::from_random([0; 16]);
        let ended = |other: Credential, candidate| {
            other.ended_by(used, Generation::new(3), candidate, Guards::ON)
        };
        let of = |kind, generation, state| credential(1, kind, generation, state);
        let sibling = of(Kind::Instance, Some(3), State::Pending);
        let elder = of(Kind::Instance, Some(2), State::Active);
        assert!(ended(sibling, false) && ended(elder, false));
        assert!(ended(sibling, true) && !ended(elder, true), "a candidate ends its siblings alone");
        assert!(ended(of(Kind::Api, Some(2), State::Active), false));
        for kept in [
            of(Kind::Instance, Some(4), State::Pending),
            of(Kind::Api, Some(3), State::Active),
            of(Kind::Api, None, State::Active),
            of(Kind::Instance, Some(2), State::Revoked),
            credential(0, Kind::Instance, Some(3), State::Active),
        ] {
            assert!(!ended(kept, false), "{kept:?}");
        }
    }

    #[test]
    fn only_the_answer_to_a_bootstrap_lapses_by_itself() {
        let now = Timestamp::from_micros(7);
        let lapses = |origin| lapses_at(origin, now, Guards::ON);
        assert_eq!(lapses(Origin::Bootstrap), Some(now.after(UNUSED)));
        for origin in [Origin::Start, Origin::Passport, Origin::Rotation] {
            assert_eq!(lapses(origin), None, "{origin:?}");
        }
        assert_eq!(State::Pending.at(Some(now), now), State::Lapsed);
        assert_eq!(State::Active.at(Some(now), now), State::Active);
    }

    #[test]
    fn a_passport_goes_one_way() {
        let now = Timestamp::from_micros(7);
        let never =
            PassportTimes { until: now.after(UNUSED), redeemed: None, spent: None, ended: None };
        let state = |times| PassportState::at(times, now);
        assert_eq!(state(never), PassportState::Open);
        let redeemed = PassportTimes { redeemed: Some(now), ..never };
        assert_eq!(state(redeemed), PassportState::Redeemed);
        assert_eq!(state(PassportTimes { until: now, ..redeemed }), PassportState::Expired);
        let spent = PassportTimes { spent: Some(now), ..redeemed };
        assert_eq!(state(PassportTimes { until: now, ..spent }), PassportState::Spent);
        assert_eq!(state(PassportTimes { ended: Some(now), ..spent }), PassportState::Revoked);
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
