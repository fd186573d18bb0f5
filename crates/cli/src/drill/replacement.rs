//! Drills of one instance following another.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;

use super::api::Api;
use super::candidates;
use super::moving;
use super::proxy::Proxy;
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;

/// Beats every second: what takes minutes in life takes seconds here.
const QUICK: &str = "heartbeat_seconds = 1\n";
/// Where callers say that they answer. Nobody does.
const NOWHERE: &str = "http://localhost:9";
/// How long the platform may take to set something right.
const MENDS: Duration = Duration::from_secs(15);

pub(super) async fn double_provision(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve(QUICK).await?;
    let id = api.managed("worker").await?;
    let first = api.online(scene, &id, 0).await?;
    let oldest = stack.credential_of(&id)?;
    scene.step(format!("a workspace is online in generation {first}"));

    try_join_all((0..20).map(|_| api.client.restart(&id))).await?;
    scene.step("20 restarts were asked for at once");
    let settles = async || {
        let (settled, why) = api.settled(&id).await?;
        let last = why.workspace.generation;
        let last_asked = why.journal.iter().rposition(|e| e.kind == "restart-requested");
        let last_started = why.journal.iter().rposition(|e| e.kind == "started");
        let seen = format!("{} in generation {last}", why.workspace.status);
        Ok((settled && last > first && last_started > last_asked, seen))
    };
    scene.must_soon("the workspace is online again", MENDS, settles).await?;
    let why = api.why(&id).await?;
    let cycles = why.workspace.generation - first;
    let seen = format!("{cycles} cycles for 20 requests");
    scene.must("requests coalesce: one at a time", (1..=2).contains(&cycles), seen)?;
    let alive = why.instances.iter().filter(|one| one.ended_at.is_none()).count();
    let running = stack.instances().len();
    let seen = format!("{alive} instance on record, {running} process");
    scene.must("exactly one instance is left", alive == 1 && running == 1, seen)?;
    let turn = api.client.send(&id, "are you there?", MENDS).await;
    let seen = if turn.is_ok() { "it answered a turn" } else { "it answered no turn" };
    scene.must("and it works", turn.is_ok(), seen)?;

    let path = format!("/admin/workspaces/{id}/revoke-auth-tokens");
    api.order(&path, json!({})).await?;
    scene.step("every credential of it was revoked");
    let thief = api.register(&id, NOWHERE, Some(&oldest), None).await?;
    let must = "an instance of an older generation is not let in by that";
    scene.must(must, thief.status == 401 && thief.token().is_none(), thief.brief())?;
    loser(scene, stack, &api).await
}

/// An agent whose credential ended while it started.
async fn loser(scene: &Scene, stack: &mut Stack, api: &Api) -> Outcome {
    let (id, token) = api.external("loser").await?;
    stack.deliver("loser", &token)?;
    let platform = stack.url().to_owned();
    stack.agent("loser", &id, &platform)?;
    let generation = api.online(scene, &id, 0).await?;
    stack.kill_agent("loser")?;
    api.order(&format!("/admin/workspaces/{id}/revoke-auth-tokens"), json!({})).await?;
    stack.agent("loser", &id, &platform)?;
    scene.step("an agent starts with a credential that was revoked a moment ago");
    let recovers = async || {
        let registered = api.entries(&id, "registered").await?;
        let why = api.why(&id).await?;
        let now = why.workspace.generation;
        let seen = format!("{} in generation {now}", why.workspace.status);
        let well = why.workspace.status == "online" && registered.len() > 1;
        Ok((well && now == generation && stack.credential("loser").as_ref() != Some(&token), seen))
    };
    let must = "it is enrolled again, in its own generation, with a new credential";
    scene.must_soon(must, MENDS, recovers).await?;
    let held = stack.credential("loser");
    let beat = api.heartbeat(&id, held.as_deref()).await?;
    scene.must("which works", beat.status == 200, beat.brief())
}

/// A credential is idle after this long, and a sweep looks at every start of the server.
const SWEEPS: &str = "stale_credential_seconds = 1\n";
/// With this no instance can be started.
const NO_AGENT: &str = "agent = [\"/nowhere/agent\"]\n";

