//! Passes of reconcilers: whole, parked, overtaken, and cut short by the end of their server.

use std::sync::Arc;
use std::time::Duration;

use ligand_server::backend::Key;
use ligand_server::backend::fake::Fault;
use ligand_server::reconcile::Reconciler;
use ligand_server::workspaces::WorkspaceReconciler;

use crate::agents::Agent;
use crate::faults::{Driven, Running, Trouble};
use crate::invariants;
use crate::trace::Violation;
use crate::world::World;

/// Passes that stand still at once, at most.
const MOST_PARKED: usize = 3;
/// Longer than a claim on a workspace lasts.
const OVERTAKEN: Duration = Duration::from_secs(31);
/// A server that ends amid a pass does so within so many commits.
const CUT_WITHIN: usize = 5;
/// Gates that a pass comes by, about.
const PASSED: usize = 8;

impl World {
    /// A pass, with trouble at one of its gates now and then.
    pub(crate) async fn pass_in_trouble(&mut self) -> Result<(), Violation> {
        let replica = self.dice.below(self.replicas.len());
        let trouble = if self.parked.len() < MOST_PARKED && self.dice.chance(60) {
            Trouble::Park
        } else {
            Trouble::Fail
        };
        if self.dice.chance(35) {
            let left = u32::try_from(self.dice.below(PASSED)).unwrap_or_default();
            self.gates.trouble(left, trouble);
            if self.dice.chance(20) {
                self.say("the backend will refuse the next start".to_owned());
                self.fakes[0].plan(Fault::Refuse("no space".to_owned()));
            }
        }
        let outcome = match self.dice.chance(50) && self.workspaces.iter().any(|it| it.moved) {
            true => self.pass_of_migrations(replica).await,
            false => self.pass(replica).await,
        };
        self.gates.clear();
        outcome.map(|_| ())
    }

