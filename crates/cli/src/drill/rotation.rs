//! Drills of credentials that change under a running agent.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use super::api::Api;
use super::proxy::{Fault, Proxy, Seen};
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;

/// Beats every second: what takes minutes in life takes seconds here.
const QUICK: &str = "heartbeat_seconds = 1\n";
/// How long the agent may take to set something right.
const MENDS: Duration = Duration::from_secs(12);
/// Name of the agent in these drills.
const AGENT: &str = "outside";
const BEAT: &str = "/registry/heartbeat";

/// An agent that runs elsewhere, behind a network that can fail, and its first credential.
async fn outside(scene: &Scene, stack: &mut Stack) -> Outcome<(Api, String, Proxy, String)> {
    let api = stack.serve(QUICK).await?;
    let (id, token) = api.external(AGENT).await?;
    let proxy = Proxy::before(stack.url()).await?;
    stack.deliver(AGENT, &token)?;
    stack.agent(AGENT, &id, proxy.url())?;
    api.online(scene, &id, 0).await?;
    scene.until("it reports", async || Ok(beats(&proxy, &token).then_some(()))).await?;
    scene.step("an agent that runs elsewhere is online, with the credential that it was given");
    Ok((api, id, proxy, token))
}

/// Whether the last heartbeat that the platform answered was accepted, with this credential.
fn beats(proxy: &Proxy, token: &str) -> bool {
    let seen = proxy.seen();
    let last = seen.iter().rev().find(|seen| seen.path == BEAT && seen.status.is_some());
    last.is_some_and(|seen| seen.status == Some(200) && seen.bearer.as_deref() == Some(token))
}

fn last_call(proxy: &Proxy) -> String {
    let last = proxy.seen().pop().map(|seen| format!("{} {:?}", seen.path, seen.status));
    format!("its last call: {}", last.unwrap_or_default())
}

/// Order rotations; gives the newest serial.
async fn order(api: &Api, id: &str, times: u32) -> Outcome<i64> {
    let mut serial = 0;
    for _ in 0..times {
        let said = api.order(&format!("/admin/workspaces/{id}/rotate"), json!({})).await?;
        serial = said.body["serial"].as_i64().context("an order without a serial")?;
    }
    Ok(serial)
}

/// The agent reports with what lies in its file, and that is not `old`.
async fn renewed(scene: &Scene, must: &str, stack: &Stack, proxy: &Proxy, old: &str) -> Outcome {
    let probe = async || {
        let held = stack.credential(AGENT).unwrap_or_default();
        Ok((held != old && beats(proxy, &held), last_call(proxy)))
    };
    scene.must_soon(must, MENDS, probe).await
}

pub(super) async fn rotation_race(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (api, id, proxy, old) = outside(scene, stack).await?;
    let said = api.order(&format!("/workspaces/{id}/external/rotate"), json!({})).await?;
    let new = said.token().context("a rotation without a credential")?.to_owned();
    scene.step("its credential was replaced; the new one is still on its way");
    let refused = async || {
        let refused = proxy.seen().iter().any(|s| s.path == BEAT && s.status == Some(401));
        Ok(refused.then_some(()))
    };
    scene.until("the old credential is refused", refused).await?;
    let before = proxy.seen().len();
    clock::pause(Duration::from_secs(3)).await;
    let asked = proxy.seen().len() - before;
    let must = "refused, it neither gives up nor hammers";
    let ended = stack.agent_ended(AGENT)?;
    let seen = format!("{asked} calls in 3 s");
    scene.must(must, ended.is_none() && (1..=12).contains(&asked), seen)?;
    stack.deliver(AGENT, &new)?;
    scene.step("the new credential is written, late, while the agent has the old one in memory");
    let takes = async || Ok((beats(&proxy, &new), last_call(&proxy)));
    scene.must_soon("it reads the file again and goes on", MENDS, takes).await?;
    let seen: Vec<Seen> = proxy.seen();
    let first = seen.iter().position(|s| s.bearer.as_deref() == Some(new.as_str()));
    let accepted = first.and_then(|at| seen[at].status) == Some(200);
    scene.must("its first call with it is accepted", accepted, "200")?;

    let proxy = Proxy::before(stack.url()).await?;
    proxy.fault_after("/registry/rotate", BEAT, Fault::LoseReply, 1000);
    stack.agent(AGENT, &id, proxy.url())?;
    api.online(scene, &id, 0).await?;
    order(&api, &id, 1).await?;
    let used = async || {
        let lost = |seen: &Seen| seen.fault == Some(Fault::LoseReply) && seen.status == Some(200);
        let fresh = |seen: &Seen| seen.bearer.as_deref() != Some(new.as_str());
        Ok(proxy.seen().iter().any(|seen| lost(seen) && fresh(seen)).then_some(()))
    };
    scene.until("the rotated credential is used", used).await?;
    stack.kill_agent(AGENT)?;
    scene.step("it rotated by itself; kill -9 at the first use, whose answer was lost");
    let beat = api.heartbeat(&id, Some(&new)).await?;
    scene.must("that use retired the old credential", beat.status == 401, beat.brief())?;
    let proxy = Proxy::before(stack.url()).await?;
    stack.agent(AGENT, &id, proxy.url())?;
    renewed(scene, "started again, it finds one that works", stack, &proxy, &new).await?;
    let _ = old;
    Ok(())
}

