//! The drill that kills the server after every step.
//!
//! An operation is asked for, and the server is killed right after the first entry that the operation writes into
//! the journal; then again, after the second; and so on, until the operation is through before its turn comes. A
//! build for proofs ends itself at the very instant of the commit. Any other build is watched, and killed as soon
//! as the entry is seen: an entry or two may have followed by then.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

#[cfg(feature = "mutants")]
use anyhow::Context as _;
use ligand_api::client;
use ligand_api::journal::Why;
use reqwest::{Method, StatusCode};

use super::api::{Api, Said};
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use super::{crash_moving, migration, moving};
use crate::clock;
use crate::labels;

/// How long an operation may take to come to its end, once the server is back.
const ENDS: Duration = Duration::from_secs(15);
/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// More entries than any operation writes.
const MOST: usize = 20;
/// A status with an instance behind it; every other one here has none.
const ONLINE: &str = "online";
const REMOVED: &str = "removed";
/// No status: nothing is left that could have one.
const PURGED: &str = "purged";

/// What is asked of a workspace.
struct Operation {
    name: &'static str,
    /// Orders by which a workspace that is online gets to where this begins, each with the status that follows.
    before: &'static [(&'static str, &'static str)],
    begins: Begins,
    /// The status that it comes to.
    ends: &'static str,
}

impl Operation {
    /// Whether nothing of the workspace may be left at its end.
    fn may_go(&self) -> bool {
        matches!(self.ends, REMOVED | PURGED)
    }
}

/// How an operation begins.
enum Begins {
    /// With an order: `POST /workspaces/{id}/…`.
    Order(&'static str),
    /// With the end of the instance.
    Kill,
    /// With its delete. That of its data follows, once all of it has come to its end.
    Delete,
    /// With a delete that takes its data along, and is asked for once.
    Purge,
}

const OPERATIONS: [Operation; 6] = [
    Operation { name: "restart", before: &[], begins: Begins::Order("restart"), ends: ONLINE },
    Operation { name: "replacement", before: &[], begins: Begins::Kill, ends: ONLINE },
    Operation {
        name: "hibernate",
        before: &[],
        begins: Begins::Order("hibernate"),
        ends: "hibernated",
    },
    Operation {
        name: "wake",
        before: &[("hibernate", "hibernated")],
        begins: Begins::Order("wake"),
        ends: ONLINE,
    },
    Operation { name: "delete", before: &[], begins: Begins::Delete, ends: REMOVED },
    Operation { name: "purge", before: &[], begins: Begins::Purge, ends: PURGED },
];

pub(super) async fn crash_at_every_step(scene: &Scene, stack: &mut Stack) -> Outcome {
    let agent = moving::agent(migration::COUNTS, &stack.program());
    let mut api = stack.serve(&moving::settings(&agent)).await?;
    for operation in &OPERATIONS {
        let mut kept = None;
        for step in 1..=MOST {
            let id = match kept.take() {
                Some(id) => id,
                None => api.managed(&format!("{} {step}", operation.name)).await?,
            };
            let before = prepare(scene, &api, &id, operation).await?;
            let blow = strike(scene, &api, stack, &before, operation, step).await?;
            if blow == Blow::Struck {
                api = stack.serve_again().await?;
            }
            let round = Round { scene, api: &api, stack, before: &before, operation };
            round.judge(&round.told(blow, step).await?).await?;
            // What serves again serves the next round too; of anything else nothing is left.
            match operation.ends {
                ONLINE => kept = Some(id),
                REMOVED | PURGED => {}
                _ => drop(api.client.delete(&id, true, true).await?),
            }
            if blow == Blow::Missed {
                scene.step(format!("{}: {} steps, each survived", operation.name, step - 1));
                let must = format!("{}: there were steps to strike at", operation.name);
                scene.must(&must, step > 1, format!("{} entries", step - 1))?;
                break;
            }
            if step == MOST {
                let must = format!("{}: it writes so many entries and no more", operation.name);
                scene.must(&must, false, format!("more than {MOST}"))?;
            }
        }
        if let Some(id) = kept {
            api.client.delete(&id, true, true).await?;
        }
    }
    crash_moving::crash_amid_a_migration(scene, stack, api).await
}

/// Where a workspace stood before.
struct Before {
    id: String,
    generation: i64,
    /// The last entry of its journal.
    entry: i64,
}

async fn prepare(scene: &Scene, api: &Api, id: &str, operation: &Operation) -> Outcome<Before> {
    api.online(scene, id, 0).await?;
    for (order, status) in operation.before {
        api.order(&format!("/workspaces/{id}/{order}"), serde_json::json!({})).await?;
        let stands = async || Ok((api.why(id).await?.workspace.status == *status).then_some(()));
        scene.until(&format!("it is {status}"), stands).await?;
    }
    let why = api.why(id).await?;
    let entry = why.journal.last().map_or(0, |entry| entry.seq);
    Ok(Before { id: id.to_owned(), generation: why.workspace.generation, entry })
}

/// What became of an attempt to strike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// The server is dead.
    Struck,
    /// The operation was through before that many entries were written.
    Missed,
}

