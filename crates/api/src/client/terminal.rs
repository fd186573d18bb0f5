//! A shell in an instance.

use reqwest::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use reqwest::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{Method, StatusCode, Upgraded};

use super::{Client, Result};

/// What the opening of a WebSocket says, besides its key.
const ASKED: [(HeaderName, &str); 3] =
    [(CONNECTION, "Upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_VERSION, "13")];

/// A WebSocket that is open. Its frames are the caller's.
pub struct Terminal {
    /// The connection.
    pub io: Upgraded,
    /// What the server made of the key: only a WebSocket makes the right thing of it.
    pub accept: Option<String>,
}

impl Client {
    /// `GET /workspaces/{id}/terminal`, of so many columns and rows. `key`: 16 random bytes as base64.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn terminal(&self, id: &str, size: (u16, u16), key: &str) -> Result<Terminal> {
        let path = format!("/workspaces/{id}/terminal?cols={}&rows={}", size.0, size.1);
        let mut request = self.request(Method::GET, &path).header(SEC_WEBSOCKET_KEY, key);
        for (name, value) in ASKED {
            request = request.header(name, value);
        }
        let response = self.answer(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await);
        }
        let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        let accept = accept.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let io = response.upgrade().await.map_err(|cause| self.unreadable(&cause))?;
        Ok(Terminal { io, accept })
    }
}
