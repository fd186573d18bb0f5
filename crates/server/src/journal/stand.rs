//! Who watches on this server, by what right, and what they are shown: the one place that watchers and the
//! reader in `pump.rs` share. Nothing in here waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ligand_domain::access::may_talk;
use ligand_domain::id::WorkspaceId;
use tokio::sync::{Notify, watch};

use super::ring::{Found, Kin, News, Place, Ring};
use crate::access::Asked;
use crate::app::App;

/// Events that are handed out at once.
const AT_ONCE: usize = 128;

/// Why a watcher is shown nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The server stops.
    Stopping,
    /// What it was let in by has ended.
    Revoked,
    /// Nobody could say for a while whether it has.
    Unknown,
}

impl End {
    /// For those who are told.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Stopping => "the server stops",
            Self::Revoked => "what you were let in by has ended",
            Self::Unknown => "the database does not answer",
        }
    }
}

/// What a watcher is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// What is about this workspace.
    One(WorkspaceId),
    /// What is about those that this workspace may talk to.
    Family(WorkspaceId),
}

/// See the module.
#[derive(Default)]
pub(super) struct Stand {
    state: Mutex<State>,
    /// Counts what was shown.
    shown: watch::Sender<u64>,
    watched: watch::Sender<bool>,
    /// Rings the reader.
    look: Notify,
}

#[derive(Default)]
struct State {
    /// Not there until the reader has begun.
    ring: Option<Ring>,
    running: bool,
    watchers: usize,
    /// By what they were let in, how many by each, and how it stands.
    grants: BTreeMap<Asked, (usize, Standing)>,
    /// As whom they watch, how many as each, and where it stands.
    families: BTreeMap<WorkspaceId, (usize, Kin)>,
    missed: u64,
}

/// How what somebody was let in by stood at the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    /// It came after that look: nothing of what was read then is shown for it.
    #[default]
    New,
    Counts,
    Ended(End),
}

/// What the reader is to find out.
pub(super) struct Wants {
    pub(super) upto: Option<i64>,
    pub(super) grants: Vec<Asked>,
    pub(super) families: Vec<WorkspaceId>,
}

/// What the reader found out by a look at the database.
pub(super) struct Learned {
    pub(super) upto: i64,
    pub(super) asked: Vec<Asked>,
    pub(super) ended: Vec<Asked>,
    pub(super) families: Vec<(WorkspaceId, Kin)>,
}

/// One who watches. Dropping it leaves.
pub(super) struct Seat {
    app: App,
    asked: Option<Asked>,
    scope: Scope,
}

impl Stand {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follow what is shown.
    pub(super) fn shown(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }

    /// Follow whether anybody watches.
    pub(super) fn watched(&self) -> watch::Receiver<bool> {
        self.watched.subscribe()
    }

    /// Wake the reader.
    pub(super) fn look_again(&self) {
        self.look.notify_one();
    }

    /// Until somebody wakes the reader.
    pub(super) async fn asked_to_look(&self) {
        self.look.notified().await;
    }

    /// So many events that are not kept did not come here.
    pub(super) fn missed(&self, count: u64) {
        self.lock().missed += count;
        self.look_again();
    }

    /// How many did not, since this was last asked.
    pub(super) fn take_missed(&self) -> u64 {
        std::mem::take(&mut self.lock().missed)
    }

    /// What the reader is to look for; `None`: nobody watches any more, and it ends.
    pub(super) fn wants(&self) -> Option<Wants> {
        let mut state = self.lock();
        if state.watchers == 0 {
            // Under the same lock: who comes from now on starts another one.
            state.running = false;
            state.ring = None;
            return None;
        }
        Some(Wants {
            upto: state.ring.as_ref().map(Ring::upto),
            grants: state.grants.keys().copied().collect(),
            families: state.families.keys().copied().collect(),
        })
    }

    /// The reader ended in another way.
    pub(super) fn stopped(&self) {
        let mut state = self.lock();
        (state.running, state.ring) = (false, None);
    }

    /// Show what was found. Whoever may not see it any more knows before.
    pub(super) fn show(&self, learned: Option<Learned>, news: Vec<News>) {
        let mut state = self.lock();
        let mut tell = !news.is_empty();
        if let Some(learned) = learned {
            for (asked, (_, standing)) in &mut state.grants {
                let now = match (learned.asked.contains(asked), learned.ended.contains(asked)) {
                    (_, true) => Standing::Ended(End::Revoked),
                    (true, false) => Standing::Counts,
                    (false, false) => Standing::New,
                };
                tell |= now != *standing;
                *standing = now;
            }
            for (id, kin) in learned.families {
                if let Some((_, known)) = state.families.get_mut(&id) {
                    tell |= matches!(known, Kin::Unknown);
                    *known = kin;
                }
            }
            tell |= state.ring.is_none();
            let ring = state.ring.get_or_insert_with(|| Ring::new(learned.upto));
            news.into_iter().for_each(|news| ring.push(news));
            ring.read(learned.upto);
        } else if let Some(ring) = &mut state.ring {
            news.into_iter().for_each(|news| ring.push(news));
        }
        drop(state);
        if tell {
            self.shown.send_modify(|count| *count += 1);
        }
    }

