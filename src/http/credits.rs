//! `/v1/credits`: where the money is.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::MayRead;
use super::document::refusals::Listing;
use super::extract::invalid_parameter;
use super::parameter::{Asked, Form, Parameter, Parameters};
use super::problem::Problem;
use super::{Api, AppState};
use crate::domain::money_report::MoneyReport;
use crate::domain::time::Time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Credits)]
struct CreditsView {
    since: Option<Time>,
    until: Option<Time>,
    currency: &'static str,
    #[serde(flatten)]
    report: MoneyReport,
}

/// The money report: where the credits are, in exact sums, by the time of the purchase.
#[utoipa::path(get, path = "/v1/credits", tag = "money", operation_id = "get_credits", security(("key" = ["read"])),
    params(Asked<Between>),
    responses((status = 200, description = "The report.", body = CreditsView), Listing))]
async fn credits(
    State(api): State<Api>,
    MayRead(_caller): MayRead,
    Asked { mut query, .. }: Asked<Between>,
) -> Result<Json<CreditsView>, Problem> {
    let (since, until) = (query.time("since")?, query.time("until")?);
    query.end()?;
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        return Err(invalid_parameter("until", "lies before since"));
    }
    let report = api.store.money_report(since, until, api.clock.now(), api.rules.refund_window).await?;
    Ok(Json(CreditsView { since, until, currency: "USD", report }))
}

/// Which purchases are added up.
struct Between;

impl Parameters for Between {
    const LIST: &'static [&'static [Parameter]] = &[&[
        Parameter { name: "since", about: "Bought then or later.", form: Form::Time },
        Parameter { name: "until", about: "Bought before then.", form: Form::Time },
    ]];
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(credits))
}
