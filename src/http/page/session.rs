//! Who looks at the page: an API key handed in once becomes a session, which ends with the key.
//!
//! The browser holds a random token and nothing else; what is kept of it tells neither the token nor the key.

use std::net::SocketAddr;

use askama::Template;
use axum::extract::{ConnectInfo, FromRef, FromRequestParts, RawForm, State};
use axum::http::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Router, routing};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{Frame, Refused, answer, see_other};
use crate::config::Scope;
use crate::http::auth::ApiKeys;
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::seats::Seat;
use crate::http::{Api, AppState, Everything};
use crate::planted;
use crate::store::Session;

const COOKIE_NAME: &str = "recoup_session";
/// How long a session lasts: a working day.
const LASTS: std::time::Duration = std::time::Duration::from_hours(12);

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// The name of the key.
    pub(super) name: String,
    scopes: Vec<Scope>,
}

impl Visitor {
    /// Whether the key may do this.
    pub(super) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Proof that the visitor may operate.
    ///
    /// # Errors
    /// 403 when the key lacks the scope.
    pub(super) fn operates(&self) -> Result<(), Problem> {
        if self.may(Scope::Operate) {
            Ok(())
        } else {
            Err(Problem::forbidden(format!("The key {:?} may look, but lacks the scope `operate`.", self.name)))
        }
    }
}

/// What the browser holds.
struct Token([u8; 32]);

impl Token {
    fn fresh() -> Result<Self, Problem> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| {
            Problem::internal("No session could be made. The log has the cause under this request id.")
                .caused_by(&error)
        })?;
        Ok(Self(bytes))
    }

    fn of(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
        Some(Self(URL_SAFE_NO_PAD.decode(value).ok()?.try_into().ok()?))
    }

    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// The cookie. `Secure` where the browser came by TLS, which its own word for where it is tells.
    fn cookie(&self, headers: &HeaderMap) -> String {
        format!("{COOKIE_NAME}={}{}; Max-Age={}", URL_SAFE_NO_PAD.encode(self.0), attributes(headers), LASTS.as_secs())
    }
}

fn attributes(headers: &HeaderMap) -> &'static str {
    let by_tls = headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    if by_tls { "; Path=/; HttpOnly; SameSite=Strict; Secure" } else { "; Path=/; HttpOnly; SameSite=Strict" }
}

impl<S> FromRequestParts<S> for Visitor
where
    Api: FromRef<S>,
    ApiKeys: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let (api, keys) = (Api::from_ref(state), ApiKeys::from_ref(state));
        let visitor = match Token::of(&parts.headers) {
            None => None,
            Some(token) => {
                let mac = api.store.session(token.sha256(), api.clock.now()).await;
                let mac = mac.map_err(|error| Refused::from(error).into_response())?;
                mac.and_then(|mac| keys.of_session(&token.0, &mac))
            }
        };
        match visitor {
            Some((name, scopes)) => {
                Seat::keep(&parts.extensions);
                Ok(Self { name, scopes })
            }
            None => Err(stranger(parts)),
        }
    }
}

/// Where somebody goes who is not logged in, or does not seem to be.
fn stranger(parts: &Parts) -> Response {
    let wanted = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if parts.method != Method::GET {
        return Refused::from(Problem::unauthorized("The session has ended. Log in again, then repeat it."))
            .into_response();
    }
    // A link from another site brings no strict cookie along; the same address asked for from here does.
    let from_elsewhere = parts.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if from_elsewhere && !parts.headers.contains_key(COOKIE) && parts.uri.path() != "/" {
        return match (Again { wanted: local(wanted) }).render() {
            Ok(page) => Html(page).into_response(),
            Err(error) => Refused::from(error).into_response(),
        };
    }
    let next: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
    see_other(&if wanted == "/" { "/login".to_owned() } else { format!("/login?next={next}") })
}

