//! Messages: sent, repeated, delivered; and the law about them.

use std::sync::Arc;

use ligand_api::message::{Message, Queued};
use ligand_server::messages::DeliveryReconciler;
use serde_json::json;

use crate::calls::Call;
use crate::door::Fate;
use crate::model::Sort;
use crate::trace::{Violation, law};
use crate::world::World;

/// What a message was promised, and what became of it.
pub struct Sent {
    /// To which workspace.
    pub workspace: usize,
    /// Its name.
    pub name: String,
    /// Where its outcome is read.
    pub queue_id: Option<String>,
    /// Its sender was told that it is answered, or that it will be.
    pub promised: bool,
    /// Nothing more becomes of it.
    pub over: bool,
}

impl World {
    /// Somebody sends a message, a new one or the last one again.
    pub(crate) async fn send(&mut self) -> Result<(), Violation> {
        // Two that are on their way to two workspaces would race for the database, which no seed decides.
        let awaited = self.sent.iter().find(|it| it.promised && !it.over).map(|it| it.workspace);
        let at = awaited.unwrap_or_else(|| self.dice.below(self.workspaces.len()));
        if self.workspaces[at].sort != Sort::Managed || self.workspaces[at].removed {
            return Ok(());
        }
        let last = self.sent.last().filter(|it| it.workspace == at).map(|it| it.name.clone());
        let again = last.filter(|_| self.dice.chance(20));
        let name = again.clone().unwrap_or_else(|| format!("m{}", self.sent.len()));
        let fates = [(6, Fate::Answered), (2, Fate::Lost), (1, Fate::Busy), (1, Fate::Failed)];
        let fate = self.dice.weigh(&fates);
        self.door.plan(fate);
        // One that waits on its connection waits for as long as a migration holds it.
        let direct = self.workspaces[at].moving.is_none() && self.dice.chance(50);
        let message = json!({"kind": "message", "role": "user", "messageId": name,
            "parts": [{"kind": "text", "text": "do it"}]});
        let body = json!({"jsonrpc": "2.0", "id": name, "method": "message/send",
            "params": {"message": message}});
        let path = format!("/workspaces/{}/a2a", self.workspaces[at].id);
        let call = Call::admin("POST", &path).body(body);
        let call = if direct { call } else { call.prefers("respond-async") };
        let replica = self.dice.below(self.replicas.len());
        let answer = self.replicas[replica].ask(call).await;
        self.door.plan(Fate::Answered);
        let status = answer.status;
        let how = if direct { "" } else { " to be answered later" };
        let to = self.workspaces[at].name.clone();
        self.say(format!("{to}: message {name} is sent{how}, planned {fate:?}: {status}"));
        law(status != 500, "every message is answered", || format!("{to}: {}", answer.text))?;
        let queued: Option<Queued> = serde_json::from_str(&answer.text).ok();
        let known = match again.and_then(|it| self.sent.iter().position(|sent| sent.name == it)) {
            Some(known) => known,
            None => {
                let (queue_id, promised, over) = (None, false, false);
                self.sent.push(Sent { workspace: at, name, queue_id, promised, over });
                self.sent.len() - 1
            }
        };
        let sent = &mut self.sent[known];
        sent.promised |= matches!(status, 200 | 202);
        sent.over |= status == 200;
        sent.queue_id = queued.map(|it| it.queue_id.to_string()).or(sent.queue_id.take());
        let (name, promised) = (sent.name.clone(), status == 200);
        law(
            !promised || self.door.effects(&name) == 1,
            "law 6: what was answered was done",
            || format!("{to}: message {name}: {}", answer.text),
        )?;
        self.look(at).await
    }

    /// A pass of deliveries.
    pub(crate) async fn deliveries(&mut self) -> Result<(), Violation> {
        let replica = self.dice.below(self.replicas.len());
        let fate = self.dice.weigh(&[(8, Fate::Answered), (1, Fate::Lost), (1, Fate::Busy)]);
        self.door.plan(fate);
        let passed = self.deliver_all(replica).await;
        self.door.plan(Fate::Answered);
        passed
    }

    pub(crate) async fn deliver_all(&mut self, replica: usize) -> Result<(), Violation> {
        self.pass_of(replica, Arc::new(DeliveryReconciler)).await?;
        self.read_outcomes().await
    }

    /// Read what became of messages that were promised.
    async fn read_outcomes(&mut self) -> Result<(), Violation> {
        for at in 0..self.sent.len() {
            let sent = &self.sent[at];
            let workspace = &self.workspaces[sent.workspace];
            let Some(queue_id) = sent.queue_id.clone().filter(|_| !sent.over) else { continue };
            if workspace.removed {
                self.sent[at].over = true;
                continue;
            }
            let path = format!("/workspaces/{}/a2a/queue/{queue_id}", workspace.id);
            let now = self.ground.clock.now();
            let answer = self.observer.ask(now, Call::admin("GET", &path)).await;
            let name = sent.name.clone();
            let message: Message = serde_json::from_str(&answer.text).map_err(|_| {
                Violation::new(
                    "law 6: what was promised is kept",
                    format!("{name}: {}", answer.text),
                )
            })?;
            let done = matches!(message.state.as_str(), "processed" | "acknowledged");
            let over = done || matches!(message.state.as_str(), "dead" | "expired" | "dropped");
            if over {
                self.say(format!("message {name} is {}", message.state));
            }
            self.sent[at].over = over;
            law(
                !done || self.door.effects(&name) == 1,
                "law 6: what is processed was done",
                || format!("message {name}: {}", answer.text),
            )?;
        }
        Ok(())
    }

    /// The effect of a message is made once.
    pub(crate) fn no_message_twice(&self) -> Result<(), Violation> {
        let doubled = self.door.doubled();
        law(doubled.is_none(), "law 6: an effect is recorded once", || format!("{doubled:?}"))
    }

    /// A message that was promised, and of which nobody can say what became of it.
    pub(crate) fn undelivered(&self) -> Option<String> {
        let sent = self.sent.iter().find(|it| {
            it.promised
                && !it.over
                && it.queue_id.is_some()
                && !self.workspaces[it.workspace].removed
        })?;
        Some(format!("{}: message {}", self.workspaces[sent.workspace].name, sent.name))
    }
}
