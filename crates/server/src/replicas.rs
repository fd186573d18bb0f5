//! Servers on one database: what one of them did, the others hear of at once.
//!
//! They share nothing but rows. A row lease says who works on what, one row of numbers says in which order
//! things were committed, credentials are read at every call. So a server alone is right, and so are many
//! that never hear of each other: each looks again every second or two. Hints make that sooner, no more.
//!
//! Events that are not kept are passed on while somebody watches at another server. A server says every
//! [`SAY_AGAIN`] whether anybody watches at it, and at once when that changes; so for a moment after the first
//! watcher came, nothing may be passed to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ligand_api::journal::Event;
use ligand_domain::time::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use crate::app::App;
use crate::db::{Heard, Hint, Hints, Lines};

/// Rests between two hints: what happens meanwhile is told in one. The first after a rest goes out at once.
const REST: Duration = Duration::from_millis(20);
/// Rests before trying again what the database refused.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// How often a server says whether anybody watches at it.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// Nothing heard for this long, nobody watches there.
const SILENT: Duration = Duration::from_secs(35);
/// Events that wait to be passed on. Beyond, they are lost, and that is told.
const WAITING: usize = 1024;
/// An event longer than this is not passed on, and that is told.
const LONGEST: usize = 1 << 20;
/// How long others may take to fetch a long one.
const FETCHED: Duration = Duration::from_secs(60);

/// Somebody watches here; nobody does; who does?
const WATCHED: &str = "+";
const UNWATCHED: &str = "-";
const WHO: &str = "?";
/// Stands before the number of events that were lost.
const LOST: char = '!';

/// The servers at which somebody watches, and until when that counts.
#[derive(Default)]
struct Others {
    until: Mutex<BTreeMap<Uuid, Timestamp>>,
    /// One of them asked who watches.
    asked: Notify,
}

/// Tell the other servers what this one does, and hear them, until it stops. Does nothing where there can be
/// no others.
pub fn join(app: &App) {
    let server = uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid();
    let Some(hints) = app.db.hints(server) else { return };
    let (rings, commits) = (app.bells.rings(), app.hub.own_commits());
    let (telling, passing, hearing) = (app.clone(), app.clone(), app.clone());
    let (to_tell, to_pass) = (hints.clone(), hints.clone());
    let others = Arc::new(Others::default());
    let theirs = Arc::clone(&others);
    let (way, events) = mpsc::channel(WAITING);
    app.hub.lead(way);
    app.spawn(async move { tell(&telling, &to_tell, rings, commits).await });
    app.spawn(async move { pass_on(&passing, &to_pass, events, &theirs).await });
    app.spawn(async move { hear(&hearing, &hints, &others).await });
}

async fn tell(
    app: &App,
    hints: &Hints,
    mut rings: watch::Receiver<u64>,
    mut commits: watch::Receiver<i64>,
) {
    let mut reachable = true;
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = rings.changed() => rings.mark_changed(),
            _ = commits.changed() => {}
        }
        let due = rings.has_changed().unwrap_or_default();
        rings.mark_unchanged();
        let hint = Hint { committed: *commits.borrow_and_update(), due };
        let told = hints.tell(hint).await;
        if let (Err(cause), true) = (&told, reachable) {
            tracing::warn!(error = %cause, "other servers cannot be told; they look by themselves");
        }
        reachable = told.is_ok();
        app.clock.sleep(if reachable { REST } else { AFTER_FAILURE }).await;
    }
}

async fn hear(app: &App, hints: &Hints, others: &Others) {
    let mut reachable = true;
    loop {
        let heard = tokio::select! {
            () = app.stop.cancelled() => break,
            heard = listen(app, hints, others) => heard,
        };
        if let (Err(cause), true) = (&heard, reachable) {
            tracing::warn!(error = %cause, "other servers cannot be heard; looking without hints");
        }
        reachable = heard.is_ok();
        app.clock.sleep(AFTER_FAILURE).await;
    }
    hints.close().await;
}

