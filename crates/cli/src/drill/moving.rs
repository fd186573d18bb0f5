//! What drills of migrations share: a second backend, and what is counted when the migration is over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ligand_api::message::Message;
use ligand_api::migration::{Migrate, Migration};
use ligand_api::workspace::Workspace;

use super::api::Api;
use super::beside::of_fleet;
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::caller::{Turn, effects};
use crate::clock;
use crate::labels;
use crate::migrate::picture::is_over;

/// The backend that every drill begins with.
pub(super) const WEST: &str = "process";
/// The other one.
pub(super) const EAST: &str = "east";
/// A backend whose instances are processes beside the server.
const LOCAL: &str = "kind = \"process\"\n";
/// How long a migration of a drill may take: what it waits for takes seconds at most here.
pub(super) const ENDS: Duration = Duration::from_secs(40);
/// How long a message may take that was accepted for later: attempts that fail are ever further apart.
const SETTLED: Duration = Duration::from_secs(70);
/// The phases after the cut-over.
const AFTER: [&str; 2] = ["release", "retire"];

/// Settings: what else is there, then both backends. Ends with a table, so that no plain setting may follow.
pub(super) fn settings(plain: &str) -> String {
    format!("{}{LOCAL}uid_base = 300000\n", first(plain, LOCAL))
}

/// The same, where another process runs the second backend, at this address.
pub(super) fn settings_apart(agent: &str, url: &str, token_file: &str) -> String {
    let there = format!("kind = \"provider\"\nurl = {url:?}\ntoken_file = {token_file:?}\n");
    format!("{}{there}{agent}", first(agent, LOCAL))
}

/// The same, where a fleet runs both, at this address.
pub(super) fn settings_of_fleet(url: &str) -> String {
    format!("{}{}", first("", &of_fleet(url, WEST)), of_fleet(url, EAST))
}

fn first(plain: &str, west: &str) -> String {
    format!(
        "heartbeat_seconds = 1\n{plain}\
         [migrations]\ngrace_seconds = 0\n\
         [migrations.deadline_seconds]\nprovision = 25\nhold = 20\nquiesce = 20\nactivate = 8\nprobe = 10\n\
         [backends.{WEST}]\n{west}[backends.{EAST}]\n"
    )
}

/// The setting by which every agent is started by a script of its own: `$HOME` names its backend in there.
pub(super) fn agent(script: &str, program: &str) -> String {
    let script = format!("{script}\nexec \"$0\" agent");
    let words = ["/bin/sh", "-c", &script, program].map(|word| format!("{word:?}"));
    format!("agent = [{}]\n", words.join(", "))
}

/// The name of the backend that a workspace is on.
pub(super) fn backend_of(workspace: &Workspace) -> String {
    workspace.backend.clone().flatten().unwrap_or_default()
}

/// Where the workspace goes.
pub(super) fn to(backend: &str) -> Migrate {
    Migrate { to: backend.to_owned(), grace_seconds: Some(0), reason: Some("a drill".to_owned()) }
}

/// The newest migration of a workspace.
pub(super) async fn newest(api: &Api, id: &str) -> Outcome<Migration> {
    let all = api.client.migrations_of(id).await?.migrations;
    Ok(all.into_iter().next().ok_or_else(|| anyhow::anyhow!("there is no migration of {id}"))?)
}

/// The newest migration of a workspace, once it is over.
pub(super) async fn over(scene: &Scene, api: &Api, id: &str, must: &str) -> Outcome<Migration> {
    scene
        .must_soon(must, ENDS, async || {
            let now = newest(api, id).await?;
            Ok((is_over(&now), told(&now)))
        })
        .await?;
    newest(api, id).await
}

/// How it stands, in words.
pub(super) fn told(it: &Migration) -> String {
    let phase = if is_over(it) { String::new() } else { format!(" at {}", it.phase) };
    let cause = it.cause.iter().chain(&it.last_error).map(|cause| format!(": {cause}"));
    let waits = it.waits_for.iter().filter(|_| !is_over(it)).map(|it| format!(", for {it}"));
    format!("{}{phase}{}", it.state, cause.chain(waits).collect::<String>())
}

