//! Messages that are accepted without waiting for their answer, beside rows that are inserted one by one. Nobody
//! takes the messages: what is measured is how fast they are on the disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use uuid::Uuid;

use super::Bench;
use super::agents::{self, Agent};
use super::http::Connection;
use super::load::{Outcome, together};
use super::options::{Scenario, Size};
use super::process::Process;
use super::report::Row;
use super::store::{Inserts, durability};
use crate::clock;

/// Turns that load and baseline take.
const TURNS: u32 = 3;
const SIZE: Size = Size { workspaces: [1_000, 20], connections: [32, 8], seconds: [15, 1] };
/// What is required beside the raw inserts.
const TIMES_RAW: f64 = 1.0;

/// See the module: on SQLite, and on PostgreSQL where there is one.
pub(super) async fn enqueue(bench: &mut Bench) -> Result<Vec<Row>> {
    let callers = bench.size(&SIZE).1;
    let place = bench.site.on_sqlite()?;
    let server = place.start("server", None).await?;
    let raw = Inserts::on_sqlite(&bench.site.database(), callers).await?;
    let row = measure(bench, "on SQLite", &server, &place.admin(), raw).await?;
    drop(server);
    let Some(url) = bench.site.postgres().map(str::to_owned) else {
        return Ok(vec![row.note("with --database-url it is measured on PostgreSQL too")]);
    };
    let place = bench.site.on_postgres(&url).await?;
    let server = place.start("server", None).await?;
    let raw = Inserts::on_postgres(&bench.site.schema(&url).await?, callers).await?;
    let other = measure(bench, "on PostgreSQL", &server, &place.admin(), raw).await?;
    Ok(vec![row, other.note(format!("the database: {}", durability(&url).await?))])
}

async fn measure(
    bench: &mut Bench,
    engine: &str,
    server: &Process,
    admin: &str,
    raw: Inserts,
) -> Result<Row> {
    let scenario = Scenario::Enqueue.name();
    let (count, connections, lasts) = bench.size(&SIZE);
    bench.say(format!("{scenario}: enrolling {count} agents"));
    let enrolled = agents::enrol(server.address(), 0, count, agents::ENROLLING).await?;
    let agents = Arc::new(enrolled.agents);
    let body = body(Uuid::nil());
    let (mut ours, mut beside, mut cores) = (Outcome::default(), 0.0, 0.0);
    for turn in 1..=TURNS {
        bench.say(format!("{scenario} {engine}: turn {turn} of {TURNS}"));
        beside += raw.closed(&body, lasts / TURNS).await? / f64::from(TURNS);
        let before = server.cpu()?;
        let load = closed(server.address(), &agents, admin, connections, lasts / TURNS);
        let outcome = load.await?;
        cores += (server.cpu()? - before) / outcome.lasted.as_secs_f64() / f64::from(TURNS);
        ours.merge(&outcome);
        ours.lasted += outcome.lasted;
    }
    raw.close().await;
    let row = Row::new(scenario, format!("messages accepted, {engine}"));
    let row = row.value(ours.rate(), "/s").beside("raw", beside).took(&ours.took);
    let row = row.used(Some(cores), Some(server.resident()?));
    let row = row.zero("refused or failed", ours.refused + ours.failed);
    let holds = row.ratio.unwrap_or_default() >= TIMES_RAW;
    let row = row.require("ratio >= 1.0", bench.judged(), holds);
    Ok(row.note(format!(
        "{engine}: {count} workspaces, {connections} connections; each message is on the disk when its 202 comes"
    )))
}

/// Each connection sends its next message when the last is accepted.
async fn closed(
    address: SocketAddr,
    agents: &Arc<Vec<Agent>>,
    admin: &str,
    connections: usize,
    lasts: Duration,
) -> Result<Outcome> {
    let until = clock::instant() + lasts;
    let of =
        |first| caller(address, Arc::clone(agents), admin.to_owned(), (first, connections), until);
    together(connections, of).await
}

async fn caller(
    address: SocketAddr,
    agents: Arc<Vec<Agent>>,
    admin: String,
    (first, step): (usize, usize),
    until: Instant,
) -> Outcome {
    let (mut connection, mut outcome) = (Connection::to(address), Outcome::default());
    let mut at = first % agents.len();
    while clock::instant() < until {
        let said = request(agents[at].id, &admin);
        let begun = clock::instant();
        match connection.call(&said).await.map(|answer| answer.status) {
            Ok(202) => {
                outcome.accepted += 1;
                outcome.took.add(begun.elapsed());
            }
            Ok(_) => outcome.refused += 1,
            Err(_) => outcome.failed += 1,
        }
        at = (at + step) % agents.len();
    }
    outcome
}

fn body(name: Uuid) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"message/send","params":{{"message":{{"kind":"message","messageId":"{name}","role":"user","parts":[{{"kind":"text","text":"What is there to do today? Look at the calendar and tell."}}]}}}}}}"#
    )
}

fn request(to: Uuid, admin: &str) -> Vec<u8> {
    let body = body(agents::fresh());
    let length = body.len();
    format!(
        "POST /workspaces/{to}/a2a HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {admin}\r\nprefer: respond-async\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
