//! Tells agents.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::briefing::{self, BUDGET, Restart};
use ligand_domain::time::Timestamp;
use serde_json::{Value, json};

use super::{Briefing, store};
use crate::app::App;
use crate::reconcile::{Pass, Reconciler};
use crate::{messages, secrets};

/// As whom the platform speaks.
const CALLER: &str = "system:restart-context";
/// An agent that was admitted and is not online yet is looked at this often.
const LOOK: Duration = Duration::from_millis(500);
/// Workspaces that one pass looks at.
const MOST: i64 = 50;

/// See the module above.
pub struct BriefingReconciler;

impl Reconciler for BriefingReconciler {
    fn name(&self) -> &'static str {
        "briefings"
    }

    fn does(&self) -> &'static str {
        "tells agents that they were restarted, once they are online"
    }

    fn workers(&self) -> usize {
        1
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        pass(app).boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async {
            let waiting = store::admitted(&mut app.db.read().await?, 1).await?;
            Ok((!waiting.is_empty()).then(|| app.clock.now().after(LOOK)))
        }
        .boxed()
    }
}

async fn pass(app: &App) -> anyhow::Result<Pass> {
    let waiting = store::admitted(&mut app.db.read().await?, MOST).await?;
    let now = app.clock.now();
    let mut pass = Pass::default();
    for (workspace, online, admitted_at) in waiting {
        let late = now > admitted_at.after(BUDGET);
        if !online && !late {
            continue;
        }
        pass.looked_at += 1;
        let mut tx = app.db.begin().await?;
        let taken = store::take(&mut tx, workspace).await?;
        let names = secrets::names(&mut tx, workspace).await?;
        tx.commit().await?;
        let Some(briefing) = taken.filter(|_| !late) else { continue };
        pass.steps += 1;
        tell(app, &briefing, &names);
    }
    Ok(pass)
}

/// Send it, and wait for the answer beside everything else: a turn may take its time.
fn tell(app: &App, briefing: &Briefing, names: &[String]) {
    let (at, previous_end) = (briefing.restarted_at, briefing.previous_end);
    let text = briefing::text(Restart { at, previous_end, names });
    let fresh = || uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid().to_string();
    let message = message(&text, [fresh(), fresh()]);
    let (of, workspace) = (app.clone(), briefing.workspace);
    app.spawn(async move {
        let told = tokio::select! {
            told = messages::tell(&of, workspace, message, BUDGET) => told,
            () = of.stop.cancelled() => return,
        };
        if let Err(cause) = told {
            let cause = format!("{cause:?}");
            tracing::debug!(workspace.id = %workspace, caller = CALLER, cause, "an agent was not told of its restart");
        }
    });
}

/// The envelope, marked so that runtimes and canvases know it from what people say.
fn message(text: &str, [id, message_id]: [String; 2]) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": id,
        "method": "message/send",
        "params": {"message": {
            "messageId": message_id,
            "role": "user",
            "parts": [{"kind": "text", "text": text}],
            "metadata": {"source": "platform", "kind": "restart_context", "layer": 1, "restart_context": true},
        }},
    })
}
