//! Delivers what waits, judges leases that lapsed, gives up what waited too long, and forgets what is over.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ligand_domain::delegation::Status;
use ligand_domain::id::{MessageId, WorkspaceId};
use ligand_domain::message::{self, Outcome};
use ligand_domain::time::Timestamp;

use super::row::{Lease, Message};
use super::store::{self, leases, queue};
use super::turn::{Came, Lost, Turn};
use super::{Done, outcome};
use crate::app::App;
use crate::delegations;
use crate::http::route::{NoRoute, Route};
use crate::journal::Work;
use crate::reconcile::{Pass, Reconciler};
use crate::workspaces::{self, Roused, Workspace};

/// Its name, by which its bell is known.
pub(super) const NAME: &str = "deliveries";
/// Rows of one kind that a pass looks at.
const AT_ONCE: i64 = 200;
/// How often messages are looked for that are to be given up: that reads all that wait.
pub(super) const GIVE_UP: Duration = Duration::from_secs(30);
/// How often what is over is looked for.
const FORGET: Duration = Duration::from_secs(300);
/// Rows that are forgotten at once.
const FORGOTTEN: i64 = 1000;

/// Delivers messages that were accepted.
pub struct DeliveryReconciler;

impl Reconciler for DeliveryReconciler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn does(&self) -> &'static str {
        "delivers messages that were accepted, as soon as their workspace can take them"
    }

    fn workers(&self) -> usize {
        1
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        pass(app).boxed()
    }

    fn next_due<'a>(&'a self, _: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        // It looks again soon enough, and hears a bell when something comes or there is room.
        async { Ok(None) }.boxed()
    }
}

async fn pass(app: &App) -> anyhow::Result<Pass> {
    let mut pass = Pass::default();
    lapses(app, &mut pass).await?;
    let now = app.clock.now();
    if app.post.gives_up(now) {
        hopeless(app, &mut pass).await?;
    }
    // Whoever accepts one from now on is not forgotten.
    app.post.queued().clear();
    let waiting = queue::waiting(&mut app.db.read().await?, now).await?;
    app.post.queued().extend(waiting.iter().map(|waits| WorkspaceId::from_uuid(waits.id)));
    for waits in waiting.into_iter().filter(|waits| waits.due) {
        let id = WorkspaceId::from_uuid(waits.id);
        if waits.sleeps {
            let roused = workspaces::rouse(app, id, "a message waits").await?;
            pass.steps += u64::from(matches!(roused, Roused::Begun));
        }
        if !waits.ready {
            continue;
        }
        match deliver_next(app, id).await {
            Ok(taken) => {
                pass.looked_at += u64::from(taken);
                pass.steps += u64::from(taken);
            }
            // It is looked at again; the others are delivered all the same.
            Err(cause) => pass.failed = Some(format!("workspace {id}: {cause}")),
        }
    }
    Ok(pass)
}

/// Lease the next message of a workspace, and deliver it in the background. `false`: there was none.
async fn deliver_next(app: &App, id: WorkspaceId) -> Done<bool> {
    let mut work = Work::begin(app).await?;
    let now = work.now;
    let Some(workspace) = workspaces::lock(&mut work.tx, id).await? else { return Ok(false) };
    let holder = app.post.holder(app);
    let until = now.after(message::LEASE);
    let most = workspace.max_concurrent_tasks.max(1);
    let of = (id, workspace.current);
    let Some(message) = leases::claim(&mut work.tx, of, most, (holder, until), now).await? else {
        return Ok(false);
    };
    let instance = workspaces::instance_of(&mut work.tx, id, workspace.current).await?;
    delegations::moved(&mut work, &message, Status::Dispatched).await?;
    work.commit().await?;
    let reported = instance.as_ref().is_some_and(|instance| instance.url_reported);
    let remembers = instance.is_some_and(|instance| instance.features.turns);
    let (of, message) = (app.clone(), Box::new(message));
    app.spawn(async move { deliver(of, workspace, *message, (reported, remembers)).await });
    Ok(true)
}

