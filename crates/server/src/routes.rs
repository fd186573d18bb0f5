//! The table of contents: every handler, one line each, and what is open to anybody.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use ligand_api::error::ErrorBody;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::{edge, limit, proxy};
use crate::{
    access, activity, canvas, cards, credentials, delegations, discovery, files, journal, liveness,
    mcp, messages, migrations, operator, org_tokens, registry, secrets, spend, templates, terminal,
    workspaces,
};

/// Routes that answer a caller without a credential, and why that is right. Everything else is 401; a test
/// compares this list with what the routes do.
pub const OPEN: [(&str, &str, &str); 11] = [
    ("get", "/health", "load balancers"),
    ("get", "/metrics", "scrapers"),
    ("get", "/openapi.json", "the API is no secret"),
    ("post", "/registry/register", "admission decides"),
    ("post", "/registry/check-access", "a yes or no about two ids, without what they stand for"),
    ("post", "/registry/heartbeat", "admission decides"),
    ("post", "/registry/update-card", "admission decides"),
    ("post", "/registry/rotate", "admission decides"),
    ("get", "/workspaces/{id}", "the contract's short form"),
    // In no document, and there only where the settings name who is behind them.
    (
        "any",
        "/cp/{path}",
        "passed on to the control plane, which decides; its paths are listed in `domain::gate`",
    ),
    (
        "any",
        "/{path}",
        "what is nobody's is the canvas's: passed on without cookies and credentials",
    ),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ligand",
        description = "A control plane for fleets of long-lived agents.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("bearer" = []), ()),
    modifiers(&Bearer)
)]
struct Description;

/// Describes the one scheme of callers: a bearer.
#[derive(Debug)]
pub struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

fn table() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        // Operators.
        .routes(routes!(operator::http::health))
        .routes(routes!(operator::http::metrics))
        .routes(routes!(operator::http::openapi))
        .routes(routes!(operator::http::liveness))
        .routes(routes!(liveness::http::release))
        // Agents.
        .routes(routes!(registry::http::register))
        .routes(routes!(registry::heartbeat::heartbeat))
        .routes(routes!(registry::http::update_card))
        .routes(routes!(registry::http::rotate))
        .routes(routes!(registry::turns::turns))
        // Credentials.
        .routes(routes!(credentials::http::revoke))
        .routes(routes!(credentials::http::rotate))
        .routes(routes!(credentials::http::rotate_external))
        // Peers.
        .routes(routes!(discovery::http::discover))
        .routes(routes!(discovery::http::peers))
        .routes(routes!(discovery::http::check_access))
        // Workspaces.
        .routes(routes!(workspaces::http::create, workspaces::http::list))
        .routes(routes!(workspaces::http::get, workspaces::http::patch, workspaces::http::delete))
        .routes(routes!(workspaces::http::restart))
        .routes(routes!(workspaces::http::lifecycle::pause))
        .routes(routes!(workspaces::http::lifecycle::resume))
        .routes(routes!(workspaces::http::lifecycle::hibernate))
        .routes(routes!(workspaces::http::lifecycle::wake))
        .routes(routes!(workspaces::http::lifecycle::recover))
        .routes(routes!(workspaces::http::lifecycle::state))
        .routes(routes!(workspaces::http::admin::restart))
        .routes(routes!(workspaces::http::admin::bootstrap_failed))
        .routes(routes!(workspaces::http::admin::set_compute_instance))
        .routes(routes!(workspaces::http::admin::console))
        .routes(routes!(workspaces::http::why))
        .routes(routes!(workspaces::http::logs))
        .routes(routes!(terminal::http::open))
        // Files.
        .routes(routes!(files::http::list, files::http::write_all))
        .routes(routes!(files::http::read, files::http::write, files::http::remove))
        .routes(routes!(files::http::shared_context))
        .routes(routes!(files::chat::upload))
        .routes(routes!(files::chat::download))
        // Secrets.
        .routes(routes!(secrets::http::list, secrets::http::set))
        .routes(routes!(secrets::http::values))
        .routes(routes!(secrets::http::delete))
        .routes(routes!(secrets::http::model, secrets::http::set_model))
        .routes(routes!(secrets::http::list_global, secrets::http::set_global))
        .routes(routes!(secrets::http::delete_global))
        .routes(routes!(secrets::http::list_global_too, secrets::http::set_global_too))
        .routes(routes!(secrets::http::reencrypt))
        .routes(routes!(secrets::http::delete_global_too))
        // Tokens.
        .routes(routes!(access::http::list, access::http::create))
        .routes(routes!(access::http::revoke))
        .routes(routes!(access::http::create_for))
        .routes(routes!(access::http::test_token))
        .routes(routes!(org_tokens::http::list, org_tokens::http::mint))
        .routes(routes!(org_tokens::http::revoke))
        // Templates.
        .routes(routes!(templates::http::list))
        .routes(routes!(templates::http::import))
        // The canvas.
        .routes(routes!(canvas::http::get, canvas::http::put))
        // Messages.
        .routes(routes!(messages::http::send))
        .routes(routes!(messages::http::outcome))
        .routes(routes!(messages::http::admin::list))
        .routes(routes!(messages::http::admin::show))
        .routes(routes!(messages::http::admin::replay))
        .routes(routes!(messages::http::admin::drop_one))
        .routes(routes!(messages::http::admin::drop_stale))
        .merge(what_goes_through())
        .merge(what_moves())
        // Events.
        .routes(routes!(journal::http::list))
        .routes(routes!(journal::http::stream_all))
        .routes(routes!(journal::http::list_of))
        .routes(routes!(journal::http::stream_of))
        .routes(routes!(journal::socket::open))
}

