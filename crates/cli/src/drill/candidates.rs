//! Acts of other drills in which a workspace moves: strangers at its door, and instances that survive their end.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::api::Api;
use super::enrolment::besieged;
use super::moving::{self, EAST, WEST};
use super::proxy::Proxy;
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::{clock, labels};

/// How long an instance that is told to end may take.
const ENDS: Duration = Duration::from_secs(15);
/// A call that is under way when its caller is stopped takes this long at most.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// A stranger races the target, which is let in by its passport alone.
pub(super) async fn raced(scene: &Scene, api: &Api, id: &str, nowhere: &str) -> Outcome {
    let before = api.why(id).await?.workspace;
    api.client.migrate(id, &moving::to(EAST)).await?;
    scene.step(format!("it goes to {EAST}, and strangers knock without pause"));
    let course = async {
        let (over, odd) = tokio::join!(
            moving::over(scene, api, id, "the migration comes to its end"),
            moving::watched(api, id, before.generation),
        );
        Outcome::Ok((over?, odd?))
    };
    let ((it, odd), knocks, admitted) = besieged(api, id, course).await?;
    let seen = format!("{knocks} knocks, {} let in", admitted.len());
    scene.must("no stranger gets in while it moves", admitted.is_empty(), seen)?;
    let must = "the target counts for nothing before the cut-over";
    let seen = odd.clone().unwrap_or_else(|| "the source, at every look".to_owned());
    scene.must(must, odd.is_none(), seen)?;
    moving::arrived(scene, api, &it, (before.generation, &before.url)).await?;
    let url = api.why(id).await?.workspace.url;
    scene.must("no stranger is where it is", url != nowhere, url.clone())
}

/// The source survives its stop, and goes on reporting after the cut-over.
pub(super) async fn source_survives(scene: &Scene, stack: &mut Stack, api: &Api) -> Outcome {
    let id = api.managed("traveller").await?;
    let first = api.online(scene, &id, 0).await?;
    let copied = stack.credential_at(WEST, &id)?;
    let proxy = shadow(scene, stack, "traveller", &id, &copied).await?;
    scene.step(format!("a copy of another workspace's instance sleeps, and that goes to {EAST}"));
    let before = proxy.seen().len();
    api.client.migrate(&id, &moving::to(EAST)).await?;
    let it = moving::over(scene, api, &id, "the migration comes to its end").await?;
    scene.must("it is migrated", it.state == "migrated", moving::told(&it))?;
    let second = api.online(scene, &id, first).await?;
    let url = api.why(&id).await?.workspace.url;
    stack.signal_agent("traveller", Signal::CONT)?;
    ends(scene, stack, "traveller", "the source that survived").await?;
    let after: Vec<_> = proxy.seen().split_off(before);
    let admitted = after.iter().filter(|seen| seen.status == Some(200)).count();
    let seen = format!("{} calls, {admitted} admitted", after.len());
    scene.must("not one call of it was admitted", admitted == 0 && !after.is_empty(), seen)?;
    let (settled, why) = api.settled(&id).await?;
    let unchanged = settled && why.workspace.generation == second && why.workspace.url == url;
    let seen = format!("generation {} at {}", why.workspace.generation, why.workspace.url);
    scene.must("it changed neither address nor generation", unchanged, seen)
}

/// The target of a migration that was rolled back survives its end.
pub(super) async fn target_survives(scene: &Scene, stack: &mut Stack, api: &Api) -> Outcome {
    let id = api.managed("homebody").await?;
    let first = api.online(scene, &id, 0).await?;
    // While this turn goes on the migration waits for it.
    api.enqueue(&id, "long", 4_000).await?;
    clock::pause(Duration::from_millis(300)).await;
    api.client.migrate(&id, &moving::to(EAST)).await?;
    moving::reached(scene, api, &id, "hold").await?;
    let copied = stack.credential_at(EAST, &id)?;
    let proxy = shadow(scene, stack, "homebody", &id, &copied).await?;
    scene.step("a copy of a migration's target sleeps, and the migration is aborted");
    let before = proxy.seen().len();
    api.order(&format!("/admin/workspaces/{id}/migrations/abort"), json!({})).await?;
    let it = moving::over(scene, api, &id, "the migration comes to its end").await?;
    scene.must("it is rolled back", it.state == "rolled-back", moving::told(&it))?;
    let said = api.heartbeat(&id, Some(&copied)).await?;
    let must = "what the target held opens nothing any more";
    scene.must(must, said.status == 401, said.brief())?;
    let said = api.register(&id, "http://localhost:9", Some(&copied), None).await?;
    scene.must("not even a register", said.status == 401, said.brief())?;
    stack.signal_agent("homebody", Signal::CONT)?;
    ends(scene, stack, "homebody", "the target that survived").await?;
    let after: Vec<_> = proxy.seen().split_off(before);
    let admitted = after.iter().filter(|seen| seen.status == Some(200)).count();
    let seen = format!("{} calls, {admitted} admitted", after.len());
    scene.must("not one call of it was admitted", admitted == 0, seen)?;
    let (_, why) = api.settled(&id).await?;
    let now = why.workspace.generation;
    scene.must("the source is current as before", now == first, format!("generation {now}"))
}

