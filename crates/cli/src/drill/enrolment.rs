//! Drills of how an agent takes up its identity.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::api::{Api, Said};
use super::candidates;
use super::moving;
use super::proxy::{Fault, Proxy};
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;

/// Beats every second: what takes minutes in life takes seconds here.
const QUICK: &str = "heartbeat_seconds = 1\n";
/// Ids of workspaces that nobody created.
const IDS: [&str; 3] = [
    "0d111000-0000-4000-8000-000000000001",
    "0d111000-0000-4000-8000-000000000002",
    "0d111000-0000-4000-8000-000000000003",
];
/// Where callers say that they answer. Nobody does.
const NOWHERE: &str = "http://localhost:9";
/// How long an agent may take until it is enrolled.
const ENROLS: Duration = Duration::from_secs(12);

/// A key long enough to count.
fn key(of: impl std::fmt::Display) -> String {
    format!("a-key-of-a-drill-for-caller-{of}")
}

/// The agent sends heartbeats that are accepted, with the credential that lies in its file.
async fn enrolled(scene: &Scene, stack: &Stack, proxy: &Proxy, agent: &str) -> Outcome {
    let must = format!("the agent `{agent}` is enrolled");
    scene
        .must_soon(&must, ENROLS, async || {
            let held = stack.credential(agent);
            let seen = proxy.seen();
            let beat = seen.iter().rev().find(|seen| seen.path == "/registry/heartbeat");
            let well = beat.is_some_and(|beat| beat.status == Some(200) && beat.bearer == held);
            let last = seen.last().map(|seen| format!("{} {:?}", seen.path, seen.status));
            Ok((well, format!("its last call: {}", last.unwrap_or_default())))
        })
        .await
}

async fn lost(scene: &Scene, proxy: &Proxy) -> Outcome {
    let met = async || {
        let met = proxy.seen().iter().any(|seen| seen.fault.is_some() && seen.status == Some(200));
        Ok(met.then_some(()))
    };
    scene.until("the network fails as it was told to", met).await
}

pub(super) async fn lost_register_reply(scene: &Scene, stack: &mut Stack) -> Outcome {
    stack.flag("--open-registration");
    let api = stack.serve(QUICK).await?;
    scene.step("a server that lets unknown workspaces enrol");

    let proxy = Proxy::before(stack.url()).await?;
    proxy.fault("/registry/register", Fault::LoseReply, 1);
    stack.agent("patient", IDS[0], proxy.url())?;
    lost(scene, &proxy).await?;
    scene.step("an agent registered, and the answer with its credential was lost");
    let stranger = api.register(IDS[0], NOWHERE, None, Some(&key("stranger"))).await?;
    scene.must("a stranger gains nothing by that", stranger.status == 401, stranger.brief())?;
    enrolled(scene, stack, &proxy, "patient").await?;
    let keys: Vec<Option<String>> = proxy
        .seen()
        .into_iter()
        .filter(|seen| seen.path == "/registry/register")
        .map(|seen| seen.key)
        .collect();
    let same = keys.len() > 1 && keys.iter().all(|key| key.is_some() && *key == keys[0]);
    scene.must("it asked again under the same key", same, format!("{} registers", keys.len()))?;

    let proxy = Proxy::before(stack.url()).await?;
    proxy.fault("/registry/register", Fault::LoseReply, 100);
    stack.agent("killed", IDS[1], proxy.url())?;
    lost(scene, &proxy).await?;
    stack.kill_agent("killed")?;
    let proxy = Proxy::before(stack.url()).await?;
    stack.agent("killed", IDS[1], proxy.url())?;
    scene.step("another lost every answer, was killed with -9, and started again");
    enrolled(scene, stack, &proxy, "killed").await?;

    let proxy = Proxy::before(stack.url()).await?;
    proxy.fault("/registry/register", Fault::Twice, 1);
    stack.agent("echoed", IDS[2], proxy.url())?;
    lost(scene, &proxy).await?;
    scene.step("a third got its answer, but the network delivered its register once more");
    enrolled(scene, stack, &proxy, "echoed").await?;
    for id in IDS {
        let why = api.why(id).await?;
        let generation = why.workspace.generation;
        let must = "nobody else was enrolled: it is still the first generation";
        scene.must(must, generation == 1, format!("generation {generation}"))?;
    }
    Ok(())
}

