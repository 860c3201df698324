//! `/v1/credits`: where the money is.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::auth::MayRead;
use super::extract::{Query, invalid_parameter};
use super::problem::Problem;
use super::{Api, AppState};
use crate::domain::money_report::MoneyReport;
use crate::domain::time::Time;

#[derive(Debug, Serialize)]
struct CreditsView {
    since: Option<Time>,
    until: Option<Time>,
    currency: &'static str,
    #[serde(flatten)]
    report: MoneyReport,
}

/// `GET /v1/credits?since=&until=`: by the time of the purchase, `until` not included.
async fn credits(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    mut query: Query,
) -> Result<Json<CreditsView>, Problem> {
    let (since, until) = (query.time("since")?, query.time("until")?);
    query.end()?;
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        return Err(invalid_parameter("until", "lies before since"));
    }
    let report = api.store.money_report(since, until, api.clock.now(), api.rules.refund_window).await?;
    Ok(Json(CreditsView { since, until, currency: "USD", report }))
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/credits", get(credits))
}
