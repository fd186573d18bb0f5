//! Secrets over HTTP. Bodies are never quoted in an error: what was mistyped may be the value.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use ligand_api::error::ErrorBody;
use ligand_api::secret::{
    Model, ModelChanged, Reencrypt, Reencrypted, Secret, SecretChanged, SetModel, SetSecret,
};
use ligand_domain::id::WorkspaceId;
use ligand_domain::secrets::{self as domain, MODEL, Scope};
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Intent;
use serde::de::DeserializeOwned;

use super::reencrypt::batch;
use super::store::Reached;
use super::{load, note_restart, seal, store};
use crate::access::{self, Admin, By, Candidate, OfWorkspace, Recipient};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse_or_default};
use crate::http::path;
use crate::journal::Work;
use crate::{programs, workspaces};

const BAD_BODY: &str = "invalid request body";
const NOT_READ: &str = "query failed";
const NOT_FOUND: &str = "secret not found";

/// What may go wrong in a write, in the contract's words.
#[derive(Clone, Copy)]
struct Words {
    save: &'static str,
    delete: &'static str,
}

const OWN: Words = Words { save: "failed to save secret", delete: "failed to delete secret" };
const GLOBAL: Words = Words { save: "failed to save", delete: "failed to delete" };
const OF_MODEL: Words = Words { save: "failed to save model", delete: "failed to clear model" };

/// The secrets that a workspace gets: its own, and global ones of other names. Never a value.
#[utoipa::path(get, path = "/workspaces/{id}/secrets", tag = "secrets", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = [Secret]), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list(caller: OfWorkspace, State(app): State<App>) -> Result<Json<Vec<Secret>>> {
    let read = async {
        let mut tx = app.db.read().await?;
        let global = store::global(&mut tx).await?;
        let own = store::own(&mut tx, caller.workspace).await?;
        Ok::<_, sqlx::Error>((global, own))
    };
    let (global, own) = read.await.map_err(Error::internal(NOT_READ))?;
    let named = |rows: Vec<store::Row>| rows.into_iter().map(|row| (row.key.clone(), row));
    let all = domain::merged(named(global), named(own));
    Ok(Json(all.into_values().map(|(scope, row)| view(scope, row)).collect()))
}

fn view(scope: Scope, row: store::Row) -> Secret {
    let text = |micros| Timestamp::from_micros(micros).to_string();
    Secret {
        key: row.key,
        has_value: true,
        scope: scope.as_str().to_owned(),
        created_at: text(row.created_at),
        updated_at: text(row.updated_at),
    }
}

/// The values of the secrets that a workspace gets, for its agent. All of them, or none.
#[utoipa::path(get, path = "/workspaces/{id}/secrets/values", tag = "secrets", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, description = "values by name", body = BTreeMap<String, String>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn values(
    to: Recipient,
    State(app): State<App>,
) -> Result<Json<BTreeMap<String, String>>> {
    let caller = match to {
        Recipient::Of(caller) => caller,
        Recipient::Candidate(candidate) => return for_candidate(&app, &candidate).await,
    };
    // Whoever passed without proving anything gets nothing of a workspace that has somebody to prove it.
    let live = access::live_of(&app, caller.workspace).await;
    let live = live.map_err(Error::internal("auth check failed"))?;
    if caller.by == By::Anybody && live > 0 {
        return Err(Error::unauthenticated("missing workspace auth token"));
    }
    let read = async { load(&app, &mut app.db.read().await?, caller.workspace).await };
    let values = read.await.map_err(Error::internal(NOT_READ))?;
    values.map(Json).map_err(|unread| undecryptable(&unread))
}

/// The values that a candidate's program is started with: what it reads is noted in the transaction that reads it, and
/// only while it is the candidate.
async fn for_candidate(app: &App, candidate: &Candidate) -> Result<Json<BTreeMap<String, String>>> {
    let id = candidate.workspace;
    let read = async {
        let mut work = Work::begin(app).await?;
        // Before the row: whoever writes global secrets locks in this order.
        super::hold_global(&mut work.tx).await?;
        let workspace = workspaces::lock(&mut work.tx, id).await?;
        let stands = candidate.stands(&mut work.tx, work.now).await?;
        let Some(workspace) = workspace.filter(|_| stands) else { return Ok(None) };
        let loaded = load(app, &mut work.tx, id).await?;
        if loaded.is_ok() {
            let of = (id, candidate.generation);
            programs::fetched(&mut work, of, workspace.restarts_wanted).await?;
            work.commit().await?;
        }
        Ok::<_, sqlx::Error>(Some(loaded))
    };
    match read.await.map_err(Error::internal(NOT_READ))? {
        Some(values) => values.map(Json).map_err(|unread| undecryptable(&unread)),
        None => Err(Error::unauthenticated("invalid workspace auth token")),
    }
}

fn undecryptable(unread: &[super::Unread]) -> Error {
    let names = unread.iter().map(super::Unread::name).collect();
    let body =
        ErrorBody { failed_keys: Some(names), ..ErrorBody::new("failed to decrypt secrets") };
    Error::Refused(StatusCode::INTERNAL_SERVER_ERROR, Box::new(body))
}

