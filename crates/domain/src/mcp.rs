//! Which revision of the Model Context Protocol a call speaks, and what that changes. One address answers all of
//! them: the revision follows from what each call says of itself, so nothing has to be remembered between calls.

use std::fmt;

/// A revision that is spoken here, oldest first. (The one of March 2025 asks its servers to take several calls in
/// one body; it is not among them.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// The contract's.
    V2024_11_05,
    /// The first whose calls carry a header that names it.
    V2025_06_18,
    /// The last that begins with a handshake.
    V2025_11_25,
    /// Every call says everything about itself, and there is no handshake.
    V2026_07_28,
}

impl Revision {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] =
        [Self::V2024_11_05, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// As the wire spells it: a date.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Read it; `None` where it is not spoken here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// What a handshake is answered with: the newest revision that has one and is no newer than what was asked
    /// for. A client that names none, or one from before all of these, gets the oldest.
    #[must_use]
    pub fn offer(asked: Option<&str>) -> Self {
        let shakes = Self::ALL.into_iter().filter(|revision| !revision.stands_alone());
        // They are dates: their texts are in order.
        let mut known =
            shakes.filter(|revision| asked.is_some_and(|asked| revision.as_str() <= asked));
        known.next_back().unwrap_or(Self::V2024_11_05)
    }

    /// Whether its calls say everything about themselves: revision, client and method stand in the call, its
    /// headers repeat them, and answers say that they are complete.
    #[must_use]
    pub const fn stands_alone(self) -> bool {
        match self {
            Self::V2024_11_05 | Self::V2025_06_18 | Self::V2025_11_25 => false,
            Self::V2026_07_28 => true,
        }
    }

    /// Whether a tool that failed says so in its result. In the oldest revision, as the contract has it, that is
    /// an error of the call.
    #[must_use]
    pub const fn failure_is_a_result(self) -> bool {
        match self {
            Self::V2024_11_05 => false,
            Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => true,
        }
    }

    /// The HTTP status of an answer to what asks for none.
    #[must_use]
    pub const fn noted(self) -> u16 {
        match self {
            Self::V2024_11_05 => 200,
            Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => 202,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call that is no handshake says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said<'a> {
    /// The header `MCP-Protocol-Version`.
    pub header: Option<&'a str>,
    /// The revision in the call's own `_meta`.
    pub body: Option<&'a str>,
    /// Whether `_meta` says what the client can do.
    pub capable: bool,
    /// Whether it asks what is spoken here: a question that only calls that stand alone ask.
    pub discovers: bool,
}

/// Why no revision follows from what a call says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclear {
    /// It names one that is not spoken here.
    Unsupported(String),
    /// The body names one, and the header names none.
    NoHeader,
    /// Header and body name different ones.
    Differ {
        /// What the header says.
        header: String,
        /// What the body says.
        body: String,
    },
    /// `_meta` lacks these, without which a call does not stand alone.
    Incomplete(Vec<&'static str>),
}

/// The key of the revision in `_meta`.
pub const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
/// The key of what the client can do in `_meta`.
pub const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

/// The revision that a call speaks. A call that says nothing speaks the oldest.
///
/// # Errors
/// [`Unclear`].
pub fn spoken(said: Said<'_>) -> Result<Revision, Unclear> {
    let unsupported = |text: &str| Unclear::Unsupported(text.to_owned());
    let read = |text: &str| Revision::parse(text).ok_or_else(|| unsupported(text));
    let named = match (said.header, said.body) {
        (None, None) => Revision::V2024_11_05,
        (Some(header), None) => read(header)?,
        (None, Some(_)) => return Err(Unclear::NoHeader),
        (Some(header), Some(body)) if header != body => {
            return Err(Unclear::Differ { header: header.to_owned(), body: body.to_owned() });
        }
        (Some(_), Some(body)) => read(body)?,
    };
    if named.stands_alone() || said.discovers {
        let missing = [(VERSION_KEY, said.body.is_some()), (CAPABILITIES_KEY, said.capable)];
        let missing = missing.into_iter().filter(|(_, there)| !there).map(|(key, _)| key);
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            return Err(Unclear::Incomplete(missing));
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_handshake_is_answered_with_what_both_speak() {
        for (asked, offered) in [
            (None, "2024-11-05"),
            (Some(""), "2024-11-05"),
            (Some("2024-10-07"), "2024-11-05"),
            (Some("2024-11-05"), "2024-11-05"),
            (Some("2025-03-26"), "2024-11-05"),
            (Some("2025-06-18"), "2025-06-18"),
            (Some("2025-11-25"), "2025-11-25"),
            (Some("2026-07-28"), "2025-11-25"),
            (Some("2099-01-01"), "2025-11-25"),
        ] {
            assert_eq!(Revision::offer(asked).as_str(), offered, "{asked:?}");
        }
    }

    fn said<'a>(header: Option<&'a str>, body: Option<&'a str>) -> Said<'a> {
        Said { header, body, capable: true, discovers: false }
    }

    #[test]
    fn a_call_speaks_what_it_says() {
        assert_eq!(spoken(said(None, None)), Ok(Revision::V2024_11_05));
        assert_eq!(spoken(said(Some("2025-11-25"), None)), Ok(Revision::V2025_11_25));
        let new = Some("2026-07-28");
        assert_eq!(spoken(said(new, new)), Ok(Revision::V2026_07_28));
        assert_eq!(spoken(said(None, new)), Err(Unclear::NoHeader));
        let differ =
            Unclear::Differ { header: "2025-11-25".to_owned(), body: "2026-07-28".to_owned() };
        assert_eq!(spoken(said(Some("2025-11-25"), new)), Err(differ));
        for later in [said(Some("2099-01-01"), None), said(Some("2099-01-01"), Some("2099-01-01"))]
        {
            assert_eq!(spoken(later), Err(Unclear::Unsupported("2099-01-01".to_owned())));
        }
    }

    #[test]
    fn a_call_that_should_stand_alone_has_to() {
        let missing = |said: Said<'_>| match spoken(said) {
            Err(Unclear::Incomplete(missing)) => missing,
            other => panic!("{other:?}"),
        };
        let new = Some("2026-07-28");
        assert_eq!(missing(said(new, None)), [VERSION_KEY]);
        assert_eq!(missing(Said { capable: false, ..said(new, new) }), [CAPABILITIES_KEY]);
        let discovers = Said { discovers: true, ..Said::default() };
        assert_eq!(missing(discovers), [VERSION_KEY, CAPABILITIES_KEY]);
        let old = Some("2025-11-25");
        let discovers = Said { discovers: true, ..said(old, old) };
        assert_eq!(spoken(discovers), Ok(Revision::V2025_11_25), "an older one may be preferred");
    }

    proptest! {
        #[test]
        fn what_is_offered_has_a_handshake_and_is_no_newer(asked in "20[0-9]{2}-[01][0-9]-[0-3][0-9]") {
            let offered = Revision::offer(Some(&asked));
            prop_assert!(!offered.stands_alone());
            prop_assert!(offered.as_str() <= asked.as_str() || offered == Revision::ALL[0]);
        }

        #[test]
        fn every_revision_reads_as_it_is_written(n in 0_usize..Revision::ALL.len()) {
            let revision = Revision::ALL[n];
            prop_assert_eq!(Revision::parse(&revision.to_string()), Some(revision));
        }
    }
}
