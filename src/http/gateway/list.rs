//! What was bought in a family, as the provider lists it: a bare array, newest first, from our records.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use url::form_urlencoded;

use super::{Counter, look};
use crate::domain::family::Family;
use crate::http::document::refusals::ListingAsProvider;
use crate::http::document::requests::{ProviderList, ProviderPaging};
use crate::http::parameter::OfFamily;
use crate::http::problem::{FieldError, Problem};

/// Generations of an answer: usual and most (provider.md sections 1 and 13).
pub(in crate::http) const LIMIT: u32 = 50;
pub(in crate::http) const LIMIT_MAX: u32 = 100;
/// The index is walked over what is left out, so that has an end.
pub(in crate::http) const OFFSET_MAX: u32 = 100_000;

/// Lists generations of a family in the provider's shape, newest first, at no cost to the budget.
///
/// From our records: what was bought through recoup or is otherwise known here. A family's list holds what was bought under its own
/// path; that of `kling` none of O1 and O3.
#[utoipa::path(get, path = "/gateway/v1/{family}/generations", tag = "gateway", operation_id = "list_generations_as_provider", security(("key" = ["read"])),
    params(OfFamily, ProviderPaging),
    responses((status = 200, description = "As the provider lists them: each as its status.", body = ProviderList), ListingAsProvider))]
pub(super) async fn list(counter: Counter, family: &'static Family, query: &str) -> Result<Response, Problem> {
    let limit = number(query, "limit", 1, LIMIT_MAX, LIMIT)?;
    let offset = number(query, "offset", 0, OFFSET_MAX, 0)?;
    let generations = counter.adopter.store.generations_of_family(family, limit, offset).await?;
    let mut listed: Vec<Value> = Vec::with_capacity(generations.len());
    for generation in &generations {
        listed.extend(look::status(&counter, generation).await?);
    }
    Ok(Json(listed).into_response())
}

/// A whole number of the query; what the provider would not know is not looked at, as it does not.
fn number(query: &str, name: &str, least: u32, most: u32, usual: u32) -> Result<u32, Problem> {
    let given = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).last();
    let Some((_, text)) = given else { return Ok(usual) };
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let detail = format!("must be a whole number from {least} to {most}");
        Problem::invalid_parameters(format!("{name}: {detail}")).with_errors(vec![FieldError {
            pointer: None,
            parameter: Some(name.to_owned()),
            detail,
        }])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_and_within_their_bounds() {
        let read = |query| number(query, "limit", 1, 100, 50).map_err(|problem| problem.status().as_u16());
        for (query, expected) in [
            ("", Ok(50)),
            ("limit=1", Ok(1)),
            ("offset=7&limit=100&x=y", Ok(100)),
            ("limit=7&limit=8", Ok(8)),
            ("limit=0", Err(422)),
            ("limit=101", Err(422)),
            ("limit=", Err(422)),
            ("limit=1.5", Err(422)),
            ("limit=-1", Err(422)),
            ("limit=99999999999999999999", Err(422)),
        ] {
            assert_eq!(read(query), expected, "{query}");
        }
    }
}
