//! How long a workspace serves no turn while it goes from one backend to another. Both backends are processes of this
//! machine, the agent is the built-in one, and a caller sends turns all the while: the longest that one of them waits is
//! the time. The program starts at once, so that nothing of it is its own start.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ligand_api::client::Client;
use ligand_api::migration::{Migrate, Migration};

use super::Bench;
use super::histogram::Histogram;
use super::kills::{Line, Nest};
use super::options::{Scenario, Size};
use super::report::Row;
use crate::caller::{Caller, To, Turn, effects};
use crate::clock;
use crate::migrate::picture::{MIGRATED, is_over};

const SIZE: Size = Size { workspaces: [20, 2], connections: [1, 1], seconds: [1, 1] };
/// Migrations of each workspace, to and fro.
const EACH: [usize; 2] = [5, 1];
/// What half of them may take at most, and what 99 of 100 may, in ms.
const P50: f64 = 500.0;
const P99: f64 = 2_000.0;
/// A turn is sent so often. More often than turns are answered one by one, and the time would be that of a queue.
const PACE: Duration = Duration::from_millis(50);
/// Turns before a migration begins, and after it is over.
const AROUND: Duration = Duration::from_millis(200);
/// Whoever is not over by then does not come to its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a migration is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Data of each workspace: so many files, and so large.
const FILES: usize = 64;
const FILE: usize = 16 << 10;
/// Both backends.
const BACKENDS: [&str; 2] = ["west", "east"];

/// What came of some migrations.
#[derive(Default)]
struct Moved {
    /// The longest that a turn waited, of each.
    waited: Histogram,
    /// What the server itself says, of each.
    told: Histogram,
    turns: u64,
    lost: u64,
    doubled: u64,
    rolled_back: u64,
    causes: Vec<String>,
}

/// See the module.
pub(super) async fn migrations(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Migrations.name();
    let (count, _, _) = bench.size(&SIZE);
    let each = EACH[usize::from(bench.args.short())];
    let place = bench.site.on_sqlite()?;
    let (server, data) = place.start_with_settings("server", &settings()?).await?;
    let (address, admin) = (server.address(), place.admin());
    let nest = Nest::of(server, data.clone());
    let url = format!("http://{address}");
    let client = Client::new(&url, Some(admin.clone())).context("make a client")?;
    let http = ligand_api::http::builder().map_err(|e| anyhow::anyhow!("{e}"))?;
    let http = http.no_proxy().tcp_nodelay(true).timeout(PATIENCE).build()?;
    let mut line = Line::to(address, admin.clone());
    let mut moved = Moved::default();
    for number in 0..count {
        bench.say(format!("{scenario}: {each} of workspace {} of {count}", number + 1));
        let id = line.create(number).await?;
        ensure!(line.online(&id, 0).await?.is_some(), "a workspace did not come online");
        fill(&data.join(BACKENDS[0]).join(&id))?;
        let to = To {
            http: http.clone(),
            url: format!("{url}/workspaces/{id}/a2a"),
            bearer: admin.clone(),
            lasts: 0,
        };
        for turn in 0..each {
            moved.one(&client, &to, &id, turn).await?;
        }
        moved.count(&data, &id).await?;
        client.delete(&id, true, true).await.context("delete a workspace")?;
    }
    let resident = nest.resident()?;
    Ok(vec![row(scenario, &moved, bench.judged()).used(None, resident)])
}

/// Both backends, and agents that count their turns.
fn settings() -> Result<String> {
    let own = std::env::current_exe().context("find this program's own file")?;
    let own = own.display().to_string();
    let words = ["/usr/bin/env", "LIGAND_ECHO_EFFECTS=effects", &own, "agent"];
    let words = words.map(|word| format!("{word:?}")).join(", ");
    let [west, east] = BACKENDS;
    Ok(format!(
        "backend = {west:?}\nagent = [{words}]\n\
         [backends.{west}]\nkind = \"process\"\n\
         [backends.{east}]\nkind = \"process\"\nuid_base = 300000\n"
    ))
}

