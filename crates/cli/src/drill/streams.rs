//! Drills of those who watch.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{join, join_all};
use ligand_api::journal::Event;
use reqwest::Method;
use serde_json::json;

use super::api::Api;
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;
use crate::tap::{Tap, Way};

/// Events that every watcher is to have.
const EVENTS: u64 = 400;
/// The server dies when so many were caused.
const HALF: u64 = EVENTS / 2;
/// Between two events.
const EVERY: Duration = Duration::from_millis(5);
/// Where nobody answers.
const NOWHERE: &str = "http://localhost:9";

/// What is going on.
#[derive(Default)]
struct Course {
    caused: Cell<u64>,
    /// Watchers that have all, or saw a gap that nobody told them of.
    ended: Cell<usize>,
}

/// What one watcher had.
#[derive(Default)]
struct Had {
    last: u64,
    cuts: u32,
    told: u32,
    /// The first event that it missed without being told.
    missed: Option<u64>,
}

pub(super) async fn event_gap(scene: &Scene, stack: &mut Stack) -> Outcome {
    let api = stack.serve("").await?;
    let (id, token) = api.external("busy").await?;
    let said = api.register(&id, NOWHERE, Some(&token), None).await?;
    if said.status != 200 {
        return Err(anyhow::anyhow!("a register was answered {}", said.brief()).into());
    }
    let server = stack.url().trim_start_matches("http://").parse().context("read its address")?;
    let admin = api.admin().to_owned();
    let course = Course::default();
    let ways = [Way::Stream, Way::Socket, Way::Stream, Way::Socket];
    scene.step("four watch, two of them over WebSockets; each is cut off after every few events");
    let watching =
        (1_u32..).zip(ways).map(|(number, way)| watch(server, way, &admin, number, &course));
    let causing = async {
        cause(&api, &id, &token, &course, |caused| caused >= HALF).await?;
        stack.kill_server()?;
        scene.step(format!("kill -9 of the server after {} events", course.caused.get()));
        let api = stack.serve_again().await?;
        scene.step("it is back");
        // Whoever missed the last ones waits for more.
        cause(&api, &id, &token, &course, |_| course.ended.get() == ways.len()).await
    };
    let (had, caused) = join(join_all(watching), causing).await;
    caused?;
    for ((number, way), had) in (1..).zip(ways).zip(had) {
        let must = format!("watcher {number} ({way:?}) resumes without a gap, or is told of one");
        let seen = match had.missed {
            Some(event) => format!("event {event} did not come, after {} cuts", had.cuts),
            None => format!("{} events over {} cuts, {} gaps told", had.last, had.cuts, had.told),
        };
        scene.must(&must, had.missed.is_none() && had.last >= EVENTS, seen)?;
    }
    Ok(())
}

/// Updates a card with the next number, until that is enough. What was not answered is done again.
async fn cause(
    api: &Api,
    id: &str,
    token: &str,
    course: &Course,
    enough: impl Fn(u64) -> bool,
) -> Outcome {
    while !enough(course.caused.get()) {
        let next = course.caused.get() + 1;
        let body = json!({"workspace_id": id, "agent_card": {"name": "busy", "number": next}});
        let said =
            api.call(Method::POST, "/registry/update-card", Some(token), None, &body).await?;
        if said.status != 200 {
            return Err(anyhow::anyhow!("a card was answered {}", said.brief()).into());
        }
        course.caused.set(next);
        clock::pause(EVERY).await;
    }
    Ok(())
}

/// Watches, is cut off, and goes on from its cursor, until it has all.
async fn watch(server: SocketAddr, way: Way, token: &str, number: u32, course: &Course) -> Had {
    let (mut had, mut cursor) = (Had::default(), 0);
    while had.last < EVENTS && had.missed.is_none() {
        let Ok(mut tap) = Tap::open(server, way, Some(cursor), token).await else {
            clock::pause(EVERY).await;
            continue;
        };
        // Few or many, and never the same for two of them.
        let mut left = (had.cuts * 7 + number * 3) % 11 + 1;
        let mut doubtful = false;
        while left > 0 {
            let read = tap.read(|event| {
                // What comes after the cut does not come.
                if left == 0 {
                    return;
                }
                let Ok(event) = serde_json::from_slice::<Event>(event) else { return };
                if event.event == "STREAM_GAP" {
                    (had.told, doubtful) = (had.told + 1, true);
                }
                let Some(now) = event.payload["agent_card"]["number"].as_u64() else { return };
                (left, cursor) = (left - 1, event.seq.unwrap_or(cursor));
                if now > had.last + 1 && !doubtful {
                    had.missed.get_or_insert(had.last + 1);
                }
                had.last = had.last.max(now);
            });
            if read.await.is_err() {
                break;
            }
        }
        had.cuts += 1;
        drop(tap);
        clock::pause(EVERY * (had.cuts % 5)).await;
    }
    course.ended.set(course.ended.get() + 1);
    had
}
