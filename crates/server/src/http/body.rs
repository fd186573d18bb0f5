//! Bodies: bounded, and with an error that names the field.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use ligand_api::error::ErrorBody;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Longest body of a call to the platform.
pub const MAX_BODY: usize = 1 << 20;

/// A body of at most [`MAX_BODY`] bytes.
pub struct Payload(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        payload(request.into_body(), MAX_BODY).await.map(Self)
    }
}

/// A body of at most so many bytes, for calls that bring more than others.
///
/// # Errors
/// 413, 400.
pub(crate) async fn payload(body: Body, most: usize) -> Result<Bytes> {
    match read_up_to(body, most).await {
        Ok(bytes) => Ok(bytes),
        Err(TooLong::Yes) => {
            let detail = format!("at most {most} bytes");
            let body = ErrorBody::new("request body too large").detail(detail);
            Err(Error::Refused(StatusCode::PAYLOAD_TOO_LARGE, Box::new(body)))
        }
        Err(TooLong::Broken(cause)) => Err(Error::invalid("failed to read request body", cause)),
    }
}

/// Why a body was not read.
pub(crate) enum TooLong {
    /// It is longer than it may be.
    Yes,
    /// The connection broke.
    Broken(String),
}

/// Read at most [`MAX_BODY`] bytes.
pub(crate) async fn read(body: Body) -> std::result::Result<Bytes, TooLong> {
    read_up_to(body, MAX_BODY).await
}

async fn read_up_to(body: Body, most: usize) -> std::result::Result<Bytes, TooLong> {
    match Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(cause) if cause.is::<LengthLimitError>() => Err(TooLong::Yes),
        Err(cause) => Err(TooLong::Broken(cause.to_string())),
    }
}

/// Read JSON. `text` is the contract's word for a body that is not understood here; the detail names the
/// field and what was expected.
///
/// # Errors
/// 400.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], text: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|cause| Error::invalid(text, cause.to_string()))
}

/// Read JSON whose texts go into the database as they are: none may have a NUL, for which PostgreSQL has no place.
///
/// # Errors
/// 400.
pub fn parse_kept<T: DeserializeOwned>(bytes: &[u8], text: &str) -> Result<T> {
    let parsed = parse(bytes, text)?;
    match nul(bytes) {
        Some(at) => {
            let what = "has the character \\u0000, which cannot be kept";
            Err(Error::invalid(text, format!("the text at byte {} {what}", at + 1)))
        }
        None => Ok(parsed),
    }
}

/// Where JSON that can be read has an escaped NUL: it has no other way to say it. A backslash that is escaped itself
/// escapes nothing.
fn nul(json: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = json[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        if json[at..].starts_with(br"\u0000") {
            return Some(at);
        }
        at = (at + 2).min(json.len());
    }
    None
}

/// The same, where no body at all means the default.
///
/// # Errors
/// 400.
pub fn parse_or_default<T: DeserializeOwned + Default>(bytes: &[u8], text: &str) -> Result<T> {
    if bytes.trim_ascii().is_empty() { Ok(T::default()) } else { parse_kept(bytes, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_found_where_it_is_one() {
        for (json, at) in [
            (r#""plain""#, None),
            (r#""a\u0000b""#, Some(2)),
            (r#""a\\u0000b""#, None),
            (r#""a\\\u0000b""#, Some(4)),
            (r#""\n\u0001\u0000""#, Some(9)),
            ("\\", None),
        ] {
            assert_eq!(nul(json.as_bytes()), at, "{json}");
        }
    }
}