async fn deliver(
    app: App,
    target: Workspace,
    message: Message,
    (reported, remembers): (bool, bool),
) {
    let holder = message.holder.unwrap_or_default();
    let (id, attempt, generation) = (message.id, message.attempt, message.generation);
    let headers: BTreeMap<String, String> =
        serde_json::from_str(&message.headers).unwrap_or_default();
    let began = app.clock.now();
    let route = Route::to(&app, &target.agent.url, reported).await;
    let (route, lost) = match route {
        Ok(route) => (route, None),
        Err(cause) => {
            let why = match cause {
                NoRoute::Unsafe(why) => format!("workspace URL is not publicly routable: {why}"),
                NoRoute::Broken(cause) => format!("failed to create proxy request: {cause:#}"),
            };
            let nowhere = reqwest::Url::parse("http://localhost:0").expect("a URL");
            let route = Route { url: nowhere, http: app.http.clone() };
            (route, Some(Lost { outcome: Outcome::Unreached, why, unread: None }))
        }
    };
    let turn = Turn {
        app,
        target,
        route,
        remembers,
        body: message.body,
        headers,
        sender: message.caller,
        lease: Some(Lease { id, attempt, generation, holder }),
        again: message.again,
        queued: true,
        fleeting: false,
        limit: Some(super::direct::AGENT_CEILING),
        began,
    };
    match lost {
        None => turn.serve(None).await,
        Some(lost) => {
            outcome::settle(&turn, &Came::Lost(lost), false).await;
        }
    }
}

/// Leases of servers that are gone.
async fn lapses(app: &App, pass: &mut Pass) -> anyhow::Result<()> {
    let now = app.clock.now();
    let lapsed = leases::lapsed(&mut app.db.read().await?, now, AT_ONCE).await?;
    for id in lapsed {
        let mut work = Work::begin(app).await?;
        let Some(row) = leases::take_lapsed(&mut work.tx, id, work.now).await? else { continue };
        let instance = workspaces::instance_of(&mut work.tx, row.workspace, row.generation).await?;
        let remembers = instance.is_some_and(|instance| instance.features.turns);
        let judged = outcome::lapsed(app, &mut work, &row, remembers).await?;
        work.commit().await?;
        app.post.waiting.tell(id);
        pass.looked_at += u64::from(judged);
        pass.steps += u64::from(judged);
    }
    Ok(())
}

/// What waited too long, or for somebody who is no more.
async fn hopeless(app: &App, pass: &mut Pass) -> anyhow::Result<()> {
    let now = app.clock.now();
    let hopeless = queue::hopeless(&mut app.db.read().await?, now, AT_ONCE).await?;
    for id in hopeless {
        pass.steps += u64::from(give_up(app, id).await?);
    }
    Ok(())
}

async fn give_up(app: &App, id: MessageId) -> Done<bool> {
    let mut work = Work::begin(app).await?;
    let now = work.now;
    let Some(row) = queue::give_up(&mut work.tx, id, now).await? else { return Ok(false) };
    outcome::over(&mut work, &row, row.state, row.last_error.as_deref()).await?;
    work.commit().await?;
    app.post.waiting.tell(id);
    Ok(true)
}

/// Forgets messages that are over, once a repeated one is no longer recognised.
pub struct MessageRetention;

impl Reconciler for MessageRetention {
    fn name(&self) -> &'static str {
        "message-retention"
    }

    fn does(&self) -> &'static str {
        "forgets messages that were over for longer than a repeated one is recognised"
    }

    fn workers(&self) -> usize {
        1
    }

    fn every(&self) -> Option<Duration> {
        Some(FORGET)
    }

    fn pass<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Pass>> {
        async {
            let before = app.clock.now().before(app.config.messages.dedupe);
            let mut tx = app.db.begin().await?;
            let gone = store::queue::forget(&mut tx, before, FORGOTTEN).await?;
            tx.commit().await?;
            Ok(Pass { looked_at: gone, steps: gone, failed: None })
        }
        .boxed()
    }

    fn next_due<'a>(&'a self, app: &'a App) -> BoxFuture<'a, anyhow::Result<Option<Timestamp>>> {
        async { Ok(Some(app.clock.now().after(FORGET))) }.boxed()
    }
}
