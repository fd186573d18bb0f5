//! One who watches, however: it resumes from a cursor, follows what is shown to all, and reads the database by
//! itself only while it is behind that. It holds no more than it hands out next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use ligand_api::journal::Event;
use ligand_domain::guards::Guard;
use ligand_domain::id::WorkspaceId;
use ligand_domain::time::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;

use super::pump::{gap, marker};
use super::ring::{Kin, News, Place};
use super::stand::{End, Scope, Seat, Seen};
use super::{cursor, store};
use crate::access::{self, Grant, Session};
use crate::app::App;
use crate::error::Result;
use crate::workspaces;

/// Events that one look at the database brings to somebody who is behind.
const BATCH: i64 = 64;
/// How long to wait after a database that does not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How often the control plane is asked about a session that goes on.
const SESSION_AGAIN: Duration = Duration::from_secs(30);

/// Where a stream begins.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct After {
    /// The `seq` of the last event that was read; the `Last-Event-ID` header says the same.
    after: Option<String>,
}

impl After {
    /// The cursor that a caller names, if any.
    pub(super) fn said<'a>(&'a self, headers: &'a HeaderMap) -> Option<&'a str> {
        let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
        header.or(self.after.as_deref())
    }
}

/// See the module.
pub(super) struct Watcher {
    app: App,
    seat: Seat,
    scope: Scope,
    grant: Grant,
    /// When its session was last asked about.
    asked_at: Timestamp,
    /// It has every kept event up to here.
    after: i64,
    /// `None`: it is behind what is shown.
    place: Option<Place>,
    /// Of the events that are not kept it had its share of so many, or was told that they are lost.
    lives: u64,
    /// Handed out before anything else.
    first: Vec<Arc<News>>,
    shown: watch::Receiver<u64>,
}

impl Watcher {
    /// Begin to watch, after the cursor that was named, or with what comes next.
    ///
    /// # Errors
    /// 400 for a cursor that is none; 503 when the database does not answer.
    pub(super) async fn open(
        app: &App,
        scope: Scope,
        grant: Grant,
        said: Option<&str>,
    ) -> Result<Self> {
        let cursor = said.map(cursor).transpose()?;
        // The mutant: a stream without numbers can only begin with what comes next.
        let cursor = cursor.filter(|_| app.config.guards.hold(Guard::StreamSequence));
        // Take part before looking, so that nothing falls between.
        let seat = Seat::take(app, grant.asked(), scope);
        let (shown, lives) = (app.hub.stand.shown(), seat.lives());
        let mut tx = app.db.read().await?;
        let last = store::last_number(&mut tx).await?;
        drop(tx);
        let mut first = Vec::new();
        if let Some(after) = cursor.filter(|after| *after > last) {
            // The database is another one, or was set back: what lies between is not known here.
            let why = format!("the cursor {after} is ahead of the last event {last}");
            first.push(alone(gap(app, why)));
        }
        let after = cursor.map_or(last, |after| after.min(last));
        let (app, asked_at) = (app.clone(), app.clock.now());
        Ok(Self { app, seat, scope, grant, asked_at, after, place: None, lives, first, shown })
    }

    /// Every kept event up to this number was handed out, or is none of this watcher's.
    pub(super) fn after(&self) -> i64 {
        self.after
    }

    /// Tell first where it begins.
    pub(super) fn announce(&mut self) {
        let mut open = marker(&self.app, "STREAM_OPEN", serde_json::json!({"after": self.after}));
        open.seq = Some(self.after);
        self.first.insert(0, alone(open));
    }

    /// The next events, at least one. Dropped before it is done, it has handed out nothing.
    ///
    /// # Errors
    /// Why there are no more.
    pub(super) async fn next(&mut self) -> std::result::Result<Vec<Arc<News>>, End> {
        loop {
            if self.app.stop.is_cancelled() {
                return self.last().await;
            }
            if let Some(end) = self.seat.end() {
                return Err(end);
            }
            self.session_holds().await?;
            if !self.first.is_empty() {
                return Ok(std::mem::take(&mut self.first));
            }
            self.shown.mark_unchanged();
            let mut pause = SESSION_AGAIN;
            let found = match self.place {
                Some(place) => self.follow(place),
                None => self.catch_up().await.unwrap_or_else(|cause| {
                    tracing::warn!(error = %cause, "events cannot be read; trying again");
                    pause = AFTER_FAILURE;
                    Step::Rest
                }),
            };
            match found {
                Step::News(news) => return Ok(news),
                Step::On => continue,
                Step::End(end) => return Err(end),
                Step::Rest => {}
            }
            let app = self.app.clone();
            tokio::select! {
                () = app.stop.cancelled() => {}
                _ = self.shown.changed() => {}
                () = app.clock.tick(pause) => {}
            }
        }
    }

