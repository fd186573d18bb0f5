//! What the machine could do at best: a server that reads the body of a heartbeat, and answers as if all were
//! well. It knows no credential and keeps nothing. It runs in a process of its own, as the server does.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use axum::routing::post;
use axum::{Json, Router};
use ligand_api::registry::Heartbeat;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::error::{CommandError, CommandResult};
use crate::output;

/// `ligand scaletest-bare`.
pub(crate) fn bare() -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("start the runtime").map_err(CommandError::internal)?;
    runtime.block_on(serve()).map_err(CommandError::internal)
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
    let address = listener.local_addr().context("listen")?;
    output::note(&format!("a bare handler is listening at http://{address}"));
    let router = Router::new().route("/registry/heartbeat", post(heartbeat));
    axum::serve(listener, router).await.context("serve")
}

async fn heartbeat(Json(beat): Json<Heartbeat>) -> Json<Well> {
    // The body is used, so that reading it is not left out.
    let status = if beat.workspace_id.is_empty() { "nobody" } else { "ok" };
    Json(Well { status, next_heartbeat_seconds: 30 })
}

/// The same words as a server's.
#[derive(Serialize)]
struct Well {
    status: &'static str,
    next_heartbeat_seconds: u64,
}
