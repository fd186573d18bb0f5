//! The tools, and what each does. All of them act for one workspace: the caller was let in as that one, or as
//! somebody who may act for it.

use std::time::Duration;

use axum::http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use ligand_api::answer::said;
use ligand_domain::delegation::Status;
use ligand_domain::id::WorkspaceId;
use serde_json::{Map, Value, json};

use super::rpc::Fault;
use crate::access::{By, OfWorkspace, Sender};
use crate::app::App;
use crate::error::Error;
use crate::{activity, delegations, discovery, messages, workspaces};

/// How long a task that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer of an agent that is given on.
const MAX_ANSWER: usize = 10 << 20;

/// What a tool says; or why it failed, for the model that called it.
pub(super) type Told = Result<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    DelegateTask,
    DelegateTaskAsync,
    CheckTaskStatus,
    ListPeers,
    GetWorkspaceInfo,
    SendMessageToUser,
}

impl Tool {
    const ALL: [Self; 6] = [
        Self::DelegateTask,
        Self::DelegateTaskAsync,
        Self::CheckTaskStatus,
        Self::ListPeers,
        Self::GetWorkspaceInfo,
        Self::SendMessageToUser,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::DelegateTask => "delegate_task",
            Self::DelegateTaskAsync => "delegate_task_async",
            Self::CheckTaskStatus => "check_task_status",
            Self::ListPeers => "list_peers",
            Self::GetWorkspaceInfo => "get_workspace_info",
            Self::SendMessageToUser => "send_message_to_user",
        }
    }

    fn description(self) -> Value {
        let workspace = ("workspace_id", "Id of the peer, as list_peers says it");
        let task = ("task", "What it is to do, in words");
        let (text, arguments): (_, &[(&str, &str)]) = match self {
            Self::DelegateTask => (
                "Hand a task to a peer and wait for its answer, at most 30 seconds. Where the peer is busy the task may be queued; then the answer says so.",
                &[workspace, task],
            ),
            Self::DelegateTaskAsync => (
                "Hand a task to a peer without waiting. The answer holds a task_id for check_task_status.",
                &[workspace, task],
            ),
            Self::CheckTaskStatus => (
                "Tell how far a task is that was handed over with delegate_task_async, and what came of it.",
                &[("task_id", "What delegate_task_async answered")],
            ),
            Self::ListPeers => (
                "List the workspaces that tasks can be handed to: siblings, children, parent; with id, name, role and status.",
                &[],
            ),
            Self::GetWorkspaceInfo => {
                ("Tell about this workspace: id, name, role, status, runtime, parent.", &[])
            }
            Self::SendMessageToUser => {
                ("Show a message to the user of this workspace.", &[("message", "What to say")])
            }
        };
        let properties: Map<String, Value> = arguments
            .iter()
            .map(|(name, text)| {
                ((*name).to_owned(), json!({"type": "string", "description": text}))
            })
            .collect();
        let required: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
        let schema = json!({"type": "object", "properties": properties, "required": required});
        json!({"name": self.name(), "description": text, "inputSchema": schema})
    }

    /// Whether an operator lets agents call it.
    fn allowed(self, app: &App) -> bool {
        match self {
            Self::SendMessageToUser => app.config.edge.tools_reach_users,
            Self::DelegateTask
            | Self::DelegateTaskAsync
            | Self::CheckTaskStatus
            | Self::ListPeers
            | Self::GetWorkspaceInfo => true,
        }
    }
}

/// What may be called, as clients are told.
pub(super) fn listed(app: &App) -> Vec<Value> {
    Tool::ALL.into_iter().filter(|tool| tool.allowed(app)).map(Tool::description).collect()
}

/// Call one, by the parameters of `tools/call`.
///
/// # Errors
/// When the call makes no sense. A tool that failed is no error here.
pub(super) async fn call(
    app: &App,
    caller: &OfWorkspace,
    params: &Map<String, Value>,
) -> Result<Told, Fault> {
    let own = caller.workspace;
    let name = params.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Fault::params("name: expected the name of a tool"))?;
    let tool = Tool::ALL.into_iter().find(|tool| tool.name() == name);
    let tool = tool.ok_or_else(|| Fault::params(format!("name: there is no tool {name}")))?;
    if !tool.allowed(app) {
        let why = "is not enabled on this platform (MOLECULE_MCP_ALLOW_SEND_MESSAGE)";
        return Ok(Err(format!("{name} {why}")));
    }
    let arguments = match params.get("arguments") {
        None | Some(Value::Null) => &Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(Fault::params("arguments: expected an object")),
    };
    let arguments = Arguments(arguments);
    let told = match tool {
        Tool::DelegateTask => {
            let (peer, task) = (arguments.workspace()?, arguments.text("task")?);
            delegate(app, own, peer, task).await
        }
        Tool::DelegateTaskAsync => {
            let (peer, task) = (arguments.workspace()?, arguments.text("task")?);
            hand_over(app, own, peer, task).await
        }
        Tool::CheckTaskStatus => {
            let by_itself = caller.by == By::Itself;
            check(app, own, arguments.text("task_id")?, by_itself).await
        }
        Tool::ListPeers => list_peers(app, own).await,
        Tool::GetWorkspaceInfo => about(app, own).await,
        Tool::SendMessageToUser => write(app, own, arguments.text("message")?).await,
    };
    Ok(told.unwrap_or_else(|error| {
        let (_, body) = error.told();
        Err(body.detail.map_or_else(|| body.error.clone(), |it| format!("{}: {it}", body.error)))
    }))
}

