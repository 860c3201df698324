//! `/openapi.json` and `/docs`: the API document and a viewer for it, out of the binary.
//!
//! Holds no data of anybody, so neither needs a key. The viewer loads nothing from elsewhere.

use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::Config;

use super::AppState;
use super::document::refusals::Missing;
use super::extract::Named;
use super::parameter::OfFile;
use super::problem::Problem;

/// The viewer writes styles of its own, and draws icons out of `data:`; everything else comes from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const INDEX: &str = "index.html";

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| super::document_text().into());
static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json").validator_url("none").try_it_out_enabled(true)));

/// The API document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", operation_id = "openapi",
    responses((status = 200, description = "This document.", body = serde_json::Value)))]
async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], DOCUMENT.clone()).into_response()
}

/// Leads to the viewer.
#[utoipa::path(get, path = "/docs", tag = "operations", operation_id = "docs",
    responses((status = 308, description = "To `/docs/`.", headers(("Location" = String, description = "`/docs/`.")))))]
async fn lead() -> Redirect {
    Redirect::permanent("/docs/")
}

/// A viewer of the API document.
#[utoipa::path(get, path = "/docs/", tag = "operations", operation_id = "docs_viewer",
    responses((status = 200, description = "A page.", body = String, content_type = "text/html")))]
async fn viewer() -> Result<Response, Problem> {
    file(INDEX)
}

/// A file of the viewer.
#[utoipa::path(get, path = "/docs/{file}", tag = "operations", operation_id = "docs_file", params(OfFile),
    responses((status = 200, description = "The file.", body = String, content_type = "*/*"), Missing))]
async fn asset(Named(name): Named) -> Result<Response, Problem> {
    file(&name)
}

fn file(name: &str) -> Result<Response, Problem> {
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG));
    let found = found.map_err(|error| Problem::internal("The file could not be read.").caused_by(&error))?;
    let file = found.ok_or_else(|| Problem::not_found("There is no such file."))?;
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::try_from(file.content_type) {
        headers.insert(CONTENT_TYPE, kind);
    }
    if file.gzpipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok((headers, Bytes::from(file.bytes.into_owned())).into_response())
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(document))
        .routes(routes!(lead))
        .routes(routes!(viewer))
        .routes(routes!(asset))
}