/// Its phase is this one, or a later one.
pub(super) async fn reached(scene: &Scene, api: &Api, id: &str, phase: &str) -> Outcome {
    let reached = async || {
        let now = newest(api, id).await?;
        Ok(now.phases.iter().any(|entered| entered.phase == phase).then_some(()))
    };
    scene.until(&format!("the migration comes to {phase}"), reached).await
}

/// Move it, and see that it is there: another generation at another address, which answers.
pub(super) async fn moves(scene: &Scene, api: &Api, id: &str, backend: &str) -> Outcome<Migration> {
    let before = api.why(id).await?.workspace;
    api.client.migrate(id, &to(backend)).await?;
    let it = over(scene, api, id, "the migration comes to its end").await?;
    arrived(scene, api, &it, (before.generation, &before.url)).await?;
    Ok(it)
}

/// It is migrated, and the target is the workspace: judged against what was before.
pub(super) async fn arrived(
    scene: &Scene,
    api: &Api,
    it: &Migration,
    (generation, url): (i64, &str),
) -> Outcome {
    let id = it.workspace_id.to_string();
    scene.must("it is migrated", it.state == "migrated", told(it))?;
    let now = settles(scene, api, &id).await?;
    let seen = format!("generation {} at {}", now.generation, now.url);
    let flipped = now.generation > generation && now.url != url;
    scene.must("generation and address are the target's", flipped, seen)?;
    let turn = api.client.send(&id, "are you there?", ENDS).await;
    let seen = if turn.is_ok() { "it answered a turn" } else { "it answered no turn" };
    scene.must("and it works", turn.is_ok(), seen)
}

/// It is rolled back, and the source is the workspace as before.
pub(super) async fn stayed(
    scene: &Scene,
    api: &Api,
    it: &Migration,
    (generation, url): (i64, &str),
) -> Outcome {
    let id = it.workspace_id.to_string();
    scene.must("it is rolled back", it.state == "rolled-back", told(it))?;
    let now = settles(scene, api, &id).await?;
    let seen = format!("generation {} at {}", now.generation, now.url);
    let same = now.generation == generation && now.url == url;
    scene.must("the source is current as before, at its address", same, seen)?;
    let turn = api.client.send(&id, "are you there?", ENDS).await;
    let seen = if turn.is_ok() { "it answered a turn" } else { "it answered no turn" };
    scene.must("and it works", turn.is_ok(), seen)
}

async fn settles(scene: &Scene, api: &Api, id: &str) -> Outcome<Workspace> {
    let settled = async || {
        let (settled, why) = api.settled(id).await?;
        Ok(settled.then_some(why.workspace))
    };
    scene.until("the workspace is online", settled).await
}

/// The source is the workspace until the cut-over. Looks again and again, until the migration is over.
pub(super) async fn watched(api: &Api, id: &str, source: i64) -> Outcome<Option<String>> {
    let until = clock::now().after(ENDS);
    while clock::now() < until {
        // First the workspace: what comes after it can only be later.
        let seen = api.client.workspace(id).await?;
        let now = newest(api, id).await?;
        let after = AFTER.contains(&now.phase.as_str()) || now.state == "migrated";
        if seen.generation != source && !after {
            return Ok(Some(format!("generation {} while at {}", seen.generation, now.phase)));
        }
        if is_over(&now) {
            break;
        }
        clock::pause(Duration::from_millis(5)).await;
    }
    Ok(None)
}

/// What is left when all is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) turns: usize,
    /// Turns that were answered, or accepted, and did not run.
    pub(super) lost: Vec<String>,
    /// Turns that ran twice.
    pub(super) doubled: Vec<String>,
    /// Turns that are shown as what may have run: their agent was killed amid them.
    pub(super) shown: usize,
    /// What runs or lies somewhere, and is of nobody.
    pub(super) leaks: Vec<String>,
}

impl Count {
    /// In words.
    pub(super) fn told(&self) -> String {
        let named = |names: &[String]| match names {
            [] => "0".to_owned(),
            names => format!("{} ({})", names.len(), names.join(", ")),
        };
        format!(
            "{} turns, {} interrupted, {} lost, {} doubled, {} leaks",
            self.turns,
            self.shown,
            named(&self.lost),
            named(&self.doubled),
            named(&self.leaks)
        )
    }
}

