//! The one place of decision: a generation, a fact, a time — and what follows.
//!
//! Webhooks, status answers, answers to a purchase, the user's own words and the passing of time are all facts. Pure: the
//! same arguments give the same decision. `store/` calls this inside the write transaction, so what was decided is what
//! is stored.

mod check;
mod submission;
mod webhook;

#[cfg(test)]
pub(in crate::domain) mod tests;

use std::time::Duration;

use super::callback::Reference;
use super::event::EventKind;
use super::experience::Experience;
use super::generation::{Attention, Details, Generation, State, Watch};
use super::id::ProviderId;
use super::money::Usd;
use super::notice::Notice;
use super::outcome::{Failure, Learned, Outcome, Source, Verification};
use super::poll::Poll;
use super::schedule::Rules;
use super::time::Time;
use super::words::words;
use crate::planted;

/// Something that became known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An authentic webhook that could be read.
    Webhook {
        /// What the token of its URL names.
        reference: Reference,
        /// Whether the provider's own signature was verified.
        signed: bool,
        /// What it says.
        notice: Notice,
    },
    /// An authentic webhook that could not be read.
    UnreadableWebhook,
    /// An authentic webhook whose generation id belongs to another generation.
    ForeignWebhook,
    /// Something else raised a doubt: the provider is to be asked at once.
    Doubted,
    /// A client asked where it stands.
    Polled(Poll),
    /// The provider's answer to a status read.
    Answer(Answer),
    /// Somebody means to buy it, now.
    Intended(Details),
    /// The provider's answer to a purchase.
    Submission(Submission),
    /// What the user adds.
    Details(Details),
    /// A person saw the credits come back.
    RefundConfirmed,
    /// Nothing but time has passed.
    TimePassed,
}

/// What vouches for a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credential {
    /// A URL that many may know.
    Standing,
    /// A URL minted for the generation.
    Minted,
    /// A URL that many may know, and the provider's own signature.
    Signed,
    /// A URL minted for the generation, and the provider's own signature.
    MintedAndSigned,
}

impl Credential {
    fn of(reference: Reference, signed: bool) -> Self {
        match (reference, signed) {
            (Reference::Standing, false) => Self::Standing,
            (Reference::Standing, true) => Self::Signed,
            (Reference::Generation(_), false) => Self::Minted,
            (Reference::Generation(_), true) => Self::MintedAndSigned,
        }
    }

    fn verification(self) -> Verification {
        match self {
            Self::Standing | Self::Minted => Verification::Token,
            Self::Signed => Verification::Signature,
            Self::MintedAndSigned => Verification::TokenAndSignature,
        }
    }
}

/// What a status read brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The provider's word on this generation.
    Known(Notice),
    /// The provider does not know the id.
    NotFound,
    /// Not now: too many reads, or our key is not accepted. The read counts for nothing and is made again.
    Paused {
        /// How long to wait.
        pause: Duration,
    },
    /// Nothing could be learned: no connection, time out, a server error, garbage, a redirect, another id.
    Nothing,
}

impl Answer {
    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Known(_) => "known",
            Self::NotFound => "not_found",
            Self::Paused { .. } => "paused",
            Self::Nothing => "nothing",
        }
    }
}

/// What the provider answered to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it means.
    pub answer: Answer,
    /// The HTTP status, where there was one.
    pub http_status: Option<u16>,
    /// In a few words, for people.
    pub said: String,
    /// The raw body.
    pub body: Vec<u8>,
}

/// What a purchase brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// Bought.
    Accepted {
        /// The provider's id.
        provider_id: ProviderId,
        /// What was charged, where it was said.
        price: Option<Usd>,
    },
    /// The provider refused, or nothing was ever sent.
    Refused(Failure),
    /// Sent, and the answer was lost.
    Unclear,
    /// The answer named a generation that is on record already: it cannot be this one.
    Foreign,
}

words! {
    /// What became of a delivery (contract section 4).
    Disposition {
        /// Taken over.
        Accepted = "accepted",
        /// Told us what an earlier one had told.
        Duplicate = "duplicate",
        /// Contradicts what is known.
        Conflict = "conflict",
        /// Could not be read.
        Unreadable = "unreadable",
        /// Names another generation than its token is bound to.
        Mismatch = "mismatch",
        /// A status word we do not know.
        UnknownStatus = "unknown_status",
    }
}

