//! The loop that keeps the agent enrolled: asks, remembers, and does what [`session`](crate::session) says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ligand_api::registry::{AGENT_FEATURES, AgentReport, Declaration, Heartbeat, Register, Rotate};

use crate::guards::Guards;
use crate::identity::{Identity, Token, Unwritable};
use crate::logs::Logs;
use crate::machine;
use crate::nudge::Nudges;
use crate::platform::Platform;
use crate::receipt::Receipt;
use crate::session::{Bearer, Call, Facts, Next, Session};
use crate::steer::Steering;
use crate::telling::Telling;
use crate::values::Values;
use crate::vitals::Vitals;

type Answer = crate::session::Answer<Token>;

/// Distinct refusals that are remembered as already said.
const REMEMBERED: usize = 64;

/// Everything the loop works with.
pub(crate) struct Enrolment {
    pub(crate) platform: Platform,
    pub(crate) identity: Identity,
    pub(crate) vitals: Arc<Vitals>,
    /// Is told which credential works.
    pub(crate) telling: Arc<Telling>,
    pub(crate) logs: Logs,
    pub(crate) workspace: String,
    pub(crate) url: String,
    pub(crate) card: serde_json::Value,
    pub(crate) managed: bool,
    pub(crate) guards: Guards,
    /// Why the rotation that was ordered came to nothing so far.
    pub(crate) rotation_error: Option<String>,
    pub(crate) receipt: Receipt,
    pub(crate) steering: Steering,
    pub(crate) nudges: Arc<Nudges>,
}

impl Enrolment {
    /// Register, and stay registered. Returns only when the platform ends this instance, with its reason.
    ///
    /// Dropping the future is safe at any point: files are written in one step between two waits, and a
    /// register that is cut short is repeated under the same key.
    pub(crate) async fn keep(mut self) -> String {
        let mut session = Session::new(self.managed, self.guards);
        let mut said = Said::default();
        let mut next = session.first(self.identity.facts(machine::jitter()));
        let mut at_leisure = false;
        loop {
            let (call, bearer) = match next {
                Next::Exit { why } => return why,
                Next::Call { call, bearer, wait, reread } => {
                    self.pause(wait, at_leisure).await;
                    if reread {
                        self.identity.reread();
                    }
                    (call, bearer)
                }
            };
            let answer = self.ask(call, bearer).await;
            if let Answer::Beaten { .. } = answer {
                self.telling.credential(self.identity.presented(bearer));
            }
            said.answer(call, &answer);
            at_leisure = matches!(answer, Answer::Beaten { .. });
            let (facts, written) = self.identity.learn(&answer, bearer, machine::jitter());
            let facts = Facts { fetch: self.steering.wants().is_some(), ..facts };
            if let Err(e) = &written {
                self.report(e);
            }
            self.note_rotation(call, bearer, &answer, written.err());
            next = session.after(&answer, facts);
        }
    }

    /// Wait, until there is a reason not to. After anything but a heartbeat that was accepted there is none: what
    /// was refused, or not answered, is not asked for more often because somebody wishes for it.
    async fn pause(&self, wait: Duration, at_leisure: bool) {
        let stirred = async {
            tokio::select! { () = self.nudges.next() => {} () = self.steering.stirred() => {} }
        };
        tokio::select! { () = machine::sleep(wait) => {} () = stirred, if at_leisure => {} }
    }

    async fn ask(&mut self, call: Call, bearer: Bearer) -> Answer {
        if let Err(e) = self.identity.save() {
            self.report(&e);
        }
        let presented = self.identity.presented(bearer).cloned();
        let presented = presented.as_ref();
        match call {
            Call::Register => self.register(presented).await,
            Call::Heartbeat => {
                let body = self.heartbeat(presented);
                let (answer, told) = self.platform.heartbeat(&body, presented).await;
                if let Answer::Beaten { .. } = answer {
                    let carried = body.ligand.is_some_and(|report| report.receipt.is_some());
                    self.receipt.beaten(carried, told.receipt == Some(true));
                    self.steering.heard(told.program.as_ref());
                }
                answer
            }
            Call::Secrets => self.fetch(presented).await,
            Call::Rotate { serial } => {
                let body = Rotate { workspace_id: self.workspace.clone(), serial };
                self.platform.rotate(&body, presented).await
            }
        }
    }

