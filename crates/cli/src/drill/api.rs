//! The platform as a drill sees it: through its public interface, with whatever credential it likes.

use std::time::Duration;

use anyhow::Context as _;
use ligand_api::client::Client;
use ligand_api::journal::{Entry, Why};
use ligand_api::workspace::Create;
use reqwest::Method;
use serde_json::{Value, json};

use super::scene::{Outcome, Scene};
use crate::caller::{Caller, To};

/// Longest wait for a raw answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// A caller sends a turn so often.
const PACE: Duration = Duration::from_millis(100);
/// How long such a turn takes, in ms.
const TURN: u64 = 70;

/// What was answered to a raw request.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// HTTP status.
    pub(super) status: u16,
    /// Its body, where that is JSON.
    pub(super) body: Value,
}

impl Said {
    /// A text in its body.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.body[name].as_str()
    }

    /// The credential that it brings.
    pub(super) fn token(&self) -> Option<&str> {
        self.text("auth_token")
    }

    /// Status and advice, without any credential.
    pub(super) fn brief(&self) -> String {
        let words = ["error", "code", "action"].map(|name| self.text(name).unwrap_or_default());
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => self.status.to_string(),
            words => format!("{}: {}", self.status, words.join(", ")),
        }
    }
}

/// See the module.
#[derive(Clone)]
pub(super) struct Api {
    /// With the administrator's token.
    pub(super) client: Client,
    http: reqwest::Client,
    url: String,
    admin: String,
}

impl Api {
    pub(super) fn new(url: &str, admin: String) -> anyhow::Result<Self> {
        let client = Client::new(url, Some(admin.clone())).context("make a client")?;
        let builder = ligand_api::http::builder().map_err(|e| anyhow::anyhow!("{e}"))?;
        let http = builder.no_proxy().timeout(PATIENCE).build().context("make a raw client")?;
        Ok(Self { client, http, url: url.to_owned(), admin })
    }

    /// The administrator's token.
    pub(super) fn admin(&self) -> &str {
        &self.admin
    }

    /// Any request.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        key: Option<&str>,
        body: &Value,
    ) -> Outcome<Said> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).json(body);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.with_context(|| format!("ask for {path}"))?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.with_context(|| format!("read the answer of {path}"))?;
        Ok(Said { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// A call of the administrator that must be done for the drill to go on.
    pub(super) async fn order(&self, path: &str, body: Value) -> Outcome<Said> {
        let said = self.call(Method::POST, path, Some(&self.admin), None, &body).await?;
        if !(200..300).contains(&said.status) {
            return Err(anyhow::anyhow!("POST {path} was answered {}", said.brief()).into());
        }
        Ok(said)
    }

    /// An order of the administrator whose answer may get lost, since the server may die over it: then `None`.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Option<Said> {
        self.insist(method, path).await.ok()
    }

    /// The same, where it must be answered, however.
    pub(super) async fn insist(&self, method: Method, path: &str) -> Outcome<Said> {
        self.call(method, path, Some(&self.admin), None, &json!({})).await
    }

    /// A raw register, as an agent that answers at `url` would send it.
    pub(super) async fn register(
        &self,
        id: &str,
        url: &str,
        bearer: Option<&str>,
        key: Option<&str>,
    ) -> Outcome<Said> {
        let body = json!({"id": id, "url": url, "agent_card": {"name": id, "url": url}});
        self.call(Method::POST, "/registry/register", bearer, key, &body).await
    }

    /// A raw heartbeat.
    pub(super) async fn heartbeat(&self, id: &str, bearer: Option<&str>) -> Outcome<Said> {
        let body = json!({"workspace_id": id, "uptime_seconds": 1});
        self.call(Method::POST, "/registry/heartbeat", bearer, None, &body).await
    }

    /// Have a message of this name accepted whose turn takes so long, in ms; gives its id in the ledger.
    pub(super) async fn enqueue(&self, id: &str, name: &str, millis: u64) -> Outcome<String> {
        let message = json!({
            "messageId": name, "role": "user", "parts": [{"kind": "text", "text": name}],
            "metadata": {"ligand_echo_delay_ms": millis},
        });
        let body = json!({"method": "message/send", "params": {"message": message}});
        let request = self.http.post(format!("{}/workspaces/{id}/a2a", self.url)).json(&body);
        let request = request.bearer_auth(&self.admin).header("prefer", "respond-async");
        let answer = request.send().await.context("send a message")?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.context("read the answer to a message")?;
        match body["queue_id"].as_str().filter(|_| status == 202) {
            Some(queued) => Ok(queued.to_owned()),
            None => Err(anyhow::anyhow!("a message was answered {status}: {body}").into()),
        }
    }

    /// Send turns to a workspace, ten a second, until it is ended. One is under way at almost any time.
    pub(super) fn caller(&self, id: &str, name: &str) -> Caller {
        let url = format!("{}/workspaces/{id}/a2a", self.url);
        let (http, bearer) = (self.http.clone(), self.admin.clone());
        let to = To { http, url, bearer, lasts: TURN };
        Caller::begin(to, name.to_owned(), PACE)
    }

    /// A workspace that the default backend runs.
    pub(super) async fn managed(&self, name: &str) -> Outcome<String> {
        let body = Create { name: name.to_owned(), ..Create::default() };
        Ok(self.client.create(&body).await?.id.to_string())
    }

    /// A workspace that runs elsewhere, and the credential for its operator.
    pub(super) async fn external(&self, name: &str) -> Outcome<(String, String)> {
        let body = Create { name: name.to_owned(), external: Some(true), ..Create::default() };
        let created = self.client.create(&body).await?;
        let connection = created.connection.context("a create without connection data")?;
        Ok((created.id.to_string(), connection.auth_token))
    }

    /// How it stands, and how it came to that.
    pub(super) async fn why(&self, id: &str) -> Outcome<Why> {
        Ok(self.client.why(id).await?)
    }

    /// Its journal entries of one kind.
    pub(super) async fn entries(&self, id: &str, kind: &str) -> Outcome<Vec<Entry>> {
        let journal = self.why(id).await?.journal;
        Ok(journal.into_iter().filter(|entry| entry.kind == kind).collect())
    }

    /// Its generation, once it is online in one above `above` and nothing is on its way.
    pub(super) async fn online(&self, scene: &Scene, id: &str, above: i64) -> Outcome<i64> {
        scene
            .until("the workspace is online", async || {
                let (settled, why) = self.settled(id).await?;
                Ok((settled && why.workspace.generation > above)
                    .then_some(why.workspace.generation))
            })
            .await
    }

    /// Whether it is online and nothing is on its way.
    pub(super) async fn settled(&self, id: &str) -> Outcome<(bool, Why)> {
        let why = self.why(id).await?;
        let rests = why.next.starts_with("if no heartbeat comes");
        Ok((rests && why.workspace.status == "online", why))
    }

    /// The process that leads an instance, as the journal has it.
    pub(super) async fn process(&self, id: &str, generation: i64) -> Outcome<u32> {
        let started = self.entries(id, "started").await?;
        let mut of = started.iter().rev().filter(|entry| entry.generation == Some(generation));
        let handle = of.next().and_then(|entry| entry.evidence["handle"].as_str());
        let pid = handle.and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
        Ok(pid
            .with_context(|| format!("the journal names no process of generation {generation}"))?)
    }
}
