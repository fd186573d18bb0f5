//! How the simulator watches: by the API, and by what the backend has.

use ligand_api::journal::Why;
use ligand_server::backend::Key;

use crate::calls::Call;
use crate::invariants;
use crate::model::{View, Workspace};
use crate::trace::{Violation, law};
use crate::world::World;

impl World {
    /// Nothing is at the backend that no row names. While a pass stands still, it may be about to tell.
    ///
    /// # Errors
    /// The law that was broken.
    pub fn no_leak(&self) -> Result<(), Violation> {
        let owned: Vec<Key> = self.instances().iter().map(|it| it.key).collect();
        invariants::no_leak(&self.workspaces, &owned)
    }

    /// Look at one workspace, and check the laws about it.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn look(&mut self, at: usize) -> Result<(), Violation> {
        self.note_recorded();
        self.look_at_migration(at).await?;
        let workspace = &self.workspaces[at];
        if workspace.seen_at == self.recorded && !workspace.purging {
            return self.glance(at).await;
        }
        let path = format!("/workspaces/{}/why", workspace.id);
        let answer = self.observer.ask(self.ground.clock.now(), Call::admin("GET", &path)).await;
        let workspace = &mut self.workspaces[at];
        workspace.purged |= workspace.purging && answer.status == 404;
        if workspace.purged {
            return law(answer.status == 404, "removed is terminal", || answer.text.clone());
        }
        let leaked = self.minted.keys().find(|token| answer.text.contains(token.as_str()));
        law(leaked.is_none(), "law 10: secrets stay secret", || workspace.name.clone())?;
        let why: Why = serde_json::from_str(&answer.text)
            .map_err(|_| Violation::new("the journal is readable", &*answer.text))?;
        let view = View::from(why);
        invariants::look(workspace, &view)?;
        // A start carries what was asked for until it loaded what it is given.
        let before = workspace.seen.journal.last().map_or(0, |(seq, _)| *seq);
        let new = view.journal.iter().filter(|(seq, _)| *seq > before);
        // A migration's target has loaded what was asked for before it took over.
        let loaded = |it: &str| it.contains("was started") || it.contains("is the workspace now");
        // Started it has not: a restart that falls due meanwhile waits for what becomes of the migration.
        let target = workspace.moving.as_ref().and_then(|moving| moving.target);
        let waits = target.map(|target| format!("generation {target} was started"));
        let waits = |it: &str| waits.as_ref().is_some_and(|waits| it.contains(waits));
        let started = new.into_iter().any(|(_, summary)| loaded(summary) && !waits(summary));
        let newer = view.newest != workspace.seen.newest && target != Some(view.newest);
        workspace.restart_due &= !newer && !started;
        (workspace.seen, workspace.seen_at) = (view, self.recorded);
        Ok(())
    }

    /// Nothing was recorded since it was last looked at. Then nothing of it may have moved.
    async fn glance(&mut self, at: usize) -> Result<(), Violation> {
        let Workspace { id, name, seen, .. } = &self.workspaces[at];
        let path = format!("/workspaces/{id}");
        let answer = self.observer.ask(self.ground.clock.now(), Call::admin("GET", &path)).await;
        let now = answer.json();
        let same = now["intent"] == seen.intent
            && now["status"] == seen.status
            && now["url"] == seen.url
            && now["generation"] == seen.current;
        law(same, "nothing moves without a record", || {
            format!("{name}: {} → {}", seen.brief(), answer.text)
        })
    }

    /// Learn from every server how far the record goes.
    pub(crate) fn note_recorded(&mut self) {
        let last = self.replicas.iter().map(|it| it.recorded()).max().unwrap_or_default();
        self.recorded = self.recorded.max(last).max(self.observer.recorded());
    }

    /// Look at all of them.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn look_everywhere(&mut self) -> Result<(), Violation> {
        for at in 0..self.workspaces.len() {
            self.look(at).await?;
        }
        Ok(())
    }

    /// Read the events that came since they were last read, as a watcher that reconnects does.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn read_events(&mut self) -> Result<(), Violation> {
        let last = self.events.last().copied().unwrap_or(0);
        let path = format!("/events/stream?after={last}");
        let answer = self.observer.ask(self.ground.clock.now(), Call::admin("GET", &path)).await;
        let leaked = self.minted.keys().find(|token| answer.text.contains(token.as_str()));
        law(leaked.is_none(), "law 10: secrets stay secret", || "in an event".to_owned())?;
        let mut before = last;
        // A comment carries the cursor at which the watcher stands; events have data.
        let told = answer.text.split("\n\n").filter(|part| part.contains("data:"));
        let numbers =
            told.filter_map(|part| part.lines().find_map(|line| line.strip_prefix("id: ")));
        for seq in numbers {
            let seq: i64 = seq.trim().parse().unwrap_or_default();
            law(seq > before, "event numbers rise", || format!("{seq} after {before}"))?;
            before = seq;
            self.events.insert(seq);
        }
        Ok(())
    }
}
