//! Why a request is not answered as asked, and the one translation of that to HTTP.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ligand_api::error::ErrorBody;

/// What handlers give when they do not give what was asked for.
pub type Result<T> = std::result::Result<T, Error>;

/// Named by what the caller can do about it.
#[derive(Debug)]
pub enum Error {
    /// The caller's doing: the status and the body say what is wrong.
    Refused(StatusCode, Box<ErrorBody>),
    /// Ours, and nothing is known about when it passes. The text is the contract's for this place; the
    /// cause is logged here and shown to nobody.
    Internal(&'static str, anyhow::Error),
    /// The database does not answer; asking again is right.
    Unavailable(anyhow::Error),
}

impl Error {
    /// A refusal with the contract's text.
    pub fn refused(status: StatusCode, error: impl Into<String>) -> Self {
        Self::Refused(status, Box::new(ErrorBody::new(error)))
    }

    /// 400: names the field and what was expected.
    pub fn invalid(error: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Refused(StatusCode::BAD_REQUEST, Box::new(ErrorBody::new(error).detail(detail)))
    }

    /// 400 without more to say.
    pub fn bad_request(error: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, error)
    }

    /// 401.
    pub fn unauthenticated(error: impl Into<String>) -> Self {
        Self::refused(StatusCode::UNAUTHORIZED, error)
    }

    /// 404.
    pub fn not_found(error: impl Into<String>) -> Self {
        Self::refused(StatusCode::NOT_FOUND, error)
    }

    /// Status and body for the caller. What nobody is shown is logged.
    #[must_use]
    pub fn told(self) -> (StatusCode, ErrorBody) {
        match self {
            Self::Refused(status, body) => (status, *body),
            Self::Internal(text, cause) => {
                tracing::error!(error = format!("{cause:#}"), "request failed: {text}");
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::new(text))
            }
            Self::Unavailable(cause) => {
                tracing::error!(error = format!("{cause:#}"), "the database does not answer");
                let text = "platform datastore unavailable — retry shortly";
                let body = ErrorBody::new(text).code("platform_unavailable");
                (StatusCode::SERVICE_UNAVAILABLE, body)
            }
        }
    }

    /// For `map_err`: a failure of ours, with the contract's text for it.
    pub fn internal<E: Into<anyhow::Error>>(text: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Internal(text, source.into())
    }
}

/// A database failure whose place has no text of its own is retryable.
impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self::Unavailable(source.into())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, body) = self.told();
        let retry = body.retry_after.map(HeaderValue::from);
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
