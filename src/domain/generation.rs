//! A generation: one paid job at the provider, from the moment somebody meant to buy it.
//!
//! Owns the states and what each of them carries; a completed one without a result cannot be written down. Which state
//! follows which is decided in `decision/`, nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::family::Family;
use super::id::{GenerationId, ProviderId};
use super::money::Usd;
use super::outcome::{Failure, Learned, Outcome};
use super::time::Time;
use super::words::words;

/// The states, each with what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A callback URL was handed out; no purchase is known of yet.
    Prepared,
    /// Meant to be bought; the provider has not answered yet.
    Submitting,
    /// The purchase was sent and its answer lost.
    Unconfirmed,
    /// The provider's word: bought, not started.
    Pending,
    /// The provider's word: being made.
    Processing,
    /// The provider refused; nothing was charged.
    Rejected {
        /// When.
        at: Time,
        /// Why.
        error: Failure,
    },
    /// There is a result.
    Completed {
        /// When we learned it.
        at: Time,
        /// Where it is.
        result_url: String,
        /// How we know.
        learned: Learned,
    },
    /// The provider failed it.
    Failed {
        /// When we learned it.
        at: Time,
        /// Why, as far as it was said.
        error: Failure,
        /// How we know.
        learned: Learned,
    },
    /// Given up; a late webhook or check can still settle it.
    Lost {
        /// When.
        at: Time,
    },
}

words! {
    /// The state without what it carries (contract section 5).
    Status {
        /// A callback URL was handed out; no purchase is known of yet.
        Prepared = "prepared",
        /// Meant to be bought; the provider has not answered yet.
        Submitting = "submitting",
        /// The purchase was sent and its answer lost: it may have been charged.
        Unconfirmed = "unconfirmed",
        /// The provider refused; nothing was charged. Final.
        Rejected = "rejected",
        /// The provider's word: bought, not started.
        Pending = "pending",
        /// The provider's word: being made.
        Processing = "processing",
        /// There is a result. Final.
        Completed = "completed",
        /// The provider failed it. Final.
        Failed = "failed",
        /// Given up; a late webhook or check can still settle it. Final.
        Lost = "lost",
    }
}

words! {
    /// Why a person should look (contract section 5).
    Attention {
        /// Past the expected time and the webhook retry window with no outcome.
        Overdue = "overdue",
        /// Past the hard limit with no outcome.
        Stuck = "stuck",
        /// Completed without a URL.
        NoResult = "no_result",
        /// The provider does not know the id.
        NotFound = "not_found",
        /// Maybe bought: the answer to the purchase was lost.
        Unconfirmed = "unconfirmed",
        /// The provider contradicts itself, or a webhook names another generation.
        Conflict = "conflict",
        /// Given up.
        Lost = "lost",
    }
}

words! {
    /// How a generation came to be known.
    Via {
        /// Bought through the gateway.
        Gateway = "gateway",
        /// Registered or prepared by the user over the API.
        Api = "api",
        /// First heard of in a webhook.
        Webhook = "webhook",
    }
}

impl State {
    /// The word for it.
    pub fn status(&self) -> Status {
        match self {
            Self::Prepared => Status::Prepared,
            Self::Submitting => Status::Submitting,
            Self::Unconfirmed => Status::Unconfirmed,
            Self::Pending => Status::Pending,
            Self::Processing => Status::Processing,
            Self::Rejected { .. } => Status::Rejected,
            Self::Completed { .. } => Status::Completed,
            Self::Failed { .. } => Status::Failed,
            Self::Lost { .. } => Status::Lost,
        }
    }

    /// The outcome, where there is one.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Completed { result_url, .. } => Some(Outcome::Completed { result_url: result_url.clone() }),
            Self::Failed { error, .. } => Some(Outcome::Failed(error.clone())),
            Self::Prepared
            | Self::Submitting
            | Self::Unconfirmed
            | Self::Pending
            | Self::Processing
            | Self::Rejected { .. }
            | Self::Lost { .. } => None,
        }
    }

    /// Where the result is; `None` without one.
    pub fn result_url(&self) -> Option<&str> {
        match self {
            Self::Completed { result_url, .. } => Some(result_url),
            Self::Prepared
            | Self::Submitting
            | Self::Unconfirmed
            | Self::Pending
            | Self::Processing
            | Self::Rejected { .. }
            | Self::Failed { .. }
            | Self::Lost { .. } => None,
        }
    }

    /// When it became final; `None` while it is not.
    pub fn settled_at(&self) -> Option<Time> {
        match self {
            Self::Rejected { at, .. } | Self::Completed { at, .. } | Self::Failed { at, .. } | Self::Lost { at } => {
                Some(*at)
            }
            Self::Prepared | Self::Submitting | Self::Unconfirmed | Self::Pending | Self::Processing => None,
        }
    }

    /// Why it failed or was refused.
    pub fn error(&self) -> Option<&Failure> {
        match self {
            Self::Rejected { error, .. } | Self::Failed { error, .. } => Some(error),
            Self::Prepared
            | Self::Submitting
            | Self::Unconfirmed
            | Self::Pending
            | Self::Processing
            | Self::Completed { .. }
            | Self::Lost { .. } => None,
        }
    }

    /// How the outcome is known.
    pub fn learned(&self) -> Option<Learned> {
        match self {
            Self::Completed { learned, .. } | Self::Failed { learned, .. } => Some(*learned),
            Self::Prepared
            | Self::Submitting
            | Self::Unconfirmed
            | Self::Pending
            | Self::Processing
            | Self::Rejected { .. }
            | Self::Lost { .. } => None,
        }
    }

    /// The word of the outcome; `None` while there is none, and for one that was given up.
    pub fn result(&self) -> Option<&'static str> {
        match self {
            Self::Completed { .. } | Self::Failed { .. } | Self::Rejected { .. } => Some(self.status().as_str()),
            Self::Prepared
            | Self::Submitting
            | Self::Unconfirmed
            | Self::Pending
            | Self::Processing
            | Self::Lost { .. } => None,
        }
    }

    /// Whether the provider is believed to be at it.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Pending | Self::Processing)
    }
}

