//! What a create asks for, checked field by field before anything is written.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use ligand_api::error::ErrorBody;
use ligand_api::workspace::{Connection, Create, Created};
use ligand_domain::admission::Bootstrap;
use ligand_domain::backoff::Failures;
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::lifecycle::Leisure;
use ligand_domain::template;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::{Intent, Status};
use serde_json::json;

use super::{Identity, Reported, Workspace, store};
use crate::access::{self, By, For};
use crate::app::App;
use crate::error::{Error, Result};
use crate::journal::{Kind, Work};
use crate::registry;
use crate::secrets;
use crate::templates::{self, Catalogue};

const FIELDS: &str = "invalid workspace fields";
const FAILED: &str = "failed to create workspace";
/// The tier of who names none: on a machine of one's own, and in a cloud of machines.
const DEFAULT_TIER: i64 = 3;
const SAAS_TIER: i64 = 4;
/// Characters that no name or role may hold: they mean something in the files that a name is written to.
const FORBIDDEN: &str = "{}[]\\|>*&!";

/// A text of one line, of at most `most` bytes, without [`FORBIDDEN`] characters unless `plain`.
pub(super) fn text(
    field: &str,
    value: &str,
    most: usize,
    plain: bool,
) -> std::result::Result<(), String> {
    if value.contains(['\n', '\r']) {
        return Err(format!("{field} must not contain newline characters"));
    }
    if !plain && value.contains(|c| FORBIDDEN.contains(c)) {
        return Err(format!("{field} contains invalid characters"));
    }
    if value.len() > most {
        return Err(format!("{field} must be at most {most} characters"));
    }
    Ok(())
}

/// A directory of the host that a workspace may work in, cleaned: under a root that the operator listed.
pub(super) fn host_directory(app: &App, path: &str) -> std::result::Result<String, String> {
    let path = template::host_directory(path).map_err(|why| format!("workspace_dir: {why}"))?;
    if !app.config.workspace_roots.iter().any(|root| template::under(&path, root)) {
        return Err("workspace_dir: not under any of the directories listed in `workspace_roots`"
            .to_owned());
    }
    Ok(path)
}

/// What was asked for, and found good.
struct Wanted {
    workspace: Workspace,
    template: Option<String>,
    external: bool,
    config: templates::Choice,
}

/// Create a workspace.
pub(super) async fn create(app: &App, by: &By, request: Create, origin: &str) -> Result<Created> {
    if request.command.is_some() && *by != By::Admin {
        // It runs on the operator's machine: that is the operator's to say.
        let body = ErrorBody::new("admin auth required")
            .detail("command: only the admin token itself may name one; name a runtime instead");
        return Err(Error::Refused(StatusCode::FORBIDDEN, Box::new(body)));
    }
    let secrets = secrets_of(&request)?;
    let wanted = check(app, request, &templates::catalogue(app).await)?;
    let mut work = Work::begin(app).await?;
    if let Some(parent) = wanted.workspace.parent {
        // Locked, so that it is not deleted while it gets a child.
        let found = store::lock(&mut work.tx, parent).await?;
        if found.is_none_or(|parent| parent.intent == Intent::Removed) {
            // The contract answers 500 here, as its database does.
            let cause = anyhow::anyhow!("parent_id {parent} does not exist");
            return Err(Error::Internal(FAILED, cause));
        }
    }
    let workspace = &wanted.workspace;
    let inserted = store::insert(&mut work.tx, workspace, wanted.template.as_deref()).await;
    inserted.map_err(Error::internal(FAILED))?;
    if let Some(minutes) = workspace.leisure.minutes {
        let set = store::set_idle_minutes(&mut work.tx, workspace.id, Some(minutes)).await;
        set.map_err(Error::internal(FAILED))?;
    }
    if !wanted.external {
        let chosen = templates::choose(&mut work.tx, workspace.id, &wanted.config).await;
        chosen.map_err(Error::internal(FAILED))?;
    }
    let summary = format!("created as {}", workspace.name);
    let facts =
        json!({"runtime": workspace.runtime, "backend": workspace.backend, "tier": workspace.tier});
    work.note(workspace.id, None, Kind::Created, summary, facts);
    for (key, value) in &secrets {
        let saved = secrets::put(app, &mut work, workspace.id, key, value).await;
        saved.map_err(|cause| unsaved(key, &cause))?;
    }
    if workspace.status == Status::Failed {
        let why = "no backend is configured on this server";
        let payload =
            json!({"name": workspace.name, "tier": workspace.tier, "runtime": workspace.runtime});
        work.emit("WORKSPACE_PROVISIONING", workspace.id, payload);
        let (failures, now) = (workspace.failures, work.now);
        store::set_failure(&mut work.tx, workspace.id, failures, why, None).await?;
        store::set_status(&mut work.tx, workspace.id, Status::Failed, why, now).await?;
        work.emit("WORKSPACE_PROVISION_FAILED", workspace.id, json!({"error": why}));
    }
    let token = if wanted.external {
        external(app, &mut work, workspace).await?
    } else {
        Some(
            access::mint(app, &mut work, workspace.id, For::Caller(None))
                .await
                .map_err(Error::internal(FAILED))?,
        )
    };
    work.commit().await.map_err(Error::internal(FAILED))?;
    app.bells.ring();
    Ok(answer(app, &wanted, token, origin))
}

