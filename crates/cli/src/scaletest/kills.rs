//! How soon a workspace is online again after its instance was killed. Instances are real: processes of this
//! program, run by the backend `process`, each killed with `kill -9` and nothing said to anybody.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde::Deserialize;

use super::Bench;
use super::histogram::Histogram;
use super::http::{Connection, request};
use super::options::{Scenario, Size};
use super::process::Process;
use super::report::Row;
use crate::{clock, labels};

const SIZE: Size = Size { workspaces: [25, 3], connections: [1, 1], seconds: [1, 1] };
/// Kills of each workspace. More than ten within five minutes would be put off.
const KILLS: [usize; 2] = [8, 2];
/// What half of them may take at most, and what 99 of 100 may, in ms.
const P50: f64 = 1_000.0;
const P99: f64 = 3_000.0;
/// Whoever is not back by then does not come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a workspace is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);
/// How long instances that were killed at the end may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// A server and its instances, which end with it.
pub(super) struct Nest {
    server: Option<Process>,
    instances: PathBuf,
}

impl Nest {
    /// That of this server, whose instances live below this directory.
    pub(super) fn of(server: Process, instances: PathBuf) -> Self {
        Self { server: Some(server), instances }
    }

    /// Resident memory of the server.
    pub(super) fn resident(&self) -> Result<Option<u64>> {
        self.server.as_ref().map(Process::resident).transpose()
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // First whoever would replace what is killed next.
        self.server = None;
        let begun = clock::instant();
        loop {
            let left = labels::below(&self.instances);
            if left.is_empty() || begun.elapsed() > GONE {
                return;
            }
            labels::kill(&left);
            std::thread::sleep(LOOK);
        }
    }
}

/// How a workspace stands.
#[derive(Deserialize)]
struct Stands {
    status: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    url: String,
}

/// What came of some kills.
#[derive(Default)]
struct Killed {
    took: Histogram,
    lost: u64,
}

/// See the module.
pub(super) async fn kills(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Kills.name();
    let (count, callers, _) = bench.size(&SIZE);
    let each = KILLS[usize::from(bench.args.short())];
    let place = bench.site.on_sqlite()?;
    let (server, instances) = place.start_with_instances("server").await?;
    let (address, admin) = (server.address(), place.admin());
    let nest = Nest::of(server, instances);
    bench.say(format!("{scenario}: {count} instances"));
    let mut line = Line::to(address, admin.clone());
    let mut ids = Vec::with_capacity(count);
    for number in 0..count {
        ids.push(line.create(number).await?);
    }
    for id in &ids {
        ensure!(line.online(id, 0).await?.is_some(), "a workspace did not come online");
    }
    bench.say(format!("{scenario}: {} kills", count * each));
    let (ids, root) = (ids.as_slice(), nest.instances.as_path());
    let all = try_join_all((0..callers).map(|first| {
        let own = ids.iter().skip(first).step_by(callers);
        some(address, admin.clone(), own.collect(), (root, each))
    }));
    let mut killed = Killed::default();
    for some in all.await? {
        killed.took.merge(&some.took);
        killed.lost += some.lost;
    }
    let resident = nest.resident()?;
    let row = Row::new(scenario, "killed until online again").used(None, resident);
    let row = row.value(killed.took.count() as f64, "kills").took(&killed.took);
    let row = row.zero("not back", killed.lost);
    let half = row.p50_ms.is_some_and(|p50| p50 <= P50);
    let most = row.p99_ms.is_some_and(|p99| p99 <= P99);
    let row = row.require("p50 <= 1 s", bench.judged(), half);
    let row = row.require("p99 <= 3 s", bench.judged(), most);
    Ok(vec![row.note(format!(
        "{count} workspaces on SQLite, instances are processes; {callers} killed at a time, {each} times each"
    ))])
}

/// Kills the instances of some workspaces, one after the other, and each again once all had their turn.
async fn some(
    address: SocketAddr,
    admin: String,
    ids: Vec<&String>,
    (root, times): (&Path, usize),
) -> Result<Killed> {
    let mut line = Line::to(address, admin);
    let mut killed = Killed::default();
    for _ in 0..times {
        for id in &ids {
            let before = line.stands(id).await?.generation;
            let found = labels::below(&root.join(id));
            ensure!(!found.is_empty(), "there is no process of workspace {id}");
            let begun = clock::instant();
            labels::kill(&found);
            match line.online(id, before).await? {
                Some(()) => killed.took.add(begun.elapsed()),
                None => killed.lost += 1,
            }
        }
    }
    Ok(killed)
}

/// A way to the server.
pub(super) struct Line {
    to: Connection,
    admin: String,
}

impl Line {
    /// To this server, as its administrator.
    pub(super) fn to(address: SocketAddr, admin: String) -> Self {
        Self { to: Connection::to(address), admin }
    }

    /// Where the agent of a workspace answers.
    pub(super) async fn url(&mut self, id: &str) -> Result<String> {
        Ok(self.stands(id).await?.url)
    }

    /// A workspace of this number.
    pub(super) async fn create(&mut self, number: usize) -> Result<String> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        let body = format!(r#"{{"name":"scaletest {number}"}}"#);
        let ask = request("POST", "/workspaces", Some(&self.admin), &body);
        let answer = self.to.call(&ask).await.context("create a workspace")?;
        ensure!(answer.status == 201, "a create was answered {}", answer.status);
        Ok(serde_json::from_slice::<Created>(answer.body)?.id)
    }

    async fn stands(&mut self, id: &str) -> Result<Stands> {
        let ask = request("GET", &format!("/workspaces/{id}"), Some(&self.admin), "");
        let answer = self.to.call(&ask).await.context("look at a workspace")?;
        ensure!(answer.status == 200, "a look was answered {}", answer.status);
        Ok(serde_json::from_slice(answer.body)?)
    }

    /// Until it is online in a later generation; `None`: it takes too long.
    pub(super) async fn online(&mut self, id: &str, above: i64) -> Result<Option<()>> {
        let begun = clock::instant();
        while begun.elapsed() < PATIENCE {
            let stands = self.stands(id).await?;
            if stands.status == "online" && stands.generation > above {
                return Ok(Some(()));
            }
            clock::pause(LOOK).await;
        }
        Ok(None)
    }
}
