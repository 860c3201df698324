//! The operator's page: what is kept, as a person reads it. Server-rendered; works without scripts, which only keep it fresh.
//!
//! Reads what the API reads and acts through the same flows; decides nothing. Every text from outside goes through
//! [`text::plain`] and the templates' escaping, every link through [`text::Links`].

mod actions;
mod assets;
mod catalogue;
mod chart;
mod deliveries;
mod events;
mod export;
mod generation;
mod generations;
mod live;
mod now;
mod session;
mod setup;
mod strip;
mod text;
mod trends;

use askama::Template;
use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use tower_http::csrf::CsrfLayer;

use session::Visitor;

use super::AppState;
use super::problem::Problem;
use crate::config::Scope;
use crate::domain::time::Time;
use crate::planted;

/// Nothing from elsewhere, no inline script or style, no frames; a page with a video adds where that is.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The parts of the page, as its menu names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Now,
    Trends,
    Generations,
    Deliveries,
    Events,
    Catalogue,
    Setup,
}

impl Section {
    /// The menu, in order: section, address, name.
    const MENU: [(Self, &'static str, &'static str); 7] = [
        (Self::Now, "/", "Now"),
        (Self::Trends, "/trends", "Over time"),
        (Self::Generations, "/generations", "Generations"),
        (Self::Deliveries, "/deliveries", "Deliveries"),
        (Self::Events, "/events", "Events"),
        (Self::Catalogue, "/catalogue", "Catalogue"),
        (Self::Setup, "/setup", "Set-up"),
    ];
}

/// What every page has around it.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    title: String,
    /// Address, name, and whether it is the one shown.
    menu: Vec<(&'static str, &'static str, bool)>,
    visitor: Option<Visitor>,
    may_operate: bool,
    now: Time,
    /// When it was written, for people.
    written: String,
    version: &'static str,
    assets: &'static str,
    /// What was just done.
    done: Option<&'static str>,
}

impl Frame {
    fn new(title: impl Into<String>, section: Section, visitor: Visitor, now: Time) -> Self {
        let menu = Section::MENU.iter().map(|(of, address, name)| (*address, *name, *of == section));
        let may_operate = visitor.may(Scope::Operate);
        Self { menu: menu.collect(), visitor: Some(visitor), may_operate, ..Self::stranger(title, now) }
    }

    /// For somebody who is not logged in.
    fn stranger(title: impl Into<String>, now: Time) -> Self {
        Self {
            title: title.into(),
            menu: Vec::new(),
            visitor: None,
            may_operate: false,
            now,
            written: text::exact(now),
            version: env!("CARGO_PKG_VERSION"),
            assets: &assets::VERSION,
            done: None,
        }
    }

    /// Says what was just done.
    fn done(mut self, word: Option<String>) -> Self {
        self.done = word.and_then(|word| actions::said(&word));
        self
    }
}

/// A problem, to be shown as a page.
#[derive(Debug)]
pub(super) struct Refused(Problem);

impl<E> From<E> for Refused
where
    Problem: From<E>,
{
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl From<askama::Error> for Problem {
    fn from(error: askama::Error) -> Self {
        Self::internal("The page could not be written. The log has the cause under this request id.").caused_by(&error)
    }
}

/// Marks an answer whose problem is for a person's eyes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForEyes;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.extensions_mut().insert(ForEyes);
        response
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'p> {
    frame: Frame,
    status: u16,
    detail: String,
    request_id: &'p str,
}

/// A problem as a page, once the request's id is known; plain text if even that fails.
pub(super) fn problem(problem: &Problem, request_id: &str, now: Time) -> Response {
    let status = problem.status();
    let frame = Frame::stranger(problem.title(), now);
    let page = ProblemPage { frame, status: status.as_u16(), detail: text::plain(problem.detail()), request_id };
    let mut response = match answer(&page) {
        Ok(page) => (status, page).into_response(),
        Err(_) => (status, problem.title()).into_response(),
    };
    problem.tell_when(response.headers_mut());
    response
}

/// A page.
fn answer(page: &impl Template) -> Result<Response, Refused> {
    answer_with(page, POLICY)
}

/// A page with a policy of its own.
fn answer_with(page: &impl Template, policy: &str) -> Result<Response, Refused> {
    let mut response = Html(page.render()?).into_response();
    let headers = response.headers_mut();
    let policy = HeaderValue::from_str(policy).unwrap_or(HeaderValue::from_static(POLICY));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: browsers would then hide the origin of our own forms as well.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Sends the browser to a path of our own.
fn see_other(path: &str) -> Response {
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}

/// The routes. What another site makes the browser send is refused.
pub(super) fn routes() -> Router<AppState> {
    let lists = generations::routes().merge(deliveries::routes()).merge(events::routes()).merge(export::routes());
    let told = now::routes().merge(trends::routes()).merge(catalogue::routes()).merge(setup::routes());
    let routes = session::routes().merge(assets::routes()).merge(lists).merge(told);
    let routes = routes.merge(generation::routes()).merge(actions::routes()).merge(live::routes());
    if planted::is(planted::Fault::OriginIgnored) {
        return routes;
    }
    routes.layer(CsrfLayer::new().with_rejection_response(|_| {
        Refused::from(Problem::forbidden("This did not come from the page itself. Nothing was done.")).into_response()
    }))
}