/// What follows from a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The generation as it is from now on.
    pub generation: Generation,
    /// What became of the delivery; `None` when the fact was none.
    pub disposition: Option<Disposition>,
    /// What the user's systems are told, in order.
    pub events: Vec<EventKind>,
    /// Whether a new version of the outcome came to be.
    pub settled: bool,
    /// The fields that were not taken because they would overwrite a fact.
    pub refused: Vec<&'static str>,
}

impl Rules {
    /// Decides what follows from `fact` at `now`, with what others taught.
    pub fn decide(&self, generation: &Generation, fact: &Fact, experience: &Experience, now: Time) -> Decision {
        let mut draft = Draft::new(self, generation, experience, now);
        match fact {
            Fact::Webhook { reference, signed, notice } => draft.webhook(Credential::of(*reference, *signed), notice),
            Fact::UnreadableWebhook => draft.unreadable_webhook(),
            Fact::ForeignWebhook => draft.foreign_webhook(),
            Fact::Doubted => draft.ask_unless_settled(),
            Fact::Polled(poll) => draft.polled(poll),
            Fact::Answer(answer) => draft.answer(answer),
            Fact::Intended(details) => draft.intended(details),
            Fact::Submission(submission) => draft.submission(submission),
            Fact::Details(details) => draft.details(details),
            Fact::RefundConfirmed => draft.refund_confirmed(),
            Fact::TimePassed => draft.time_passed(),
        }
        draft.finish()
    }
}

/// So many times the provider's word counted since it is late, and it may be given up.
const GIVE_UP_ANSWERS: u32 = 3;
/// The provider's word counts as much as so many reads that brought nothing.
const WORD_COUNTS: u32 = 4;

/// A decision in the making.
struct Draft<'a> {
    rules: &'a Rules,
    experience: &'a Experience,
    now: Time,
    before: &'a Generation,
    next: Generation,
    disposition: Option<Disposition>,
    events: Vec<EventKind>,
    settled: bool,
    refused: Vec<&'static str>,
}

impl<'a> Draft<'a> {
    fn new(rules: &'a Rules, before: &'a Generation, experience: &'a Experience, now: Time) -> Self {
        Self {
            rules,
            experience,
            now,
            before,
            next: before.clone(),
            disposition: None,
            events: Vec::new(),
            settled: false,
            refused: Vec::new(),
        }
    }

    /// Whether it is known only now when it began, or what was asked for.
    fn is_seen_anew(&self) -> bool {
        let (before, next) = (self.before, &self.next);
        next.expected_by.is_none()
            || before.began_at() != next.began_at()
            || before.request.model != next.request.model
            || before.request.duration_seconds != next.request.duration_seconds
    }

    /// Makes `outcome` the outcome. Replacing one that was told before is a correction.
    fn settle(&mut self, outcome: Outcome, learned: Learned) {
        let correction =
            matches!(self.next.state, State::Completed { .. } | State::Failed { .. } | State::Rejected { .. });
        let at = self.now;
        let kind;
        (self.next.state, kind) = match outcome {
            Outcome::Completed { result_url } => (State::Completed { at, result_url, learned }, EventKind::Completed),
            Outcome::Failed(error) => (State::Failed { at, error, learned }, EventKind::Failed),
        };
        self.events.push(if correction { EventKind::Corrected } else { kind });
        self.next.outcomes += 1;
        self.settled = true;
        self.next.claim = None;
        if self.next.attention != Some(Attention::Conflict) {
            self.next.attention = None;
        }
        self.rest();
    }

    /// Nothing is asked or waited for any more.
    fn rest(&mut self) {
        self.next.watch = Watch { checks: self.next.watch.checks, ..Watch::default() };
    }

    /// Calls for a person. A contradiction stands until the provider settles it, so nothing else replaces it.
    fn raise(&mut self, attention: Attention) {
        let current = self.next.attention;
        if current == Some(attention) || (current == Some(Attention::Conflict) && attention != Attention::Lost) {
            return;
        }
        self.next.attention = Some(attention);
        self.events.push(EventKind::Attention);
    }

    /// The provider is asked at once, if there is an id to ask about.
    fn check_now(&mut self) {
        if self.next.provider_id.is_some() {
            self.next.watch.check_at = Some(self.now);
        }
    }