    /// Fetch what the program is to find in its environment.
    async fn fetch(&mut self, bearer: Option<&Token>) -> Answer {
        let serial = self.steering.wants().unwrap_or_default();
        match self.platform.secrets(&self.workspace, bearer).await {
            Ok(fetched) => {
                self.receipt.renewed();
                self.steering.fetched(serial, Values::new(fetched, machine::variable));
                Answer::Fetched
            }
            Err(answer) => {
                if let Answer::Failed { why, .. } | Answer::Rejected { why } = &answer {
                    self.vitals.note_error(&format!("the program waits for its secrets: {why}"));
                }
                answer
            }
        }
    }

    /// What the heartbeats say about a rotation until it is done or no longer wanted.
    fn note_rotation(
        &mut self,
        call: Call,
        bearer: Bearer,
        answer: &Answer,
        unwritten: Option<Unwritable>,
    ) {
        let rotates = matches!(call, Call::Rotate { .. });
        match (answer, unwritten) {
            (Answer::Rotated { .. }, Some(unwritable)) => {
                self.rotation_error = Some(unwritable.to_string());
            }
            (Answer::Beaten { rotate: None, .. }, _) => self.rotation_error = None,
            (Answer::Beaten { .. }, _) if bearer == Bearer::Next => self.rotation_error = None,
            (Answer::Refused(refusal), _) if rotates || bearer == Bearer::Next => {
                self.rotation_error = Some(format!("refused: {}", refusal.why));
            }
            (Answer::Rejected { why } | Answer::Failed { why, .. }, _) if rotates => {
                self.rotation_error = Some(why.clone());
            }
            _ => {}
        }
    }

    async fn register(&mut self, bearer: Option<&Token>) -> Answer {
        let (key, written) = self.identity.key(machine::random_bytes);
        if let Err(e) = written {
            self.report(&e);
        }
        let receipt = self.receipt.at_register(bearer, &self.steering.held());
        let carried = receipt.is_some();
        let body = Register {
            id: self.workspace.clone(),
            url: Some(self.url.clone()),
            agent_card: self.card.clone(),
            delivery_mode: None,
            kind: None,
            ligand: Some(Declaration {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                features: AGENT_FEATURES.map(str::to_owned).to_vec(),
                receipt,
                program: self.steering.report(),
            }),
        };
        let answer = self.platform.register(&body, bearer, &key).await;
        if let Answer::Registered { .. } = answer {
            self.receipt.registered(carried);
        }
        answer
    }

    fn heartbeat(&mut self, bearer: Option<&Token>) -> Heartbeat {
        if let Some(trouble) = self.logs.take_trouble() {
            self.vitals.note_error(&trouble);
        }
        let report = AgentReport {
            rotation_error: self.rotation_error.clone(),
            receipt: self.receipt.at_heartbeat(bearer, &self.steering.held()),
            program: self.steering.report(),
        };
        Heartbeat {
            workspace_id: self.workspace.clone(),
            error_rate: self.vitals.error_rate(),
            sample_error: self.vitals.sample_error(),
            active_tasks: self.vitals.active_turns(),
            uptime_seconds: i64::try_from(self.vitals.uptime().as_secs()).unwrap_or(i64::MAX),
            ligand: (report != AgentReport::default()).then_some(report),
            ..Heartbeat::default()
        }
    }

    fn report(&self, unwritable: &Unwritable) {
        let text = unwritable.to_string();
        // Each beat tries again; the log need not say so each time.
        if self.vitals.sample_error() != text {
            tracing::warn!("{text}; going on with what works, and trying again");
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
            Call::Rotate { .. } => "rotate",
            Call::Secrets => "the request for secrets",
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
            Answer::Rotated { .. } => tracing::info!("a new credential was brought"),
            Answer::Fetched => tracing::info!("the program's secrets were fetched"),
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
