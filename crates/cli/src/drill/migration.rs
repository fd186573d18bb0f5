//! Drills of a workspace that goes from one backend to another.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use ligand_api::migration::Migration;
use ligand_api::workspace::Create;
use serde_json::json;

use super::api::Api;
use super::moving::{self, EAST, WEST};
use super::proxy::{Fault, Proxy};
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;

/// Every turn that runs leaves a line in the workspace's data.
pub(super) const COUNTS: &str = "export LIGAND_ECHO_EFFECTS=effects";
/// The same, but for the target: its turns fail, and nothing else of it does.
const FAILS_IN_EAST: &str = "case $HOME in */east/*) LIGAND_ECHO_EFFECTS=/nowhere/effects;; \
                             *) LIGAND_ECHO_EFFECTS=effects;; esac; export LIGAND_ECHO_EFFECTS";
/// Turns of the target take their time.
const SLOW_IN_EAST: &str = "export LIGAND_ECHO_EFFECTS=effects; \
                            case $HOME in */east/*) export LIGAND_ECHO_DELAY_MS=2500;; esac";
/// How long the target's credential is watched.
const WATCHED: Duration = Duration::from_secs(3);
/// Secrets of a workspace; the second is withheld from the target.
const GIVEN: [(&str, &str); 2] =
    [("API_KEY", "a-value-that-nobody-logs"), ("DB_PASSWORD", "another-value-that-nobody-logs")];

/// What a workspace was before it moved.
struct Before {
    id: String,
    generation: i64,
    url: String,
}

impl Before {
    fn at(&self) -> (i64, &str) {
        (self.generation, &self.url)
    }
}

/// A server whose agents count their turns, and a workspace that is online.
async fn begin(scene: &Scene, stack: &mut Stack, script: &str) -> Outcome<(Api, Before)> {
    let agent = moving::agent(script, &stack.program());
    let api = stack.serve(&moving::settings(&agent)).await?;
    let id = api.managed("worker").await?;
    let before = online(scene, &api, id).await?;
    scene.step(format!("a workspace is online on {WEST}, in generation {}", before.generation));
    Ok((api, before))
}

async fn online(scene: &Scene, api: &Api, id: String) -> Outcome<Before> {
    let generation = api.online(scene, &id, 0).await?;
    let url = api.why(&id).await?.workspace.url;
    Ok(Before { id, generation, url })
}

pub(super) async fn migration_stale_token(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (api, before) = begin(scene, stack, COUNTS).await?;
    let id = &before.id;
    let note = stack.tree(WEST, id).join("workspace/note");
    fs::write(&note, "what it knows").context("leave a note in its data")?;
    scene.step(format!("it goes to {EAST}, where there is nothing of it"));
    moving::moves(scene, &api, id, EAST).await?;
    let carried = fs::read_to_string(stack.tree(EAST, id).join("workspace/note"));
    let seen = carried.as_deref().unwrap_or("nothing").to_owned();
    scene.must("its data came with it", seen == "what it knows", seen)?;
    admitted(scene, stack, &api, id, EAST).await?;

    let stale = stack.credential_at(EAST, id)?;
    copy(&stack.tree(EAST, id).join("configs"), &stack.tree(WEST, id).join("configs"))
        .context("copy its configuration by hand")?;
    scene.step(format!("somebody copies its configuration to {WEST}, with the credential in it"));
    moving::moves(scene, &api, id, WEST).await?;
    admitted(scene, stack, &api, id, WEST).await?;
    let said = api.heartbeat(id, Some(&stale)).await?;
    let must = "the credential that was copied is of an instance that was left";
    scene.must(must, said.status == 401 && said.text("action") == Some("exit"), said.brief())
}

/// The target's own credential opens its way, and goes on doing so.
async fn admitted(scene: &Scene, stack: &Stack, api: &Api, id: &str, backend: &str) -> Outcome {
    let until = clock::now().after(WATCHED);
    loop {
        let held = stack.credential_at(backend, id)?;
        let said = api.heartbeat(id, Some(&held)).await?;
        if said.status != 200 || clock::now() >= until {
            let must = "the target is let in, each time that it calls";
            return scene.must(must, said.status == 200, said.brief());
        }
        clock::pause(Duration::from_millis(100)).await;
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy(&entry.path(), &target)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), target)?),
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn blind_cutover(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (api, before) = begin(scene, stack, FAILS_IN_EAST).await?;
    let caller = api.caller(&before.id, "turn");
    clock::pause(Duration::from_millis(300)).await;
    api.client.migrate(&before.id, &moving::to(EAST)).await?;
    scene.step(format!("it goes to {EAST}, where it starts, serves its card, and fails each turn"));
    let (it, odd) = tokio::join!(
        moving::over(scene, &api, &before.id, "the migration comes to its end"),
        moving::watched(&api, &before.id, before.generation),
    );
    let it = it?;
    scene.must(
        "the source is the workspace all along",
        odd.as_ref().is_ok_and(Option::is_none),
        odd?.unwrap_or_else(|| "at every look".to_owned()),
    )?;
    moving::stayed(scene, &api, &it, before.at()).await?;
    let cause = it.cause.clone().unwrap_or_default();
    scene.must("the reason says that a turn failed", cause.contains("turn"), cause)?;
    let turns = caller.end().await?;
    moving::conserved(scene, &api, stack, &before.id, &turns).await.map(|_| ())
}