pub(super) async fn sweeper_toctou(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve(&format!("{QUICK}{SWEEPS}")).await?;
    let id = api.managed("worker").await?;
    let first = api.online(scene, &id, 0).await?;
    let token = stack.credential_of(&id)?;
    scene.step(format!("a workspace is online in generation {first}"));
    stack.kill_server()?;
    let api = stack.serve(&format!("{QUICK}{SWEEPS}{NO_AGENT}")).await?;
    api.client.restart(&id).await?;
    let stands = async || {
        let why = api.why(&id).await?;
        let ended = why.instances.iter().all(|one| one.ended_at.is_some());
        Ok((why.workspace.status == "failed" && ended).then_some(()))
    };
    scene.until("its instance is stopped", stands).await?;
    scene.step("its restart stands between stop and start: the old instance ended, none can start");
    clock::pause(Duration::from_secs(2)).await;
    stack.kill_server()?;
    let api = stack.serve_again().await?;
    clock::pause(Duration::from_secs(1)).await;
    scene.step("its credential is idle, its backend has no instance, and a sweep looks");
    let beat = api.heartbeat(&id, Some(&token)).await?;
    let must = "the credential of the current generation is spared";
    scene.must(must, beat.status == 200, beat.brief())?;

    stack.kill_server()?;
    let api = stack.serve(&format!("{QUICK}{SWEEPS}")).await?;
    api.client.restart(&id).await?;
    let mut newest = first;
    for _ in 0..3 {
        let settles = async || {
            let (settled, why) = api.settled(&id).await?;
            let generation = why.workspace.generation;
            let seen = format!("{} in generation {generation}", why.workspace.status);
            Ok((settled && generation > newest, seen))
        };
        let must = "with sweeps all along, its restart comes to its end";
        scene.must_soon(must, MENDS, settles).await?;
        newest = api.why(&id).await?.workspace.generation;
        let process = api.process(&id, newest).await?;
        stack.signal_instance(process, rustix::process::Signal::KILL)?;
        stack.kill_server()?;
        stack.serve_again().await?;
    }
    let fresh = async || {
        let (settled, why) = api.settled(&id).await?;
        let held = stack.credential_of(&id)?;
        let beat = api.heartbeat(&id, Some(&held)).await?;
        let generation = why.workspace.generation;
        Ok((settled && generation > newest && beat.status == 200, beat.brief()))
    };
    scene.must_soon("the fresh credential works", MENDS, fresh).await
}

pub(super) async fn zombie_source(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve(&moving::settings("")).await?;
    let id = api.managed("worker").await?;
    let first = api.online(scene, &id, 0).await?;
    scene.step(format!("a workspace is online in generation {first}"));
    stack.deliver("zombie", &stack.credential_of(&id)?)?;
    let proxy = Proxy::before(stack.url()).await?;
    stack.managed_agent("zombie", &id, proxy.url())?;
    let beats = async || {
        let seen = proxy.seen();
        let beat = seen.iter().find(|s| s.path == "/registry/heartbeat" && s.status == Some(200));
        Ok(beat.is_some().then_some(()))
    };
    scene.until("the copy reports", beats).await?;
    scene.step("a copy of its instance runs where no stop reaches it");
    // It sleeps through the change, so that its first word after it is that of an old instance.
    stack.signal_agent("zombie", rustix::process::Signal::STOP)?;
    // A call that was under way when it stopped is not one of an old instance.
    clock::pause(Duration::from_millis(200)).await;
    let before = proxy.seen().len();
    api.client.restart(&id).await?;
    let second = api.online(scene, &id, first).await?;
    let url = api.why(&id).await?.workspace.url;
    scene.step(format!("the workspace was restarted: generation {second}"));
    stack.signal_agent("zombie", rustix::process::Signal::CONT)?;

    let ends = async || {
        let ended = stack.agent_ended("zombie")?;
        let seen = ended.map_or("it goes on".to_owned(), |code| format!("exit code {code}"));
        Ok((ended == Some(0), seen))
    };
    scene.must_soon("the old instance is told to end, and ends with code 0", MENDS, ends).await?;
    let after: Vec<_> = proxy.seen().split_off(before);
    let admitted = after.iter().filter(|seen| seen.status == Some(200)).count();
    let seen = format!("{} calls, {admitted} admitted", after.len());
    scene.must("not one call of it was admitted", admitted == 0 && !after.is_empty(), seen)?;
    clock::pause(Duration::from_secs(2)).await;
    let (settled, why) = api.settled(&id).await?;
    let generation = why.workspace.generation;
    let unchanged = settled && generation == second && why.workspace.url == url;
    let seen = format!("{} in generation {generation}", why.workspace.status);
    scene.must("it changed neither status nor address nor generation", unchanged, seen)?;
    let turn = api.client.send(&id, "who are you?", MENDS).await;
    let seen = if turn.is_ok() { "it answered a turn" } else { "it answered no turn" };
    scene.must("its successor works", turn.is_ok(), seen)?;

    let before = stack.credential_of(&id)?;
    api.order(&format!("/admin/workspaces/{id}/rotate"), json!({})).await?;
    let rotated = async || Ok((stack.credential_of(&id)? != before).then_some(()));
    scene.until("the successor rotates its credential", rotated).await?;
    scene.step("the successor took a new credential");
    let said = api.heartbeat(&id, Some(&before)).await?;
    let must = "whoever has its last one is not sent away: it is of the generation that serves";
    scene.must(must, said.status == 401 && said.text("action") != Some("exit"), said.brief())?;
    candidates::source_survives(scene, stack, &api).await?;
    candidates::target_survives(scene, stack, &api).await?;
    candidates::target_unborn(scene, stack).await
}