pub(super) async fn concurrent_bootstrap(scene: &Scene, stack: &mut Stack) -> Outcome {
    stack.flag("--open-registration");
    let api = stack.serve(QUICK).await?;
    scene.step("a server that lets unknown workspaces enrol");

    let keys: Vec<String> = (0..20).map(key).collect();
    let calls = keys.iter().map(|key| api.register(IDS[0], NOWHERE, None, Some(key)));
    let answers = try_join_all(calls).await?;
    scene.step("20 callers registered one unknown workspace at once");
    let (winners, losers): (Vec<&Said>, Vec<&Said>) =
        answers.iter().partition(|said| said.status == 200);
    let seen = format!("{} were let in", winners.len());
    scene.must("exactly one is let in", winners.len() == 1, seen)?;
    let winner = winners[0].token().unwrap_or_default();
    scene.must("it got a credential", !winner.is_empty(), "43 characters")?;
    let like_strangers = |said: &&Said| said.status == 401 && said.text("code").is_none();
    let must = "the others are told no more than any stranger";
    scene.must(must, losers.iter().all(like_strangers), losers[0].brief())?;
    let beat = api.heartbeat(IDS[0], Some(winner)).await?;
    scene.must("the winner's credential works", beat.status == 200, beat.brief())?;

    let names = ["one", "two", "three"];
    let mut proxies = Vec::new();
    for name in names {
        let proxy = Proxy::before(stack.url()).await?;
        stack.agent(name, IDS[1], proxy.url())?;
        proxies.push(proxy);
    }
    scene.step("three agents start as one and the same workspace");
    let beats = |proxy: &Proxy| {
        proxy.seen().iter().any(|s| s.path == "/registry/heartbeat" && s.status == Some(200))
    };
    let in_time = async || {
        let serving = proxies.iter().filter(|proxy| beats(proxy)).count();
        Ok((serving > 0, format!("{serving} of them report")))
    };
    scene.must_soon("one of them serves", ENROLS, in_time).await?;
    clock::pause(Duration::from_secs(3)).await;
    let serving = proxies.iter().filter(|proxy| beats(proxy)).count();
    scene.must("and only one", serving == 1, format!("{serving} after 3 s"))?;
    let generation = api.why(IDS[1]).await?.workspace.generation;
    let must = "the others changed nothing, however often they ask";
    scene.must(must, generation == 1, format!("generation {generation}"))
}

/// So many knocks a siege takes at least: fewer say nothing. One that was over sooner goes on until then.
const SIEGE: u32 = 4;

/// Callers without a credential, and with an invented one, for as long as `meanwhile` takes. Gives what it gave,
/// how often they knocked, and who was let in. A knock that was neither answered with yes nor with no is none.
pub(super) async fn besieged<T>(
    api: &Api,
    id: &str,
    meanwhile: impl Future<Output = Outcome<T>>,
) -> Outcome<(T, u32, Vec<Said>)> {
    let mut meanwhile = std::pin::pin!(meanwhile);
    let (mut knocks, mut admitted) = (0, Vec::new());
    let mut given = None;
    loop {
        if let Some(done) = given.take_if(|_| knocks >= SIEGE) {
            return Ok((done, knocks, admitted));
        }
        let invented = key(knocks);
        let round = async {
            let calls = [None, Some(invented.as_str())]
                .map(|bearer| api.register(id, NOWHERE, bearer, Some(&invented)));
            let said = try_join_all(calls).await?;
            clock::pause(Duration::from_millis(1)).await;
            Outcome::Ok(said)
        };
        tokio::select! {
            done = &mut meanwhile, if given.is_none() => given = Some(done?),
            said = round => {
                for said in said? {
                    match said.status {
                        _ if said.token().is_some() => admitted.push(said),
                        200 => admitted.push(said),
                        401 => {}
                        _ => {
                            let odd = anyhow::anyhow!("a knock was answered {}", said.brief());
                            return Err(odd.into());
                        }
                    }
                    knocks += 1;
                }
            }
        }
    }
}

