//! The recent events of one server, shared by all who watch: read from the database once, shaped once, held
//! as long as there is room. Whoever falls behind what is held reads the database by itself.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use ligand_api::journal::Event;
use ligand_domain::access::Lineage;
use ligand_domain::time::Timestamp;
use serde_json::json;

/// Most events that are held.
const MOST: usize = 8192;
/// Most bytes that are held, as far as events are counted.
const MOST_BYTES: usize = 8 << 20;
/// Bytes that are handed out at once, if one event is not longer.
const BYTES_AT_ONCE: usize = 256 << 10;
/// What an event takes beside its texts.
const OVERHEAD: usize = 512;

/// Where the workspace of an event stood when it was read.
#[derive(Debug, Clone, Default)]
pub(super) enum Kin {
    /// Nobody asked.
    #[default]
    Unknown,
    /// There; or nowhere, where there is no such workspace.
    Known(Option<Arc<Lineage>>),
}

/// An event as watchers get it.
pub(super) struct News {
    pub(super) event: Event,
    pub(super) kin: Kin,
    /// Every kept event up to this number was read before it, or is it.
    upto: i64,
    /// Events that are not kept, up to this one.
    lives: u64,
    json: Utf8Bytes,
    whole: OnceLock<Bytes>,
    own: OnceLock<Bytes>,
}

impl News {
    /// One that is told to one watcher alone, or not yet held.
    pub(super) fn new(event: Event, kin: Kin) -> Self {
        let json = serde_json::to_string(&event).unwrap_or_default().into();
        let (whole, own) = (OnceLock::new(), OnceLock::new());
        Self { event, kin, upto: 0, lives: 0, json, whole, own }
    }

    /// The object, as a message.
    pub(super) fn json(&self) -> Utf8Bytes {
        self.json.clone()
    }

    /// A server-sent event of the whole platform's stream.
    pub(super) fn whole(&self) -> &[u8] {
        self.whole.get_or_init(|| {
            let name = format!("event: {}\n", self.event.event);
            Bytes::from(format!("{name}{}data: {}\n\n", self.id(), self.json))
        })
    }

    /// A server-sent event of one workspace's stream.
    pub(super) fn own(&self) -> &[u8] {
        self.own.get_or_init(|| {
            let at = Timestamp::parse(&self.event.timestamp).map_or(0, Timestamp::millis);
            let event = &self.event;
            let body = json!({"type": event.event, "timestamp": at, "data": event.payload});
            Bytes::from(format!("{}data: {body}\n\n", self.id()))
        })
    }

    /// How long it is.
    pub(super) fn len(&self) -> usize {
        self.json.as_str().len()
    }

    fn id(&self) -> String {
        self.event.seq.map(|seq| format!("id: {seq}\n")).unwrap_or_default()
    }

    fn weight(&self) -> usize {
        3 * self.len() + OVERHEAD
    }
}

/// How far a watcher has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    at: u64,
    lives: u64,
}

impl Place {
    /// How many events that are not kept lie before it.
    pub(super) fn lives(self) -> u64 {
        self.lives
    }
}

/// What a watcher finds at its place.
pub(super) enum Found {
    /// These, and where it goes on.
    News(Vec<Arc<News>>, Place),
    /// It is behind what is held, and so many events that are not kept are lost to it.
    Behind(u64),
}

/// See the module.
pub(super) struct Ring {
    news: VecDeque<Arc<News>>,
    /// The place of the first that is held.
    first: u64,
    /// Every kept event after this one and up to `upto` is held.
    from: i64,
    upto: i64,
    /// Events that are not kept: all so far, and those that are not held any more.
    lives: u64,
    gone: u64,
    bytes: usize,
}

impl Ring {
    /// Nothing is held; kept events up to `upto` are history.
    pub(super) fn new(upto: i64) -> Self {
        let (first, lives, gone, bytes) = (0, 0, 0, 0);
        Self { news: VecDeque::new(), first, from: upto, upto, lives, gone, bytes }
    }

    /// The last kept number that was read.
    pub(super) fn upto(&self) -> i64 {
        self.upto
    }

    /// How many events that are not kept there were.
    pub(super) fn lives(&self) -> u64 {
        self.lives
    }

    /// Every kept event up to here was read.
    pub(super) fn read(&mut self, upto: i64) {
        self.upto = self.upto.max(upto);
    }