/// What was asked for, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The model's name as sent.
    pub model: Option<String>,
    /// Length of the clip in seconds.
    pub duration_seconds: Option<u32>,
    /// The prompt.
    pub prompt: Option<String>,
}

/// The reconciler's memory of one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// When the provider is asked next; `None` when there is nothing to ask.
    pub check_at: Option<Time>,
    /// When time alone changes something next (overdue, stuck, given up); `None` when nothing is waited for.
    pub turn_at: Option<Time>,
    /// Reads sent so far.
    pub checks: u32,
    /// Answers "still running" in a row.
    pub running_streak: u32,
    /// Believable answers "not found" in a row.
    pub not_found_streak: u32,
    /// When the last of them came.
    pub not_found_at: Option<Time>,
    /// Answers in a row that told nothing.
    pub error_streak: u32,
    /// What was heard since it counts as stuck or as overdue to be given up: one for an answer that told nothing, four for the provider's word.
    pub late_answers: u32,
    /// When the last of them was heard.
    pub late_at: Option<Time>,
}

/// One paid job at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Our id.
    pub id: GenerationId,
    /// The provider's id, once known.
    pub provider_id: Option<ProviderId>,
    /// Where it was bought.
    pub family: &'static Family,
    /// Where it stands.
    pub state: State,
    /// Why a person should look.
    pub attention: Option<Attention>,
    /// What was asked for.
    pub request: Request,
    /// What the provider took for it; unknown is never zero.
    pub price: Option<Usd>,
    /// How it came to be known.
    pub via: Via,
    /// When we first knew of it.
    pub created_at: Time,
    /// When it was bought, where known.
    pub submitted_at: Option<Time>,
    /// When its outcome is expected; `None` before the purchase.
    pub expected_by: Option<Time>,
    /// What a webhook told and the provider has not confirmed yet, or what contradicts the outcome.
    pub claim: Option<Outcome>,
    /// When a webhook told the outcome first.
    pub webhook_at: Option<Time>,
    /// When a person confirmed that the credits came back.
    pub refunded_at: Option<Time>,
    /// The reconciler's memory.
    pub watch: Watch,
    /// Webhooks that reached us for it.
    pub deliveries: u32,
    /// Outcomes so far: more than one after a correction.
    pub outcomes: u32,
    /// Events so far.
    pub events: u32,
    /// The user's own labels.
    pub metadata: BTreeMap<String, String>,
}

impl Generation {
    /// A generation nobody has bought yet.
    pub fn new(id: GenerationId, family: &'static Family, via: Via, now: Time) -> Self {
        Self {
            id,
            provider_id: None,
            family,
            state: State::Prepared,
            attention: None,
            request: Request::default(),
            price: None,
            via,
            created_at: now,
            submitted_at: None,
            expected_by: None,
            claim: None,
            webhook_at: None,
            refunded_at: None,
            watch: Watch::default(),
            deliveries: 0,
            outcomes: 0,
            events: 0,
            metadata: BTreeMap::new(),
        }
    }

    /// One that somebody else bought and the provider knows. When it was bought is not known.
    pub fn adopted(
        id: GenerationId,
        family: &'static Family,
        provider_id: ProviderId,
        prompt: Option<String>,
        now: Time,
    ) -> Self {
        Self {
            provider_id: Some(provider_id),
            state: State::Pending,
            request: Request { prompt, ..Request::default() },
            watch: Watch { checks: 1, ..Watch::default() },
            ..Self::new(id, family, Via::Gateway, now)
        }
    }

    /// When its time began: the purchase, or where that is unknown the moment we first knew of it.
    pub fn began_at(&self) -> Time {
        self.submitted_at.unwrap_or(self.created_at)
    }

    /// The next time the reconciler looks at it: to ask the provider, else because its time is up.
    pub fn next_look_at(&self) -> Option<Time> {
        self.watch.check_at.or(self.watch.turn_at)
    }

