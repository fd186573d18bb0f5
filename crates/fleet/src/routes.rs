//! The table of contents: every handler, one line each, and what is open to anybody.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, middleware};
use ligand_api::error::ErrorBody;
use ligand_server::routes::Bearer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Fleet;
use crate::{instances, journal, operator, tenants, transfers};

/// Routes that answer a caller without a credential, and why that is right. A test compares this with what they do.
pub const OPEN: [(&str, &str, &str); 3] = [
    ("get", "/health", "load balancers"),
    ("get", "/metrics", "scrapers"),
    ("get", "/openapi.json", "the API is no secret"),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ligand fleet",
        description = "Instances on provider accounts, for many platforms.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("bearer" = []), ()),
    modifiers(&Bearer)
)]
struct Description;

fn table() -> OpenApiRouter<Fleet> {
    OpenApiRouter::with_openapi(Description::openapi())
        // Operators.
        .routes(routes!(operator::health))
        .routes(routes!(operator::metrics))
        .routes(routes!(operator::openapi))
        .routes(routes!(journal::http::list))
        // Instances.
        .routes(routes!(instances::http::provision))
        .routes(routes!(instances::http::list))
        .routes(routes!(instances::http::delete))
        .routes(routes!(instances::http::status))
        .routes(routes!(instances::http::of_workspace))
        .routes(routes!(instances::http::stop))
        .routes(routes!(instances::http::logs))
        .routes(routes!(instances::http::console))
        // Data.
        .routes(routes!(instances::data::export, instances::data::import, instances::data::erase))
        .routes(routes!(instances::data::digest))
        // Organisations.
        .routes(routes!(tenants::http::config))
        .routes(routes!(tenants::http::boot_event))
        .routes(routes!(tenants::http::tenant_member))
        .routes(routes!(tenants::http::list))
        .routes(routes!(tenants::admin::list, tenants::admin::add))
        .routes(routes!(tenants::admin::patch))
        .routes(routes!(tenants::admin::admin_token))
        .routes(routes!(tenants::admin::add_member, tenants::admin::remove_member))
        .routes(routes!(tenants::admin::delete))
        .routes(routes!(tenants::admin::begin_session))
        // From provider to provider.
        .routes(routes!(transfers::http::migrate, transfers::http::migration))
        .routes(routes!(transfers::http::drain, transfers::http::drains_of))
        .routes(routes!(transfers::http::drains))
        .routes(routes!(transfers::http::one))
        .routes(routes!(transfers::http::pause))
        .routes(routes!(transfers::http::resume))
        .routes(routes!(transfers::http::abort))
}

/// The whole API on this fleet.
pub fn router(fleet: Fleet) -> Router {
    let (router, api) = table().split_for_parts();
    operator::describe(&api);
    router
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_verb)
        .layer(middleware::from_fn_with_state(fleet.clone(), operator::measure))
        .with_state(fleet)
}

/// The API, described.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    table().split_for_parts().1
}

async fn nothing() -> Response {
    (StatusCode::NOT_FOUND, Json(ErrorBody::new("not found"))).into_response()
}

async fn wrong_verb() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, Json(ErrorBody::new("method not allowed"))).into_response()
}
