//! Style, script and icon, out of the binary. Their address holds their hash, so browsers keep them for good.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use crate::http::AppState;
use crate::http::problem::Problem;

const FILES: [(&str, &str, &str); 3] = [
    ("recoup.css", "text/css; charset=utf-8", include_str!("../../../assets/recoup.css")),
    ("recoup.js", "text/javascript; charset=utf-8", include_str!("../../../assets/recoup.js")),
    ("icon.svg", "image/svg+xml", include_str!("../../../assets/icon.svg")),
];

/// Stands in their address: of all of them together.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (_, _, content) in FILES {
        hash.update(content);
    }
    hex::encode(hash.finalize()).split_off(52)
});

/// `GET /assets/{version}/{file}`.
async fn asset(Path((_version, file)): Path<(String, String)>) -> Result<Response, Problem> {
    let found = FILES.iter().find(|(name, _, _)| *name == file);
    let (_, kind, content) = found.ok_or_else(|| Problem::not_found("There is no such file."))?;
    let headers = [
        (CONTENT_TYPE, *kind),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, *content).into_response())
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/assets/{version}/{file}", get(asset))
}
