//! What the platform is told about turns beside their answers: that a slow one was received and has started, and how
//! one ended whose caller went away.
//!
//! None of it is needed: a message that the platform sends again is given the recorded answer. So nothing here is
//! decided after a refusal; it waits for the credential that the heartbeats find, and gives up after a while.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use ligand_api::message::{Turn, Turns};
use reqwest::header::HeaderValue;
use reqwest::{Client, StatusCode, Url};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::identity::Token;
use crate::platform::{self, NoClient};
use crate::records::Record;
use crate::{machine, waits};

/// A turn that lasts longer is told about while it runs.
const SLOW: Duration = Duration::from_millis(250);
/// How long it is worth telling that a turn has started, and how it ended.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// What is being told at a time; more is left to be asked for.
const MOST: usize = 64;
/// Bytes that an answer may take in a request, of the mebibyte that a request may have; a longer one is left to be
/// asked for.
const LONGEST: usize = 1000 << 10;

/// The platform's name for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Its message.
    pub(crate) message: String,
    /// The attempt; 0 where it names none.
    pub(crate) attempt: i64,
    /// An operator asks for it though it may have run.
    pub(crate) again: bool,
}

impl Ledger {
    /// From the headers of a request; `None` for one that is not the platform's.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
        let message = text("ligand-message").filter(|message| !message.is_empty())?;
        Some(Self {
            message: message.to_owned(),
            attempt: text("ligand-attempt").and_then(|text| text.parse().ok()).unwrap_or(0),
            again: text("ligand-again") == Some("true"),
        })
    }

    fn told(&self, state: &str, at_ms: i64) -> Turn {
        Turn {
            message: self.message.clone(),
            attempt: self.attempt,
            state: state.to_owned(),
            at_ms,
            status: None,
            response: None,
            content_type: None,
        }
    }
}

/// The way to the platform for all of it.
pub(crate) struct Telling {
    line: Arc<Line>,
    tasks: TaskTracker,
    /// Nothing is told any more.
    end: CancellationToken,
    room: Arc<Semaphore>,
}

struct Line {
    http: Client,
    url: String,
    org: Option<HeaderValue>,
    workspace: String,
    /// The credential that worked last.
    bearer: watch::Sender<Option<Token>>,
}

impl Telling {
    /// To the platform at `base`, for a workspace.
    pub(crate) fn new(
        base: &Url,
        org: Option<HeaderValue>,
        workspace: &str,
        tasks: TaskTracker,
        end: CancellationToken,
    ) -> Result<Self, NoClient> {
        let line = Line {
            http: platform::client(base)?,
            url: format!("{}/registry/turns", base.as_str().trim_end_matches('/')),
            org,
            workspace: workspace.to_owned(),
            bearer: watch::Sender::default(),
        };
        Ok(Self { line: Arc::new(line), tasks, end, room: Arc::new(Semaphore::new(MOST)) })
    }

    /// This credential has just worked.
    pub(crate) fn credential(&self, bearer: Option<&Token>) {
        self.line.bearer.send_if_modified(|held| {
            let fresh = bearer.is_some() && held.as_ref() != bearer;
            if fresh {
                *held = bearer.cloned();
            }
            fresh
        });
    }

    /// The turn has started: told if it is slow, that is, if the value lives so long.
    pub(crate) fn started(&self, ledger: &Ledger, received_ms: i64, started_ms: i64) -> DropGuard {
        let over = self.end.child_token();
        let slow = over.clone();
        let turns = vec![ledger.told("received", received_ms), ledger.told("started", started_ms)];
        let (line, room) = (Arc::clone(&self.line), Arc::clone(&self.room));
        self.tasks.spawn(async move {
            let tell = async {
                machine::sleep(SLOW).await;
                if let Ok(_one) = room.try_acquire() {
                    line.tell(turns, PATIENCE.0).await;
                }
            };
            slow.run_until_cancelled(tell).await;
        });
        over.drop_guard()
    }

