//! The drill of messages whose server dies between their dispatch and their answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use ligand_api::message::Message;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::api::Api;
use super::inbox::{Inbox, Letter};
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;

/// Beats every second.
const QUICK: &str = "heartbeat_seconds = 1\n";
/// How long a message may take to be over once the server is back.
const ENDS: Duration = Duration::from_secs(20);
/// How long the turns of this drill take, in ms: longer than it takes to kill the server.
const SLOW: u64 = 1_200;
/// Longer than that.
const LATER: Duration = Duration::from_millis(1_800);
/// How long nothing more may happen.
const QUIET: Duration = Duration::from_secs(2);
/// Heartbeats of the agent that the drill plays.
const BEAT: Duration = Duration::from_millis(500);

pub(super) async fn queue_orphan(scene: &Scene, stack: &mut Stack) -> Outcome {
    // Below the directory that an instance begins in.
    let words = ["/usr/bin/env", "LIGAND_ECHO_EFFECTS=effects", &stack.program(), "agent"];
    let words = words.map(|word| format!("{word:?}")).join(", ");
    // An agent of somebody else is called on this machine, too.
    stack.variable("MOLECULE_ENV", "development");
    let api = stack.serve(&format!("{QUICK}agent = [{words}]\n")).await?;
    let id = api.managed("worker").await?;
    api.online(scene, &id, 0).await?;
    let effects = stack.data().join("process").join(&id).join("workspace/effects");
    let mut worker = Worker { scene, stack, api, id, effects, accepted: Vec::new() };
    worker.amid_its_turn().await?;
    worker.after_its_turn().await?;
    worker.before_anything().await?;
    worker.with_its_agent().await?;
    worker.nothing_is_lost().await?;
    let Worker { api, .. } = worker;
    foreign(scene, stack, api).await
}

/// A workspace with the platform's own agent, which counts what it really did.
struct Worker<'a> {
    scene: &'a Scene,
    stack: &'a mut Stack,
    api: Api,
    id: String,
    effects: PathBuf,
    accepted: Vec<String>,
}

impl Worker<'_> {
    async fn accept(&mut self, name: &str, millis: u64) -> Outcome<String> {
        let queued = self.api.enqueue(&self.id, name, millis).await?;
        self.accepted.push(queued.clone());
        Ok(queued)
    }

    /// Until its turn has begun.
    async fn begun(&self, name: &str) -> Outcome {
        let begun = async || Ok((effects(&self.effects, name) > 0).then_some(()));
        self.scene.until(&format!("the turn of {name} begins"), begun).await
    }

    /// It is over, and its effect is recorded once.
    async fn once(&self, queued: &str, name: &str, done: bool) -> Outcome {
        over(self.scene, &self.api, queued, name).await?;
        let now = self.api.client.message(queued).await?;
        if done {
            let answer = now.response.as_ref().map(Value::to_string).unwrap_or_default();
            let holds = now.state == "processed" && answer.contains(name);
            let must = format!("{name}: it was delivered, and its own answer is kept");
            self.scene.must(&must, holds, told(&now))?;
        }
        let count = effects(&self.effects, name);
        let must = format!("{name}: its effect is recorded once");
        self.scene.must(&must, count == 1, format!("{count} times"))
    }

    async fn amid_its_turn(&mut self) -> Outcome {
        let queued = self.accept("amid", SLOW).await?;
        self.begun("amid").await?;
        self.stack.kill_server()?;
        self.scene.step("kill -9 of the server amid the turn of a queued message");
        self.api = self.stack.serve_again().await?;
        self.once(&queued, "amid", true).await
    }

    async fn after_its_turn(&mut self) -> Outcome {
        let queued = self.accept("after", SLOW).await?;
        self.begun("after").await?;
        self.stack.kill_server()?;
        clock::pause(LATER).await;
        self.scene.step("kill -9 of the server amid a turn, which ends while nobody hears it");
        self.api = self.stack.serve_again().await?;
        self.once(&queued, "after", true).await
    }

    async fn before_anything(&mut self) -> Outcome {
        let queued = self.accept("before", 0).await?;
        self.stack.kill_server()?;
        self.scene.step("kill -9 of the server as soon as it has accepted a message");
        self.api = self.stack.serve_again().await?;
        self.once(&queued, "before", true).await
    }

    /// Nobody can know whether that one ran to its end: it is shown, and not made again by itself.
    async fn with_its_agent(&mut self) -> Outcome {
        let generation = self.api.online(self.scene, &self.id, 0).await?;
        let process = self.api.process(&self.id, generation).await?;
        let queued = self.accept("together", 60_000).await?;
        self.begun("together").await?;
        self.stack.kill_server()?;
        self.stack.signal_instance(process, Signal::KILL)?;
        self.scene.step("kill -9 of the server and of the agent, amid a turn");
        self.api = self.stack.serve_again().await?;
        self.once(&queued, "together", false).await?;
        let now = self.api.client.message(&queued).await?;
        let shown = now.state == "dead" && now.maybe_run && now.last_error.is_some();
        let must = "together: it is shown as one that may have run, with the reason";
        self.scene.must(must, shown, told(&now))
    }

    /// What was accepted is in the ledger, and over.
    async fn nothing_is_lost(&self) -> Outcome {
        let mut open = Vec::new();
        for queued in &self.accepted {
            let now = self.api.client.message(queued).await?;
            if !is_over(&now) {
                open.push(queued.clone());
            }
        }
        let must = "every message that was accepted is in the ledger, and over";
        let seen = format!("{} accepted, {} open", self.accepted.len(), open.len());
        self.scene.must(must, open.is_empty(), seen)
    }
}