/// Tasks that workspaces give to each other, and what goes through them.
fn what_goes_through() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(delegations::http::delegate))
        .routes(routes!(delegations::http::list))
        .routes(routes!(delegations::http::record))
        .routes(routes!(delegations::http::update))
        .routes(routes!(delegations::http::ack))
        // What went through.
        .routes(routes!(activity::http::list, activity::http::log))
        .routes(routes!(activity::notify::notify))
        .routes(routes!(activity::search::session_search))
        .routes(routes!(spend::http::budget, spend::http::set_budget))
        .routes(routes!(spend::http::usage))
        // Agents of other makes, and models.
        .routes(routes!(cards::http::card))
        .routes(routes!(cards::http::card_of_old))
        .routes(routes!(mcp::http::call))
        .routes(routes!(mcp::http::stream))
}

/// Workspaces that go from one backend to another.
fn what_moves() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(migrations::http::migrate))
        .routes(routes!(migrations::http::list_of))
        .routes(routes!(migrations::http::list))
        .routes(routes!(migrations::http::pause))
        .routes(routes!(migrations::http::resume))
        .routes(routes!(migrations::http::abort))
        .routes(routes!(migrations::http::drains::drain, migrations::http::drains::list))
        .routes(routes!(migrations::http::drains::get))
        .routes(routes!(migrations::http::drains::pause))
        .routes(routes!(migrations::http::drains::resume))
        .routes(routes!(migrations::http::drains::abort))
}

/// The API, described: what `/openapi.json` serves.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    table().split_for_parts().1
}

/// The server's routes.
pub fn router(app: App) -> Router {
    let (router, description) = table().split_for_parts();
    operator::http::describe(&description);
    router
        // No id at all: the contract has a text for it.
        .route("/admin/workspaces//revoke-auth-tokens", post(credentials::http::revoke_nothing))
        .route("/admin/workspaces//restart", post(workspaces::http::admin::no_id))
        .route("/admin/workspaces//bootstrap-failed", post(workspaces::http::admin::no_id))
        .route("/admin/workspaces//set-compute-instance", post(workspaces::http::admin::no_id))
        .route("/workspaces//console", get(workspaces::http::admin::no_id))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        // The last one named is the first to see a request. A refusal by the limit is not counted, one by
        // the guard is; neither carries what is meant for browsers.
        .layer(middleware::from_fn_with_state(app.clone(), edge::inside))
        .layer(middleware::from_fn_with_state(app.clone(), limit::limit))
        .layer(middleware::from_fn_with_state(app.clone(), edge::outside))
        .with_state(app)
}

async fn no_route(app: State<App>, request: Request) -> Response {
    if let Some(response) = proxy::pass_on(app, request).await {
        return response;
    }
    (StatusCode::NOT_FOUND, Json(ErrorBody::new("not found"))).into_response()
}

async fn no_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, Json(ErrorBody::new("method not allowed"))).into_response()
}