fn bad(why: String) -> Error {
    Error::invalid(FIELDS, why)
}

/// Present and not empty.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn check(app: &App, mut request: Create, templates: &Catalogue) -> Result<Wanted> {
    unsupported(&request)?;
    texts(&request)?;
    let template = template_of(&mut request, templates)?;
    // What a template says is held against the same limits.
    texts(&request)?;
    let parent = given(request.parent_id).map(|id| id.parse::<WorkspaceId>());
    let parent = parent.transpose().map_err(|_| bad("parent_id: expected a UUID".to_owned()))?;
    let directory = given(request.workspace_dir).map(|path| host_directory(app, &path));
    let directory =
        directory.transpose().map_err(|why| Error::invalid("invalid workspace directory", why))?;
    let access = given(request.workspace_access).unwrap_or_else(|| "none".to_owned());
    check_access(&access, directory.is_some())?;
    let external =
        request.external.unwrap_or(false) || request.runtime.as_deref() == Some("external");
    let runtime = match given(request.runtime) {
        _ if external => "external".to_owned(),
        Some(name) => name,
        None => app.config.default_runtime.clone(),
    };
    let backend = placement(app, request.backend, external)?;
    let url = request.url.filter(|_| external).unwrap_or_default();
    let canvas = request.canvas.unwrap_or_default();
    let workspace = Workspace {
        name: request.name,
        role: given(request.role),
        tier: tier(app, request.tier)?,
        runtime,
        model: given(request.model),
        command: request.command,
        bootstrap: Bootstrap::Open,
        backend,
        workspace_dir: directory,
        workspace_access: access,
        parent,
        budget_limit: request.budget_limit,
        max_concurrent_tasks: request.max_concurrent_tasks.unwrap_or(1).max(1),
        leisure: Leisure {
            minutes: request.hibernation_idle_minutes.filter(|minutes| *minutes > 0),
            ..Leisure::default()
        },
        canvas: (canvas.x, canvas.y, false),
        agent: Reported { url, ..Reported::default() },
        ..blank(app.ids.workspace(), app.clock.now())
    };
    let (placed, own) = (workspace.backend.as_deref(), workspace.command.as_deref());
    let bootstrap = registry::bootstrap_of(app, placed, &workspace.runtime, own);
    let workspace = Workspace { bootstrap, ..workspace };
    let status = initial_status(app, &workspace, external);
    let evidence = match status {
        Status::Online => "its creator says where it answers; nothing was heard of it yet",
        _ => "created",
    };
    let workspace = Workspace { evidence: evidence.to_owned(), ..workspace };
    let config = templates.for_create(app, template.as_deref(), &workspace.runtime);
    Ok(Wanted { workspace: Workspace { status, ..workspace }, template, external, config })
}

