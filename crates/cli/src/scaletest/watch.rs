//! Many watch one stream: whether each gets all of it, and how soon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::Bench;
use super::agents::{self, Agent};
use super::histogram::Histogram;
use super::http::{Connection, request};
use super::options::{Scenario, Size};
use super::process::own_cpu;
use super::report::Row;
use crate::clock;
use crate::tap::{Tap, Way};

/// Agents that cause events, and watchers.
const SIZE: Size = Size { workspaces: [16, 4], connections: [200, 8], seconds: [20, 1] };
/// Events a second: in full, and in the short form.
const PACE: [f64; 2] = [500.0, 50.0];
/// Share of them that must have been caused for the load to count.
const CAUSED: f64 = 0.98;
/// The longest that 99 of 100 deliveries may take, in ms.
const P99: f64 = 250.0;
/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stands before the numbers in a card.
const MARK: &[u8] = b"scaletest ";

/// What all take part in.
struct Field {
    server: SocketAddr,
    token: String,
    begun: Instant,
    /// How many events each agent caused.
    caused: Vec<AtomicU64>,
    done: AtomicBool,
}

/// What came to a watcher.
#[derive(Default)]
struct Came {
    took: Histogram,
    /// Events that did not come, and of which nothing was said.
    missing: u64,
    /// Times that it was told that something may be missing.
    told: u64,
}

/// See the module.
pub(super) async fn watch(bench: &mut Bench) -> Result<Vec<Row>> {
    let scenario = Scenario::Watch.name();
    let (count, watchers, lasts) = bench.size(&SIZE);
    let pace = PACE[usize::from(bench.args.short())];
    let (place, engine) = match bench.site.postgres().map(str::to_owned) {
        Some(url) => (bench.site.on_postgres(&url).await?, "PostgreSQL"),
        None => (bench.site.on_sqlite()?, "SQLite"),
    };
    let server = place.start("server", None).await?;
    let address = server.address();
    let agents = agents::enrol(address, 0, count, agents::ENROLLING).await?.agents;
    let caused = agents.iter().map(|_| AtomicU64::new(0)).collect();
    let (token, done) = (place.admin(), AtomicBool::new(false));
    let begun = clock::instant();
    let field = Arc::new(Field { server: address, token, begun, caused, done });
    bench.say(format!("{scenario}: {watchers} watchers"));
    let mut watching = JoinSet::new();
    for number in 0..watchers {
        let way = if number % 2 == 0 { Way::Stream } else { Way::Socket };
        let tap = Tap::open(address, way, None, &field.token).await.context("watch")?;
        watching.spawn(follow(Arc::clone(&field), tap));
    }
    bench.say(format!("{scenario}: {pace} events a second"));
    let (cpu, own, from) = (server.cpu()?, own_cpu()?, clock::instant());
    let mut causing = JoinSet::new();
    for (number, agent) in agents.into_iter().enumerate() {
        let every = Duration::from_secs_f64(count as f64 / pace);
        causing.spawn(cause(Arc::clone(&field), agent, number, (every, lasts)));
    }
    while let Some(ended) = causing.join_next().await {
        ended.context("an agent ended early")??;
    }
    let ran = from.elapsed().as_secs_f64();
    let (cpu, own) = ((server.cpu()? - cpu) / ran, (own_cpu()? - own) / ran);
    field.done.store(true, Ordering::SeqCst);
    let mut all = Came::default();
    while let Some(ended) = watching.join_next().await {
        let came = ended.context("a watcher ended early")?;
        all.took.merge(&came.took);
        all.missing += came.missing;
        all.told += came.told;
    }
    let events: u64 = field.caused.iter().map(|count| count.load(Ordering::SeqCst)).sum();
    let rate = events as f64 / ran;
    let row =
        Row::new(scenario, "events on one stream, from the call that causes one to a watcher");
    let row = row.value(rate, "/s").took(&all.took).used(Some(cpu), Some(server.resident()?));
    let row = row.zero("missed without a word", all.missing);
    let (soon, enough) = (row.p99_ms.is_some_and(|p99| p99 <= P99), rate >= pace * CAUSED);
    let row = row.require("500 /s", bench.judged(), enough);
    let row = row.require("p99 <= 250 ms", bench.judged(), soon);
    let came = all.took.count();
    Ok(vec![row.note(format!(
        "{watchers} watchers, half over WebSockets; {came} deliveries, {} gaps told; {count} agents, {engine}; the load generator took {own:.2} cores",
        all.told
    ))])
}

