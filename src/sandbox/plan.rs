//! What the sandbox is to do: the fate of a purchase, and misbehaviour of an answer.
//!
//! Everything the real provider was seen or must be feared to do (provider.md sections 8 and 9), as data that tests, the
//! demo and users can ask for.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fate of one purchase.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// How it ends.
    pub fate: Fate,
    /// How long it takes, in milliseconds; by default as long as documented, divided by the sandbox's speed.
    pub takes_ms: Option<u64>,
    /// The webhooks that are sent; none means it gets lost.
    pub webhooks: Vec<Ping>,
    /// Whether the status answer carries the reason of a failure; by default as documented for the family.
    pub reason_in_status: Option<bool>,
    /// The `description` of answers, which the provider's own client knows of (provider.md section 13).
    pub description: Option<String>,
}

impl Default for Plan {
    fn default() -> Self {
        let webhooks = vec![Ping::default()];
        Self { fate: Fate::Completed, takes_ms: None, webhooks, reason_in_status: None, description: None }
    }
}

impl Fault {
    /// Whether a purchase that is answered so is made.
    pub(super) fn sells(&self) -> bool {
        match self {
            Self::Cut
            | Self::Hang
            | Self::Empty
            | Self::Garbage
            | Self::Huge { .. }
            | Self::Slow { .. }
            | Self::Bought(_) => true,
            Self::Answer { .. }
            | Self::Unauthorized { .. }
            | Self::NoCredits { .. }
            | Self::RateLimited { .. }
            | Self::DetailText
            | Self::DetailList
            | Self::DetailObject
            | Self::ServerError
            | Self::Html
            | Self::WrongId
            | Self::Redirect { .. } => false,
        }
    }
}

impl Plan {
    /// Ends well, and its webhook is sent.
    pub fn completed() -> Self {
        Self::default()
    }

    /// Fails with a code, and its webhook is sent.
    pub fn failed(code: &str) -> Self {
        Self { fate: Fate::Failed { reason: Value::from(code) }, ..Self::default() }
    }

    /// The same, but the webhook gets lost.
    #[must_use]
    pub fn lost(self) -> Self {
        Self { webhooks: Vec::new(), ..self }
    }

    /// The same, but with these webhooks.
    #[must_use]
    pub fn with_webhooks(self, webhooks: impl IntoIterator<Item = Ping>) -> Self {
        Self { webhooks: webhooks.into_iter().collect(), ..self }
    }

    /// The same, but it takes this long.
    #[must_use]
    pub fn taking(self, time: Duration) -> Self {
        Self { takes_ms: Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)), ..self }
    }
}

/// How a purchase ends.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// With a result.
    Completed,
    /// Without one.
    Failed {
        /// What stands in the reason's field: a code, a text, an object, null.
        reason: Value,
    },
    /// Completed, but the URL is missing from the webhook and from so many status answers.
    CompletedWithoutUrl {
        /// How many.
        reads: u32,
        /// A word in the URL's place, as `None` or `pending`; by default null.
        #[serde(default)]
        instead: Option<String>,
    },
    /// It runs for ever.
    NeverEnds,
    /// The provider forgets it: every status read says it was not found.
    Forgotten,
}

/// One webhook, tried up to five times until it is answered 200.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ping {
    /// How long after the outcome, in milliseconds.
    pub after_ms: u64,
    /// What it says.
    pub body: PingBody,
}

impl Ping {
    /// This body, this long after the outcome.
    pub fn new(body: PingBody, after: Duration) -> Self {
        Self { after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX), body }
    }
}

/// What a webhook says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PingBody {
    /// The documented shape.
    #[default]
    Documented,
    /// The opposite of what happened.
    Contradicting,
    /// Cut in the middle.
    Truncated,
    /// HTML.
    NotJson,
    /// A status word nobody documented.
    UnknownStatus(String),
    /// The id of another generation.
    WrongId,
    /// Completed, without the URL.
    WithoutUrl,
    /// Failed, without the reason.
    WithoutReason,
    /// Just this.
    Raw(String),
}

/// Misbehaviour of one HTTP answer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// This status with this body.
    Answer {
        /// HTTP status.
        status: u16,
        /// JSON body.
        body: Value,
    },
    /// 401 in one of the three shapes (provider.md section 6): 1, 2 or 3.
    Unauthorized {
        /// Which.
        shape: u8,
    },
    /// 402 in one of the two forms (provider.md 9.7): 1 or 2.
    NoCredits {
        /// Which.
        form: u8,
    },
    /// 429, with or without `Retry-After`.
    RateLimited {
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// 422 with `detail` as a text.
    DetailText,
    /// 422 with `detail` as a list, as `FastAPI` does.
    DetailList,
    /// 422 with `detail` as an object.
    DetailObject,
    /// 500.
    ServerError,
    /// 502 from somebody in between: HTML.
    Html,
    /// 200 with nothing.
    Empty,
    /// 200 with half a JSON document.
    Garbage,
    /// 200 about another generation.
    WrongId,
    /// 307 to another place.
    Redirect {
        /// Where.
        location: String,
    },
    /// More bytes than anybody should read.
    Huge {
        /// How many.
        bytes: u64,
    },
    /// The connection breaks in the middle of the answer. On a purchase: after it was made.
    Cut,
    /// No answer, ever. On a purchase: after it was made.
    Hang,
    /// The usual answer after so long, whatever the speed. On a purchase: it is made at once.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// The purchase is made, and then this.
    Bought(Box<Fault>),
}

/// Chances in percent, for users who want a provider that misbehaves by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chances {
    /// Generations that fail.
    pub fail: u8,
    /// Webhooks that get lost.
    pub lose: u8,
    /// Webhooks that come a minute late.
    pub late: u8,
    /// Webhooks that come twice.
    pub double: u8,
    /// Webhooks that are followed by their opposite.
    pub contradict: u8,
    /// Webhooks that are cut.
    pub garble: u8,
}

/// Reasons the sandbox fails with: those an O3 job is documented to fail with.
pub const REASONS: [&str; 4] = ["CONTENT_POLICY_VIOLATION", "IMAGE_INACCESSIBLE", "INVALID_IMAGE", "TIMEOUT"];

impl Chances {
    /// Draws a fate. Always draws the same number of times, so that one chance does not disturb the others.
    pub fn draw(&self, chance: &mut fastrand::Rng) -> Plan {
        let mut hit = |percent: u8| chance.u8(0..100) < percent;
        let (fail, lose, late, double) = (hit(self.fail), hit(self.lose), hit(self.late), hit(self.double));
        let (contradict, garble) = (hit(self.contradict), hit(self.garble));
        let reason = REASONS[chance.usize(0..REASONS.len())];
        let plan = if fail { Plan::failed(reason) } else { Plan::completed() };
        let second = Duration::from_secs(1);
        if lose {
            plan.lost()
        } else if garble {
            plan.with_webhooks([Ping::new(PingBody::Truncated, Duration::ZERO)])
        } else if contradict {
            plan.with_webhooks([Ping::default(), Ping::new(PingBody::Contradicting, second)])
        } else if double {
            plan.with_webhooks([Ping::default(), Ping::new(PingBody::Documented, second)])
        } else if late {
            plan.with_webhooks([Ping::new(PingBody::Documented, Duration::from_mins(1))])
        } else {
            plan
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_fates() {
        let chances = Chances { fail: 30, lose: 30, late: 20, double: 20, contradict: 10, garble: 10 };
        let draw = |seed| {
            let mut chance = fastrand::Rng::with_seed(seed);
            (0..50).map(|_| chances.draw(&mut chance)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
