//! `/catalogue`: what the provider's error codes mean and what its models offer, with own figures beside the provider's words.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::session::Visitor;
use super::text::{clock, count, dollars, plain};
use super::{Frame, Refused, Section, answer};
use crate::domain::error_code::{Appears, ERROR_CODES, ErrorCode, UNKNOWN_DESCRIPTION, UNKNOWN_SOLUTION};
use crate::domain::experience::{Experience, Kind};
use crate::domain::family::{FAMILIES, Family, Model};
use crate::domain::money_report::MoneyReport;
use crate::http::extract::Query;
use crate::http::{Api, AppState};

#[derive(Debug)]
struct CodeRow {
    code: String,
    category: &'static str,
    description: &'static str,
    solution: &'static str,
    appears: String,
    retryable: bool,
    refunded: &'static str,
    seen: String,
    known: bool,
}

impl CodeRow {
    fn of(known: &ErrorCode, report: &MoneyReport) -> Self {
        let appears: Vec<_> = known.appears_in.iter().copied().map(Appears::as_str).collect();
        Self {
            code: known.code.to_owned(),
            category: known.category.as_str(),
            description: known.description,
            solution: known.solution,
            appears: appears.join(", "),
            retryable: known.retryable,
            refunded: refunded(known.refunded),
            seen: count(report.by_error_code.get(known.code).map_or(0, |sum| sum.count)),
            known: true,
        }
    }
}

fn refunded(refunded: Option<bool>) -> &'static str {
    match refunded {
        Some(true) => "the credits come back",
        Some(false) => "nothing is charged",
        None => "not said",
    }
}

#[derive(Debug)]
struct Offer {
    seconds: String,
    promised: String,
    seen: String,
}

#[derive(Debug)]
struct ModelRow {
    name: &'static str,
    resolution: &'static str,
    cost: &'static str,
    use_for: &'static str,
    is_default: bool,
    offers: Vec<Offer>,
    bought: String,
    spent: String,
}

#[derive(Debug)]
struct FamilyRow {
    title: &'static str,
    path: &'static str,
    models: Vec<ModelRow>,
}

#[derive(Template)]
#[template(path = "catalogue.html")]
struct CataloguePage {
    frame: Frame,
    codes: Vec<CodeRow>,
    families: Vec<FamilyRow>,
}

/// `GET /catalogue`.
async fn catalogue(State(api): State<Api>, visitor: Visitor, query: Query) -> Result<Response, Refused> {
    query.end()?;
    let now = api.clock.now();
    let report = api.store.money_report(None, None, now, api.rules.refund_window).await?;
    let experience = api.store.experience().await?;
    let unknown = api.store.unknown_codes().await?.into_iter().map(|unknown| CodeRow {
        code: plain(&unknown.code),
        category: "unknown",
        description: UNKNOWN_DESCRIPTION,
        solution: UNKNOWN_SOLUTION,
        appears: unknown.family,
        retryable: false,
        refunded: refunded(Some(true)),
        seen: count(u64::try_from(unknown.seen).unwrap_or(0)),
        known: false,
    });
    let page = CataloguePage {
        codes: unknown.chain(ERROR_CODES.iter().map(|known| CodeRow::of(known, &report))).collect(),
        families: FAMILIES.iter().map(|family| of_family(family, &api, &experience, &report)).collect(),
        frame: Frame::new("Catalogue", Section::Catalogue, visitor, now),
    };
    answer(&page)
}

fn of_family(family: &'static Family, api: &Api, experience: &Experience, report: &MoneyReport) -> FamilyRow {
    let models = family.models.iter().map(|model| {
        let bought = report.by_model.get(model.name).copied().unwrap_or_default();
        ModelRow {
            name: model.name,
            resolution: model.resolution.unwrap_or("–"),
            cost: model.relative_cost.unwrap_or("–"),
            use_for: model.use_for,
            is_default: family.default_model == Some(model.name),
            offers: offers(family, model, api, experience),
            bought: count(bought.count),
            spent: dollars(bought.amount),
        }
    });
    FamilyRow { title: family.title, path: family.path, models: models.collect() }
}

fn offers(family: &'static Family, model: &Model, api: &Api, experience: &Experience) -> Vec<Offer> {
    let offer = |seconds: Option<u32>| {
        let promised = api.rules.expected.of(family, Some(model.name), seconds);
        let kind = Kind {
            family: family.path.to_owned(),
            model: model.name.to_owned(),
            duration_seconds: seconds.unwrap_or(0),
        };
        let pace = experience.paces.get(&kind);
        let seen = pace.and_then(|pace| Some((pace.quantile(50)?, pace.quantile(95)?, pace.known())));
        Offer {
            seconds: seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds} s")),
            promised: format!("{} to {}", clock(promised.from), clock(promised.to)),
            seen: seen.map_or_else(
                || "none yet".to_owned(),
                |(median, p95, known)| format!("{} median, {} at 95 %, of {}", clock(median), clock(p95), count(known)),
            ),
        }
    };
    if model.offers.is_empty() {
        vec![offer(None)]
    } else {
        together(model.offers.iter().map(|known| (known.seconds, offer(Some(known.seconds)))))
    }
}

/// Lengths that take the same are told in one line.
fn together(offers: impl Iterator<Item = (u32, Offer)>) -> Vec<Offer> {
    let mut lines: Vec<(Vec<u32>, Offer)> = Vec::new();
    for (seconds, offer) in offers {
        match lines.last_mut() {
            Some((lengths, last)) if (&last.promised, &last.seen) == (&offer.promised, &offer.seen) => {
                lengths.push(seconds);
            }
            _ => lines.push((vec![seconds], offer)),
        }
    }
    lines.into_iter().map(|(lengths, offer)| Offer { seconds: told(&lengths), ..offer }).collect()
}

/// `5 s`, `5, 10 s`, or `3 to 15 s` where none in between is missing.
fn told(lengths: &[u32]) -> String {
    let whole = lengths.windows(2).all(|pair| matches!(pair, [one, next] if one + 1 == *next));
    match lengths {
        [first, _, .., last] if whole => format!("{first} to {last} s"),
        lengths => format!("{} s", lengths.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/catalogue", get(catalogue))
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn lengths_are_a_range_only_where_none_is_missing() {
        assert_eq!(told(&[5]), "5 s");
        assert_eq!(told(&[5, 10]), "5, 10 s");
        assert_eq!(told(&[5, 10, 15]), "5, 10, 15 s");
        assert_eq!(told(&[3, 4, 5, 6]), "3 to 6 s");
    }
}
