//! What the simulated provider makes: the same few seconds of colours for every video, so that there is something to watch.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const FILM: &[u8] = include_bytes!("results/film.mp4");
const PICTURE: &[u8] = include_bytes!("results/picture.png");

/// Where results are when the sandbox serves none: nowhere.
pub const ELSEWHERE: &str = "https://cdn.example.net";

/// `GET /results/{family}/{id}.{kind}`: links of any id work, as those of a store of files would.
pub(super) async fn result(Path(path): Path<String>) -> Response {
    match path.rsplit_once('.') {
        Some((_, "mp4")) => ([(CONTENT_TYPE, "video/mp4")], FILM).into_response(),
        Some((_, "png")) => ([(CONTENT_TYPE, "image/png")], PICTURE).into_response(),
        Some(_) | None => StatusCode::NOT_FOUND.into_response(),
    }
}
