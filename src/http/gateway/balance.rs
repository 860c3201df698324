//! What is left on the provider's account, as the provider itself answers it.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::{Counter, put};
use crate::flow::balance::BalanceError;
use crate::flow::reconcile::AskError;
use crate::http::document::refusals::ReadingBalance;
use crate::http::document::requests::Balance;
use crate::http::problem::Problem;
use crate::provider::HttpAnswer;

/// The balance of the provider's account, asked for at the provider with its own key.
///
/// Status, content type and body come back unchanged, a 404 too: whether the provider has this for every account is not known. An
/// answer is given again for ten seconds, and one request is under way at a time. Each counts as one read of the status budget.
#[utoipa::path(get, path = "/gateway/v1/data/balance", tag = "gateway", operation_id = "get_balance_as_provider", security(("key" = ["read"])),
    responses(Balance, ReadingBalance))]
pub(super) async fn balance(counter: Counter) -> Result<Response, Problem> {
    let (answer, answered) = oneshot::channel();
    let reader = counter.balance;
    // A caller that hangs up does not make the next one ask again.
    counter.tasks.carry(async move { drop(answer.send(reader.read().await)) });
    let read = answered.await.map_err(|_| Problem::internal("Something went wrong on our side."))?;
    let HttpAnswer { status, content_type, retry_after, body } = read.map_err(|error| match error {
        BalanceError::Spent(spent) => Problem::from(AskError::Spent(spent)),
        BalanceError::NoAnswer(said) => {
            Problem::provider_silent("The provider could not be asked for the balance just now.").caused_by(&said)
        }
    })?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    put(headers, CONTENT_TYPE, content_type);
    put(headers, RETRY_AFTER, retry_after);
    Ok(response)
}
