//! Messages: sending them, and what the ledger says of them.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Client, Lines, PATIENCE, Result};
use crate::message::{Message, Messages};

/// Beyond the time that a server was asked to wait: its answer has a way to go.
const GRACE: Duration = Duration::from_secs(10);

/// When a message is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// When its turn is done, however the agent stands; after this long that it is accepted is answer enough.
    Wait(Duration),
    /// At once: it is accepted, and its answer is read later.
    Later,
}

/// Which messages of the ledger.
#[derive(Debug, Clone, Default)]
pub struct Sought {
    /// To this workspace, by its id.
    pub workspace: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// At most so many on a page.
    pub limit: Option<u32>,
    /// From here on: what the last page gave as `next`.
    pub after: Option<String>,
}

/// How an agent answers a call that asked for a stream.
pub enum Streamed {
    /// With events, each a JSON-RPC answer.
    Events(BoxStream<'static, Result<Value>>),
    /// With one answer.
    Whole(Value),
}

impl Client {
    /// One turn: `POST /workspaces/{id}/a2a` with a text message. Gives the agent's JSON-RPC answer.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn send(&self, id: &str, text: &str, patience: Duration) -> Result<Value> {
        let request = self.turn(id, "message/send", text).timeout(patience);
        let response = self.accept(request).await?;
        self.read(response).await
    }

    /// The same, which may be answered later: then with what a queued message is answered with.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn send_preferring(&self, id: &str, text: &str, prefer: Prefer) -> Result<Value> {
        let (words, patience) = match prefer {
            Prefer::Wait(wait) => (format!("wait={}", wait.as_secs()), wait + GRACE),
            Prefer::Later => ("respond-async".to_owned(), PATIENCE),
        };
        let request = self.turn(id, "message/send", text).header("prefer", words);
        let response = self.accept(request.timeout(patience)).await?;
        self.read(response).await
    }

    /// One turn whose answer comes as it is made. The whole of it may take `patience`.
    ///
    /// # Errors
    /// [`super::Error`], at once or as an item.
    pub async fn stream(&self, id: &str, text: &str, patience: Duration) -> Result<Streamed> {
        let request = self.turn(id, "message/stream", text).timeout(patience);
        let accepts = "text/event-stream, application/json";
        let response = self.accept(request.header("accept", accepts)).await?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Ok(Streamed::Whole(self.read(response).await?));
        }
        Ok(Streamed::Events(Lines::of(response, self.server.clone()).all().boxed()))
    }

    fn turn(&self, id: &str, method: &str, text: &str) -> RequestBuilder {
        let body = json!({
            "method": method,
            "params": { "message": { "role": "user", "parts": [{ "kind": "text", "text": text }] } },
        });
        self.request(Method::POST, &format!("/workspaces/{id}/a2a")).json(&body)
    }

    /// `GET /admin/messages`: a page of the ledger, newest first.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn messages(&self, sought: &Sought) -> Result<Messages> {
        let limit = sought.limit.map(|limit| limit.to_string());
        let query = [
            ("workspace_id", sought.workspace.as_deref()),
            ("state", sought.state.as_deref()),
            ("limit", limit.as_deref()),
            ("after", sought.after.as_deref()),
        ];
        let given =
            query.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let query = given.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        self.get(&format!("/admin/messages{mark}{query}")).await
    }

    /// `GET /admin/messages/{id}`: with what was sent and what was answered.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn message(&self, id: &str) -> Result<Message> {
        self.get(&format!("/admin/messages/{id}")).await
    }

    /// `POST /admin/messages/{id}/replay`: deliver one again that was given up.
    ///
    /// # Errors
    /// [`super::Error`]; 409 where it was not given up.
    pub async fn replay_message(&self, id: &str) -> Result<Message> {
        self.post(&format!("/admin/messages/{id}/replay"), &json!({})).await
    }

    /// `POST /admin/messages/{id}/drop`: take one away that is not over.
    ///
    /// # Errors
    /// [`super::Error`]; 409 where it is over.
    pub async fn drop_message(&self, id: &str) -> Result<Message> {
        self.post(&format!("/admin/messages/{id}/drop"), &json!({})).await
    }
}