    /// The server stops. Whoever is behind what is shown gets what the database has, as after a reconnect elsewhere.
    async fn last(&mut self) -> std::result::Result<Vec<Arc<News>>, End> {
        if !self.first.is_empty() {
            return Ok(std::mem::take(&mut self.first));
        }
        if self.place.is_some() {
            return Err(End::Stopping);
        }
        match self.read().await {
            Ok(Some((news, after))) if !news.is_empty() => {
                self.after = after;
                Ok(news)
            }
            Ok(Some(_)) | Err(_) => Err(End::Stopping),
            Ok(None) => Err(End::Revoked),
        }
    }

    /// What is shown to all, from where it stands.
    fn follow(&mut self, place: Place) -> Step {
        match self.seat.find(place, self.after) {
            None => Step::Rest,
            Some(Seen::Behind(missed)) => {
                self.lost(missed);
                self.place = None;
                Step::On
            }
            Some(Seen::News(news, next, after)) => {
                (self.place, self.after, self.lives) = (Some(next), after, next.lives());
                match news.is_empty() {
                    false => Step::News(news),
                    // What was passed over may be followed by more.
                    true if next != place => Step::On,
                    true => Step::Rest,
                }
            }
        }
    }

    /// So many events that are not kept went by while it was behind.
    fn lost(&mut self, missed: u64) {
        if missed > 0 {
            let why = format!("{missed} events that are not kept may have been missed");
            self.first.push(alone(gap(&self.app, why)));
            self.lives += missed;
        }
    }

    /// What the database has, for somebody who is behind; or where it is not behind any more. What is shown there
    /// is shown only to those whose right counts.
    async fn catch_up(&mut self) -> std::result::Result<Step, sqlx::Error> {
        self.place = self.seat.join(self.after);
        if let Some(place) = self.place {
            self.lost(place.lives().saturating_sub(self.lives));
            return Ok(Step::On);
        }
        let before = self.after;
        let Some((news, after)) = self.read().await? else { return Ok(Step::End(End::Revoked)) };
        self.after = after;
        Ok(match news.is_empty() {
            false => Step::News(news),
            true if after > before => Step::On,
            true => Step::Rest,
        })
    }

    /// The next that the database has, and up to where that is. `None`: its right has ended; that is asked after
    /// reading, so whatever was committed later than that end is not shown.
    async fn read(&self) -> std::result::Result<Option<(Vec<Arc<News>>, i64)>, sqlx::Error> {
        let of = match self.scope {
            Scope::One(id) => Some(id),
            Scope::All | Scope::Family(_) => None,
        };
        let mut tx = self.app.db.read().await?;
        let last = store::last_number(&mut tx).await?;
        let forgotten = store::forgotten(&mut tx).await?;
        let events = store::events_after(&mut tx, self.after, of, BATCH).await?;
        let newest = events.last().and_then(|event| event.seq).unwrap_or(self.after);
        let full = i64::try_from(events.len()).is_ok_and(|count| count >= BATCH);
        let upto = if full { newest } else { newest.max(last) };
        if let Some(asked) = self.grant.asked()
            && !access::ended(&mut tx, &[asked], self.app.clock.now()).await?.is_empty()
        {
            return Ok(None);
        }
        let about = |id: Option<uuid::Uuid>| id.map(WorkspaceId::from_uuid);
        let mut own = Kin::Unknown;
        let mut families = BTreeMap::new();
        if let Scope::Family(id) = self.scope {
            let ids: BTreeSet<_> =
                events.iter().filter_map(|event| about(event.workspace_id)).chain([id]).collect();
            let ids: Vec<_> = ids.into_iter().collect();
            let found = workspaces::lineages(&mut tx, &ids).await?;
            families = found.into_iter().map(|(id, line)| (id, Arc::new(line))).collect();
            own = Kin::Known(families.get(&id).cloned());
        }
        let mut news = Vec::new();
        if self.after < forgotten {
            let why = format!("events up to {forgotten} are not kept any more");
            news.push(alone(gap(&self.app, why)));
        }
        let all = events.into_iter().map(|event| {
            let kin =
                Kin::Known(about(event.workspace_id).and_then(|id| families.get(&id).cloned()));
            Arc::new(News::new(event, kin))
        });
        news.extend(all.filter(|news| self.scope.shows(news, &own)));
        Ok(Some((news, upto)))
    }

    /// Its session, where it is let in by one, goes on.
    async fn session_holds(&mut self) -> std::result::Result<(), End> {
        let Grant::Session(cookies) = &self.grant else { return Ok(()) };
        if self.app.clock.now().since(self.asked_at) < SESSION_AGAIN {
            return Ok(());
        }
        let now = self.app.clock.now();
        match access::session(&self.app, cookies).await {
            Session::Member => self.asked_at = now,
            Session::Absent | Session::Refused => return Err(End::Revoked),
        }
        Ok(())
    }
}

/// What comes of looking once.
enum Step {
    /// These.
    News(Vec<Arc<News>>),
    /// Look again at once.
    On,
    /// Nothing, until something happens.
    Rest,
    /// Nothing any more.
    End(End),
}

fn alone(event: Event) -> Arc<News> {
    Arc::new(News::new(event, Kin::Known(None)))
}