    /// Until when the provider promises to have paid back; `None` unless it failed.
    pub fn refund_expected_by(&self, refund_window: Duration) -> Option<Time> {
        match &self.state {
            State::Failed { at, .. } => Some(*at + refund_window),
            State::Prepared
            | State::Submitting
            | State::Unconfirmed
            | State::Pending
            | State::Processing
            | State::Rejected { .. }
            | State::Completed { .. }
            | State::Lost { .. } => None,
        }
    }
}

/// Facts that the user adds about a generation bought elsewhere. A fact may fill a gap, never overwrite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The provider's id.
    pub provider_id: Option<ProviderId>,
    /// What it cost.
    pub price: Option<Usd>,
    /// When it was bought.
    pub submitted_at: Option<Time>,
    /// What was asked for.
    pub request: Request,
    /// Labels; these replace the ones before.
    pub metadata: Option<BTreeMap<String, String>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::family::FAMILIES;
    use crate::domain::outcome::{Source, Verification};

    #[test]
    fn every_state_says_what_it_carries() {
        let (at, url) = (Time::from_ms(5), "https://x/v".to_owned());
        let learned = Learned { source: Source::Check, verification: Verification::Status, recovered: false };
        let error = Failure { code: Some("TIMEOUT".to_owned()), text: None };
        let completed = Outcome::Completed { result_url: url.clone() };
        let failed = Outcome::Failed(error.clone());
        for (state, status, result, settled, outcome) in [
            (State::Prepared, Status::Prepared, None, false, None),
            (State::Submitting, Status::Submitting, None, false, None),
            (State::Unconfirmed, Status::Unconfirmed, None, false, None),
            (State::Pending, Status::Pending, None, false, None),
            (State::Processing, Status::Processing, None, false, None),
            (State::Rejected { at, error: error.clone() }, Status::Rejected, Some("rejected"), true, None),
            (
                State::Completed { at, result_url: url.clone(), learned },
                Status::Completed,
                Some("completed"),
                true,
                Some(completed),
            ),
            (State::Failed { at, error: error.clone(), learned }, Status::Failed, Some("failed"), true, Some(failed)),
            (State::Lost { at }, Status::Lost, None, true, None),
        ] {
            assert_eq!((state.status(), state.result(), state.settled_at()), (status, result, settled.then_some(at)));
            let is = |one: Status| status == one;
            assert_eq!(state.result_url(), is(Status::Completed).then_some(url.as_str()), "{status:?}");
            assert_eq!(state.error(), (is(Status::Failed) || is(Status::Rejected)).then_some(&error), "{status:?}");
            assert_eq!(state.learned(), outcome.is_some().then_some(learned), "{status:?}");
            assert_eq!(state.is_running(), is(Status::Pending) || is(Status::Processing), "{status:?}");
            assert_eq!(state.outcome(), outcome, "{status:?}");
            let now = Time::from_ms(0);
            let id = GenerationId::from_bytes(&[7; 16]).unwrap();
            let generation = Generation { state, ..Generation::new(id, &FAMILIES[0], Via::Api, now) };
            let refund = generation.refund_expected_by(Duration::from_mins(5));
            assert_eq!(refund, is(Status::Failed).then(|| Time::from_ms(300_005)), "{status:?}");
        }
    }

    #[test]
    fn its_time_begins_with_the_purchase_and_the_next_look_is_a_read_where_there_is_one() {
        let id = GenerationId::from_bytes(&[7; 16]).unwrap();
        let (check_at, turn_at) = (Some(Time::from_ms(9)), Some(Time::from_ms(8)));
        let unbought = Generation::new(id, &FAMILIES[0], Via::Api, Time::from_ms(3));
        assert_eq!((unbought.began_at(), unbought.next_look_at()), (Time::from_ms(3), None));
        let waiting = Watch { turn_at, ..Watch::default() };
        let bought = Generation { submitted_at: Some(Time::from_ms(1)), watch: waiting.clone(), ..unbought };
        assert_eq!((bought.began_at(), bought.next_look_at()), (Time::from_ms(1), turn_at));
        let asked = Generation { watch: Watch { check_at, ..waiting }, ..bought };
        assert_eq!(asked.next_look_at(), check_at);
    }

    #[test]
    fn one_that_somebody_else_bought_runs_and_was_asked_about_once() {
        let (id, now) = (GenerationId::from_bytes(&[7; 16]).unwrap(), Time::from_ms(1_795_428_000_000));
        let provider_id = ProviderId::parse("p-1").unwrap();
        let adopted = Generation::adopted(id, &FAMILIES[0], provider_id.clone(), Some("a boat".to_owned()), now);
        assert_eq!((adopted.state.status(), adopted.provider_id), (Status::Pending, Some(provider_id)));
        assert_eq!((adopted.request.prompt.as_deref(), adopted.watch.checks), (Some("a boat"), 1));
        assert_eq!((adopted.submitted_at, adopted.created_at), (None, now));
    }
}