/// The template that is named, cleaned; what it says is taken where the caller says nothing.
fn template_of(request: &mut Create, templates: &Catalogue) -> Result<Option<String>> {
    let Some(named) = given(request.template.take()) else { return Ok(None) };
    let Some(id) = template::clean(&named) else {
        let expected = "template: expected a directory under the templates root";
        return Err(Error::invalid("invalid template", expected));
    };
    let defaults = templates.defaults(&id);
    request.runtime = given(request.runtime.take()).or(defaults.runtime);
    request.model = given(request.model.take()).or(defaults.model);
    Ok(Some(id))
}

/// The fields that are texts.
fn texts(request: &Create) -> Result<()> {
    if request.name.trim().is_empty() {
        let expected = "name: expected a text of 1 to 255 bytes";
        return Err(Error::invalid("invalid workspace payload", expected));
    }
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    text("name", &request.name, 255, false).map_err(bad)?;
    text("role", &or_empty(&request.role), 1000, false).map_err(bad)?;
    text("model", &or_empty(&request.model), 100, true).map_err(bad)?;
    text("runtime", &or_empty(&request.runtime), 100, true).map_err(bad)?;
    match &request.command {
        Some(words) if words.first().is_none_or(String::is_empty) => {
            Err(bad("command: expected a program and its arguments".to_owned()))
        }
        _ => Ok(()),
    }
}

fn tier(app: &App, asked: Option<i64>) -> Result<i64> {
    match asked.unwrap_or(0) {
        0 if app.config.saas => Ok(SAAS_TIER),
        0 => Ok(DEFAULT_TIER),
        tier @ 1..=4 => Ok(tier),
        other => Err(bad(format!("tier: expected 1 to 4, not {other}"))),
    }
}

/// What is understood and cannot be done here yet is refused, not forgotten.
fn unsupported(request: &Create) -> Result<()> {
    let memories = request.initial_memories.as_ref().is_some_and(|memories| !memories.is_empty());
    if memories {
        return Err(bad("initial_memories: not supported by this version".to_owned()));
    }
    Ok(())
}

/// The secrets that it is to have from the start.
fn secrets_of(request: &Create) -> Result<BTreeMap<String, String>> {
    let secrets = request.secrets.clone().unwrap_or_default();
    for (key, value) in &secrets {
        let fits = ligand_domain::secrets::check(key, value);
        fits.map_err(|why| bad(format!("secrets: {why}")))?;
    }
    Ok(secrets)
}

