//! `/generations`: the list with the API's own filters in the address, and the search that leads to one.

use askama::Template;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;

use super::session::Visitor;
use super::strip::Row;
use super::text::plain;
use super::{Frame, Refused, Section, answer, see_other};
use crate::domain::credits::CreditState;
use crate::domain::family::FAMILIES;
use crate::domain::generation::{Attention, Status};
use crate::domain::id::{DeliveryId, EventId};
use crate::domain::outcome::Source;
use crate::http::extract::Query;
use crate::http::generations::{filter, paging};
use crate::http::{Api, AppState};

/// A field of the filter form: what may be chosen, and what is.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) options: Vec<(String, bool)>,
}

impl Field {
    /// `given`: the pairs of the address.
    pub(super) fn of<'w>(
        name: &'static str,
        label: &'static str,
        words: impl IntoIterator<Item = &'w str>,
        given: &[(String, String)],
    ) -> Self {
        let is_given = |word: &str| given.iter().any(|(key, value)| key == name && value == word);
        Self { name, label, options: words.into_iter().map(|word| (word.to_owned(), is_given(word))).collect() }
    }
}

impl Field {
    /// Whether anything is.
    pub(super) fn is_chosen(&self) -> bool {
        self.options.iter().any(|(_, chosen)| *chosen)
    }
}

/// The pairs of an address.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
    // A form sends its empty fields too.
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

/// The same pairs, one of them replaced.
pub(super) fn with(given: &[(String, String)], name: &str, value: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(given.iter().filter(|(key, _)| key != name));
    if let Some(value) = value {
        query.append_pair(name, value);
    }
    query.finish()
}

#[derive(Template)]
#[template(path = "generations.html")]
struct GenerationsPage {
    frame: Frame,
    fields: Vec<Field>,
    search: String,
    error_code: String,
    model: String,
    after: String,
    before: String,
    metadata: Vec<(String, String)>,
    rows: Vec<Row>,
    filtered: bool,
    first: bool,
    newest: String,
    next: Option<String>,
    export: String,
}

/// `GET /generations`.
async fn list(State(api): State<Api>, visitor: Visitor, RawQuery(query): RawQuery) -> Result<Response, Refused> {
    let given = pairs(query.as_deref());
    if let Some((_, wanted)) = given.iter().find(|(key, _)| key == "q") {
        return search(&api, wanted.trim(), &given).await;
    }
    let mut query = Query::of(given.clone());
    let filter = filter(&mut query)?;
    let paging = paging(&mut query)?;
    query.end()?;
    let now = api.clock.now();
    let page = api.store.generations(&filter, &paging, now, api.rules.refund_window).await?;
    let one = |name: &str| given.iter().find(|(key, _)| key == name).map(|(_, value)| plain(value)).unwrap_or_default();
    let address = |query: String| format!("/generations?{query}");
    let page = GenerationsPage {
        fields: fields(&given),
        search: String::new(),
        error_code: one("error_code"),
        model: one("model"),
        after: one("created_after"),
        before: one("created_before"),
        metadata: given
            .iter()
            .filter(|(key, _)| key.starts_with("metadata["))
            .map(|(key, value)| (plain(key), plain(value)))
            .collect(),
        rows: page.rows.iter().map(|generation| Row::of(generation, &api.rules, now)).collect(),
        filtered: given.iter().any(|(key, _)| !matches!(key.as_str(), "cursor" | "order" | "limit")),
        first: paging.after.is_none(),
        newest: address(with(&given, "cursor", None)),
        next: page.next_cursor.map(|cursor| address(with(&given, "cursor", Some(&cursor)))),
        export: with(&given, "cursor", None),
        frame: Frame::new("Generations", Section::Generations, visitor, now),
    };
    answer(&page)
}

fn fields(given: &[(String, String)]) -> Vec<Field> {
    let attentions = ["any"].into_iter().chain(Attention::ALL.iter().map(|word| word.as_str()));
    let sources = Source::ALL.iter().map(|word| word.as_str()).chain(["gateway"]);
    vec![
        Field::of("status", "Status", Status::ALL.iter().map(|word| word.as_str()), given),
        Field::of("attention", "Attention", attentions, given),
        Field::of("credits", "Credits", CreditState::ALL.iter().map(|word| word.as_str()), given),
        Field::of("doubled", "Bought twice", ["true"], given),
        Field::of("source", "Learned by", sources, given),
        Field::of("family", "Family", FAMILIES.iter().map(|family| family.path), given),
    ]
}

/// Leads to what is meant: an id of ours or the provider's, a delivery, an event, or `key=value` of the metadata.
async fn search(api: &Api, wanted: &str, given: &[(String, String)]) -> Result<Response, Refused> {
    if let Some((key, value)) = wanted.split_once('=') {
        let rest = with(given, "q", None);
        let label = with(&[], &format!("metadata[{}]", key.trim()), Some(value.trim()));
        return Ok(see_other(&format!("/generations?{}", [rest, label].join("&").trim_start_matches('&'))));
    }
    if DeliveryId::parse(wanted).is_ok() {
        return Ok(see_other(&format!("/deliveries/{wanted}")));
    }
    if EventId::parse(wanted).is_ok() {
        return Ok(see_other(&format!("/events/{wanted}")));
    }
    let found = api.find(wanted).await?;
    Ok(see_other(&format!("/generations/{}", found.id)))
}

/// The route.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/generations", get(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_of_an_address_is_replaced_and_the_rest_stays() {
        let given = pairs(Some("status=failed&status=lost&model=&cursor=old&metadata%5Buser%5D=4%262"));
        assert_eq!(given.len(), 4, "empty fields of a form are left out: {given:?}");
        assert_eq!(
            with(&given, "cursor", Some("a b")),
            "status=failed&status=lost&metadata%5Buser%5D=4%262&cursor=a+b"
        );
        assert_eq!(with(&given, "cursor", None), "status=failed&status=lost&metadata%5Buser%5D=4%262");
    }
}