    /// Nobody can say whether what they were let in by still counts.
    pub(super) fn doubt(&self) {
        let mut state = self.lock();
        state.grants.values_mut().for_each(|(_, it)| *it = Standing::Ended(End::Unknown));
        drop(state);
        self.shown.send_modify(|count| *count += 1);
    }
}

impl Seat {
    /// Take a seat. The reader begins, where there is none.
    pub(super) fn take(app: &App, asked: Option<Asked>, scope: Scope) -> Self {
        let stand = &app.hub.stand;
        let mut state = stand.lock();
        state.watchers += 1;
        if let Some(asked) = asked {
            state.grants.entry(asked).or_default().0 += 1;
        }
        if let Scope::Family(id) = scope {
            state.families.entry(id).or_default().0 += 1;
        }
        let starts = !std::mem::replace(&mut state.running, true);
        stand.watched.send_if_modified(|watched| !std::mem::replace(watched, true));
        drop(state);
        stand.look_again();
        if starts {
            super::pump::start(app);
        }
        Self { app: app.clone(), asked, scope }
    }

    /// Why it is shown nothing more, if it is not.
    pub(super) fn end(&self) -> Option<End> {
        match self.standing(&self.app.hub.stand.lock()) {
            Standing::Ended(end) => Some(end),
            Standing::New | Standing::Counts => None,
        }
    }

    fn standing(&self, state: &State) -> Standing {
        let found = self.asked.map(|asked| state.grants.get(&asked).map(|it| it.1));
        found.map_or(Standing::Counts, Option::unwrap_or_default)
    }

    /// What is to be seen from a place on; kept ones up to `after` it has. `None`: nothing can be said before the
    /// reader has looked again.
    pub(super) fn find(&self, place: Place, after: i64) -> Option<Seen> {
        let state = self.app.hub.stand.lock();
        let ring = state.ring.as_ref()?;
        if self.standing(&state) != Standing::Counts {
            return None;
        }
        let own = match self.scope {
            Scope::Family(id) => match &state.families.get(&id)?.1 {
                Kin::Unknown => return None,
                known @ Kin::Known(_) => known.clone(),
            },
            Scope::All | Scope::One(_) => Kin::Unknown,
        };
        let (found, place) = match ring.take(place, AT_ONCE) {
            Found::News(found, place) => (found, place),
            Found::Behind(missed) => return Some(Seen::Behind(missed)),
        };
        drop(state);
        let (mut seen, mut upto) = (Vec::with_capacity(found.len()), after);
        for news in found {
            let seq = news.event.seq;
            if seq.is_some_and(|seq| seq <= after) {
                continue;
            }
            let unknown = matches!((self.scope, &news.kin), (Scope::Family(_), Kin::Unknown));
            if seq.is_some() && unknown {
                // It was read before anybody asked whose it is. The database tells, but only what is kept.
                let lives = seen.iter().filter(|it: &&Arc<News>| it.event.seq.is_none());
                return Some(Seen::Behind(lives.count() as u64));
            }
            if self.scope.shows(&news, &own) {
                seen.push(news);
            }
            upto = seq.unwrap_or(upto);
        }
        Some(Seen::News(seen, place, upto))
    }

    /// How many events that are not kept were shown so far.
    pub(super) fn lives(&self) -> u64 {
        self.app.hub.stand.lock().ring.as_ref().map_or(0, Ring::lives)
    }

    /// Where to go on with what is shown, having every kept event up to `after`.
    pub(super) fn join(&self, after: i64) -> Option<Place> {
        self.app.hub.stand.lock().ring.as_ref()?.join(after)
    }
}

/// What a watcher is shown at its place.
pub(super) enum Seen {
    /// These; it goes on there, and has every kept event up to this number.
    News(Vec<Arc<News>>, Place, i64),
    /// It is behind, and so many events that are not kept are lost to it.
    Behind(u64),
}

impl Scope {
    /// Whether an event is shown. `own` is where the workspace stands as which one watches.
    pub(super) fn shows(self, news: &News, own: &Kin) -> bool {
        match self {
            Self::All => true,
            Self::One(id) => news.event.workspace_id == Some(id.uuid()),
            Self::Family(_) => match (own, &news.kin) {
                (Kin::Known(own), Kin::Known(of)) => may_talk(own.as_deref(), of.as_deref()),
                (Kin::Unknown, _) | (_, Kin::Unknown) => false,
            },
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let stand = &self.app.hub.stand;
        let mut state = stand.lock();
        state.watchers -= 1;
        if let Some(asked) = self.asked
            && let Some((count, _)) = state.grants.get_mut(&asked)
        {
            *count -= 1;
            if *count == 0 {
                state.grants.remove(&asked);
            }
        }
        if let Scope::Family(id) = self.scope
            && let Some((count, _)) = state.families.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                state.families.remove(&id);
            }
        }
        if state.watchers == 0 {
            stand.watched.send_if_modified(|watched| std::mem::replace(watched, false));
            stand.look_again();
        }
    }
}