    /// The provider has it: from now on it runs, unless it is final. One that was given up for want of an id can be asked about.
    fn bind(&mut self, provider_id: &ProviderId) {
        self.next.provider_id = Some(provider_id.clone());
        if matches!(self.next.state, State::Prepared | State::Submitting | State::Unconfirmed | State::Lost { .. }) {
            self.next.state = State::Pending;
            if matches!(self.next.attention, Some(Attention::Unconfirmed | Attention::Lost)) {
                self.next.attention = None;
            }
        }
    }

    /// The provider's word that it is running: `pending` never follows `processing`.
    fn advance(&mut self, to: State) {
        if matches!((&self.next.state, &to), (State::Pending, State::Processing)) {
            self.next.state = to;
        }
    }

    fn time_passed(&mut self) {
        if planted::is(planted::Fault::FailedByTime) && self.next.attention == Some(Attention::Stuck) {
            let (source, verification) = (Source::Check, Verification::Status);
            self.settle(Outcome::Failed(Failure::default()), Learned { source, verification, recovered: false });
        }
        if self.next.state == State::Submitting && self.now >= Rules::answer_lost_at(&self.next) {
            self.submission(&Submission::Unclear);
        }
        let open = self.next.state.is_running() || matches!(self.next.state, State::Submitting | State::Unconfirmed);
        if open && self.now >= self.rules.lost_at(&self.next) && self.may_give_up() {
            self.next.state = State::Lost { at: self.now };
            // Where a person has seen the credits come back nobody has to look any more.
            if self.next.refunded_at.is_none() {
                self.raise(Attention::Lost);
            }
            self.rest();
        }
    }

    /// Time alone decides nothing, and a clock may jump: what can be asked about is given up only after the provider was asked
    /// often enough since it counts as stuck. (A backlog can be a day long, too.)
    fn may_give_up(&self) -> bool {
        let asked = self.next.watch.late_answers >= GIVE_UP_ANSWERS * WORD_COUNTS;
        self.next.provider_id.is_none() || asked || planted::is(planted::Fault::LostUnasked)
    }

    fn refund_confirmed(&mut self) {
        match self.next.state {
            State::Failed { .. } => {
                self.next.refunded_at.get_or_insert(self.now);
            }
            State::Lost { .. } | State::Unconfirmed => {
                self.next.refunded_at.get_or_insert(self.now);
                self.next.attention = None;
            }
            State::Prepared
            | State::Submitting
            | State::Pending
            | State::Processing
            | State::Rejected { .. }
            | State::Completed { .. } => self.refused.push("status"),
        }
    }

    /// Brings what follows from state and time alone up to date: expected time, attention, next turns.
    fn finish(mut self) -> Decision {
        let (rules, now) = (self.rules, self.now);
        if self.next.state.is_running() {
            if self.is_seen_anew() {
                let expected = self.experience.expected(rules, &self.next);
                self.next.expected_by = Some(self.next.began_at() + expected.to);
            }
            if self.next.provider_id.is_some() && self.next.watch.check_at.is_none() {
                self.next.watch.check_at = Some(rules.first_check_at(&self.next, self.experience).max(now));
            }
            if matches!(self.next.attention, None | Some(Attention::Overdue | Attention::Stuck)) {
                match rules.attention_by_time(&self.next, now) {
                    Some(attention) => self.raise(attention),
                    None => self.next.attention = None,
                }
            }
        }
        // Times of before a jump of the clock lie far ahead: nothing sleeps until then.
        let expected = self.next.expected_by.map(|by| by.since(self.next.began_at())).unwrap_or_default();
        let longest = rules.longest_pause().max(expected + rules.first_look_after());
        self.next.watch.check_at = self.next.watch.check_at.map(|at| at.min(now + longest));
        if planted::is(planted::Fault::SleepsForEver) && self.next.watch.running_streak > 0 {
            self.next.watch.check_at = Some(now + Duration::from_hours(720));
        }
        // Past its last turn it waits for the provider's word, and what that makes of it. (A turn every few minutes for each of a
        // backlog would cost more than all the reads.)
        let over = self.next.state.is_running() && self.may_give_up();
        let turn_at = rules.next_turn(&self.next, now).or_else(|| over.then_some(now));
        self.next.watch.turn_at = turn_at.map(|at| at.min(now + rules.give_up_after));
        self.next.events += u32::try_from(self.events.len()).unwrap_or(0);
        if planted::is(planted::Fault::SequenceGap) && self.events.contains(&EventKind::Attention) {
            self.next.events += 1;
        }
        Decision {
            generation: self.next,
            disposition: self.disposition,
            events: self.events,
            settled: self.settled,
            refused: self.refused,
        }
    }
}