/// The passport of a target that had not registered when its migration was rolled back, and whose backend cannot be
/// asked to end it.
pub(super) async fn target_unborn(scene: &Scene, stack: &mut Stack) -> Outcome {
    stack.kill_server()?;
    let agent =
        moving::agent(&format!("case $HOME in */{EAST}/*) sleep 20;; esac"), &stack.program());
    let (url, token_file) = stack.provide(EAST).await?;
    let api = stack.serve(&moving::settings_apart(&agent, &url, &token_file)).await?;
    let id = api.managed("latecomer").await?;
    let first = api.online(scene, &id, 0).await?;
    let url = api.why(&id).await?.workspace.url;
    api.client.migrate(&id, &moving::to(EAST)).await?;
    let given = async || Ok(passport(stack, &id));
    let passport = scene.until("the target is started", given).await?;
    stack.provider.end();
    scene.step("a target is slow to start, its backend goes away, and its migration is aborted");
    api.order(&format!("/admin/workspaces/{id}/migrations/abort"), json!({})).await?;
    let turned = async || {
        let now = moving::newest(&api, &id).await?;
        Ok((now.state == "undoing").then_some(()))
    };
    scene.until("the migration is turned back", turned).await?;
    let key = Some("a-key-of-a-drill-for-an-old-passport");
    let said = api.register(&id, "http://localhost:9", Some(&passport), key).await?;
    let must = "the passport opens nothing any more, though its target runs on";
    scene.must(must, said.status == 401 && said.token().is_none(), said.brief())?;
    let now = api.why(&id).await?.workspace;
    let seen = format!("generation {} at {}", now.generation, now.url);
    scene.must(
        "the source is current as before",
        (now.generation, &now.url) == (first, &url),
        seen,
    )?;
    stack.provide(EAST).await?;
    let it = moving::over(scene, &api, &id, "the migration comes to its end").await?;
    moving::stayed(scene, &api, &it, (first, &url)).await?;
    scene
        .must_soon("the target ends once its backend is back", ENDS, async || {
            let left = labels::below(&stack.tree(EAST, &id)).len();
            Ok((left == 0, format!("{left} processes")))
        })
        .await
}

/// What the target's environment brings.
fn passport(stack: &Stack, id: &str) -> Option<String> {
    let started = labels::below(&stack.tree(EAST, id)).into_iter().next()?;
    let environment = std::fs::read(format!("/proc/{}/environ", started.id)).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let entry = entries.find_map(|entry| entry.strip_prefix(b"LIGAND_PASSPORT="))?;
    String::from_utf8(entry.to_vec()).ok()
}

/// A copy of an instance that has reported once, and was put to sleep where no stop reaches it.
async fn shadow(
    scene: &Scene,
    stack: &mut Stack,
    name: &str,
    id: &str,
    credential: &str,
) -> Outcome<Proxy> {
    stack.deliver(name, credential)?;
    let proxy = Proxy::before(stack.url()).await?;
    stack.managed_agent(name, id, proxy.url())?;
    let beats = async || {
        let seen = proxy.seen();
        let beat = seen.iter().find(|s| s.path == "/registry/heartbeat" && s.status == Some(200));
        Ok(beat.is_some().then_some(()))
    };
    scene.until("the copy reports", beats).await?;
    stack.signal_agent(name, Signal::STOP)?;
    clock::pause(UNDER_WAY).await;
    Ok(proxy)
}

async fn ends(scene: &Scene, stack: &mut Stack, name: &str, who: &str) -> Outcome {
    let must = format!("{who} is told to end, and ends with code 0");
    scene
        .must_soon(&must, ENDS, async || {
            let ended = stack.agent_ended(name)?;
            let seen = ended.map_or("it goes on".to_owned(), |code| format!("exit code {code}"));
            Ok((ended == Some(0), seen))
        })
        .await
}
