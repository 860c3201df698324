//! Outcomes: the final result of a generation, why it failed, and how we know.
//!
//! Says when two of them can both be true; what follows when they cannot is decided in `decision/`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::words;

/// Why a generation failed or was refused, in the provider's words: a code, a text, both or neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// An `ALL_CAPS` word, kept as it came.
    pub code: Option<String>,
    /// Anything else that was said.
    pub text: Option<String>,
}

impl Failure {
    /// Whether nothing was said.
    pub fn is_silent(&self) -> bool {
        self.code.is_none() && self.text.is_none()
    }

    /// Takes over what `later` says and this does not; tells whether anything was taken.
    pub fn fill_from(&mut self, later: &Self) -> bool {
        fill(&mut self.code, later.code.as_ref()) | fill(&mut self.text, later.text.as_ref())
    }

    /// Whether both can be true: codes are compared where both have one, texts where neither has a code.
    fn agrees(&self, other: &Self) -> bool {
        match (&self.code, &other.code, &self.text, &other.text) {
            (Some(code), Some(other), _, _) => code == other,
            (None, None, Some(text), Some(other)) => text == other,
            _ => true,
        }
    }
}

/// The final result, as the provider tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There is a result.
    Completed {
        /// Where it can be fetched: an absolute web address (`link`).
        result_url: String,
    },
    /// There will be none.
    Failed(Failure),
}

impl Outcome {
    /// Whether both can be true. Two links to the same file agree even when they were signed at different times, so the
    /// query of a link is not compared.
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Completed { result_url }, Self::Completed { result_url: other }) => file(result_url) == file(other),
            (Self::Failed(failure), Self::Failed(other)) => failure.agrees(other),
            (Self::Completed { .. }, Self::Failed(_)) | (Self::Failed(_), Self::Completed { .. }) => false,
        }
    }
}

fn file(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// How we know an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Who told first.
    pub source: Source,
    /// What vouches for it.
    pub verification: Verification,
    /// A check found it while no webhook had come: without recoup it would have been lost.
    pub recovered: bool,
}

words! {
    /// How an outcome was learned first.
    Source {
        /// A webhook told it.
        Webhook = "webhook",
        /// We asked.
        Check = "check",
    }
}

words! {
    /// What vouches for an outcome.
    Verification {
        /// The token of the callback URL.
        Token = "token",
        /// The provider's status answer.
        Status = "status",
        /// Both.
        TokenAndStatus = "token+status",
        /// The provider's own signature of the webhook.
        Signature = "signature",
        /// The token of a URL minted for the generation, and the provider's own signature.
        TokenAndSignature = "token+signature",
    }
}

/// Takes `later` over where there is nothing yet; tells whether it did.
pub(in crate::domain) fn fill<T: Clone>(gap: &mut Option<T>, later: Option<&T>) -> bool {
    let fills = gap.is_none() && later.is_some();
    if fills {
        *gap = later.cloned();
    }
    fills
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_word_fills_what_is_missing_and_changes_nothing() {
        let failure = |code: Option<&str>, text: Option<&str>| Failure {
            code: code.map(str::to_owned),
            text: text.map(str::to_owned),
        };
        for (before, later, after, taken) in [
            (failure(None, None), failure(Some("A"), None), failure(Some("A"), None), true),
            (failure(Some("A"), None), failure(Some("B"), Some("b")), failure(Some("A"), Some("b")), true),
            (failure(Some("A"), Some("a")), failure(Some("B"), Some("b")), failure(Some("A"), Some("a")), false),
            (failure(None, Some("a")), failure(None, None), failure(None, Some("a")), false),
            (failure(None, None), failure(Some("A"), Some("a")), failure(Some("A"), Some("a")), true),
        ] {
            let mut filled = before;
            assert_eq!((filled.fill_from(&later), &filled), (taken, &after));
        }
    }

    #[test]
    fn two_outcomes_agree_when_both_can_be_true() {
        let failed = |code: Option<&str>, text: Option<&str>| {
            Outcome::Failed(Failure { code: code.map(str::to_owned), text: text.map(str::to_owned) })
        };
        let completed = |url: &str| Outcome::Completed { result_url: url.to_owned() };
        for (one, other, agree) in [
            (completed("https://x/v.mp4"), completed("https://x/v.mp4"), true),
            (completed("https://x/v.mp4?sig=1"), completed("https://x/v.mp4?sig=2"), true),
            (completed("https://x/v.mp4#t=1"), completed("https://x/v.mp4"), true),
            (completed("https://x/v.mp4"), completed("https://x/w.mp4"), false),
            (completed("https://x/v.mp4"), failed(None, None), false),
            (failed(Some("A"), None), failed(Some("A"), Some("a")), true),
            (failed(Some("A"), Some("a")), failed(Some("A"), Some("b")), true),
            (failed(Some("A"), Some("a")), failed(Some("B"), Some("a")), false),
            (failed(None, Some("a")), failed(None, Some("a")), true),
            (failed(None, Some("a")), failed(None, Some("b")), false),
            (failed(Some("A"), Some("a")), failed(None, Some("b")), true),
            (failed(None, None), failed(Some("A"), None), true),
            (failed(None, None), failed(None, Some("a")), true),
        ] {
            assert_eq!((one.agrees(&other), other.agrees(&one)), (agree, agree), "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_failure_is_silent_only_without_code_and_text() {
        let failure = |code: Option<&str>, text: Option<&str>| Failure {
            code: code.map(str::to_owned),
            text: text.map(str::to_owned),
        };
        let silent = [(None, None), (Some("A"), None), (None, Some("a")), (Some("A"), Some("a"))]
            .map(|(code, text)| failure(code, text).is_silent());
        assert_eq!(silent, [true, false, false, false]);
    }
}
