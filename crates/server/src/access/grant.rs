//! By what a connection that stays open was let in, so that it can be asked later whether that still counts.

use axum::http::{HeaderMap, header};
use ligand_domain::credential::TokenHash;
use ligand_domain::time::Timestamp;

use super::{By, presented, store};
use crate::db::Tx;
use crate::org_tokens;

/// See the module. It knows no secret but a session's.
pub(crate) enum Grant {
    /// What counts for as long as this server runs: the administrator's token, or one of the contract's open doors.
    Always,
    /// What the database knows.
    Asked(Asked),
    /// A session, which the control plane knows: its cookies.
    Session(HeaderMap),
}

/// By what somebody was let in, as the database knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    /// A workspace's credential.
    Credential(TokenHash),
    /// A token of the organisation.
    OrgToken(TokenHash),
}

impl Grant {
    /// What a gate let a request in by.
    pub(crate) fn of(by: &By, headers: &HeaderMap) -> Self {
        let hash = || TokenHash::of(presented(headers).unwrap_or_default());
        match by {
            By::Admin | By::Anybody => Self::Always,
            By::Org(_) => Self::Asked(Asked::OrgToken(hash())),
            By::Itself => Self::Asked(Asked::Credential(hash())),
            By::Session => Self::session(headers),
        }
    }

    /// The session that a request carries.
    pub(crate) fn session(headers: &HeaderMap) -> Self {
        let cookies = headers.get_all(header::COOKIE).iter();
        Self::Session(cookies.map(|cookie| (header::COOKIE, cookie.clone())).fold(
            HeaderMap::new(),
            |mut all, (name, cookie)| {
                all.append(name, cookie);
                all
            },
        ))
    }

    /// What the database is to be asked about.
    pub(crate) fn asked(&self) -> Option<Asked> {
        match self {
            Self::Asked(asked) => Some(*asked),
            Self::Always | Self::Session(_) => None,
        }
    }
}

/// Those of them that count no more.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn ended(
    tx: &mut Tx,
    asked: &[Asked],
    now: Timestamp,
) -> Result<Vec<Asked>, sqlx::Error> {
    let (mut credentials, mut tokens) = (Vec::new(), Vec::new());
    for one in asked {
        match one {
            Asked::Credential(hash) => credentials.push(*hash),
            Asked::OrgToken(hash) => tokens.push(*hash),
        }
    }
    let credentials = store::ended(tx, &credentials, now).await?;
    let tokens = org_tokens::ended(tx, &tokens).await?;
    let credentials = credentials.into_iter().map(Asked::Credential);
    Ok(credentials.chain(tokens.into_iter().map(Asked::OrgToken)).collect())
}