/// Set a secret of a workspace, and restart it.
#[utoipa::path(method(post, put), path = "/workspaces/{id}/secrets", tag = "secrets", params(("id" = String, Path, description = "workspace id")), request_body = SetSecret, responses(
    (status = 200, body = SecretChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn set(
    caller: OfWorkspace,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<SecretChanged>> {
    let said = secret(&body)?;
    save(&app, caller.workspace, (&said.key, &said.value), OWN).await?;
    Ok(Json(changed("saved", said.key, None)))
}

/// Delete a secret of a workspace, and restart it.
#[utoipa::path(delete, path = "/workspaces/{id}/secrets/{key}", tag = "secrets", params(("id" = String, Path, description = "workspace id"), ("key" = String, Path, description = "the secret's name")), responses(
    (status = 200, body = SecretChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn delete(
    caller: OfWorkspace,
    Named(key): Named,
    State(app): State<App>,
) -> Result<Json<SecretChanged>> {
    match remove(&app, caller.workspace, &key, OWN).await? {
        true => Ok(Json(changed("deleted", key, None))),
        false => Err(Error::not_found(NOT_FOUND)),
    }
}

/// The model that a workspace's runtime is told to use.
#[utoipa::path(get, path = "/workspaces/{id}/model", tag = "secrets", params(("id" = String, Path, description = "workspace id")), responses(
    (status = 200, body = Model), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn model(caller: OfWorkspace, State(app): State<App>) -> Result<Json<Model>> {
    let read = async { store::own(&mut app.db.read().await?, caller.workspace).await };
    let rows = read.await.map_err(Error::internal(NOT_READ))?;
    let stored = rows.iter().find(|row| row.key == MODEL).map(store::Row::stored);
    let value = stored.map(|stored| app.config.secrets.open(&stored)).transpose();
    let value = value.map_err(Error::internal("failed to decrypt"))?;
    Ok(Json(match value.filter(|model| !model.is_empty()) {
        Some(model) => Model { model, source: "workspace_secrets".to_owned() },
        None => Model { model: String::new(), source: "default".to_owned() },
    }))
}

/// Set the model that a workspace's runtime is told to use, and restart it.
#[utoipa::path(put, path = "/workspaces/{id}/model", tag = "secrets", params(("id" = String, Path, description = "workspace id")), request_body = SetModel, responses(
    (status = 200, body = ModelChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn set_model(
    caller: OfWorkspace,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<ModelChanged>> {
    let SetModel { model } = quietly(&body, "model: expected a text")?;
    if model.is_empty() {
        remove(&app, caller.workspace, MODEL, OF_MODEL).await?;
        return Ok(Json(ModelChanged { status: "cleared".to_owned(), model: None }));
    }
    let fits = domain::check(MODEL, &model);
    fits.map_err(|why| Error::invalid(BAD_BODY, why.replacen("value", "model", 1)))?;
    save(&app, caller.workspace, (MODEL, &model), OF_MODEL).await?;
    Ok(Json(ModelChanged { status: "saved".to_owned(), model: Some(model) }))
}

/// The global secrets. Never a value.
#[utoipa::path(get, path = "/settings/secrets", tag = "secrets", responses(
    (status = 200, body = [Secret]), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list_global(_: Admin, State(app): State<App>) -> Result<Json<Vec<Secret>>> {
    let read = async { store::global(&mut app.db.read().await?).await };
    let rows = read.await.map_err(Error::internal(NOT_READ))?;
    Ok(Json(rows.into_iter().map(|row| view(Scope::Global, row)).collect()))
}

/// The same under its other name.
#[utoipa::path(get, path = "/admin/secrets", tag = "secrets", responses(
    (status = 200, body = [Secret]), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn list_global_too(by: Admin, app: State<App>) -> Result<Json<Vec<Secret>>> {
    list_global(by, app).await
}

/// Set a global secret, and restart every workspace that it reaches.
#[utoipa::path(method(put, post), path = "/settings/secrets", tag = "secrets", request_body = SetSecret, responses(
    (status = 200, body = SecretChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn set_global(
    _: Admin,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<SecretChanged>> {
    let said = secret(&body)?;
    let stored = seal(&app, &said.value);
    let saved = async {
        let mut work = Work::begin(&app).await?;
        store::hold_global(&mut work.tx).await?;
        let new = super::new(&app, &work, &said.key, &stored);
        store::put_global(&mut work.tx, &new).await?;
        restart(&mut work, Reached::AllWithout(&said.key), (&said.key, "set")).await?;
        work.commit().await
    };
    saved.await.map_err(Error::internal(GLOBAL.save))?;
    app.bells.ring();
    Ok(Json(changed("saved", said.key, Some(Scope::Global))))
}

/// The same under its other name.
#[utoipa::path(post, path = "/admin/secrets", tag = "secrets", request_body = SetSecret, responses(
    (status = 200, body = SecretChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn set_global_too(
    by: Admin,
    app: State<App>,
    body: Payload,
) -> Result<Json<SecretChanged>> {
    set_global(by, app, body).await
}

/// Delete a global secret, and restart every workspace that it reached.
#[utoipa::path(delete, path = "/settings/secrets/{key}", tag = "secrets", params(("key" = String, Path, description = "the secret's name")), responses(
    (status = 200, body = SecretChanged), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn delete_global(
    _: Admin,
    Named(key): Named,
    State(app): State<App>,
) -> Result<Json<SecretChanged>> {
    let deleted = async {
        let mut work = Work::begin(&app).await?;
        store::hold_global(&mut work.tx).await?;
        if !store::delete_global(&mut work.tx, &key).await? {
            return Ok(false);
        }
        restart(&mut work, Reached::AllWithout(&key), (&key, "deleted")).await?;
        work.commit().await?;
        Ok::<_, sqlx::Error>(true)
    };
    if !deleted.await.map_err(Error::internal(GLOBAL.delete))? {
        return Err(Error::not_found(NOT_FOUND));
    }
    app.bells.ring();
    Ok(Json(changed("deleted", key, Some(Scope::Global))))
}

/// The same under its other name.
#[utoipa::path(delete, path = "/admin/secrets/{key}", tag = "secrets", params(("key" = String, Path, description = "the secret's name")), responses(
    (status = 200, body = SecretChanged), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody)))]
pub(crate) async fn delete_global_too(
    by: Admin,
    key: Named,
    app: State<App>,
) -> Result<Json<SecretChanged>> {
    delete_global(by, key, app).await
}

/// Encrypt a batch of stored secrets anew, under the current key. Asked again until there is no `next`, it does all.
#[utoipa::path(post, path = "/admin/secrets/reencrypt", tag = "secrets", request_body = Reencrypt, responses(
    (status = 200, body = Reencrypted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn reencrypt(
    _: Admin,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Json<Reencrypted>> {
    let asked: Reencrypt = parse_or_default(&body, BAD_BODY)?;
    Ok(Json(batch(&app, &asked).await?))
}

/// The `{key}` of a path.
pub(crate) struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Ok(Self(path::named(parts, state, "key").await))
    }
}

fn changed(status: &str, key: String, scope: Option<Scope>) -> SecretChanged {
    let scope = scope.map(|scope| scope.as_str().to_owned());
    SecretChanged { status: status.to_owned(), key, scope }
}

fn secret(body: &[u8]) -> Result<SetSecret> {
    let expected = "key, value: expected two texts that are not empty";
    let said: SetSecret = quietly(body, expected)?;
    domain::check(&said.key, &said.value).map_err(|why| Error::invalid(BAD_BODY, why))?;
    Ok(said)
}

/// Read JSON. What is wrong with it is not said: the words of the parser may quote a value.
fn quietly<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T> {
    serde_json::from_slice(body).map_err(|_| Error::invalid(BAD_BODY, expected))
}

/// Lock a workspace that is there and not removed.
async fn locked<'a>(app: &'a App, id: WorkspaceId, failed: &'static str) -> Result<Work<'a>> {
    let mut work = Work::begin(app).await.map_err(Error::internal(failed))?;
    let found = workspaces::lock(&mut work.tx, id).await.map_err(Error::internal(failed))?;
    if found.is_none_or(|workspace| workspace.intent == Intent::Removed) {
        return Err(Error::not_found("workspace not found"));
    }
    Ok(work)
}

async fn save(app: &App, id: WorkspaceId, (key, value): (&str, &str), words: Words) -> Result<()> {
    let mut work = locked(app, id, words.save).await?;
    let saved = async {
        super::put(app, &mut work, id, key, value).await?;
        restart(&mut work, Reached::One(id), (key, "set")).await?;
        work.commit().await
    };
    saved.await.map_err(Error::internal(words.save))?;
    app.bells.ring();
    Ok(())
}

/// `false`: there was none.
async fn remove(app: &App, id: WorkspaceId, key: &str, words: Words) -> Result<bool> {
    let mut work = locked(app, id, words.delete).await?;
    let deleted = async {
        if !store::delete(&mut work.tx, id, key).await? {
            return Ok(false);
        }
        restart(&mut work, Reached::One(id), (key, "deleted")).await?;
        work.commit().await?;
        Ok::<_, sqlx::Error>(true)
    };
    let deleted = deleted.await.map_err(Error::internal(words.delete))?;
    app.bells.ring();
    Ok(deleted)
}

/// Ask whom a write reaches to restart, in the transaction that writes: whoever loads after its commit has seen it.
async fn restart(
    work: &mut Work<'_>,
    whom: Reached<'_>,
    (key, how): (&str, &str),
) -> std::result::Result<(), sqlx::Error> {
    let now = work.now;
    let how = match whom {
        Reached::One(_) => how.to_owned(),
        Reached::AllWithout(_) => format!("{how} for all"),
    };
    for id in store::restart(&mut work.tx, whom, now).await? {
        note_restart(work, id, key, &how);
    }
    Ok(())
}
