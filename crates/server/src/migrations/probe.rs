//! One real turn on the target, by the address that its backend reports. What was said is written down nowhere.

use std::time::Duration;

use ligand_domain::migration::{LOOK_AGAIN, Probe, Program, probed};
use serde_json::{Value, json};

use super::Migration;
use super::facts::Looked;
use super::reconcile::{Going, Went};
use crate::http::route::{NoRoute, Route};

/// Longest answer that is looked at.
const MOST: usize = 1 << 20;
/// How soon an agent that could not be reached is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What came of it.
enum Came {
    /// A verdict.
    Verdict(Result<(), String>),
    /// None yet: it was not there, or not ready.
    NotYet(String),
}

impl Going<'_> {
    pub(super) async fn probe(&self, it: &Migration, looked: &Looked) -> anyhow::Result<Went> {
        let (Some(target), Program::Runs(serial)) = (&looked.target, looked.facts.target.program)
        else {
            return Ok(Went::Rest(self.later(LOOK_AGAIN)));
        };
        // Made again after a crash it has the same name: an agent that remembers turns answers what it answered.
        let name = format!("ligand-probe-{}-{serial}", self.id);
        let asking = self.turn(&target.url, target.url_reported, &name);
        let Some(came) = self.wanted(it, asking).await else { return Ok(Went::On) };
        match came {
            Came::Verdict(Ok(())) => self.change(|it, _| it.probe = Probe::Completed(serial)).await,
            Came::Verdict(Err(why)) => self.change(|it, _| it.probe = Probe::Failed(why)).await,
            Came::NotYet(why) => {
                let at = self.later(AGAIN);
                self.change(|_, _| ()).await?;
                tracing::debug!(migration.id = %self.id, why, "the target was not ready for its probe");
                Ok(Went::Rest(at))
            }
        }
    }

    async fn turn(&self, url: &str, reported: bool, name: &str) -> Came {
        let route = match Route::to(self.app, url, reported).await {
            Ok(route) => route,
            Err(NoRoute::Unsafe(why)) => {
                return Came::Verdict(Err(format!("its address must not be called: {why}")));
            }
            Err(NoRoute::Broken(cause)) => return Came::NotYet(format!("{cause:#}")),
        };
        let text = &self.app.config.migrations.probe;
        let message = json!({"kind": "message", "role": "user", "messageId": name,
            "parts": [{"kind": "text", "text": text}]});
        let body = json!({"jsonrpc": "2.0", "id": name, "method": "message/send",
            "params": {"message": message, "configuration": {"blocking": true}}});
        let mut answer = match route.http.post(route.url).json(&body).send().await {
            Ok(answer) => answer,
            Err(cause) => return Came::NotYet(cause.without_url().to_string()),
        };
        let status = answer.status();
        if status.is_server_error() && status.as_u16() != 500 {
            return Came::NotYet(format!("it answered {status}"));
        }
        let mut bytes = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= MOST => {
                    bytes.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    return Came::Verdict(Err("its answer is too long".to_owned()));
                }
                Ok(None) => break,
                Err(cause) => return Came::NotYet(cause.without_url().to_string()),
            }
        }
        if !status.is_success() {
            return Came::Verdict(Err(format!("it answered {status}")));
        }
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let error = said["error"]["code"].as_i64();
        let state = said["result"]["status"]["state"].as_str();
        Came::Verdict(probed(said["result"].is_object(), error, state))
    }
}
