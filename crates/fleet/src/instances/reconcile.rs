//! One step of one instance at a time: what was asked for, made so.
//!
//! A crash between a provider's answer and its being written down is nothing special: the row is as it was, and the
//! next pass finds the instance by workspace and generation.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ligand_api::fleet::Provision;
use ligand_domain::backoff::Failures;
use ligand_domain::fleet::{
    Facts, Intent, LOOK, Life, State, Step, Verdict, boot_deadline, judge, next,
};
use ligand_domain::instance::Seen;
use ligand_domain::time::Timestamp;
use ligand_server::backend::{Backend, BackendError, ErrorKind, Place, Root, Spec, Started};
use ligand_server::db::Tx;
use ligand_server::reconcile::Pass;

use super::{Instance, spec, store};
use crate::app::Fleet;
use crate::drive::Reconciler;
use crate::journal::{self, About};
use crate::{notices, tenants};

/// A step that takes longer is somebody else's.
const LEASE: Duration = Duration::from_secs(180);
/// A provider that does not know is asked again.
const DOUBT: Duration = Duration::from_secs(5);
/// Whoever waits for an elder looks again, though it is told.
const HEIR: Duration = Duration::from_secs(1);
/// What an instance that can redeem it proves itself with.
const PASSPORT: &str = "LIGAND_PASSPORT";
/// Where agents keep what they prove themselves with.
const HELD: [&str; 3] = [".auth_token", ".auth_token.next", ".auth_token.previous"];
/// Something that is down, and not ours to replace, is looked at this often.
const DOWN: Duration = Duration::from_secs(300);

/// Brings instances in line with what was asked for.
pub struct InstanceReconciler;

impl Reconciler for InstanceReconciler {
    fn name(&self) -> &'static str {
        "instances"
    }

    fn workers(&self) -> usize {
        8
    }

    fn every(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn pass<'a>(&'a self, fleet: &'a Fleet) -> BoxFuture<'a, anyhow::Result<Pass>> {
        Box::pin(pass(fleet))
    }
}

async fn pass(fleet: &Fleet) -> anyhow::Result<Pass> {
    let (now, holder) = (fleet.clock.now(), fleet.ids.bytes::<16>());
    // Most passes find nothing, and need not wait for a turn to write.
    let mut tx = fleet.db.read().await?;
    let due = store::any_due(&mut tx, now).await?;
    drop(tx);
    if !due {
        return Ok(Pass::default());
    }
    let mut tx = fleet.db.begin().await?;
    let taken = store::take(&mut tx, &holder, now, now.after(LEASE)).await?;
    let Some(mut it) = taken else { return Ok(Pass::default()) };
    let facts = Facts {
        intent: it.intent,
        confirmed: it.confirmed_at.is_some(),
        counted: it.counted,
        elder: store::has_elder(&mut tx, &it).await?,
    };
    let erasing = store::workspace(&mut tx, it.workspace).await?;
    let erasing = erasing.is_some_and(|workspace| workspace.erasing_until > now.micros());
    tx.commit().await?;
    let mut doing = Doing { fleet, holder: &holder, notes: Vec::new(), tell: None };
    let step = next(facts);
    match fleet.providers.get(&it.provider).map(Arc::clone) {
        None => {
            let why = format!("the provider {} is not in the settings", it.provider);
            it.last_error = Some(why);
            it.due = fleet.clock.now().after(LOOK);
        }
        Some(provider) => {
            let waits = step == Step::AwaitElder || (step == Step::Start && erasing);
            match step {
                _ if waits => it.due = fleet.clock.now().after(HEIR),
                Step::AwaitElder => {}
                Step::Start => doing.start(&mut it, &*provider).await?,
                Step::Look => doing.look(&mut it, &*provider).await?,
                Step::Stop => doing.stop(&mut it, &*provider).await,
                Step::End => doing.end(&mut it, &*provider).await,
            }
        }
    }
    let failed = it.last_error.clone().filter(|_| it.ended_at.is_none());
    doing.save(&it).await?;
    if it.ended_at.is_some() {
        super::data::erase_if_wanted(fleet, it.workspace).await?;
    }
    Ok(Pass { looked_at: 1, steps: 1, failed })
}

/// What a step knows beside its instance.
struct Doing<'a> {
    fleet: &'a Fleet,
    holder: &'a [u8],
    /// What goes into the journal.
    notes: Vec<String>,
    /// What the platform is told.
    tell: Option<String>,
}