/// Asks for the same address once more, from our own site.
#[derive(Template)]
#[template(path = "again.html")]
struct Again<'w> {
    wanted: &'w str,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    next: String,
    refused: Option<&'static str>,
}

/// A path of our own; anything else becomes the first page.
fn local(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t']);
    if is_path { next } else { "/" }
}

/// `GET /login`.
async fn ask(State(api): State<Api>, mut query: Query) -> Result<Response, Refused> {
    let next = local(&query.one("next")?.unwrap_or_default()).to_owned();
    let frame = Frame::stranger("Log in", api.clock.now());
    answer(&LoginPage { frame, next, refused: None })
}

/// `POST /login`.
async fn log_in(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    RawForm(form): RawForm,
) -> Result<Response, Refused> {
    let field = |wanted: &str| {
        let mut fields = url::form_urlencoded::parse(&form);
        fields.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let Everything { api, api_keys, gate, .. } = &*state;
    let (next, key) = (local(&field("next")).to_owned(), field("key"));
    api_keys.admit(gate.sender(peer.ip(), &headers), key.trim(), api.clock.monotonic())?;
    let brought = Token::of(&headers).filter(|_| planted::is(planted::Fault::CookieTakenOver));
    let token = brought.map_or_else(Token::fresh, Ok)?;
    let refused = match api_keys.session_of_key(key.trim(), &token.0) {
        Some((key_mac, scopes)) if scopes.contains(&Scope::Read) => {
            let now = api.clock.now();
            let session = Session { token_sha256: token.sha256(), key_mac, expires_at: now + LASTS };
            api.store.begin_session(session, now).await?;
            let mut response = see_other(&next);
            let cookie = HeaderValue::try_from(token.cookie(&headers)).map_err(|error| {
                Problem::internal("No session could be made. The log has the cause.").caused_by(&error)
            })?;
            response.headers_mut().insert(SET_COOKIE, cookie);
            return Ok(response);
        }
        Some(_) => "This key may not read, so there is nothing to show.",
        None => "This is none of the configured API keys.",
    };
    let frame = Frame::stranger("Log in", api.clock.now());
    let page = answer(&LoginPage { frame, next, refused: Some(refused) })?;
    Ok((StatusCode::UNAUTHORIZED, page).into_response())
}

/// `POST /logout`.
async fn log_out(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refused> {
    if let Some(token) = Token::of(&headers).filter(|_| !planted::is(planted::Fault::LogoutIgnored)) {
        api.store.end_session(token.sha256()).await?;
    }
    let gone = format!("{COOKIE_NAME}={}; Max-Age=0", attributes(&headers));
    let gone = HeaderValue::try_from(gone).map_err(|error| Problem::internal("").caused_by(&error))?;
    Ok(([(LOCATION, HeaderValue::from_static("/login")), (SET_COOKIE, gone)], StatusCode::SEE_OTHER).into_response())
}

/// The routes.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/login", get(ask).post(log_in)).route("/logout", routing::post(log_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_paths_are_gone_to() {
        for own in ["/", "/generations?status=failed", "/generations/gen_1"] {
            assert_eq!(local(own), own);
        }
        for foreign in
            ["", "https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/a\nb", "evil"]
        {
            assert_eq!(local(foreign), "/", "{foreign:?}");
        }
    }

    #[test]
    fn the_cookie_is_secure_where_the_browser_came_by_tls() {
        let token = Token([7; 32]);
        let from = |origin: &'static str| HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        let secure = token.cookie(&from("https://recoup.example"));
        assert!(secure.contains("; Secure") && secure.contains("; HttpOnly; SameSite=Strict"), "{secure}");
        assert!(!token.cookie(&from("http://127.0.0.1:8080")).contains("Secure"));
        let held = secure.split(';').next().unwrap();
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(format!("other=1; {held}")).unwrap())]);
        assert_eq!(Token::of(&headers).unwrap().0, token.0);
    }
}