/// Updates a card again and again, at its pace.
async fn cause(
    field: Arc<Field>,
    agent: Agent,
    number: usize,
    (every, lasts): (Duration, Duration),
) -> Result<()> {
    let mut connection = Connection::to(field.server);
    let begun = clock::instant();
    for next in 0_u32.. {
        let due = every * next + every.mul_f64(number as f64 / field.caused.len() as f64);
        if due >= lasts {
            return Ok(());
        }
        clock::pause(due.saturating_sub(begun.elapsed())).await;
        let at = field.begun.elapsed().as_micros();
        let body = format!(
            r#"{{"workspace_id":"{}","agent_card":{{"name":"scaletest {number} {next} {at}"}}}}"#,
            agent.id
        );
        let ask = request("POST", "/registry/update-card", Some(&agent.token), &body);
        let answer = connection.call(&ask).await.context("update a card")?;
        ensure!(answer.status == 200, "an update of a card was answered {}", answer.status);
        field.caused[number].fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Watches until everything that was caused has come, or comes no more.
async fn follow(field: Arc<Field>, mut tap: Tap) -> Came {
    let mut came = Came::default();
    let mut next = vec![0_u64; field.caused.len()];
    let mut quiet = clock::instant();
    loop {
        let mut doubtful = false;
        let read = tap.read(|event| {
            if let Some((agent, number, at)) = numbers(event) {
                let now = u64::try_from(field.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                came.took.add(Duration::from_micros(now.saturating_sub(at)));
                let Some(expected) = next.get_mut(agent) else { return };
                let missing = number.saturating_sub(*expected);
                came.missing += if doubtful { 0 } else { missing };
                *expected = number + 1;
            } else if contains(event, b"\"STREAM_GAP\"") {
                came.told += 1;
                doubtful = true;
            }
        });
        let read = tokio::time::timeout(Duration::from_millis(200), read).await;
        let done = field.done.load(Ordering::SeqCst);
        match read {
            Ok(Ok(())) => quiet = clock::instant(),
            // Its connection ended, which is as good as a word.
            Ok(Err(_)) => return Came { told: came.told + 1, ..came },
            Err(_) => {}
        }
        let counts = field.caused.iter().map(|count| count.load(Ordering::SeqCst));
        let left: u64 = counts.zip(&next).map(|(count, next)| count.saturating_sub(*next)).sum();
        if done && (left == 0 || quiet.elapsed() >= PATIENCE) {
            came.missing += left;
            return came;
        }
    }
}

/// Agent, number and time of an event that was caused here.
fn numbers(event: &[u8]) -> Option<(usize, u64, u64)> {
    let at = event.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let rest = &event[at..];
    let end = rest.iter().position(|byte| *byte == b'"')?;
    let mut parts = std::str::from_utf8(&rest[..end]).ok()?.split(' ');
    let (agent, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((agent, number, parts.next()?.parse().ok()?))
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_ours_is_known_by_its_card() {
        let event = br#"{"event":"AGENT_CARD_UPDATED","payload":{"agent_card":{"name":"scaletest 3 14 15926"}}}"#;
        assert_eq!(numbers(event), Some((3, 14, 15926)));
        for other in ["", r#"{"name":"scaletest"}"#, r#"{"name":"scaletest 1 2"}"#] {
            assert_eq!(numbers(other.as_bytes()), None, "{other}");
        }
    }
}
