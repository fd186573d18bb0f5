//! The end of a run: faults stop, and what must come true does.

use std::time::Duration;

use crate::agents::What;
use crate::faults::Driven;
use crate::invariants;
use crate::model::Workspace;
use crate::trace::{Violation, law};
use crate::world::World;

/// Rounds of quiet weather at most. The longest way back is a start that nobody takes up (600 s), then a
/// delay (300 s), then a lease and its patience (240 s); and a drain has several migrations before it, of which
/// each waits for an agent that hangs (600 s).
const ROUNDS: u32 = 240;
/// Virtual time between two rounds; short enough for every lease.
const ROUND: Duration = Duration::from_secs(25);
/// Rounds between two in which everything looks that looks now and then: that is every minute or two, too.
const SWEPT_EVERY: u32 = 3;
/// Passes of one replica in one round at most.
const PASSES: u32 = 60;

impl World {
    /// Faults stop. Every workspace that is meant to run comes online, and nothing is left over.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn quiet(&mut self) -> Result<(), Violation> {
        self.say("quiet weather".to_owned());
        self.gates.clear();
        self.late.clear();
        for agent in &mut self.agents {
            agent.gone |= agent.zombie;
        }
        for workspace in &mut self.workspaces {
            workspace.doomed = 0;
        }
        while let Some(parked) = self.parked.pop() {
            let outcome = parked.drive(&self.gates).await;
            law(matches!(outcome, Driven::Over(Ok(_))), "a pass ends", String::new)?;
            self.sync_agents();
        }
        self.resume_all().await?;
        for _ in 0..ROUNDS {
            self.round().await?;
            if self.wanting().is_none() && self.undelivered().is_none() {
                return self.rest().await;
            }
            self.ground.clock.advance(ROUND);
        }
        let wanting = self.wanting().map(|it| format!("{}: {}", it.name, it.seen.brief()));
        let wanting = wanting.or_else(|| self.undelivered());
        Err(Violation::new("law 2: no wedge", wanting.unwrap_or_default()))
    }

    async fn round(&mut self) -> Result<(), Violation> {
        self.step += 1;
        for replica in 0..self.replicas.len() {
            let mut passes = 0;
            let mut looked = true;
            while looked {
                looked = self.pass(replica).await?;
                looked |= self.pass_of_migrations(replica).await?;
                looked |= self.pass_of_drains(replica).await?;
                self.sync_agents();
                passes += 1;
                law(passes < PASSES, "the reconciler rests", || "it goes in circles".to_owned())?;
            }
            self.deliver_all(replica).await?;
        }
        if self.step.is_multiple_of(SWEPT_EVERY) {
            for which in 0..self.replicas[0].sweeps.len() {
                self.sweep(0, which).await?;
            }
        }
        self.sync_agents();
        for at in 0..self.agents.len() {
            let agent = &mut self.agents[at];
            // There are no zombies in quiet weather.
            agent.gone |= agent.zombie;
            if !agent.gone && !agent.hung && !self.workspaces[self.agents[at].workspace].removed {
                let what = self.duty(at, true);
                let letter = self.write(at, what, true);
                self.deliver(letter, false).await?;
                // Then a heartbeat at once: what it was given has been used then.
                if what != What::Heartbeat {
                    let letter = self.write(at, What::Heartbeat, true);
                    self.deliver(letter, false).await?;
                }
            }
        }
        self.hear_all().await;
        self.look_everywhere().await
    }

    /// A workspace that is not as it should be yet.
    fn wanting(&self) -> Option<&Workspace> {
        let rests = |it: &Workspace| {
            let in_flight =
                it.seen.rows.iter().any(|row| !row.ended && row.generation > it.seen.current);
            let due = it.restart_due || in_flight || it.moving.is_some();
            match it.removed {
                true if it.purging => it.purged,
                true if it.moving.is_some() => false,
                true => it.seen.next == "nothing: it is deleted",
                false => it.seen.status == "online" && !due && it.seen.current > 0,
            }
        };
        self.workspaces.iter().find(|it| !rests(it))
    }

    async fn rest(&mut self) -> Result<(), Violation> {
        self.look_everywhere().await?;
        self.read_events().await?;
        self.no_leak()?;
        invariants::no_gap(&self.workspaces, &self.events)
    }
}