pub(super) async fn stolen_id(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve(&moving::settings("")).await?;
    let (id, token) = api.external("outside").await?;
    scene.step("a workspace that runs elsewhere; its credential is on its way to its operator");
    let siege = besieged(&api, &id, async {
        clock::pause(Duration::from_millis(300)).await;
        Ok(())
    });
    let ((), knocks, admitted) = siege.await?;
    let seen = format!("{knocks} knocks, {} let in", admitted.len());
    scene.must("no stranger is quicker than its agent", admitted.is_empty(), seen)?;
    stack.deliver("outside", &token)?;
    let platform = stack.url().to_owned();
    stack.agent("outside", &id, &platform)?;
    let siege = besieged(&api, &id, api.online(scene, &id, 0));
    let (generation, knocks, admitted) = siege.await?;
    let seen = format!("{knocks} knocks, {} let in", admitted.len());
    scene.must("nor while that starts", admitted.is_empty(), seen)?;
    scene.must(
        "the agent has its workspace",
        generation == 1,
        format!("generation {generation}"),
    )?;

    let id = api.managed("inside").await?;
    let (generation, knocks, admitted) = besieged(&api, &id, api.online(scene, &id, 0)).await?;
    let seen = format!("{knocks} knocks, {} let in", admitted.len());
    scene.must("no stranger gets in while an instance starts", admitted.is_empty(), seen)?;
    api.client.restart(&id).await?;
    let (next, knocks, admitted) = besieged(&api, &id, api.online(scene, &id, generation)).await?;
    let seen = format!("{knocks} knocks, {} let in", admitted.len());
    scene.must("nor while it is replaced", admitted.is_empty(), seen)?;
    let url = api.why(&id).await?.workspace.url;
    let seen = format!("generation {next} at {url}");
    scene.must(
        "the workspace is where its instance is",
        next == generation + 1 && url != NOWHERE,
        seen,
    )?;
    candidates::raced(scene, &api, &id, NOWHERE).await
}

pub(super) async fn late_credential(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve(QUICK).await?;
    let names: Vec<String> = (1..=6).map(|number| format!("quick-{number}")).collect();
    let ids = try_join_all(names.iter().map(|name| api.managed(name))).await?;
    try_join_all(ids.iter().map(|id| prompt(scene, &api, id, 0))).await?;
    scene.step("six workspaces were created at once, and are online");
    for id in &ids {
        api.client.restart(id).await?;
    }
    try_join_all(ids.iter().map(|id| prompt(scene, &api, id, 1))).await?;
    scene.step("all six were restarted, and are online again");
    for (id, name) in ids.iter().zip(&names) {
        let journal = api.why(id).await?.journal;
        let place = |kind: &str, generation| {
            journal.iter().position(|e| e.kind == kind && e.generation == Some(generation))
        };
        let in_order = [1, 2].iter().all(|generation| {
            let planned = place("planned", *generation);
            let started = place("started", *generation);
            let registered = place("registered", *generation);
            planned.is_some() && planned < started && planned < registered
        });
        let must = format!("{name}: each credential was there before its instance was");
        scene.must(&must, in_order, "planned, then started and registered")?;
    }
    Ok(())
}

/// It comes online, and on the way nobody who should be let in is refused.
async fn prompt(scene: &Scene, api: &Api, id: &str, above: i64) -> Outcome {
    let until = clock::now().after(ENROLS);
    loop {
        let (settled, why) = api.settled(id).await?;
        let refused = why.journal.iter().find(|entry| entry.kind == "refused");
        if let Some(refused) = refused {
            return scene.must("no instance is refused", false, &refused.summary);
        }
        if settled && why.workspace.generation > above {
            return Ok(());
        }
        if clock::now() >= until {
            let seen = format!("{} is {}", why.workspace.name, why.workspace.status);
            return scene.must("every instance comes online in time", false, seen);
        }
        clock::pause(Duration::from_millis(50)).await;
    }
}