/// The arguments of a call.
struct Arguments<'a>(&'a Map<String, Value>);

impl<'a> Arguments<'a> {
    fn text(&self, name: &str) -> Result<&'a str, Fault> {
        let text = self.0.get(name).and_then(Value::as_str).map(str::trim);
        let text = text.filter(|text| !text.is_empty());
        text.ok_or_else(|| Fault::params(format!("{name}: expected a text")))
    }

    fn workspace(&self) -> Result<WorkspaceId, Fault> {
        let parsed = self.text("workspace_id")?.parse();
        parsed.map_err(|_| Fault::params("workspace_id: expected a UUID"))
    }
}

/// A task, as agents are sent one.
fn message(app: &App, task: &str) -> Value {
    let fresh = || uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid().to_string();
    let message =
        json!({"role": "user", "messageId": fresh(), "parts": [{"kind": "text", "text": task}]});
    json!({"jsonrpc": "2.0", "id": fresh(), "method": "message/send", "params": {"message": message}})
}

async fn delegate(
    app: &App,
    own: WorkspaceId,
    peer: WorkspaceId,
    task: &str,
) -> Result<Told, Error> {
    if peer == own {
        return Ok(to_itself());
    }
    let sender = Sender::Workspace(own);
    let answer = messages::ask(app, sender, peer, &message(app, task), PATIENCE).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|cause| {
        Error::Internal("failed to read agent response", anyhow::anyhow!(cause))
    })?;
    Ok(understood(head.status, &String::from_utf8_lossy(&body.to_bytes())))
}

/// What an agent's answer says, or that it is still to come.
fn understood(status: StatusCode, answer: &str) -> Told {
    let read = serde_json::from_str::<Value>(answer).unwrap_or_default();
    if status == StatusCode::ACCEPTED && read["queued"] == true {
        let place = read["queue_id"].as_str().unwrap_or_default();
        return Ok(format!(
            "the peer is busy: the task is queued as {place}; it has no answer yet"
        ));
    }
    // It says whether that is a failure, and its first words; all of them are for a model.
    let first = delegations::read_answer(answer)?;
    Ok(said(&read).unwrap_or(first))
}

fn to_itself() -> Told {
    Err("self-delegation not permitted".to_owned())
}

async fn hand_over(
    app: &App,
    own: WorkspaceId,
    peer: WorkspaceId,
    task: &str,
) -> Result<Told, Error> {
    if peer == own {
        return Ok(to_itself());
    }
    let (id, stand) = delegations::give_for(app, own, peer, task).await?;
    if stand.status == Status::Failed {
        return Ok(Err(stand.error.unwrap_or_else(|| "the task was refused".to_owned())));
    }
    let given = json!({"task_id": id, "status": "dispatched", "target_id": peer.uuid()});
    Ok(Ok(given.to_string()))
}

async fn check(app: &App, own: WorkspaceId, id: &str, by_itself: bool) -> Result<Told, Error> {
    let Some(stand) = delegations::stand(app, own, id, by_itself).await? else {
        return Ok(Err(format!("there is no task {id}")));
    };
    let mut told =
        json!({"task_id": id, "status": stand.status.as_str(), "target_id": stand.target.uuid()});
    if let Some(response) = stand.response {
        told["response"] = json!(response);
    }
    if let Some(error) = stand.error {
        told["error"] = json!(error);
    }
    Ok(Ok(told.to_string()))
}

async fn list_peers(app: &App, own: WorkspaceId) -> Result<Told, Error> {
    let peers = discovery::peers(app, own).await?.into_iter().map(|peer| {
        json!({"id": peer.id, "name": peer.name, "role": peer.role, "tier": peer.tier,
            "status": peer.status, "parent_id": peer.parent_id, "active_tasks": peer.active_tasks})
    });
    Ok(Ok(Value::from_iter(peers).to_string()))
}

async fn about(app: &App, own: WorkspaceId) -> Result<Told, Error> {
    let it = workspaces::present(app, own).await?;
    let about = json!({"id": it.id.uuid(), "name": it.name, "role": it.role, "tier": it.tier,
        "status": it.status.as_str(), "runtime": it.runtime, "parent_id": it.parent.map(|it| it.uuid()),
        "active_tasks": it.agent.active_tasks, "current_task": it.agent.current_task});
    Ok(Ok(about.to_string()))
}

async fn write(app: &App, own: WorkspaceId, message: &str) -> Result<Told, Error> {
    activity::notify::show(app, own, message, &[], None).await?;
    Ok(Ok("sent".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_in_words() {
        let understood = |status, answer: Value| {
            understood(StatusCode::from_u16(status).unwrap(), &answer.to_string())
        };
        let parts = json!([{"kind": "text", "text": "four"}]);
        assert_eq!(understood(200, json!({"result": {"parts": parts}})), Ok("four".to_owned()));
        assert_eq!(
            understood(200, json!({"result": {"x": 1}})),
            Ok(r#"{"result":{"x":1}}"#.to_owned())
        );
        let failed = json!({"error": {"code": -32_001, "message": "no such task"}});
        assert_eq!(understood(200, failed), Err("no such task".to_owned()));
        assert_eq!(understood(200, json!({"error": "no"})), Err("no".to_owned()));
        let queued = understood(202, json!({"queued": true, "queue_id": "q-1"})).unwrap();
        assert!(queued.contains("q-1"), "{queued}");
    }
}
