//! `/export/generations.csv` and `.ndjson`: what the list shows, all of it, a page at a time.

use std::io;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Refused;
use super::generations::pairs;
use super::session::Visitor;
use super::strip::learned;
use crate::domain::credits::CreditState;
use crate::domain::generation::{Attention, Generation};
use crate::http::extract::Query;
use crate::http::generations::{filter, paging};
use crate::http::problem::Problem;
use crate::http::{Api, AppState};
use crate::store::{Filter, Paging};

/// Rows fetched at a time: what bounds the memory of an export.
const PAGE: u32 = 200;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Csv,
    /// The API's JSON, one on a line.
    Ndjson,
}

const COLUMNS: [&str; 20] = [
    "id",
    "generation_id",
    "family",
    "status",
    "attention",
    "model",
    "duration_seconds",
    "prompt",
    "result_url",
    "error_code",
    "error_text",
    "price",
    "credits",
    "learned_by",
    "submitted_at",
    "expected_by",
    "settled_at",
    "checks",
    "deliveries",
    "metadata",
];

/// An export under way.
struct Export {
    api: Api,
    filter: Filter,
    paging: Paging,
    form: Form,
    /// Nothing is left.
    done: bool,
    /// The line of names was written.
    begun: bool,
}

impl Export {
    /// The next page, written; `None` at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.done {
            return None;
        }
        let written = self.page().await;
        self.done |= written.is_err();
        Some(written)
    }

    async fn page(&mut self) -> io::Result<Bytes> {
        let now = self.api.clock.now();
        let page = self.api.store.generations(&self.filter, &self.paging, now, self.api.rules.refund_window).await;
        let page = page.map_err(io::Error::other)?;
        match page.next_cursor.and_then(|cursor| Paging::read_cursor(&cursor, self.paging.order)) {
            Some(after) => self.paging.after = Some(after),
            None => self.done = true,
        }
        let begun = std::mem::replace(&mut self.begun, true);
        let written = match self.form {
            Form::Csv => self.csv(&page.rows, begun)?,
            Form::Ndjson => self.ndjson(page.rows)?,
        };
        Ok(written.into())
    }

    fn ndjson(&self, rows: Vec<Generation>) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        for generation in rows {
            serde_json::to_writer(&mut lines, &self.api.view(generation))?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    fn csv(&self, rows: &[Generation], begun: bool) -> io::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if !begun {
            writer.write_record(COLUMNS)?;
        }
        let (now, window) = (self.api.clock.now(), self.api.rules.refund_window);
        for generation in rows {
            let credits = CreditState::of(generation, now, window);
            writer.write_record(record(generation, credits)?)?;
        }
        writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
    }
}

fn record(generation: &Generation, credits: CreditState) -> io::Result<[String; 20]> {
    let text = |text: Option<&str>| text.map(unspreadsheet).unwrap_or_default();
    let time = |at: Option<crate::domain::time::Time>| at.map(|at| at.to_string()).unwrap_or_default();
    let (request, state, error) = (&generation.request, &generation.state, generation.state.error());
    Ok([
        generation.id.to_string(),
        text(generation.provider_id.as_ref().map(crate::domain::id::ProviderId::as_str)),
        generation.family.path.to_owned(),
        state.status().as_str().to_owned(),
        generation.attention.map(Attention::as_str).unwrap_or_default().to_owned(),
        text(request.model.as_deref()),
        request.duration_seconds.map(|seconds| seconds.to_string()).unwrap_or_default(),
        text(request.prompt.as_deref()),
        text(state.result_url()),
        text(error.and_then(|error| error.code.as_deref())),
        text(error.and_then(|error| error.text.as_deref())),
        generation.price.map(|price| price.to_string()).unwrap_or_default(),
        credits.as_str().to_owned(),
        learned(generation).unwrap_or_default().to_owned(),
        time(generation.submitted_at),
        time(generation.expected_by),
        time(state.settled_at()),
        generation.watch.checks.to_string(),
        generation.deliveries.to_string(),
        if generation.metadata.is_empty() { String::new() } else { serde_json::to_string(&generation.metadata)? },
    ])
}

/// Spreadsheets run what begins like a formula: a quote before it makes it text.
fn unspreadsheet(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

/// `GET /export/{file}`.
async fn export(
    State(api): State<Api>,
    _visitor: Visitor,
    Path(file): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let (form, kind) = match file.as_str() {
        "generations.csv" => (Form::Csv, "text/csv; charset=utf-8"),
        "generations.ndjson" => (Form::Ndjson, "application/x-ndjson"),
        _ => return Err(Problem::not_found("There are generations.csv and generations.ndjson.").into()),
    };
    let mut query = Query::of(pairs(query.as_deref()));
    let filter = filter(&mut query)?;
    let paging = Paging { limit: PAGE, after: None, ..paging(&mut query)? };
    query.end()?;
    let export = Export { api, filter, paging, form, done: false, begun: false };
    let pages = futures_util::stream::unfold(export, |mut export| async move {
        let page = export.next().await?;
        Some((page, export))
    });
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(pages)).into_response())
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/export/{file}", get(export))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_cell_is_run() {
        for (text, cell) in [("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("-2", "'-2"), ("a=b", "a=b"), ("", "")] {
            assert_eq!(unspreadsheet(text), cell);
        }
    }
}