/// Ends when the connection is lost for good.
async fn listen(app: &App, hints: &Hints, others: &Others) -> Result<(), sqlx::Error> {
    let mut ear = hints.listen().await?;
    // What was said before there was anybody to hear it.
    app.bells.heard();
    others.asked.notify_one();
    loop {
        match ear.next().await? {
            Heard::Hint(hint) => {
                app.hub.heard(hint.committed);
                if hint.due {
                    app.bells.heard();
                }
            }
            Heard::Lines(lines) => others.heed(app, lines),
            Heard::Lost => {
                app.bells.heard();
                others.asked.notify_one();
            }
        }
    }
}

/// Pass on events that are not kept, several in one letter where there are many; and say whether anybody watches.
async fn pass_on(app: &App, hints: &Hints, mut events: mpsc::Receiver<Event>, others: &Others) {
    let mut watched = app.hub.watched_here();
    let (mut left, mut reachable, mut first) = (None, true, true);
    loop {
        let mut waiting = Vec::new();
        if !first {
            tokio::select! {
                () = app.stop.cancelled() => return,
                event = events.recv() => waiting.extend(event),
                _ = watched.changed() => {}
                () = others.asked.notified() => {}
                () = app.clock.tick(SAY_AGAIN) => others.expire(app),
            }
        }
        while let Ok(event) = events.try_recv() {
            waiting.push(event);
        }
        let here = *watched.borrow_and_update();
        let mut lines = vec![if here { WATCHED } else { UNWATCHED }.to_owned()];
        lines.extend(std::mem::take(&mut first).then(|| WHO.to_owned()));
        let count = waiting.len() as u64;
        lines.extend(written(app, waiting));
        let now = app.clock.now();
        let passed = hints.pass(lines, now).await;
        match &passed {
            Ok(any) => left = any.then_some(now).or(left),
            Err(cause) => {
                app.hub.not_passed(count);
                if reachable {
                    tracing::warn!(error = %cause, "events cannot be passed on to other servers");
                }
            }
        }
        reachable = passed.is_ok();
        if left.is_some_and(|at| now.since(at) >= FETCHED)
            && hints.clear(now.before(FETCHED)).await.is_ok()
        {
            left = None;
        }
        app.clock.rest(if reachable { REST } else { AFTER_FAILURE }).await;
    }
}

/// A line for each event, and one for those that are lost.
fn written(app: &App, events: Vec<Event>) -> Vec<String> {
    let all = events.iter().map(|event| serde_json::to_string(event).unwrap_or_default());
    let (lines, long): (Vec<_>, Vec<_>) = all.partition(|line| line.len() <= LONGEST);
    app.hub.not_passed(long.len() as u64);
    let lost = app.hub.take_lost();
    lines.into_iter().chain((lost > 0).then(|| format!("{LOST}{lost}"))).collect()
}

impl Others {
    fn heed(&self, app: &App, said: Lines) {
        for line in said.lines {
            match line.as_deref() {
                Some(WATCHED) => self.set(app, said.server, Some(app.clock.now().after(SILENT))),
                Some(UNWATCHED) => self.set(app, said.server, None),
                Some(WHO) => self.asked.notify_one(),
                Some(line) => match (line.strip_prefix(LOST), serde_json::from_str(line)) {
                    (Some(count), _) => app.hub.missed(count.parse().unwrap_or(1)),
                    (None, Ok(event)) => app.hub.passed(event),
                    // A newer server's, that says more than we know.
                    (None, Err(_)) => {}
                },
                None => app.hub.missed(1),
            }
        }
    }

    fn set(&self, app: &App, server: Uuid, until: Option<Timestamp>) {
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => drop(all.insert(server, until)),
            None => drop(all.remove(&server)),
        }
        app.hub.watched_elsewhere(!all.is_empty());
    }

    /// Forget those that were not heard of.
    fn expire(&self, app: &App) {
        let now = app.clock.now();
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, until| *until > now);
        app.hub.watched_elsewhere(!all.is_empty());
    }
}