/// Begin, and kill the server after so many entries.
async fn strike(
    scene: &Scene,
    api: &Api,
    stack: &mut Stack,
    before: &Before,
    operation: &Operation,
    step: usize,
) -> Outcome<Blow> {
    let id = &before.id;
    arm(stack, step)?;
    let order = async {
        match operation.begins {
            Begins::Order(order) => {
                api.ask(Method::POST, &format!("/workspaces/{id}/{order}")).await
            }
            Begins::Delete => {
                api.ask(Method::DELETE, &format!("/workspaces/{id}?confirm=true")).await
            }
            Begins::Purge => api.ask(Method::DELETE, &purge(id)).await,
            Begins::Kill => None,
        }
    };
    if matches!(operation.begins, Begins::Kill) {
        labels::kill(&labels::below(&stack.data().join("process").join(id)));
    }
    let (said, blow) = tokio::join!(order, watch(api, stack, before, operation, step));
    if let Some(said) = said {
        taken(scene, operation, &said)?;
    }
    blow
}

/// An order that was answered was taken.
fn taken(scene: &Scene, operation: &Operation, said: &Said) -> Outcome {
    match (200..300).contains(&said.status) {
        true => Ok(()),
        false => scene.must(&format!("{}: it is taken", operation.name), false, said.brief()),
    }
}

fn purge(id: &str) -> String {
    format!("/workspaces/{id}?confirm=true&purge=true")
}

/// Until the server is dead, or the operation through.
async fn watch(
    api: &Api,
    stack: &mut Stack,
    before: &Before,
    operation: &Operation,
    step: usize,
) -> Outcome<Blow> {
    let until = clock::now().after(ENDS);
    loop {
        if stack.server_ended()? {
            return Ok(Blow::Struck);
        }
        let through = match api.client.why(&before.id).await {
            Ok(why) => {
                let new = why.journal.iter().filter(|entry| entry.seq > before.entry).count();
                if !cfg!(feature = "mutants") && new >= step {
                    stack.kill_server()?;
                    return Ok(Blow::Struck);
                }
                new > 0 && ended(&why, before, operation)
            }
            Err(error) => operation.may_go() && is_gone(&error),
        };
        // Whoever is late is judged by what it comes to.
        if through || clock::now() >= until {
            if disarm(stack) {
                return Ok(Blow::Missed);
            }
            // It is about to end.
            while !stack.server_ended()? {
                clock::pause(LOOK).await;
            }
            return Ok(Blow::Struck);
        }
        clock::pause(LOOK).await;
    }
}

#[cfg(feature = "mutants")]
pub(super) fn arm(stack: &Stack, step: usize) -> Outcome {
    Ok(fs::write(stack.crash_file(), step.to_string()).context("tell the server when to end")?)
}

/// Call it off; `false`: too late.
#[cfg(feature = "mutants")]
pub(super) fn disarm(stack: &Stack) -> bool {
    fs::remove_file(stack.crash_file()).is_ok()
}

#[cfg(not(feature = "mutants"))]
pub(super) fn arm(_: &Stack, _: usize) -> Outcome {
    Ok(())
}

#[cfg(not(feature = "mutants"))]
pub(super) fn disarm(_: &Stack) -> bool {
    true
}

fn is_gone(error: &client::Error) -> bool {
    matches!(error, client::Error::Refused { status: StatusCode::NOT_FOUND, .. })
}