    /// One pass. Gives whether there was something to look at.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn pass(&mut self, replica: usize) -> Result<bool, Violation> {
        self.pass_of(replica, Arc::new(WorkspaceReconciler)).await
    }

    /// One pass of one that looks now and then.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn sweep(&mut self, replica: usize, which: usize) -> Result<(), Violation> {
        let sweep = Arc::clone(&self.replicas[replica].sweeps[which]);
        self.pass_of(replica, sweep).await.map(|_| ())
    }

    /// A server ends right after a commit amid a pass: of workspaces, or of one that looks now and then.
    pub(crate) async fn cut(&mut self) -> Result<(), Violation> {
        let replica = self.dice.below(self.replicas.len());
        let commits = 1 + u32::try_from(self.dice.below(CUT_WITHIN)).unwrap_or_default();
        self.replicas[replica].end_after(commits);
        let which = self.dice.below(4 * self.replicas[replica].sweeps.len());
        let moved = self.workspaces.iter().any(|it| it.moved);
        let cut = match which < self.replicas[replica].sweeps.len() {
            true => self.sweep(replica, which).await,
            false if moved && self.dice.chance(60) => {
                self.pass_of_migrations(replica).await.map(|_| ())
            }
            false => self.pass(replica).await.map(|_| ()),
        };
        self.replicas[replica].end_after(0);
        cut
    }

    pub(crate) async fn pass_of(
        &mut self,
        replica: usize,
        reconciler: Arc<dyn Reconciler>,
    ) -> Result<bool, Violation> {
        let name = reconciler.name();
        let begun = Running::begin(self.replicas[replica].app.clone(), replica, reconciler);
        let well = self.well();
        let looked = self.go_on(begun, name).await?;
        // What it decided, it decided just now.
        invariants::none_ended(&self.workspaces, &well, &self.running())?;
        Ok(looked)
    }

    /// Instances that run, serve, and have nobody who wants them gone.
    fn well(&self) -> Vec<Key> {
        let mut running = self.running();
        running.retain(|key| {
            let of = self.workspaces.iter().find(|it| it.id == key.workspace);
            // A source that cannot stand by is stopped before its target takes over.
            let stands_by = |it: &Agent| it.instance == Some(*key) && it.stands_by();
            let stopped = of.is_some_and(|it| it.moving.is_some());
            let stopped = stopped && !self.agents.iter().any(stands_by);
            !stopped && of.is_some_and(|it| it.is_served_by(key.generation.number()))
        });
        running
    }

    async fn go_on(&mut self, running: Running, name: &str) -> Result<bool, Violation> {
        let replica = running.replica;
        let _ = self.gates.touched();
        let outcome = running.drive(&self.gates).await;
        self.replicas[replica].settle().await;
        let (line, looked) = match outcome {
            Driven::Parked(running) => {
                let line = format!("stands {}", running.at);
                self.parked.push(running);
                (line, true)
            }
            Driven::Crashed => {
                self.crash(replica);
                // It told nobody what it had recorded: what was seen before may be over.
                for workspace in &mut self.workspaces {
                    workspace.seen_at = -1;
                }
                ("ended with its server, right after a commit".to_owned(), true)
            }
            Driven::Over(Err(cause)) => {
                return Err(Violation::new("a pass can always look", format!("{cause:#}")));
            }
            Driven::Over(Ok(pass)) => {
                // One that looks now and then always finds somebody to look at.
                let idle = pass.steps == 0 && pass.failed.is_none();
                let sweep = self.replicas[replica].sweeps.iter().any(|it| it.name() == name);
                let looked = pass.looked_at > 0 && !(sweep && idle);
                let failed = pass.failed.map(|why| format!(": {why}")).unwrap_or_default();
                (format!("looked at {}, {} steps{failed}", pass.looked_at, pass.steps), looked)
            }
        };
        if looked {
            let touched = self.gates.touched();
            let all = 0..self.workspaces.len();
            let of = |at: &usize| touched.is_empty() || touched.contains(&self.workspaces[*at].id);
            let of: Vec<usize> = all.filter(of).collect();
            let names: Vec<&str> = of.iter().map(|at| &*self.workspaces[*at].name).collect();
            let names = if touched.is_empty() { "one".to_owned() } else { names.join(", ") };
            self.say(format!("pass of {name} of replica {replica} at {names}: {line}"));
            for at in of {
                self.look(at).await?;
            }
        }
        Ok(looked)
    }

    pub(crate) async fn resume(&mut self) -> Result<(), Violation> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(self.parked.len());
        let parked = self.parked.swap_remove(at);
        if self.dice.chance(40) {
            self.overtake(parked.key).await?;
        }
        self.say(format!("pass of replica {} goes on {}", parked.replica, parked.at));
        self.go_on(parked, "what was resumed").await.map(|_| ())
    }

    /// What stands still loses its workspace to others, which get on with it; even to the end of the instance
    /// that it was about.
    async fn overtake(&mut self, key: Option<Key>) -> Result<(), Violation> {
        self.say(format!("{OVERTAKEN:?} pass"));
        self.ground.clock.advance(OVERTAKEN);
        self.passes().await?;
        if let (Some(key), true) = (key, self.dice.chance(50)) {
            self.say(format!("{} is killed", self.title(key)));
            self.kill(key, 9);
            self.sync_agents();
            self.hear_all().await;
            self.passes().await?;
        }
        Ok(())
    }

    async fn passes(&mut self) -> Result<(), Violation> {
        for _ in 0..self.workspaces.len() {
            let replica = self.dice.below(self.replicas.len());
            if !self.pass(replica).await? {
                break;
            }
            self.sync_agents();
        }
        Ok(())
    }

    /// A server is killed and started again. What it was doing stops where it stood.
    pub(crate) fn crash(&mut self, replica: usize) {
        self.note_recorded();
        self.say(format!("replica {replica} crashes and starts again"));
        self.parked.retain(|parked| parked.replica != replica);
        self.replicas[replica] = self.boot();
    }
}