fn fill(tree: &Path) -> Result<()> {
    let directory: PathBuf = tree.join("workspace/data");
    fs::create_dir_all(&directory).context("make room for its data")?;
    for number in 0..FILES {
        let content = [number as u8; FILE];
        fs::write(directory.join(number.to_string()), content).context("write its data")?;
    }
    Ok(())
}

fn row(scenario: &'static str, moved: &Moved, judged: bool) -> Row {
    let row = Row::new(scenario, "no turn served while it moves");
    let row = row.value(moved.waited.count() as f64, "migrations").took(&moved.waited);
    let row = row.zero("turns lost", moved.lost).zero("turns doubled", moved.doubled);
    let row = row.zero("rolled back", moved.rolled_back);
    let half = row.p50_ms.is_some_and(|p50| p50 <= P50);
    let most = row.p99_ms.is_some_and(|p99| p99 <= P99);
    let row = row.require("p50 <= 500 ms", judged, half);
    let mut row = row.require("p99 <= 2 s", judged, most);
    for cause in &moved.causes {
        row = row.note(cause.clone());
    }
    let at = |share| moved.told.percentile(share).unwrap_or_default();
    row.note(format!(
        "{} turns, one every {} ms; by the server from hold to release: p50 {:.0} ms, p99 {:.0} ms; \
         {} KiB of data each, two backends of processes, SQLite",
        moved.turns,
        PACE.as_millis(),
        at(0.5),
        at(0.99),
        FILES * FILE / 1024,
    ))
}

impl Moved {
    /// One migration, to the other backend, with turns all the while.
    async fn one(&mut self, client: &Client, to: &To, id: &str, number: usize) -> Result<()> {
        let caller = Caller::begin(to.clone(), format!("turn-{number}"), PACE);
        clock::pause(AROUND).await;
        let target = BACKENDS[(number + 1) % 2].to_owned();
        let body = Migrate { to: target, grace_seconds: Some(0), reason: None };
        client.migrate(id, &body).await.context("begin a migration")?;
        let it = over(client, id).await?;
        clock::pause(AROUND).await;
        let turns = caller.end().await?;
        if it.state == MIGRATED {
            self.waited.add(turns.iter().map(|turn| turn.took).max().unwrap_or_default());
        } else {
            self.rolled_back += 1;
            self.causes.push(it.cause.unwrap_or(it.state));
        }
        if let Some(millis) = it.without_service_ms {
            self.told.add(Duration::from_millis(millis));
        }
        self.turns += turns.len() as u64;
        for turn in &turns {
            self.lost += u64::from(!answered(client, turn).await?);
        }
        Ok(())
    }

    /// What ran, by what the agents wrote down.
    async fn count(&mut self, data: &Path, id: &str) -> Result<()> {
        let tree = BACKENDS.map(|name| data.join(name).join(id));
        let found = tree.iter().find(|tree| tree.join("workspace/effects").exists());
        let ran = effects(&found.context("find its data")?.join("workspace/effects"));
        let own = ran.iter().filter(|(name, _)| name.starts_with("turn-"));
        self.doubled += own.filter(|(_, times)| **times > 1).count() as u64;
        Ok(())
    }
}

/// Whether a turn has its answer, at once or later.
async fn answered(client: &Client, turn: &Turn) -> Result<bool> {
    let Some(queued) = &turn.queued else {
        return Ok(turn.unanswered.is_none() && !turn.interrupted);
    };
    let begun = clock::instant();
    loop {
        let now = client.message(queued).await.context("look at a message")?;
        if !["accepted", "delivering"].contains(&now.state.as_str()) {
            return Ok(now.state == "processed");
        }
        if begun.elapsed() > PATIENCE {
            return Ok(false);
        }
        clock::pause(LOOK).await;
    }
}

async fn over(client: &Client, id: &str) -> Result<Migration> {
    let begun = clock::instant();
    loop {
        let all = client.migrations_of(id).await.context("look at a migration")?.migrations;
        let it = all.into_iter().next().context("there is no migration")?;
        if is_over(&it) {
            return Ok(it);
        }
        ensure!(begun.elapsed() < PATIENCE, "a migration is not over: {} {}", it.state, it.phase);
        clock::pause(LOOK).await;
    }
}