/// The contract names the secret. Nothing of the workspace stays.
fn unsaved(key: &str, cause: &sqlx::Error) -> Error {
    tracing::error!(error = %cause, "a secret of a new workspace could not be saved");
    let text = format!("failed to save secret: {key}");
    Error::refused(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn check_access(access: &str, has_directory: bool) -> Result<()> {
    let refused = |why: &str| {
        Err(Error::invalid("invalid workspace access", format!("workspace_access: {why}")))
    };
    match access {
        "none" => Ok(()),
        "read_only" | "read_write" if has_directory => Ok(()),
        "read_only" | "read_write" => refused("needs workspace_dir"),
        _ => refused("expected none, read_only or read_write"),
    }
}

fn placement(app: &App, asked: Option<String>, external: bool) -> Result<Option<String>> {
    if external {
        return Ok(None);
    }
    match asked.filter(|name| !name.is_empty()) {
        Some(name) if app.backends.get(&name).is_some() => Ok(Some(name)),
        Some(name) => {
            let known: Vec<&str> = app.backends.all().map(|(name, _)| name).collect();
            let why = format!("backend: there is none named `{name}`; expected one of {known:?}");
            Err(Error::invalid(FIELDS, why))
        }
        None => Ok(app.config.backend.clone()),
    }
}

fn initial_status(app: &App, workspace: &Workspace, external: bool) -> Status {
    match (external, workspace.agent.url.is_empty()) {
        (true, true) => Status::AwaitingAgent,
        (true, false) => Status::Online,
        // Nothing here could ever run it.
        (false, _) if app.config.backend.is_none() && workspace.backend.is_none() => Status::Failed,
        (false, _) => Status::Provisioning,
    }
}

fn blank(id: WorkspaceId, now: Timestamp) -> Workspace {
    Workspace {
        id,
        name: String::new(),
        role: None,
        tier: DEFAULT_TIER,
        runtime: String::new(),
        model: None,
        command: None,
        backend: None,
        workspace_dir: None,
        workspace_access: String::new(),
        parent: None,
        budget_limit: None,
        monthly_spend: 0,
        max_concurrent_tasks: 1,
        canvas: (0.0, 0.0, false),
        intent: Intent::Running,
        restarts_wanted: 0,
        restarts_loaded: 0,
        status: Status::Provisioning,
        since: now,
        evidence: "created".to_owned(),
        current: Generation::NONE,
        newest: Generation::NONE,
        last_error: None,
        next_attempt_at: None,
        failures: Failures::default(),
        released_at: None,
        bootstrap: Bootstrap::Open,
        bootstrap_until: None,
        agent: Reported::default(),
        identity: Identity::default(),
        unsure: false,
        purge: false,
        leisure: Leisure::default(),
        compute: None,
        created_at: now,
    }
}

/// An external workspace: its operator gets the credential of its first generation.
async fn external(app: &App, work: &mut Work<'_>, workspace: &Workspace) -> Result<Option<Token>> {
    let id = workspace.id;
    if workspace.status == Status::Online {
        work.emit("WORKSPACE_ONLINE", id, json!({"name": workspace.name, "external": true}));
        return Ok(None);
    }
    work.emit("WORKSPACE_AWAITING_AGENT", id, json!({"name": workspace.name, "external": true}));
    registry::enrol_external(app, work, id).await.map(Some)
}

fn answer(app: &App, wanted: &Wanted, token: Option<Token>, origin: &str) -> Created {
    let workspace = &wanted.workspace;
    let token = token.map(|token| token.reveal().to_owned());
    let created = Created {
        id: workspace.id.uuid(),
        status: workspace.status.as_str().to_owned(),
        ..Created::default()
    };
    if !wanted.external {
        return Created {
            // Whatever comes of it, this is where it stood when it was accepted.
            status: Status::Provisioning.as_str().to_owned(),
            workspace_access: Some(workspace.workspace_access.clone()),
            awareness_namespace: Some(format!("workspace:{}", workspace.id)),
            auth_token: token,
            ..created
        };
    }
    let connection = token.map(|token| connection(app, workspace.id, token, origin));
    Created { external: Some(true), connection, ..created }
}

/// What the operator of an external agent needs, with its credential.
pub(crate) fn connection(
    app: &App,
    id: WorkspaceId,
    auth_token: String,
    origin: &str,
) -> Connection {
    let url = app.config.external_platform_url.as_deref().unwrap_or(origin).trim_end_matches('/');
    let register = format!("{url}/registry/register");
    let body = format!(
        r#"{{"id":"{id}","url":"https://YOUR-AGENT","agent_card":{{"name":"YOUR-AGENT"}}}}"#
    );
    let curl = format!(
        "curl -X POST {register} -H 'Content-Type: application/json' -H 'Authorization: Bearer {auth_token}' -d '{body}'"
    );
    let python = format!(
        "import requests\nrequests.post(\"{register}\", headers={{\"Authorization\": \"Bearer {auth_token}\"}}, json={body}).raise_for_status()\n"
    );
    Connection {
        workspace_id: id.to_string(),
        platform_url: url.to_owned(),
        heartbeat_endpoint: format!("{url}/registry/heartbeat"),
        registry_endpoint: register,
        curl_register_template: curl,
        python_snippet: python,
        auth_token,
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn names_are_one_line_without_yaml() {
        assert_eq!(text("name", &"a".repeat(255), 255, false), Ok(()));
        assert!(text("name", &"a".repeat(256), 255, false).unwrap_err().contains("255"));
        assert!(text("name", "a\nb", 255, false).unwrap_err().contains("newline"));
        for bad in ["{", "}", "[", "]", "\\", "|", ">", "*", "&", "!"] {
            assert!(text("role", bad, 1000, false).is_err(), "{bad}");
            assert_eq!(text("model", bad, 100, true), Ok(()), "{bad}");
        }
    }
}
