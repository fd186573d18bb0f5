//! Drills of silence.

use std::time::Duration;

use rustix::process::Signal;

use super::api::Api;
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;

/// A lease of three seconds.
const QUICK: &str = "heartbeat_seconds = 1\n";
/// Longer than that.
const AWAY: Duration = Duration::from_secs(5);
/// How long the platform may take to find out.
const FINDS: Duration = Duration::from_secs(20);

pub(super) async fn restart_blackout(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve(QUICK).await?;
    let mut ids = Vec::new();
    for name in ["one", "two", "three"] {
        ids.push(api.managed(name).await?);
    }
    let (outside, token) = api.external("outside").await?;
    stack.deliver("outside", &token)?;
    let platform = stack.url().to_owned();
    stack.agent("outside", &outside, &platform)?;
    let (away, token) = api.external("dies-away").await?;
    stack.deliver("dies-away", &token)?;
    stack.agent("dies-away", &away, &platform)?;
    let mut generations = Vec::new();
    for id in ids.iter().chain([&outside, &away]) {
        generations.push(api.online(scene, id, 0).await?);
    }
    scene.step("three managed and two external workspaces are online, with leases of 3 s");
    let dying = ids.remove(0);
    generations.remove(0);
    let process = api.process(&dying, 1).await?;

    stack.kill_server()?;
    stack.signal_instance(process, Signal::KILL)?;
    stack.kill_agent("dies-away")?;
    scene.step("kill -9 of the server, and, while it is away, of two agents");
    clock::pause(AWAY).await;
    let api = stack.serve_again().await?;
    scene.step(format!("{} s later the server is back", AWAY.as_secs()));

    let found = async || {
        let (settled, why) = api.settled(&dying).await?;
        let generation = why.workspace.generation;
        let seen = format!("{} in generation {generation}", why.workspace.status);
        Ok((settled && generation > 1, seen))
    };
    scene
        .must_soon("a managed agent that died meanwhile is found and replaced", FINDS, found)
        .await?;
    let found = async || {
        let status = api.why(&away).await?.workspace.status;
        Ok((status == "awaiting_agent", status))
    };
    scene.must_soon("an external one that died meanwhile is found", FINDS, found).await?;
    let survivors = ids.iter().chain([&outside]);
    for (id, generation) in survivors.zip(generations) {
        let why = api.why(id).await?;
        let silent = why.journal.iter().find(|e| e.kind == "silent" || e.kind == "lost");
        let name = &why.workspace.name;
        let seen = silent.map_or("no such entry in its journal", |entry| entry.summary.as_str());
        let must = format!("{name}: nobody who lives was taken for dead");
        scene.must(&must, silent.is_none(), seen)?;
        let must = format!("{name}: it is online, in the generation that it had");
        let now = why.workspace.generation;
        let well = why.workspace.status == "online" && now == generation;
        scene.must(&must, well, format!("{} in generation {now}", why.workspace.status))?;
    }
    Ok(())
}

/// How many there are, and how many of them vanish.
const FLEET: usize = 10;
const VANISH: usize = 8;
/// Longer than a lease and the minute after which a silent instance would be replaced.
const VANISHED: Duration = Duration::from_secs(68);

pub(super) async fn mass_silence(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve(QUICK).await?;
    let mut fleet = Vec::new();
    for number in 1..=FLEET {
        let id = api.managed(&format!("worker-{number}")).await?;
        let generation = api.online(scene, &id, 0).await?;
        let process = api.process(&id, generation).await?;
        fleet.push((id, generation, process));
    }
    scene.step(format!("{FLEET} workspaces are online, with leases of 3 s"));
    for (_, _, process) in &fleet[..VANISH] {
        stack.signal_instance(*process, Signal::STOP)?;
    }
    scene.step(format!("{VANISH} of them fall silent at once; their processes are there"));
    let noticed = async || {
        let offline = count(&api, &fleet, "offline").await?;
        Ok((offline == VANISH, format!("{offline} are offline")))
    };
    scene.must_soon("each silence is seen, and said", FINDS, noticed).await?;
    clock::pause(VANISHED).await;
    let replaced = replaced(&api, &fleet).await?;
    let seen = format!("{replaced} replaced after {} s", VANISHED.as_secs());
    scene.must("nothing is replaced on such a silence", replaced == 0, seen)?;
    let mut held = 0;
    for (id, ..) in &fleet {
        held += usize::from(!api.entries(id, "held").await?.is_empty());
    }
    scene.must("that replacement waits is said", held > 0, format!("{held} journals say so"))?;
    for (_, _, process) in &fleet[..VANISH] {
        stack.signal_instance(*process, Signal::CONT)?;
    }
    scene.step("they come back");
    let back = async || {
        let online = count(&api, &fleet, "online").await?;
        Ok((online == FLEET, format!("{online} are online")))
    };
    scene.must_soon("all are online again", FINDS, back).await?;
    let replaced = self::replaced(&api, &fleet).await?;
    scene.must("each as the instance that it was", replaced == 0, format!("{replaced} replaced"))
}

async fn count(api: &Api, fleet: &[(String, i64, u32)], status: &str) -> Outcome<usize> {
    let all = api.client.list().await?;
    let ours = |id: &str| fleet.iter().any(|(ours, ..)| ours == id);
    Ok(all.iter().filter(|one| ours(&one.id.to_string()) && one.status == status).count())
}

/// How many have, or are getting, another instance.
async fn replaced(api: &Api, fleet: &[(String, i64, u32)]) -> Outcome<usize> {
    let mut replaced = 0;
    for (id, generation, _) in fleet {
        let planned = api.entries(id, "planned").await?;
        replaced += usize::from(planned.iter().any(|entry| entry.generation > Some(*generation)));
    }
    Ok(replaced)
}