/// Whether it has come to what was asked for, and nothing is on its way.
fn ended(why: &Why, before: &Before, operation: &Operation) -> bool {
    let now = &why.workspace;
    let rests = match operation.ends {
        ONLINE => {
            now.generation > before.generation && why.next.starts_with("if no heartbeat comes")
        }
        REMOVED => why.next == "nothing: it is deleted",
        // What can be asked about is still there.
        PURGED => false,
        _ => why.instances.iter().all(|one| one.ended_at.is_some()),
    };
    rests && now.status == operation.ends
}

/// One round, once the server is back.
struct Round<'a> {
    scene: &'a Scene,
    api: &'a Api,
    stack: &'a Stack,
    before: &'a Before,
    operation: &'a Operation,
}

impl Round<'_> {
    /// What was done, in words.
    async fn told(&self, blow: Blow, step: usize) -> Outcome<String> {
        let name = self.operation.name;
        if blow == Blow::Missed {
            return Ok(format!("{name}, undisturbed"));
        }
        // What was purged has no journal.
        let journal = self.api.client.why(&self.before.id).await.map(|why| why.journal);
        let mut new = journal.into_iter().flatten().filter(|entry| entry.seq > self.before.entry);
        let kind = new.nth(step - 1).map_or("the last".to_owned(), |entry| entry.kind);
        Ok(format!("{name}, killed after entry {step} ({kind})"))
    }

    /// It comes to its end, and nothing is left over.
    async fn judge(&self, round: &str) -> Outcome {
        let id = &self.before.id;
        let ends = async || match self.api.client.why(id).await {
            Ok(why) => {
                let now = &why.workspace;
                let seen = format!("{} in generation {}", now.status, now.generation);
                Ok((ended(&why, self.before, self.operation), seen))
            }
            Err(error) if is_gone(&error) && self.operation.may_go() => {
                Ok((true, "gone".to_owned()))
            }
            Err(error) => Err(error.into()),
        };
        let must = format!("{round}: it comes to its end");
        self.scene.must_soon(&must, ENDS, ends).await?;
        if self.operation.ends == REMOVED {
            // Its data goes with the journal. Whose order was not answered gives it again.
            let said = self.api.insist(Method::DELETE, &purge(id)).await?;
            taken(self.scene, self.operation, &said)?;
        }
        if self.operation.ends == ONLINE {
            let turn = self.api.client.send(id, "are you there?", ENDS).await;
            let seen = if turn.is_ok() { "it answered a turn" } else { "it answered no turn" };
            self.scene.must(&format!("{round}: it works"), turn.is_ok(), seen)?;
        }
        let must = format!("{round}: nothing is left over");
        self.scene.must_soon(&must, ENDS, async || self.leaks().await).await
    }

    /// Whether rows, processes, records and directories say the same.
    async fn leaks(&self) -> Outcome<(bool, String)> {
        let id = &self.before.id;
        let root = self.stack.data().join("process");
        let (rows, current) = match self.api.client.why(id).await {
            Ok(why) => {
                let alive = why.instances.iter().filter(|one| one.ended_at.is_none());
                (alive.map(|one| one.generation).collect(), why.workspace.generation)
            }
            Err(error) if is_gone(&error) => (BTreeSet::new(), 0),
            Err(error) => return Err(error.into()),
        };
        let wanted: BTreeSet<i64> =
            (self.operation.ends == ONLINE).then_some(current).into_iter().collect();
        let labels: BTreeSet<i64> =
            labels::below(&root.join(id)).into_iter().filter_map(|it| it.generation).collect();
        let records = records(&root.join(id).join("run"));
        let known: BTreeSet<String> =
            self.api.client.list().await?.into_iter().map(|one| one.id.to_string()).collect();
        let strays = names(&root).into_iter().filter(|name| !known.contains(name)).count();
        let holds = rows == wanted && labels == wanted && records == wanted && strays == 0;
        let seen = format!(
            "{} on record, {} running, {} at the backend, {strays} directories of nobody",
            told(&rows),
            told(&labels),
            told(&records)
        );
        Ok((holds, seen))
    }
}

fn told(generations: &BTreeSet<i64>) -> String {
    let all: Vec<String> = generations.iter().map(|it| format!("generation {it}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" and ") }
}

/// What the backend has records of.
fn records(run: &std::path::Path) -> BTreeSet<i64> {
    let stems = names(run);
    stems.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect()
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
