//! Which process answers? `recoup doctor` asks at the address we listen on and at the public one and compares: a proxy may lead to
//! another service, or to another recoup.
//!
//! Only a webhook that is refused carries the answer, and only when it was asked for, so the refusal tells nothing about tokens. The
//! key is of this process alone: no secret of the configuration is in it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::problem::Problem;

/// The header of question and answer.
pub const PROBE: HeaderName = HeaderName::from_static("recoup-probe");
/// Longest question.
const QUESTION_BYTES_MAX: usize = 64;

/// Answers with what only this process can: the question under a key of its own.
#[derive(Clone, Debug, Default)]
pub struct Probe(Option<Hmac<Sha256>>);

impl Probe {
    /// One with a fresh key. Without a source of chance it never answers.
    pub fn new() -> Self {
        let mut key = [0; 32];
        let drawn = getrandom::fill(&mut key).is_ok();
        Self(drawn.then(|| Hmac::new_from_slice(&key).ok()).flatten())
    }

    /// The refusal, with the answer where one was asked for.
    pub(super) fn seal(&self, headers: &HeaderMap, refusal: Problem) -> Problem {
        match headers.get(PROBE).and_then(|question| self.answer(question.as_bytes())) {
            Some(answer) => refusal.with_header(PROBE, answer),
            None => refusal,
        }
    }

    fn answer(&self, question: &[u8]) -> Option<HeaderValue> {
        let asked = (1..=QUESTION_BYTES_MAX).contains(&question.len());
        let mac = self.0.clone().filter(|_| asked)?.chain_update(question).finalize();
        HeaderValue::try_from(hex::encode(mac.into_bytes())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_answers_in_its_own_way() {
        let (one, other) = (Probe::new(), Probe::new());
        assert_eq!(one.answer(b"a"), one.clone().answer(b"a"));
        assert_ne!(one.answer(b"a"), one.answer(b"b"));
        assert_ne!(one.answer(b"a"), other.answer(b"a"));
        assert_eq!(one.answer(&[b'a'; 65]), None);
        assert_eq!(Probe::default().answer(b"a"), None);
    }
}
