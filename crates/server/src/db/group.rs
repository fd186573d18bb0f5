//! Group commit: what many callers ask at once is asked of the database once.
//!
//! While one batch is being carried out the next one gathers, so that batches are as large as the load makes
//! them, and a lone caller waits for nobody. Whoever comes first starts a runner in the background; it ends
//! when nobody waits any more. A batch begins after everything in it was asked, so its answers are as true
//! as if each had been asked alone.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::app::App;

/// Something that is asked together with others.
pub trait Item: Send + 'static {
    /// What two items of one batch may not share.
    type Key: Eq + Hash + Send;
    /// Its answer.
    type Answer: Send + 'static;

    /// Two items with the same key go into different batches.
    fn key(&self) -> Self::Key;

    /// Carry a batch out; one answer each, in order.
    fn run(app: App, batch: Vec<Self>) -> BoxFuture<'static, Vec<Self::Answer>>
    where
        Self: Sized;
}

/// A queue of items, and those that carry them out.
pub struct Group<T: Item>(Arc<Shared<T>>);

struct Shared<T: Item> {
    state: Mutex<State<T>>,
    /// Items in one batch.
    most: usize,
}

struct State<T: Item> {
    waiting: VecDeque<(T, oneshot::Sender<T::Answer>)>,
    running: usize,
}

impl<T: Item> Group<T> {
    /// Batches of at most `most` items, as many at once as the database has writers for them.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let state = State { waiting: VecDeque::new(), running: 0 };
        Self(Arc::new(Shared { state: Mutex::new(state), most }))
    }

    /// Ask, and wait for the answer. `None`: the batch broke off, and nothing is known.
    pub async fn ask(&self, app: &App, item: T) -> Option<T::Answer> {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut state = self.0.lock();
            state.waiting.push_back((item, answer));
            let starts = state.running < app.db.batches();
            state.running += usize::from(starts);
            starts
        };
        if starts {
            let runner = Runner { shared: Arc::clone(&self.0), left: false };
            let of = app.clone();
            app.spawn(async move { runner.work(of).await });
        }
        answered.await.ok()
    }
}

impl<T: Item> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch: nobody twice.
    fn take(&self) -> (Vec<T>, Vec<oneshot::Sender<T::Answer>>) {
        let mut state = self.lock();
        let (mut items, mut answers) = (Vec::new(), Vec::new());
        let mut taken = HashSet::new();
        let mut later = VecDeque::new();
        while items.len() < self.most {
            let Some((item, answer)) = state.waiting.pop_front() else { break };
            if taken.insert(item.key()) {
                items.push(item);
                answers.push(answer);
            } else {
                later.push_back((item, answer));
            }
        }
        while let Some(back) = later.pop_back() {
            state.waiting.push_front(back);
        }
        if items.is_empty() {
            // Under the same lock: who asks from now on starts a runner.
            state.running -= 1;
        }
        (items, answers)
    }
}

/// Carries batches out.
struct Runner<T: Item> {
    shared: Arc<Shared<T>>,
    /// It gave its place up when it found nobody waiting.
    left: bool,
}

impl<T: Item> Runner<T> {
    async fn work(mut self, app: App) {
        loop {
            // Whoever is ready to ask joins this batch.
            tokio::task::yield_now().await;
            let (items, answers) = self.shared.take();
            if items.is_empty() {
                self.left = true;
                return;
            }
            for (answer, said) in answers.into_iter().zip(T::run(app.clone(), items).await) {
                // Its caller may have gone.
                let _ = answer.send(said);
            }
        }
    }
}

impl<T: Item> Drop for Runner<T> {
    /// Ended in the middle of a batch, by a panic or because the server stops: there is room for another.
    fn drop(&mut self) {
        if !self.left {
            self.shared.lock().running -= 1;
        }
    }
}
