//! The loop that keeps the agent enrolled: asks, remembers, and does what [`session`](crate::session) says.

use std::collections::BTreeSet;
use std::sync::Arc;

use ligand_api::registry::{AGENT_FEATURES, Declaration, Heartbeat, Register};

use crate::identity::{Identity, Token, Unwritable};
use crate::logs::Logs;
use crate::machine;
use crate::platform::Platform;
use crate::session::{Answer, Bearer, Call, Facts, Next, Session};
use crate::vitals::Vitals;

/// Distinct refusals that are remembered as already said.
const REMEMBERED: usize = 64;

/// Everything the loop works with.
pub(crate) struct Enrolment {
    pub(crate) platform: Platform,
    pub(crate) identity: Identity,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) logs: Logs,
    pub(crate) workspace: String,
    pub(crate) url: String,
    pub(crate) card: serde_json::Value,
    pub(crate) managed: bool,
}

impl Enrolment {
    /// Register, and stay registered. Returns only when the platform ends this instance, with its reason.
    ///
    /// Dropping the future is safe at any point: files are written in one step between two waits, and a
    /// register that is cut short is repeated under the same key.
    pub(crate) async fn keep(mut self) -> String {
        let mut session = Session::new(self.managed);
        let mut said = Said::default();
        let mut next = session.first();
        loop {
            let (call, bearer) = match next {
                Next::Exit { why } => return why,
                Next::Call { call, bearer, wait, reread } => {
                    machine::sleep(wait).await;
                    if reread {
                        self.identity.reread();
                    }
                    (call, bearer)
                }
            };
            let presented = match bearer {
                Bearer::Held => self.identity.held().cloned(),
                Bearer::Previous => self.identity.previous().cloned(),
                Bearer::Nothing => None,
            };
            let answer = self.ask(call, presented.as_ref()).await;
            said.answer(call, &answer);
            let facts = self.learn(&answer, bearer, presented.as_ref());
            next = session.after(&answer, facts);
        }
    }

    async fn ask(&mut self, call: Call, bearer: Option<&Token>) -> Answer {
        if let Err(e) = self.identity.save() {
            self.report(&e);
        }
        match call {
            Call::Register => self.register(bearer).await,
            Call::Heartbeat => {
                let body = self.heartbeat();
                self.platform.heartbeat(&body, bearer).await
            }
        }
    }

    async fn register(&mut self, bearer: Option<&Token>) -> Answer {
        let (key, written) = self.identity.key(machine::random_bytes);
        let key = key.to_owned();
        if let Err(e) = written {
            self.report(&e);
        }
        let body = Register {
            id: self.workspace.clone(),
            url: Some(self.url.clone()),
            agent_card: self.card.clone(),
            delivery_mode: None,
            kind: None,
            ligand: Some(Declaration {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                features: AGENT_FEATURES.map(str::to_owned).to_vec(),
            }),
        };
        self.platform.register(&body, bearer, &key).await
    }

    fn heartbeat(&self) -> Heartbeat {
        if let Some(trouble) = self.logs.take_trouble() {
            self.vitals.note_error(&trouble);
        }
        Heartbeat {
            workspace_id: self.workspace.clone(),
            error_rate: self.vitals.error_rate(),
            sample_error: self.vitals.sample_error(),
            active_tasks: self.vitals.active_turns(),
            uptime_seconds: i64::try_from(self.vitals.uptime().as_secs()).unwrap_or(i64::MAX),
            ..Heartbeat::default()
        }
    }

    /// Take from an answer what must outlive it, and look at what the next decision depends on.
    fn learn(&mut self, answer: &Answer, bearer: Bearer, presented: Option<&Token>) -> Facts {
        let mut file_differs = false;
        match answer {
            Answer::Registered { token: Some(token), .. } => {
                if let Err(e) = self.identity.adopt(token.clone()) {
                    self.report(&e);
                }
            }
            Answer::Registered { token: None, .. } | Answer::Beaten { .. } => {
                if bearer == Bearer::Previous
                    && let Err(e) = self.identity.fall_back()
                {
                    self.report(&e);
                }
                if presented.is_some() {
                    self.identity.confirm();
                }
            }
            Answer::Refused(_) if bearer == Bearer::Held => {
                self.identity.reread();
                let held = self.identity.held();
                file_differs = held.is_some() && held != presented;
            }
            Answer::Refused(_) | Answer::Rejected { .. } | Answer::Failed { .. } => {}
        }
        Facts {
            file_differs,
            has_previous: self.identity.previous().is_some(),
            holds: self.identity.held().is_some(),
            jitter: machine::jitter(),
        }
    }

    fn report(&self, unwritable: &Unwritable) {
        let text = unwritable.to_string();
        // Each beat tries again; the log need not say so each time.
        if self.vitals.sample_error() != text {
            tracing::warn!("{text}; the value stays in use from memory and is written later");
        }
        self.vitals.note_error(&text);
    }
}

/// Keeps the log readable: each distinct trouble is said once until things are well again.
#[derive(Default)]
struct Said(BTreeSet<String>);

impl Said {
    fn answer(&mut self, call: Call, answer: &Answer) {
        let name = match call {
            Call::Register => "register",
            Call::Heartbeat => "heartbeat",
        };
        match answer {
            Answer::Registered { token, .. } => {
                tracing::info!(minted = token.is_some(), "registered");
            }
            Answer::Beaten { .. } => {
                if !self.0.is_empty() {
                    tracing::info!("the platform accepts heartbeats again");
                    self.0.clear();
                }
            }
            Answer::Refused(refusal) => {
                self.once(format!("{name} was refused: {}; going on trying", refusal.why));
            }
            Answer::Rejected { why } => {
                self.once(format!("{name} was rejected: {why}; trying again every half minute"));
            }
            Answer::Failed { why, .. } => {
                self.once(format!("{name} got no usable answer: {why}; going on trying"));
            }
        }
    }

    fn once(&mut self, text: String) {
        if self.0.contains(&text) {
            return;
        }
        tracing::warn!("{text}");
        if self.0.len() < REMEMBERED {
            self.0.insert(text);
        }
    }
}
