//! `POST /workspaces/{id}/mcp`, and the stream that older clients open beside it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response, Sse, sse};
use futures_util::{StreamExt as _, stream};
use ligand_api::error::ErrorBody;
use ligand_domain::mcp::Revision;
use serde_json::{Value, json};

use super::rpc::{self, Call, Fault};
use super::tools;
use crate::access::OfWorkspace;
use crate::app::App;
use crate::http::{body, limit};

/// Names and versions by which clients of the contract know the server.
const SERVER: (&str, &str) = ("molecule-a2a", "1.0.0");
/// What a model is told that can call these tools.
const INSTRUCTIONS: &str = "These tools act for the workspace in the address: it finds its peers, and hands them \
    tasks. delegate_task waits for the answer; delegate_task_async does not, and check_task_status tells what came of it.";
/// A stream without news says so this often.
const PING: Duration = Duration::from_secs(30);

/// Call a tool that the platform offers a workspace's agent (Model Context Protocol).
#[utoipa::path(post, path = "/workspaces/{id}/mcp", tag = "messages", params(("id" = String, Path, description = "workspace id")), request_body = Object, responses(
    (status = 200, description = "a JSON-RPC answer"), (status = 202, description = "a note, taken"), (status = 400, description = "a JSON-RPC error"),
    (status = 401, body = ErrorBody), (status = 404, description = "a JSON-RPC error: there is no such method"), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn call(
    caller: OfWorkspace,
    State(app): State<App>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let answer = async {
        match body::payload(body, body::MAX_BODY).await {
            Ok(body) => Box::pin(answer(&app, &caller, &head.headers, &body)).await,
            Err(refused) => refused.into_response(),
        }
    };
    limit::metered(&app, &head.headers, answer).await
}

/// Where the calls of older clients go, told as an event; then signs of life.
#[utoipa::path(get, path = "/workspaces/{id}/mcp/stream", tag = "messages", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, description = "event: endpoint, data: the path of calls", content_type = "text/event-stream"), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn stream(
    caller: OfWorkspace,
    State(app): State<App>,
    headers: HeaderMap,
) -> Response {
    let place = format!("/workspaces/{}/mcp", caller.workspace);
    let first = sse::Event::default().event("endpoint").data(place);
    let stop = app.stop.clone();
    let end = async move {
        stop.cancelled().await;
        None
    };
    let events = stream::iter([Some(first)]).chain(stream::once(end));
    let events = events.filter_map(async |event| event.map(Ok::<_, Infallible>));
    let ping = sse::KeepAlive::new().interval(PING).text("ping");
    let answer = async { Sse::new(events).keep_alive(ping).into_response() };
    limit::metered(&app, &headers, answer).await
}

async fn answer(app: &App, caller: &OfWorkspace, headers: &HeaderMap, body: &[u8]) -> Response {
    let call = match rpc::read(body) {
        Ok(call) => call,
        Err((fault, id)) => return fault.answer(id),
    };
    // The handshake is where the revision is agreed on: it speaks none yet.
    let shakes = call.method == "initialize";
    let revision = if shakes { Ok(Revision::V2024_11_05) } else { call.revision(headers) };
    let revision = match revision {
        Ok(revision) => revision,
        Err(fault) => return fault.answer(call.id),
    };
    if call.id.is_none() {
        let status = StatusCode::from_u16(revision.noted());
        return status.unwrap_or(StatusCode::ACCEPTED).into_response();
    }
    match result(app, caller, &call, revision).await {
        Ok(mut result) => {
            if revision.stands_alone() {
                result["resultType"] = json!("complete");
            }
            Json(json!({"jsonrpc": "2.0", "id": call.id, "result": result})).into_response()
        }
        Err(fault) => fault.answer(call.id),
    }
}

async fn result(
    app: &App,
    caller: &OfWorkspace,
    call: &Call,
    revision: Revision,
) -> std::result::Result<Value, Fault> {
    let server = || json!({"name": SERVER.0, "version": SERVER.1});
    let capabilities = || json!({"tools": {"listChanged": false}});
    match call.method.as_str() {
        "initialize" => {
            let asked = call.params.get("protocolVersion").and_then(Value::as_str);
            Ok(
                json!({"protocolVersion": Revision::offer(asked).as_str(), "capabilities": capabilities(),
                "serverInfo": server(), "instructions": INSTRUCTIONS}),
            )
        }
        "server/discover" => Ok(
            json!({"supportedVersions": Revision::ALL.map(Revision::as_str), "capabilities": capabilities(),
            "instructions": INSTRUCTIONS, "_meta": {"io.modelcontextprotocol/serverInfo": server()},
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}),
        ),
        "ping" if !revision.stands_alone() => Ok(json!({})),
        "tools/list" => {
            let mut listed = json!({"tools": tools::listed(app)});
            if revision.stands_alone() {
                (listed["ttlMs"], listed["cacheScope"]) = (json!(0), json!("private"));
            }
            Ok(listed)
        }
        "tools/call" => {
            let said = tools::call(app, caller, &call.params).await?;
            match said {
                Ok(text) => Ok(content(&text, false)),
                Err(why) if revision.failure_is_a_result() => Ok(content(&why, true)),
                Err(why) => Err(Fault::tool(why)),
            }
        }
        method => Err(Fault::method(method, revision)),
    }
}

fn content(text: &str, failed: bool) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": failed})
}
