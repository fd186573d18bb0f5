//! Templates over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use ligand_api::error::ErrorBody;
use ligand_api::template::{Import, Imported, Template as View, TemplateExists};
use ligand_domain::template::{Basics, file, generate, normalise};

use super::{CONFIG, Template, catalogue, disk, sanitised};
use crate::access::Admin;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::body::{Payload, parse};

const BAD_BODY: &str = "invalid request body";
const FAILED: &str = "failed to import template";
/// The tier that an imported template is meant for, where it does not say.
const TIER: i64 = 3;

/// Every template.
#[utoipa::path(get, path = "/templates", tag = "templates", responses(
    (status = 200, body = Vec<View>), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(_: Admin, State(app): State<App>) -> Json<Vec<View>> {
    Json(catalogue(&app).await.templates.iter().map(view).collect())
}

fn view(of: &Template) -> View {
    let said = &of.said;
    View {
        id: of.id.clone(),
        name: said.name.clone().unwrap_or_else(|| of.id.clone()),
        description: said.description.clone(),
        tier: said.tier,
        runtime: said.defaults.runtime.clone().unwrap_or_default(),
        model: said.defaults.model.clone().unwrap_or_default(),
        models: said.models.clone(),
        required_env: said.required_env.clone(),
        skills: said.skills.clone(),
        skill_count: said.skills.len(),
        provision_timeout_seconds: said.provision_timeout_seconds,
    }
}

/// Bring a template. Without a `config.yaml` it gets one.
#[utoipa::path(post, path = "/templates/import", tag = "templates", request_body = Import, responses(
    (status = 201, body = Imported), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 409, body = TemplateExists), (status = 500, body = ErrorBody)))]
pub(crate) async fn import(
    _: Admin,
    State(app): State<App>,
    Payload(body): Payload,
) -> Result<Response> {
    let Import { name, files } = parse(&body, BAD_BODY)?;
    let id = id_of(&name)?;
    if files.len() > disk::MOST_FILES {
        let text = format!("too many files ({}), max {}", files.len(), disk::MOST_FILES);
        return Err(Error::bad_request(text));
    }
    let mut cleaned = std::collections::BTreeMap::new();
    for (path, content) in files {
        let clean = file(&path).ok_or_else(|| {
            let expected = "expected a relative path without `..`, and no file of a credential";
            Error::invalid("invalid path", format!("files: {path:?}: {expected}"))
        })?;
        if cleaned.insert(clean, content).is_some() {
            return Err(Error::invalid("invalid path", format!("files: {path:?} is there twice")));
        }
    }
    cleaned.entry(CONFIG.to_owned()).or_insert_with(|| {
        let runtime = sanitised(&app, &app.config.default_runtime);
        generate(Basics { name: &name, role: None, tier: TIER, runtime, model: None })
    });
    let (root, draft) = (app.config.templates.root.clone(), draft(&app));
    let place = id.clone();
    let written =
        tokio::task::spawn_blocking(move || disk::import(&root, &place, &draft, &cleaned));
    let written = written.await.map_err(Error::internal(FAILED))?;
    if !written.map_err(Error::internal(FAILED))? {
        let body = TemplateExists { error: "template already exists".to_owned(), id };
        return Ok((StatusCode::CONFLICT, Json(body)).into_response());
    }
    let body = Imported { status: "imported".to_owned(), id, name };
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// A name that no two imports have, and that no list shows.
fn draft(app: &App) -> String {
    let random = uuid::Builder::from_random_bytes(app.ids.bytes()).into_uuid();
    format!(".import-{random}")
}

/// The directory of a name: lower case, hyphens for blanks.
fn id_of(name: &str) -> Result<String> {
    let id = normalise(name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    match begins && id.len() <= 255 && id.chars().all(plain) {
        true => Ok(id),
        false => {
            let expected = "name: expected letters, digits, blanks, `-`, `_` and `.`, a letter or a digit first";
            Err(Error::invalid(BAD_BODY, expected))
        }
    }
}
