//! API keys and what they may do. Keys are kept and compared as hashes, in constant time.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::Scope;

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

/// All keys.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(Arc<Vec<Key>>);

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
        Self(Arc::new(keys.into_iter().map(key).collect()))
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
            Problem::unauthorized("Send one of the configured API keys as `Authorization: Bearer <key>`.")
        })
    }

    /// The caller, if its key may do what `scope` says.
    ///
    /// # Errors
    /// 401 without a known key, 403 without the scope.
    pub fn authorize(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Problem> {
        let key = self.known(headers)?;
        if key.scopes.contains(&scope) {
            Ok(Caller(key.name.clone()))
        } else {
            Err(Problem::forbidden(format!("The key {:?} lacks the scope `{}`.", key.name, scope.as_str())))
        }
    }

    /// What a session of the key `secret` is tied by, and what it may do; `None` for a key we do not know. `token`: what only the
    /// browser holds.
    pub(super) fn session_of_key(&self, secret: &str, token: &[u8; 32]) -> Option<(KeyMac, &[Scope])> {
        let key = self.of_secret(secret)?;
        Some((key.mac(token)?.finalize().into_bytes().into(), &key.scopes))
    }

    /// The name and scopes of the key that a session was begun with; `None` when that key is gone.
    pub(super) fn of_session(&self, token: &[u8; 32], mac: &[u8]) -> Option<(String, Vec<Scope>)> {
        let its = |key: &&Key| key.mac(token).is_some_and(|expected| expected.verify_slice(mac).is_ok());
        self.0.iter().find(its).map(|key| (key.name.clone(), key.scopes.clone()))
    }

    fn key(&self, headers: &HeaderMap) -> Option<&Key> {
        let authorization = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, presented) = authorization.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.of_secret(presented.trim())
    }

    fn of_secret(&self, presented: &str) -> Option<&Key> {
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        // Every key is compared, so that the time tells nothing about which one was close.
        let mut found = None;
        for key in self.0.iter() {
            if bool::from(key.sha256.ct_eq(&presented)) {
                found = Some(key);
            }
        }
        found
    }
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
                ApiKeys::from_ref(state).authorize(&parts.headers, Scope::$scope).map(Self)
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
