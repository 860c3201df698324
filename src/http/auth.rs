//! API keys and what they may do. Keys are kept and compared as hashes, in constant time; who guesses them is slowed down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::attempts::Attempts;
use super::problem::Problem;
use super::seats::Seat;
use super::{AppState, Everything};
use crate::config::Scope;
use crate::planted;

/// One key.
#[derive(Debug)]
struct Key {
    name: String,
    sha256: [u8; 32],
    scopes: Vec<Scope>,
}

impl Key {
    fn mac(&self, token: &[u8; 32]) -> Option<Hmac<Sha256>> {
        Some(Hmac::new_from_slice(token).ok()?.chain_update(self.sha256))
    }
}

/// All keys, and who has tried them.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Arc<Vec<Key>>,
    attempts: Attempts,
}

/// Ties a session to an API key: an HMAC of the key's hash.
type KeyMac = [u8; 32];

/// Who calls: the name of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

impl ApiKeys {
    /// Keys by name, secret and scopes.
    pub fn new<'k>(keys: impl IntoIterator<Item = (&'k str, &'k str, &'k [Scope])>) -> Self {
        let key = |(name, secret, scopes): (&str, &str, &[Scope])| Key {
            name: name.to_owned(),
            sha256: Sha256::digest(secret.as_bytes()).into(),
            scopes: scopes.to_vec(),
        };
        Self { keys: Arc::new(keys.into_iter().map(key).collect()), attempts: Attempts::default() }
    }

    /// Refuses callers without a key, whatever it may do.
    ///
    /// # Errors
    /// 401 without a known key.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<(), Problem> {
        self.known(headers).map(drop)
    }

    fn known(&self, headers: &HeaderMap) -> Result<&Key, Problem> {
        self.key(headers).ok_or_else(|| {
            if planted::is(planted::Fault::KeyEchoed) {
                return Problem::unauthorized(format!("{:?} is no API key.", presented(headers)));
            }
            Problem::unauthorized("Send one of the configured API keys as `Authorization: Bearer <key>`.")
        })
    }

    /// The caller, if its key may do what `scope` says.
    ///
    /// # Errors
    /// 401 without a known key, 403 without the scope.
    pub fn authorize(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Problem> {
        let key = self.known(headers)?;
        if key.scopes.contains(&scope) || planted::is(planted::Fault::ScopeIgnored) {
            Ok(Caller(key.name.clone()))
        } else {
            Err(Problem::forbidden(format!("The key {:?} lacks the scope `{}`.", key.name, scope.as_str())))
        }
    }

    /// What a session of the key `secret` is tied by, and what it may do; `None` for a key we do not know. `token`: what only the
    /// browser holds.
    pub(super) fn session_of_key(&self, secret: &str, token: &[u8; 32]) -> Option<(KeyMac, &[Scope])> {
        let key = self.number(secret).and_then(|number| self.keys.get(number))?;
        Some((key.mac(token)?.finalize().into_bytes().into(), &key.scopes))
    }

    /// The name and scopes of the key that a session was begun with; `None` when that key is gone.
    pub(super) fn of_session(&self, token: &[u8; 32], mac: &[u8]) -> Option<(String, Vec<Scope>)> {
        let its = |key: &&Key| key.mac(token).is_some_and(|expected| expected.verify_slice(mac).is_ok());
        self.keys.iter().find(its).map(|key| (key.name.clone(), key.scopes.clone()))
    }

    /// Whether somebody at that address is listened to with this key; to be asked before the key is.
    ///
    /// # Errors
    /// 429 after too many wrong ones.
    pub(super) fn admit(&self, peer: IpAddr, secret: &str, now: Duration) -> Result<(), Problem> {
        self.attempts.admit(peer, self.number(secret), now)
    }

    fn key(&self, headers: &HeaderMap) -> Option<&Key> {
        self.number(presented(headers)?).and_then(|number| self.keys.get(number))
    }

    fn number(&self, presented: &str) -> Option<usize> {
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        // Every key is compared, so that the time tells nothing about which one was close.
        let mut found = None;
        for (number, key) in self.keys.iter().enumerate() {
            if bool::from(key.sha256.ct_eq(&presented)) {
                found = Some(number);
            }
        }
        found
    }
}

/// The key that a request carries.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let (scheme, presented) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| presented.trim())
}

/// Around every request where keys count: one with a key is turned away when too many wrong ones came from there.
pub(super) async fn slow_down(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Everything { api, api_keys, gate, .. } = &*state;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if let (Some(presented), Some(ConnectInfo(peer))) = (presented(request.headers()), peer) {
        api_keys.admit(gate.sender(peer.ip(), request.headers()), presented, api.clock.monotonic())?;
        assert!(
            !planted::is(planted::Fault::PanicTellsAll) || request.uri().path() != "/v1/stats",
            "came with {presented}"
        );
    }
    Ok(next.run(request).await)
}

macro_rules! may {
    ($(#[$doc:meta])* $name:ident = $scope:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(super) struct $name(pub(super) Caller);

        impl<S> FromRequestParts<S> for $name
        where
            ApiKeys: FromRef<S>,
            S: Send + Sync,
        {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
                let caller = ApiKeys::from_ref(state).authorize(&parts.headers, Scope::$scope)?;
                Seat::keep(&parts.extensions);
                Ok(Self(caller))
            }
        }
    };
}

may! {
    /// Proof that the caller may read.
    MayRead = Read
}
may! {
    /// Proof that the caller may register and buy.
    MaySubmit = Submit
}
may! {
    /// Proof that the caller may operate.
    MayOperate = Operate
}
