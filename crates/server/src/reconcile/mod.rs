//! Reconcilers: what closes the gap between intent and observation.
//!
//! Each is a value with one method, [`Reconciler::pass`], that takes no input. Which row it looks at it
//! learns from the database; why it was woken it never learns. So it may run at any time, twice, on two
//! servers, and after a crash it simply runs again. Rules:
//!
//! - one bounded piece of work per pass, taken by a row lease, so that replicas share the work;
//! - what is about to be done is written before it is done, what came of it afterwards;
//! - every call outside carries a key that makes doing it twice the same as doing it once;
//! - no retry inside: the next pass is the retry;
//! - "I do not know" is stored as such, and nothing is done on the strength of it;
//! - a row that fails never stops the others, and its report is visible.

mod claim;
mod driver;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ligand_api::operator;
use ligand_domain::time::Timestamp;
use tokio::sync::{Notify, watch};

pub use self::claim::{CLAIM, keep, new_claim};
pub use self::driver::drive;
use crate::app::App;

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Rows it looked at. None: there was nothing to do.
    pub looked_at: u64,
    /// Steps it took.
    pub steps: u64,
    /// The failure of its row, if it failed.
    pub failed: Option<String>,
}

/// See the module.
pub trait Reconciler: Send + Sync {
    /// In lists and metrics.
    fn name(&self) -> &'static str;

    /// What it brings in line with what, in a sentence for operators.
    fn does(&self) -> &'static str;

    /// How many passes may run at once on this server.
    fn workers(&self) -> usize;

    /// One piece of work.
    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>>;

    /// How often it looks, if it looks now and then and hears no bell: a sweep. `None`: it looks when something
    /// is due, and when a bell rings.
    fn every(&self) -> Option<Duration> {
        None
    }

    /// When something will be due without anybody ringing.
    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>>;
}

/// Wakes reconcilers and shows what they did. A bell that is not heard costs time, never truth.
#[derive(Clone, Default)]
pub struct Bells(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// One per reconciler, so that none hears for another.
    bells: Mutex<BTreeMap<&'static str, Arc<Notify>>>,
    /// How often it was rung here, for those who pass that on.
    rings: watch::Sender<u64>,
    reports: Mutex<BTreeMap<&'static str, operator::Reconciler>>,
}

impl Bells {
    /// There may be something to do.
    pub fn ring(&self) {
        self.0.rings.send_modify(|count| *count += 1);
        self.heard();
    }

    /// Another server says that there may be something to do. It told everybody: it is not passed on.
    pub fn heard(&self) {
        let bells = self.0.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.values().for_each(|bell| bell.notify_one());
    }

    /// The bell of one reconciler, which its workers share.
    #[must_use]
    pub fn of(&self, name: &'static str) -> Arc<Notify> {
        let mut bells = self.0.bells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(bells.entry(name).or_default())
    }

    /// Watch it being rung here.
    #[must_use]
    pub fn rings(&self) -> watch::Receiver<u64> {
        self.0.rings.subscribe()
    }

    fn report(&self, reconciler: &dyn Reconciler, pass: &anyhow::Result<Pass>, now: Timestamp) {
        let mut reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let report = reports.entry(reconciler.name()).or_default();
        reconciler.does().clone_into(&mut report.does);
        report.every_seconds = reconciler.every().map(|every| every.as_secs());
        report.passes += 1;
        report.last_pass_at = Some(now.to_string());
        let error = match pass {
            Ok(pass) => {
                report.looked_at += pass.looked_at;
                report.steps += pass.steps;
                pass.failed.clone()
            }
            Err(cause) => Some(format!("{cause:#}")),
        };
        if let Some(error) = error {
            report.failed += 1;
            report.last_error = Some(error);
            report.last_error_at = Some(now.to_string());
        }
    }

    /// What each reconciler did since the server started.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<String, operator::Reconciler> {
        let reports = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.iter().map(|(name, report)| ((*name).to_owned(), report.clone())).collect()
    }
}
