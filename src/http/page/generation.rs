//! `/generations/{id}`: everything about one: what happened on a true axis of time, the diagnosis in words, the money, the
//! result, and what can be done.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::actions::Action;
use super::session::Visitor;
use super::strip::{Row, Strip, credits, labels};
use super::text::{Links, When, clock, plain, short};
use super::{Frame, POLICY, Refused, Section, answer_with, see_other};
use crate::config::Scope;
use crate::domain::credits::CreditState;
use crate::domain::diagnosis::Diagnosis;
use crate::domain::equal_purchases::EqualPurchases;
use crate::domain::family::Medium;
use crate::domain::generation::{Attention, Generation, State as Stage};
use crate::domain::schedule::Rules;
use crate::domain::time::Time;
use crate::http::answers::evidence_of;
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::{Api, AppState, Parts};
use crate::store::Entry;

/// The width that the axis is drawn in.
const WIDTH: u128 = 1_000;

/// A thing that happened, as it is told.
#[derive(Debug)]
struct Step {
    kind: &'static str,
    title: String,
    detail: Option<String>,
    /// Where to read more.
    link: Option<String>,
    at: When,
    /// Since the purchase.
    after: String,
    /// On the axis: when, and in which lane.
    x: u128,
    y: u32,
}

/// The axis: what was expected, the limit, and where the marks are.
#[derive(Debug)]
struct Axis {
    from: u128,
    range: u128,
    limit: Option<u128>,
    end: String,
    ticks: Vec<(u128, String)>,
}

/// Purchases of the same thing shortly before or after.
#[derive(Debug)]
struct Twins {
    rows: Vec<Row>,
    said: String,
}

#[derive(Template)]
#[template(path = "generation.html")]
struct GenerationPage {
    frame: Frame,
    row: Row,
    family: &'static str,
    title: &'static str,
    prompt: Option<String>,
    labels: Vec<(String, String)>,
    credits: &'static str,
    refund_by: Option<When>,
    expected_by: Option<When>,
    next_look: Option<When>,
    settled: Option<When>,
    verification: Option<&'static str>,
    result: Option<String>,
    link: Option<String>,
    media: Option<&'static str>,
    diagnosis: Diagnosis,
    axis: Axis,
    steps: Vec<Step>,
    twins: Twins,
    actions: Vec<Action>,
    may_operate: bool,
    id: String,
}