    /// Hold another one: kept ones in their order.
    pub(super) fn push(&mut self, mut news: News) {
        match news.event.seq {
            Some(seq) => self.read(seq),
            None => self.lives += 1,
        }
        (news.upto, news.lives) = (self.upto, self.lives);
        self.bytes += news.weight();
        self.news.push_back(Arc::new(news));
        while self.news.len() > MOST || (self.bytes > MOST_BYTES && self.news.len() > 1) {
            let Some(oldest) = self.news.pop_front() else { return };
            self.first += 1;
            self.bytes -= oldest.weight();
            (self.from, self.gone) = (self.from.max(oldest.upto), oldest.lives);
        }
    }

    /// Where somebody goes on who has every kept event up to `after`; `None`, where the next ones are not held.
    /// What it gets there may begin with some that it has.
    pub(super) fn join(&self, after: i64) -> Option<Place> {
        if after < self.from {
            return None;
        }
        let skipped = self.news.partition_point(|news| news.upto < after);
        let lives = match skipped.checked_sub(1) {
            Some(last) => self.news[last].lives,
            None => self.gone,
        };
        Some(Place { at: self.first + skipped as u64, lives })
    }

    /// At most `most` from a place on.
    pub(super) fn take(&self, place: Place, most: usize) -> Found {
        let Some(skipped) = place.at.checked_sub(self.first) else {
            return Found::Behind(self.gone.saturating_sub(place.lives));
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let mut room = BYTES_AT_ONCE;
        let fits = |news: &&Arc<News>| {
            let fits = room > 0;
            room = room.saturating_sub(news.len());
            fits
        };
        let news: Vec<_> =
            self.news.iter().skip(skipped).take(most).take_while(fits).cloned().collect();
        let lives = news.last().map_or(place.lives, |last| last.lives);
        let at = place.at + news.len() as u64;
        Found::News(news, Place { at, lives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(seq: Option<i64>) -> News {
        News::new(Event { seq, ..Event::default() }, Kin::Unknown)
    }

    fn seqs(found: Found) -> Vec<Option<i64>> {
        match found {
            Found::News(news, _) => news.iter().map(|it| it.event.seq).collect(),
            Found::Behind(missed) => panic!("behind by {missed}"),
        }
    }

    #[test]
    fn whoever_joins_gets_all_that_is_kept_after_its_cursor() {
        let mut ring = Ring::new(4);
        assert_eq!((ring.join(3), ring.join(4)), (None, Some(Place { at: 0, lives: 0 })));
        for seq in [Some(5), None, Some(7), None] {
            ring.push(news(seq));
        }
        let from = |after| seqs(ring.take(ring.join(after).unwrap(), 10));
        assert_eq!(from(4), [Some(5), None, Some(7), None]);
        assert_eq!(from(5), [Some(5), None, Some(7), None], "what passed since it is heard");
        assert_eq!(from(6), [Some(7), None]);
        assert_eq!(from(9), [None; 0]);
        assert_eq!(seqs(ring.take(ring.join(4).unwrap(), 1)), [Some(5)]);
    }

    #[test]
    fn whoever_is_too_slow_is_behind_and_told_how_many_are_lost() {
        let mut ring = Ring::new(0);
        let start = ring.join(0).unwrap();
        for seq in 1..=MOST as i64 {
            ring.push(news((seq % 2 == 0).then_some(seq)));
        }
        assert_eq!(seqs(ring.take(start, 1)), [None]);
        ring.push(news(None));
        assert!(matches!(ring.take(start, 1), Found::Behind(1)));
        assert_eq!(ring.join(0).map(|it| it.at), Some(1), "no kept one is gone yet");
        ring.push(news(None));
        assert_eq!(ring.join(1), None);
        assert_eq!(ring.join(2).map(|it| (it.at, it.lives)), Some((2, 1)));
    }

    #[test]
    fn what_is_held_is_bounded_by_its_bytes() {
        let mut ring = Ring::new(0);
        for _ in 0..3 {
            let payload = serde_json::Value::String("x".repeat(2 << 20));
            ring.push(News::new(Event { payload, ..Event::default() }, Kin::Unknown));
        }
        assert_eq!((ring.news.len(), ring.first, ring.gone), (1, 2, 2));
    }
}
