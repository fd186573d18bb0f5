//! Ids in paths, parsed at the edge.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use ligand_domain::id::WorkspaceId;

use crate::error::{Error, Result};

/// The `{id}` of the path. A malformed one is 400 before anything else happens.
pub struct WorkspacePath(pub WorkspaceId);

impl<S: Send + Sync> FromRequestParts<S> for WorkspacePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let text = raw(parts, state).await;
        text.parse().map(Self).map_err(|_| malformed())
    }
}

/// The `{id}` of the path as it was sent; empty when the route has none.
pub(crate) async fn raw<S: Send + Sync>(parts: &mut Parts, state: &S) -> String {
    named(parts, state, "id").await
}

/// A part of the path as it was sent; empty when the route has none of this name.
pub(crate) async fn named<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> String {
    let params = RawPathParams::from_request_parts(parts, state).await;
    let found = params.ok().and_then(|params| {
        params.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    });
    found.unwrap_or_default()
}

pub(crate) fn malformed() -> Error {
    Error::invalid("invalid workspace ID", "id: expected a UUID")
}