impl Doing<'_> {
    fn now(&self) -> Timestamp {
        self.fleet.clock.now()
    }

    /// Everything that came of the step, in one transaction.
    async fn save(self, it: &Instance) -> Result<(), sqlx::Error> {
        let mut tx = self.fleet.db.begin().await?;
        if !store::save(&mut tx, self.holder, it).await? {
            // Somebody else has it by now, and does the same again.
            return Ok(());
        }
        self.write_down(&mut tx, it).await?;
        if it.ended_at.is_some() {
            store::wake_heirs(&mut tx, it.workspace, self.now()).await?;
        }
        tx.commit().await?;
        self.fleet.ring();
        Ok(())
    }

    async fn write_down(&self, tx: &mut Tx, it: &Instance) -> Result<(), sqlx::Error> {
        let about =
            About { org: Some(&it.org), workspace: Some(it.workspace), instance: Some(&it.id) };
        for what in &self.notes {
            journal::note(self.fleet, tx, about, "instance", what).await?;
        }
        match &self.tell {
            Some(error) => notices::add(self.fleet, tx, it, error).await,
            None => Ok(()),
        }
    }

    /// A step failed, and is taken again later.
    fn again(&self, it: &mut Instance, cause: &BackendError) {
        let now = self.now();
        it.failures = it.failures.one_more(now, None);
        it.due = it.failures.after_refusal(now, self.fleet.ids.jitter());
        it.last_error = Some(cause.chain());
    }

    async fn start(
        &mut self,
        it: &mut Instance,
        provider: &dyn Backend,
    ) -> Result<(), sqlx::Error> {
        let started = match provider.find(it.key()).await {
            Ok(Some(found)) => {
                self.notes.push("it was there already".to_owned());
                Ok(found)
            }
            Ok(None) => self.ensure(it, provider).await?,
            Err(cause) => Err(cause),
        };
        match started {
            Ok(started) => self.confirmed(it, started),
            Err(cause) if matches!(cause.kind, ErrorKind::Broken | ErrorKind::Unsupported) => {
                let (now, why) = (self.now(), cause.chain());
                it.see(State::Gone, "it could not be started", now);
                (it.ended_at, it.spec) = (Some(now), None);
                self.notes.push(format!("its start was refused: {why}"));
                self.tell = it.counted.then(|| why.clone());
                it.last_error = Some(why);
            }
            Err(cause) => self.again(it, &cause),
        }
        Ok(())
    }

    async fn ensure(
        &self,
        it: &Instance,
        provider: &dyn Backend,
    ) -> Result<Result<Started, BackendError>, sqlx::Error> {
        let mut tx = self.fleet.db.read().await?;
        let tenant = tenants::get(&mut tx, &it.org).await?;
        drop(tx);
        let token = tenant.and_then(|tenant| self.fleet.open(&tenant.admin_token).ok());
        let opened = it.spec.as_ref().ok_or_else(|| "it is not there".to_owned());
        let opened = opened
            .and_then(|sealed| self.fleet.open(sealed).map_err(|cause| cause.to_string()))
            .and_then(|text| {
                serde_json::from_str::<Provision>(&text).map_err(|cause| cause.to_string())
            });
        let spec = opened.and_then(|asked| {
            let whose = (it.org.as_str(), token.as_deref().unwrap_or_default());
            spec::spec(&self.fleet.config, &asked, whose, it.generation)
        });
        match spec {
            Ok(spec) => Ok(match bare(it, &spec, provider).await {
                Ok(()) => provider.ensure(spec).await,
                Err(cause) => Err(cause),
            }),
            Err(why) => {
                let why = format!("what it is to be started with cannot be read: {why}");
                Ok(Err(BackendError::broken(why)))
            }
        }
    }

    fn confirmed(&mut self, it: &mut Instance, started: Started) {
        let now = self.now();
        self.notes.push(format!("generation {} was started: {}", it.generation, started.handle));
        it.see(State::Running, "its provider confirmed its start", now);
        (it.handle, it.address, it.exit) = (started.handle, started.address, None);
        (it.confirmed_at, it.failures) = (Some(now), Failures::default());
        it.booting_until = it.counted.then(|| now.after(boot_deadline(&it.runtime)));
        it.due = now.after(LOOK);
        if it.counted {
            // It is needed for the next one.
            return;
        }
        (it.spec, it.last_error) = (None, None);
    }

    async fn look(&mut self, it: &mut Instance, provider: &dyn Backend) -> Result<(), sqlx::Error> {
        let seen = match provider.inspect(it.key()).await {
            Ok(seen) => seen,
            Err(cause) => Seen::Unknown(cause.chain()),
        };
        let now = self.now();
        let life = Life {
            counted: it.counted,
            recreations: it.recreations,
            booting_until: it.booting_until,
        };
        let words = match &seen {
            Seen::Running => "its provider says that it runs".to_owned(),
            Seen::Stopped(exit) => exit.to_string(),
            Seen::Gone => "its provider does not have it".to_owned(),
            Seen::Unknown(why) => format!("its provider cannot be asked: {why}"),
        };
        let news = State::of(&seen) != it.state;
        if news {
            self.notes.push(words.clone());
        }
        it.see(State::of(&seen), words.clone(), now);
        it.exit = match seen.clone() {
            Seen::Stopped(exit) => Some(exit),
            Seen::Running | Seen::Gone | Seen::Unknown(_) => it.exit.take(),
        };
        match judge(&seen, life, now) {
            Verdict::Runs => {
                it.last_error = None;
                it.due = it.booting_until.unwrap_or(Timestamp::NEVER).min(now.after(LOOK));
            }
            Verdict::Late => {
                let minutes = boot_deadline(&it.runtime).as_secs() / 60;
                self.tell = Some(format!("it did not register within {minutes} minutes"));
                (it.booting_until, it.due) = (None, now.after(LOOK));
            }
            Verdict::Doubt => it.due = now.after(DOUBT),
            Verdict::Down => it.due = now.after(DOWN),
            Verdict::Recreate { at, recreations } => {
                self.recreate(it, provider, (words, at)).await?;
                it.recreations = recreations;
            }
            Verdict::Spent { until } => {
                let why = format!("{words}; it was replaced too often, and is left until {until}");
                if news {
                    self.notes.push(why.clone());
                    self.tell = Some(why.clone());
                }
                (it.last_error, it.due) = (Some(why), until);
            }
        }
        Ok(())
    }

    /// Take away what is left of it, and plan the next one, which keeps its name: its platform knows that.
    async fn recreate(
        &mut self,
        it: &mut Instance,
        provider: &dyn Backend,
        (words, at): (String, Timestamp),
    ) -> Result<(), sqlx::Error> {
        if let Err(cause) = provider.destroy(it.key()).await {
            self.again(it, &cause);
            return Ok(());
        }
        let mut tx = self.fleet.db.begin().await?;
        let generation = store::count_up(&mut tx, it.workspace).await?;
        tx.commit().await?;
        self.notes.push(format!("{words}; it is replaced by generation {generation} at {at}"));
        self.tell = Some(words.clone());
        it.generation = generation;
        it.see(State::Pending, format!("{words}; it is replaced"), self.now());
        (it.confirmed_at, it.booting_until, it.address) = (None, None, None);
        (it.last_error, it.due) = (Some(words), at);
        Ok(())
    }

    async fn stop(&mut self, it: &mut Instance, provider: &dyn Backend) {
        match provider.stop(it.key(), self.fleet.config.stop_grace).await {
            Ok(()) => {
                if let Ok(Seen::Stopped(exit)) = provider.inspect(it.key()).await {
                    it.exit = Some(exit);
                }
                it.see(State::Stopped, "it was stopped, as asked", self.now());
                (it.last_error, it.due) = (None, Timestamp::NEVER);
                self.notes.push("it was stopped, as asked".to_owned());
            }
            Err(cause) => self.again(it, &cause),
        }
    }

    async fn end(&mut self, it: &mut Instance, provider: &dyn Backend) {
        let ended = match provider.stop(it.key(), self.fleet.config.stop_grace).await {
            Ok(()) => provider.destroy(it.key()).await,
            Err(cause) => Err(cause),
        };
        match ended {
            Ok(()) => {
                let now = self.now();
                it.see(State::Gone, "it was ended, as asked", now);
                (it.ended_at, it.spec, it.last_error) = (Some(now), None, None);
                self.notes.push("it was ended, as asked".to_owned());
            }
            Err(cause) => self.again(it, &cause),
        }
    }
}

/// What its predecessors proved themselves with is worth nothing to an instance that brings nothing along: its platform
/// has ended that with the plan of this start, and whoever presents it is turned away. Where the fleet counts the platform
/// has ended nothing.
async fn bare(it: &Instance, spec: &Spec, provider: &dyn Backend) -> Result<(), BackendError> {
    if it.counted || spec.env.contains_key(PASSPORT) {
        return Ok(());
    }
    for name in HELD {
        let at = Place { root: Root::Configs, path: name.into() };
        match provider.remove_file(it.workspace, at).await {
            Err(cause) if cause.kind == ErrorKind::Transient => return Err(cause),
            // Where there are no files there is no such file.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether it stands still as asked.
pub(super) fn rests(it: &Instance) -> bool {
    it.ended_at.is_some() || (it.intent == Intent::Stop && it.state == State::Stopped)
}