    /// The turn has ended, and whoever asked for it is gone.
    pub(crate) fn ended(&self, ledger: &Ledger, record: &Record) {
        let Some(ended) = &record.head.ended else { return };
        if ended.cut || ended.encoding.is_some() {
            return;
        }
        let Ok(response) = String::from_utf8(record.body.to_vec()) else { return };
        if serde_json::to_string(&response).map_or(usize::MAX, |text| text.len()) > LONGEST {
            return;
        }
        let told = Turn {
            status: Some(ended.status),
            response: Some(response),
            content_type: ended.kind.clone(),
            ..ledger.told("ended", ended.at_ms)
        };
        let (line, end) = (Arc::clone(&self.line), self.end.clone());
        let room = Arc::clone(&self.room);
        self.tasks.spawn(async move {
            let tell = async {
                match room.try_acquire() {
                    Ok(_one) => line.tell(vec![told], PATIENCE.1).await,
                    Err(_) => tracing::warn!("too many turns ended unheard; one is not told"),
                }
            };
            end.run_until_cancelled(tell).await;
        });
    }
}

/// What came of telling.
enum Heard {
    Done,
    /// It may be heard later.
    NotYet(String),
    /// It will not be.
    Never(String),
}

impl Line {
    async fn tell(&self, turns: Vec<Turn>, patience: Duration) {
        let body = Turns { workspace_id: self.workspace.clone(), turns };
        let (began, mut bearer) = (machine::now(), self.bearer.subscribe());
        for nth in 1.. {
            let presented = bearer.borrow_and_update().clone();
            let why = match self.post(&body, presented).await {
                Heard::Done => return,
                Heard::Never(why) => return tracing::info!("turns were not taken: {why}"),
                Heard::NotYet(why) => why,
            };
            if machine::now().saturating_duration_since(began) > patience {
                return tracing::warn!("turns could not be told: {why}");
            }
            let wait = machine::sleep(waits::backoff(nth, machine::jitter()));
            tokio::select! { () = wait => {} Ok(()) = bearer.changed() => {} }
        }
    }

    async fn post(&self, body: &Turns, bearer: Option<Token>) -> Heard {
        let Some(bearer) = bearer else { return Heard::NotYet("not registered".to_owned()) };
        let mut request = self.http.post(&self.url).timeout(platform::PATIENCE);
        if let Some(org) = &self.org {
            request = request.header("X-Molecule-Org-Id", org);
        }
        match request.bearer_auth(bearer.reveal()).json(body).send().await {
            Err(e) => Heard::NotYet(platform::cause(e)),
            Ok(answer) => match answer.status() {
                status if status.is_success() => Heard::Done,
                status
                    if status.is_server_error()
                        || [
                            StatusCode::UNAUTHORIZED,
                            StatusCode::REQUEST_TIMEOUT,
                            StatusCode::TOO_MANY_REQUESTS,
                        ]
                        .contains(&status) =>
                {
                    Heard::NotYet(status.to_string())
                }
                status => Heard::Never(status.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_own_headers_name_a_delivery() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (name.parse().expect("a name"), HeaderValue::from_static(value))
            });
            Ledger::of(&pairs.collect::<HeaderMap>())
        };
        let ledger = |attempt, again| Some(Ledger { message: "row".to_owned(), attempt, again });
        assert_eq!(of(&[("ligand-message", " row "), ("ligand-attempt", "3")]), ledger(3, false));
        assert_eq!(of(&[("ligand-message", "row"), ("ligand-again", "true")]), ledger(0, true));
        assert_eq!(of(&[("ligand-message", "row"), ("ligand-again", "no")]), ledger(0, false));
        assert_eq!(of(&[("ligand-message", ""), ("ligand-attempt", "3")]), None);
        assert_eq!(of(&[("ligand-attempt", "3")]), None);
    }
}
