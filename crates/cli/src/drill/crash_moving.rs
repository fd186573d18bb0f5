//! The server is killed after every step of a migration: after each entry that the migration writes into the journal,
//! while a caller goes on sending turns. It ends migrated or rolled back; which, depends on the step.

use std::time::Duration;

use ligand_api::migration::Migration;

use super::api::Api;
use super::crash::{arm, disarm};
use super::moving::{self, EAST, WEST};
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;
use crate::migrate::picture::is_over;

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// More entries than any migration writes.
const MOST: usize = 60;

/// Where it stood before a round.
struct Before {
    backend: String,
    /// The last entry of its journal.
    entry: i64,
}

impl Before {
    fn other(&self) -> &'static str {
        if self.backend == EAST { WEST } else { EAST }
    }
}

pub(super) async fn crash_amid_a_migration(
    scene: &Scene,
    stack: &mut Stack,
    mut api: Api,
) -> Outcome {
    let id = api.managed("traveller").await?;
    for step in 1..=MOST {
        api.online(scene, &id, 0).await?;
        let why = api.why(&id).await?;
        let entry = why.journal.last().map_or(0, |entry| entry.seq);
        let before = Before { backend: moving::backend_of(&why.workspace), entry };
        let caller = api.caller(&id, &format!("turn-{step}"));
        let struck = strike(&api, stack, &id, &before, step).await?;
        if struck {
            api = stack.serve_again().await?;
        }
        let round = match struck {
            true => format!("migration, killed after entry {step}"),
            false => "migration, undisturbed".to_owned(),
        };
        let it = moving::over(scene, &api, &id, &format!("{round}: it comes to its end")).await?;
        api.online(scene, &id, 0).await?;
        let backend = moving::backend_of(&api.why(&id).await?.workspace);
        let right = if it.state == "migrated" { before.other() } else { before.backend.as_str() };
        let seen = format!("{} from {} to {}: on {backend}", it.state, it.from, it.to);
        scene.must(&format!("{round}: it is where that says"), backend == right, seen)?;
        moving::conserved(scene, &api, stack, &id, &caller.end().await?).await?;
        if !struck {
            let must = "migration: there were steps to strike at";
            scene.must(must, step > 1, format!("{} entries", step - 1))?;
            api.client.delete(&id, true, true).await?;
            return Ok(());
        }
    }
    scene.must("migration: it writes so many entries and no more", false, MOST)
}

/// Begin, and kill the server after so many entries; `false`: it was over before.
async fn strike(
    api: &Api,
    stack: &mut Stack,
    id: &str,
    before: &Before,
    step: usize,
) -> Outcome<bool> {
    arm(stack, step)?;
    let body = moving::to(before.other());
    let order = async { api.client.migrate(id, &body).await.ok() };
    let (_, struck): (Option<Migration>, _) =
        tokio::join!(order, watch(api, stack, id, before, step));
    struck
}

async fn watch(
    api: &Api,
    stack: &mut Stack,
    id: &str,
    before: &Before,
    step: usize,
) -> Outcome<bool> {
    let until = clock::now().after(moving::ENDS);
    loop {
        if stack.server_ended()? {
            return Ok(true);
        }
        let new =
            api.client.why(id).await.map_or(0, |why| {
                why.journal.iter().filter(|entry| entry.seq > before.entry).count()
            });
        if !cfg!(feature = "mutants") && new >= step {
            stack.kill_server()?;
            return Ok(true);
        }
        let last = api.client.migrations_of(id).await.ok();
        let last = last.and_then(|all| all.migrations.into_iter().next());
        let through = new > 0 && last.is_some_and(|it| is_over(&it) && it.from == before.backend);
        // Whoever is late is judged by what it comes to.
        if through || clock::now() >= until {
            if disarm(stack) {
                return Ok(false);
            }
            // It is about to end.
            while !stack.server_ended()? {
                clock::pause(LOOK).await;
            }
            return Ok(true);
        }
        clock::pause(LOOK).await;
    }
}