pub(super) async fn rotation_unwritable(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (api, id, proxy, old) = outside(scene, stack).await?;
    // Root may write anywhere, so rights would not do: something stands where each new file would be.
    let dir = stack.configs(AGENT);
    let blocks = [".auth_token.next.new", ".auth_token.new"].map(|name| dir.join(name));
    for block in &blocks {
        fs::create_dir(block).context("make its directory unwritable")?;
    }
    scene.step("its directory takes no new file any more");
    order(&api, &id, 1).await?;
    let failed = async || {
        let failed = api.entries(&id, "rotation-failed").await?;
        Ok((!failed.is_empty(), format!("{} entries in its journal", failed.len())))
    };
    scene.must_soon("the failure is shown", MENDS, failed).await?;
    let status = api.why(&id).await?.workspace.status;
    let works = beats(&proxy, &old) && status == "online";
    scene.must(
        "the old credential stays in use",
        works,
        format!("{status}, {}", last_call(&proxy)),
    )?;
    for _ in 0..2 {
        stack.kill_agent(AGENT)?;
        stack.agent(AGENT, &id, proxy.url())?;
        let before = proxy.seen().len();
        let again = async || {
            let seen = proxy.seen().split_off(before);
            let beat = seen.iter().any(|s| s.path == BEAT && s.status == Some(200));
            Ok((beat, last_call(&proxy)))
        };
        scene.must_soon("killed and started again, it finds one that works", MENDS, again).await?;
        clock::pause(Duration::from_millis(700)).await;
    }
    for block in &blocks {
        fs::remove_dir(block).context("make its directory writable")?;
    }
    scene.step("its directory is writable again");
    // After failures it passes over some orders, a few beats' worth.
    renewed(scene, "then the rotation comes to its end", stack, &proxy, &old).await?;
    let beat = api.heartbeat(&id, Some(&old)).await?;
    scene.must("and the old credential is retired", beat.status == 401, beat.brief())
}

pub(super) async fn rotation_backlog(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (api, id, proxy, old) = outside(scene, stack).await?;
    stack.signal_agent(AGENT, Signal::STOP)?;
    let newest = order(&api, &id, 3).await?;
    scene.step("three rotations were ordered while the agent was held still");
    for serial in 1..newest {
        let body = json!({"workspace_id": id, "serial": serial});
        let path = "/registry/rotate";
        let said = api.call(Method::POST, path, Some(&old), None, &body).await?;
        let must = "an older order is not answered";
        scene.must(must, said.status != 200 && said.token().is_none(), said.brief())?;
    }
    stack.signal_agent(AGENT, Signal::CONT)?;
    renewed(scene, "back again, it takes a new credential", stack, &proxy, &old).await?;
    let asked = proxy.seen().iter().filter(|seen| seen.path == "/registry/rotate").count();
    scene.must("one rotation serves all three orders", asked == 1, format!("{asked} asked for"))?;
    clock::pause(Duration::from_millis(2500)).await;
    let held = stack.credential(AGENT).unwrap_or_default();
    let asked = proxy.seen().iter().filter(|seen| seen.path == "/registry/rotate").count();
    let rests = beats(&proxy, &held) && asked == 1;
    scene.must("then it rests on that one", rests, format!("{asked} after 2.5 s more"))?;
    let refused = proxy.seen().iter().filter(|seen| seen.status == Some(401)).count();
    scene.must("it was refused not once", refused == 0, format!("{refused} refusals"))?;
    let beat = api.heartbeat(&id, Some(&old)).await?;
    scene.must("nobody gets in with the old one", beat.status == 401, beat.brief())
}