/// `GET /generations/{id}`, ours or the provider's.
async fn one(
    State(api): State<Api>,
    State(parts): State<Parts>,
    visitor: Visitor,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Response, Refused> {
    let done = query.one("done")?;
    query.end()?;
    let generation = api.find(&id).await?;
    if generation.id.to_string() != id {
        return Ok(see_other(&format!("/generations/{}", generation.id)));
    }
    let (now, rules) = (api.clock.now(), &api.rules);
    let entries = api.store.timeline(&generation).await?;
    let equal = api.store.equal_generations(&generation).await?;
    let equal = EqualPurchases::of(&generation, &equal, now, rules.refund_window);
    let candidates = api.store.candidates(generation.id).await?;
    let links = Links { provider: parts.provider_url.clone() };
    let link = generation.state.result_url().and_then(|url| links.safe(url));
    let policy = match &link {
        Some(link) => {
            let origin = link.origin().ascii_serialization();
            POLICY.replacen("img-src 'self'", &format!("img-src 'self' {origin}; media-src {origin}"), 1)
        }
        None => POLICY.to_owned(),
    };
    let may_operate = visitor.may(Scope::Operate);
    let credit_state = CreditState::of(&generation, now, rules.refund_window);
    let page = GenerationPage {
        family: generation.family.path,
        title: generation.family.title,
        prompt: generation.request.prompt.as_deref().map(plain),
        labels: labels(&generation),
        credits: credits(credit_state),
        refund_by: generation.refund_expected_by(rules.refund_window).map(|at| When::of(at, now)),
        expected_by: generation.expected_by.map(|at| When::of(at, now)),
        next_look: generation.next_look_at().map(|at| When::of(at, now)),
        settled: generation.state.settled_at().map(|at| When::of(at, now)),
        verification: generation.state.learned().map(|learned| learned.verification.as_str()),
        result: generation.state.result_url().map(plain),
        media: link.as_ref().map(|_| match generation.family.medium {
            Medium::Video => "video",
            Medium::Image => "image",
        }),
        link: link.map(|link| link.to_string()),
        diagnosis: shown(rules.diagnose(&generation, now).and_candidates(&candidates)),
        axis: axis(&generation, rules, &entries, now),
        steps: steps(&generation, rules, &entries, now),
        twins: Twins {
            said: equal.answer().text,
            rows: equal.generations().map(|twin| Row::of(twin, rules, now)).collect(),
        },
        actions: if may_operate { actions(&generation, credit_state) } else { Vec::new() },
        may_operate,
        row: Row::of(&generation, rules, now),
        frame: Frame::new(format!("Generation {}", generation.id), Section::Generations, visitor, now).done(done),
        id,
    };
    answer_with(&page, &policy)
}

/// The diagnosis holds the provider's words.
fn shown(mut diagnosis: Diagnosis) -> Diagnosis {
    diagnosis.summary = plain(&diagnosis.summary);
    for answer in &mut diagnosis.answers {
        answer.text = plain(&answer.text);
    }
    diagnosis
}

/// What a person may do about it.
fn actions(generation: &Generation, credits: CreditState) -> Vec<Action> {
    let mut actions = Vec::new();
    if generation.provider_id.is_some() {
        actions.push(Action::Check);
    }
    let may_come_back = matches!(generation.state, Stage::Failed { .. } | Stage::Lost { .. } | Stage::Unconfirmed);
    if may_come_back && credits != CreditState::NotCharged && generation.refunded_at.is_none() {
        actions.push(Action::Refund);
    }
    actions
}

/// The end of the axis: the last thing that happened, and at least what was expected.
fn end_of(generation: &Generation, rules: &Rules, entries: &[Entry], now: Time) -> Duration {
    let began = generation.began_at();
    let last = entries.iter().map(Entry::at).max().unwrap_or(began);
    let until = if generation.state.settled_at().is_some() { last } else { last.max(now) };
    let span = until.since(began).max(rules.expected_range(generation).to);
    (span + span / 20).max(Duration::from_secs(1))
}

fn place(at: Time, generation: &Generation, scale: Duration) -> u128 {
    (at.since(generation.began_at()).as_millis() * WIDTH / scale.as_millis().max(1)).min(WIDTH)
}

fn axis(generation: &Generation, rules: &Rules, entries: &[Entry], now: Time) -> Axis {
    let scale = end_of(generation, rules, entries, now);
    let began = generation.began_at();
    let expected = rules.expected_range(generation);
    let place = |span: Duration| place(began + span, generation, scale);
    let limit = rules.limit(generation);
    let tick = |part: u32| {
        let span = scale * part / 4;
        (place(span), clock(span))
    };
    Axis {
        from: place(expected.from),
        range: place(expected.to).saturating_sub(place(expected.from)),
        limit: (limit <= scale).then(|| place(limit)),
        end: format!(
            "{}; expected {} to {}",
            Strip::of(generation, rules, now).text,
            clock(expected.from),
            clock(expected.to)
        ),
        ticks: (0..=4).map(tick).collect(),
    }
}

fn steps(generation: &Generation, rules: &Rules, entries: &[Entry], now: Time) -> Vec<Step> {
    let scale = end_of(generation, rules, entries, now);
    let step = |entry: &Entry| {
        let (kind, title, detail, link) = tell(entry);
        let at = entry.at();
        Step {
            kind,
            title,
            detail: detail.map(|detail| short(&detail)).filter(|detail| !detail.is_empty()),
            link,
            at: When::of(at, now),
            after: format!("+{}", clock(at.since(generation.began_at()))),
            x: place(at, generation, scale),
            y: lane(entry),
        }
    };
    entries.iter().map(step).collect()
}

/// What comes in above, what is known in the middle, what goes out below: things at the same moment stay apart.
fn lane(entry: &Entry) -> u32 {
    match entry {
        Entry::Delivery { .. } | Entry::Check { .. } => 9,
        Entry::Submission { .. } | Entry::Outcome { .. } => 22,
        Entry::Event { .. } | Entry::Note { .. } => 35,
    }
}

/// An entry in words: class, title, detail, link.
fn tell(entry: &Entry) -> (&'static str, String, Option<String>, Option<String>) {
    match entry {
        Entry::Submission { via, price, result, said, error_code, .. } => {
            let price = price.as_ref().map(|price| format!(" for ${price}")).unwrap_or_default();
            let title = match result {
                None => format!("On record{price}, by way of the {}", via.as_str()),
                Some(result) => format!("Purchase{price}: {}", result.as_str().replace('_', " ")),
            };
            let said = [error_code, said].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
            ("submission", title, Some(said), None)
        }
        Entry::Delivery { id, disposition, reason, body_bytes, replay_of, .. } => {
            let again = if replay_of.is_some() { " (replayed)" } else { "" };
            let title = format!("Webhook, {body_bytes} bytes: {}{again}", disposition.as_str().replace('_', " "));
            ("delivery", title, reason.clone(), Some(format!("/deliveries/{id}")))
        }
        Entry::Check { answer, http_status, said, .. } => {
            let answer =
                answer.as_deref().map_or_else(|| "no answer yet".to_owned(), |answer| answer.replace('_', " "));
            let status = http_status.map(|status| format!("HTTP {status}"));
            let detail = status.into_iter().chain(said.clone()).collect::<Vec<_>>().join(", ");
            ("check", format!("Provider asked: {answer}"), Some(detail), None)
        }
        Entry::Outcome { version, status, source, verification, error_code, error_text, .. } => {
            let again = if *version > 1 { ", corrected" } else { "" };
            let title = format!("Outcome: {}{again}", status.as_str());
            let why = [error_code, error_text].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
            let how = format!("learned by {}, vouched for by {}", source.as_str(), verification.as_str());
            ("outcome", title, Some([how, why].join(" ")), None)
        }
        Entry::Event { id, r#type, sequence, attention, .. } => {
            let detail = attention.map(|attention: Attention| super::strip::why(attention).to_owned());
            ("event", format!("Event {sequence}: {}", r#type.as_str()), detail, Some(format!("/events/{id}")))
        }
        Entry::Note { author, text, .. } => ("note", format!("Note by {}", short(author)), Some(plain(text)), None),
    }
}

/// `GET /generations/{id}/{file}`: the evidence, to be saved.
async fn evidence(
    State(api): State<Api>,
    _visitor: Visitor,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let as_page = match file.as_str() {
        "evidence.md" => true,
        "evidence.json" => false,
        _ => return Err(Problem::not_found("There are evidence.md and evidence.json.").into()),
    };
    Ok(evidence_of(&api, &id, as_page).await?)
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/generations/{id}", get(one)).route("/generations/{id}/{file}", get(evidence))
}