/// Count the turns of a caller, once each is over, by what agents did, and what the ledger says.
pub(super) async fn count(api: &Api, stack: &Stack, id: &str, turns: &[Turn]) -> Outcome<Count> {
    let mut states = BTreeMap::new();
    for turn in turns {
        let Some(queued) = &turn.queued else { continue };
        states.insert(turn.name.clone(), settled(api, turn, queued).await?);
    }
    let backend = backend_of(&api.why(id).await?.workspace);
    let ran = effects(&stack.tree(&backend, id).join("workspace/effects"));
    let mut count = Count { turns: turns.len(), ..Count::default() };
    for turn in turns {
        let times = ran.get(&turn.name).copied().unwrap_or(0);
        let message = states.get(&turn.name);
        let dead = message.is_some_and(|message| message.state == "dead" && message.maybe_run);
        let shown = dead || turn.interrupted;
        count.shown += usize::from(shown);
        if times > 1 {
            count.doubled.push(turn.name.clone());
        }
        if let Some(said) = &turn.unanswered {
            count.lost.push(format!("{}: {said}", turn.name));
        } else if times == 0 && !shown {
            count.lost.push(turn.name.clone());
        }
    }
    Ok(count)
}

/// A message that was accepted for later, once it is over.
async fn settled(api: &Api, turn: &Turn, queued: &str) -> Outcome<Message> {
    let until = clock::now().after(SETTLED);
    loop {
        let now = api.client.message(queued).await?;
        if !["accepted", "delivering"].contains(&now.state.as_str()) {
            return Ok(now);
        }
        if clock::now() >= until {
            let late = anyhow::anyhow!(
                "{} is not over within {} s: {} in attempt {}, {}",
                turn.name,
                SETTLED.as_secs(),
                now.state,
                now.attempt,
                now.last_error.unwrap_or_default()
            );
            return Err(late.into());
        }
        clock::pause(Duration::from_millis(20)).await;
    }
}

/// What runs or lies at either backend and is not of the instance that the workspace has.
pub(super) async fn leaks(api: &Api, stack: &Stack, id: &str) -> Outcome<Vec<String>> {
    let why = api.why(id).await?;
    let (own, current) = (backend_of(&why.workspace), why.workspace.generation);
    let mut leaks = Vec::new();
    for row in why.instances.iter().filter(|one| one.ended_at.is_none()) {
        if (row.generation, row.backend.as_str()) != (current, own.as_str()) {
            leaks.push(format!("generation {} on record at {}", row.generation, row.backend));
        }
    }
    for backend in [WEST, EAST] {
        let tree = stack.tree(backend, id);
        for process in labels::below(&tree) {
            if backend != own || process.generation != Some(current) {
                let generation = process.generation.unwrap_or_default();
                leaks.push(format!("generation {generation} runs at {backend}"));
            }
        }
        if backend != own && tree.exists() {
            leaks.push(format!("data at {backend}"));
        }
    }
    let copies = files(&stack.data().join("transfers"));
    if copies > 0 {
        leaks.push(format!("{copies} files of copies"));
    }
    Ok(leaks)
}

fn files(below: &Path) -> usize {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => 1,
    };
    entries.map(count).sum()
}

/// Nothing is left over, and no turn was lost or doubled.
pub(super) async fn conserved(
    scene: &Scene,
    api: &Api,
    stack: &Stack,
    id: &str,
    turns: &[Turn],
) -> Outcome<Count> {
    let mut count = count(api, stack, id, turns).await?;
    // No agent was killed here.
    let whole = count.lost.is_empty() && count.doubled.is_empty() && count.shown == 0;
    scene.must(
        "no turn was lost, none was interrupted, and none ran twice",
        whole,
        count.told(),
    )?;
    scene
        .must_soon("nothing is left over, on either backend", ENDS, async || {
            let left = leaks(api, stack, id).await?;
            Ok((left.is_empty(), if left.is_empty() { "nothing".into() } else { left.join(", ") }))
        })
        .await?;
    count.leaks = leaks(api, stack, id).await?;
    Ok(count)
}
