//! How soon a workspace is online again after its instance was killed. Instances are real: processes of this
//! program, run by the backend `process`, and containers of an engine where one is named; each killed with `kill -9`
//! and nothing said to anybody.

use std::net::SocketAddr;
use std::path::PathBuf;
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
use super::site::Place;
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

/// How long containers that were deleted may take to be gone.
const DELETED: Duration = Duration::from_secs(60);

/// Where the instances of a measurement are.
enum Instances {
    /// Processes of this directory's backend.
    Processes(PathBuf),
    /// Containers on this machine.
    Containers,
}

impl Instances {
    fn name(&self) -> &'static str {
        match self {
            Self::Processes(_) => "processes",
            Self::Containers => "containers of a Docker engine",
        }
    }

    /// The processes of one workspace's instance.
    fn of(&self, id: &str) -> Vec<labels::Labelled> {
        match self {
            Self::Processes(root) => labels::below(&root.join(id)),
            Self::Containers => labels::of_workspace(id),
        }
    }
}

/// A server and its instances, which end with it.
pub(super) struct Nest {
    server: Option<Process>,
    instances: Instances,
}

impl Nest {
    /// That of this server, whose instances live below this directory.
    pub(super) fn of(server: Process, instances: PathBuf) -> Self {
        Self { server: Some(server), instances: Instances::Processes(instances) }
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
        // Containers were deleted by the server before.
        let Instances::Processes(root) = &self.instances else { return };
        let begun = clock::instant();
        loop {
            let left = labels::below(root);
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
    let place = bench.site.on_sqlite()?;
    let (server, root) = place.start_with_instances("server").await?;
    let nest = Nest::of(server, root);
    let mut rows = vec![on(bench, &place, nest).await?];
    if let Some(socket) = bench.args.docker_socket.clone() {
        let place = bench.site.on_sqlite()?;
        let server = place.start_with_containers("server", &socket).await?;
        let nest = Nest { server: Some(server), instances: Instances::Containers };
        rows.push(on(bench, &place, nest).await?);
    }
    Ok(rows)
}

async fn on(bench: &mut Bench, place: &Place, nest: Nest) -> Result<Row> {
    let scenario = Scenario::Kills.name();
    let (count, callers, _) = bench.size(&SIZE);
    let each = KILLS[usize::from(bench.args.short())];
    let server = nest.server.as_ref().context("its server")?;
    let (address, admin, what) = (server.address(), place.admin(), nest.instances.name());
    bench.say(format!("{scenario}: {count} {what}"));
    let mut line = Line::to(address, admin.clone());
    let mut ids = Vec::with_capacity(count);
    for number in 0..count {
        ids.push(line.create(number).await?);
    }
    for id in &ids {
        ensure!(line.online(id, 0).await?.is_some(), "a workspace did not come online");
    }
    bench.say(format!("{scenario}: {} kills", count * each));
    let (all_ids, instances) = (ids.as_slice(), &nest.instances);
    let all = try_join_all((0..callers).map(|first| {
        let own = all_ids.iter().skip(first).step_by(callers);
        some(address, admin.clone(), own.collect(), (instances, each))
    }));
    let mut killed = Killed::default();
    for some in all.await? {
        killed.took.merge(&some.took);
        killed.lost += some.lost;
    }
    let resident = nest.resident()?;
    if matches!(nest.instances, Instances::Containers) {
        line.delete_all(&ids).await?;
    }
    let row = Row::new(scenario, "killed until online again").used(None, resident);
    let row = row.value(killed.took.count() as f64, "kills").took(&killed.took);
    let row = row.zero("not back", killed.lost);
    let half = row.p50_ms.is_some_and(|p50| p50 <= P50);
    let most = row.p99_ms.is_some_and(|p99| p99 <= P99);
    let row = row.require("p50 <= 1 s", bench.judged(), half);
    let row = row.require("p99 <= 3 s", bench.judged(), most);
    Ok(row.note(format!(
        "{count} workspaces on SQLite, instances are {what}; {callers} killed at a time, {each} times each"
    )))
}

/// Kills the instances of some workspaces, one after the other, and each again once all had their turn.
async fn some(
    address: SocketAddr,
    admin: String,
    ids: Vec<&String>,
    (instances, times): (&Instances, usize),
) -> Result<Killed> {
    let mut line = Line::to(address, admin);
    let mut killed = Killed::default();
    for _ in 0..times {
        for id in &ids {
            let before = line.stands(id).await?.generation;
            let found = instances.of(id);
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
        // Tier 2 is what an engine inside a container of its own can run, too.
        let body = format!(r#"{{"name":"scaletest {number}","tier":2}}"#);
        let ask = request("POST", "/workspaces", Some(&self.admin), &body);
        let answer = self.to.call(&ask).await.context("create a workspace")?;
        ensure!(answer.status == 201, "a create was answered {}", answer.status);
        Ok(serde_json::from_slice::<Created>(answer.body)?.id)
    }

    /// Delete all of them with their data, and wait until no instance is left.
    async fn delete_all(&mut self, ids: &[String]) -> Result<()> {
        for id in ids {
            let path = format!("/workspaces/{id}?confirm=true&purge=true");
            let ask = request("DELETE", &path, Some(&self.admin), "");
            let answer = self.to.call(&ask).await.context("delete a workspace")?;
            ensure!(answer.status == 200, "a delete was answered {}", answer.status);
        }
        let begun = clock::instant();
        while ids.iter().any(|id| !labels::of_workspace(id).is_empty()) {
            ensure!(
                begun.elapsed() < DELETED,
                "instances are left after their workspaces were deleted"
            );
            clock::pause(GONE / 50).await;
        }
        Ok(())
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