/// An agent that remembers nothing: the drill plays it, and sees every delivery.
async fn foreign(scene: &Scene, stack: &mut Stack, api: Api) -> Outcome {
    let (id, token) = api.external("foreign").await?;
    let mut inbox = Inbox::open().await?;
    // Ends with the drill.
    let mut beating = JoinSet::new();
    beating.spawn(beat(api.clone(), id.clone(), token.clone()));
    play(scene, stack, api, &mut inbox, (&id, &token)).await
}

async fn beat(api: Api, id: String, token: String) {
    loop {
        // While the server is away nobody hears it.
        let _ = api.heartbeat(&id, Some(&token)).await;
        clock::pause(BEAT).await;
    }
}

async fn play(
    scene: &Scene,
    stack: &mut Stack,
    mut api: Api,
    inbox: &mut Inbox,
    (id, token): (&str, &str),
) -> Outcome {
    let said = api.register(id, inbox.url(), Some(token), None).await?;
    if said.status != 200 {
        return Err(anyhow::anyhow!("the register was answered {}", said.brief()).into());
    }
    let queued = api.enqueue(id, "late", 0).await?;
    let first = inbox.next("the first delivery", ENDS).await?;
    stack.kill_server()?;
    scene.step("kill -9 of the server while an agent that remembers nothing has a message");
    api = stack.serve_again().await?;
    let second = inbox.next("another delivery", ENDS).await;
    let seen = second.as_ref().map_or_else(|_| "none".to_owned(), Letter::to_string);
    scene.must("late: it is delivered again", second.is_ok(), seen)?;
    let second = second?;

    let turn = json!({
        "message": queued, "attempt": first.attempt, "state": "ended", "at_ms": 1, "status": 200,
        "response": r#"{"jsonrpc":"2.0","id":1,"result":{"answer":"of the first delivery"}}"#,
    });
    let body = json!({ "workspace_id": id, "turns": [turn] });
    let said = api.call(Method::POST, "/registry/turns", Some(token), None, &body).await?;
    scene.step(format!("the answer of the first delivery comes late: {}", said.brief()));
    let now = api.client.message(&queued).await?;
    let holds = now.state == "delivering" && now.attempt == second.attempt;
    let must = "late: the answer of a delivery that is over changes nothing";
    scene.must(must, holds, told(&now))?;
    second.answer("of the second delivery").await.context("answer the second delivery")?;
    over(scene, &api, &queued, "late").await?;
    let now = api.client.message(&queued).await?;
    let answer = now.response.as_ref().map(Value::to_string).unwrap_or_default();
    let holds = now.state == "processed" && answer.contains("of the second delivery");
    scene.must("late: the answer that is kept is the second's", holds, told(&now))?;

    let queued = api.enqueue(id, "twice", 0).await?;
    let mut held = Vec::new();
    for nth in ["first", "second"] {
        held.push(inbox.next(&format!("the {nth} delivery"), ENDS).await?);
        stack.kill_server()?;
        scene.step(format!("kill -9 of the server at the {nth} delivery of a message"));
        api = stack.serve_again().await?;
    }
    over(scene, &api, &queued, "twice").await?;
    let now = api.client.message(&queued).await?;
    let shown = now.state == "dead" && now.maybe_run && now.last_error.is_some();
    let must = "twice: it is shown as one that may have run, with the reason";
    scene.must(must, shown, told(&now))?;
    let third = inbox.next("a third delivery", QUIET).await;
    let seen = third.as_ref().map_or_else(|_| "none".to_owned(), Letter::to_string);
    scene.must("twice: there is no third delivery", third.is_err(), seen)
}

async fn over(scene: &Scene, api: &Api, queued: &str, name: &str) -> Outcome {
    let must = format!("{name}: it comes to an end that can be seen");
    scene
        .must_soon(&must, ENDS, async || {
            let now = api.client.message(queued).await?;
            Ok((is_over(&now), told(&now)))
        })
        .await
}

fn is_over(message: &Message) -> bool {
    !["accepted", "delivering"].contains(&message.state.as_str())
}

/// How it stands, in words.
fn told(message: &Message) -> String {
    let error = message.last_error.iter().map(|error| format!(": {error}"));
    let may = if message.maybe_run { ", may have run" } else { "" };
    format!("{} at attempt {}{may}{}", message.state, message.attempt, error.collect::<String>())
}

/// How often the turn of a message was run.
fn effects(file: &Path, name: &str) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().filter(|line| *line == name).count()
}