/// A server that instances reach through a network that fails as it is told to.
async fn behind_a_network(stack: &mut Stack) -> Outcome<(Api, Proxy)> {
    let agent = moving::agent(COUNTS, &stack.program());
    stack.serve(&moving::settings(&agent)).await?;
    stack.kill_server()?;
    let network = Proxy::before(stack.url()).await?;
    stack.variable("PLATFORM_URL", network.url());
    Ok((stack.serve_again().await?, network))
}

async fn with_secrets(scene: &Scene, api: &Api) -> Outcome<Before> {
    let secrets = GIVEN.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let body =
        Create { name: "worker".to_owned(), secrets: Some(secrets.collect()), ..Create::default() };
    let id = api.client.create(&body).await?.id.to_string();
    online(scene, api, id).await
}

pub(super) async fn secret_missing(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (name, _) = GIVEN[1];
    let (api, network) = behind_a_network(stack).await?;
    let before = with_secrets(scene, &api).await?;
    let id = &before.id;
    scene.step(format!("a workspace with two secrets is online on {WEST}"));
    network.fault(&format!("/workspaces/{id}/secrets/values"), Fault::Withhold(name), u32::MAX);
    api.client.migrate(id, &moving::to(EAST)).await?;
    scene.step(format!("it goes to {EAST}; what the target is given lacks {name}"));
    let it = moving::over(scene, &api, id, "the migration comes to its end").await?;
    moving::stayed(scene, &api, &it, before.at()).await?;
    let cause = it.cause.clone().unwrap_or_default();
    let names = cause.contains(name) && !cause.contains(GIVEN[0].0);
    scene.must("the reason names the secret that is missing, and no other", names, &cause)?;
    drop(network);
    let told = serde_json::to_string(&api.why(id).await?).unwrap_or_default() + &stack.logs();
    let leaks = GIVEN.iter().filter(|(_, value)| told.contains(value)).count();
    scene.must("no value is in a log or in `why`", leaks == 0, format!("{leaks} found"))
}

/// The second act of another drill: secrets go with the workspace, and past everything that starts it.
pub(super) async fn secrets_move(scene: &Scene, stack: &mut Stack) -> Outcome {
    stack.kill_server()?;
    let agent = moving::agent(COUNTS, &stack.program());
    let api = stack.serve(&moving::settings(&agent)).await?;
    let before = with_secrets(scene, &api).await?;
    let id = &before.id;
    scene.step(format!("another workspace with two secrets is online on {WEST}"));
    moving::moves(scene, &api, id, EAST).await?;
    let evidence = api.why(id).await?.workspace.evidence.unwrap_or_default();
    let missing = GIVEN.iter().filter(|(name, _)| evidence.contains(name)).count();
    scene.must("the target proved that it holds them", missing == 0, evidence)?;
    let started = fs::read(format!("/proc/{}/environ", leader(stack, id)?));
    let started = started.context("read what the target was started with")?;
    let text = String::from_utf8_lossy(&started);
    let given = GIVEN.iter().filter(|(_, value)| text.contains(value)).count();
    scene.must("no value was in what it was started with", given == 0, format!("{given} found"))
}

/// The agent of the target: the first process of its label.
fn leader(stack: &Stack, id: &str) -> Outcome<u32> {
    let found = crate::labels::below(&stack.tree(EAST, id));
    Ok(found.first().map(|process| process.id).context("find the target's process")?)
}

pub(super) async fn migration_revoked(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (api, before) = begin(scene, stack, SLOW_IN_EAST).await?;
    // While this turn goes on the migration waits for it.
    api.enqueue(&before.id, "long", 3_000).await?;
    clock::pause(Duration::from_millis(300)).await;
    let it = revoked_at(scene, stack, &api, &before, "hold").await?;
    moving::stayed(scene, &api, &it, before.at()).await?;
    moving::conserved(scene, &api, stack, &before.id, &[]).await?;
    // Whoever was revoked is told to wait for a while, and this one stands by: how it comes back takes its time.
    let other = api.managed("other").await?;
    let other = online(scene, &api, other).await?;
    revoked_at(scene, stack, &api, &other, "probe").await?;
    let now = api.why(&other.id).await?.workspace.generation;
    let must = "the source is current as before";
    scene.must(must, now == other.generation, format!("generation {now}"))
}

/// It is revoked in this phase, and turned back.
async fn revoked_at(
    scene: &Scene,
    stack: &Stack,
    api: &Api,
    before: &Before,
    phase: &str,
) -> Outcome<Migration> {
    let id = &before.id;
    api.client.migrate(id, &moving::to(EAST)).await?;
    moving::reached(scene, api, id, phase).await?;
    let candidate = stack.credential_at(EAST, id)?;
    let said = api.heartbeat(id, Some(&candidate)).await?;
    scene.must("the candidate is let in, as one", said.status == 200, said.brief())?;
    api.order(&format!("/admin/workspaces/{id}/revoke-auth-tokens"), json!({})).await?;
    scene.step(format!("every credential was revoked, with the migration at {phase}"));
    let turned = async || {
        let now = moving::newest(api, id).await?;
        let ends = ["rolled-back", "undoing", "migrated"].contains(&now.state.as_str());
        Ok((ends && (phase == "probe" || now.state != "undoing"), moving::told(&now)))
    };
    scene.must_soon("the migration goes no further", moving::ENDS, turned).await?;
    let it = moving::newest(api, id).await?;
    scene.must("it is turned back", it.state != "migrated", moving::told(&it))?;
    let said = api.heartbeat(id, Some(&candidate)).await?;
    let must = "the candidate's credential opens nothing any more";
    scene.must(must, said.status == 401, said.brief())?;
    Ok(it)
}
