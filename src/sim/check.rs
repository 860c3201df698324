//! The invariants of reliability.md, looked at after every step: what each generation is now against what it was, the rows behind it,
//! and the provider's ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::Sold;
use crate::domain::event::EventKind;
use crate::domain::generation::{Generation, State, Status};
use crate::domain::id::GenerationId;
use crate::domain::outcome::{Source, Verification};
use crate::domain::time::Time;
use crate::sandbox::{Fate, PingBody};
use crate::store::Audit;

/// Which invariant, and how it was broken.
pub(super) type Fault = (&'static str, String);

/// Whether what a step did may bring an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The provider's word came in.
    Word,
    /// Nothing but time has passed, or somebody else than the provider did something.
    Time,
}

/// What is remembered from step to step.
#[derive(Debug, Default)]
pub(super) struct Checker {
    known: BTreeMap<GenerationId, Generation>,
    events: BTreeMap<(GenerationId, u32), String>,
}

fn hold(holds: bool, rule: &'static str, how: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err((rule, how())) }
}

impl Checker {
    /// How many generations are on record.
    pub(super) fn known(&self) -> impl Iterator<Item = &Generation> {
        self.known.values()
    }

    pub(super) fn get(&self, id: GenerationId) -> Option<&Generation> {
        self.known.get(&id)
    }

    /// Looks at a generation that changed.
    pub(super) fn look(
        &mut self,
        now: Generation,
        audit: &Audit,
        step: Step,
        at: Time,
        longest: Duration,
    ) -> Result<(), Fault> {
        let before = self.known.get(&now.id);
        let say = || format!("{now:?}; {audit:?}");
        let versions = (1..=now.outcomes).collect::<Vec<_>>();
        hold(audit.versions == versions, "I2 versions of the outcome count up", say)?;
        let outcomes = before.map_or(0, |before| before.outcomes);
        hold(now.outcomes == outcomes || now.outcomes == outcomes + 1, "I2 one outcome at a time", say)?;
        evidence(&now, audit)?;
        let told = [EventKind::Completed, EventKind::Failed, EventKind::Corrected].map(EventKind::as_str);
        let told = audit.events.iter().filter(|(_, kind, _)| told.contains(&kind.as_str())).count();
        hold(told == audit.versions.len(), "I4 one event for each version of the outcome", say)?;
        let sequence = audit.events.iter().map(|(sequence, _, _)| *sequence);
        hold(sequence.eq(1..=now.events), "I4 the numbers of events have no gap", say)?;
        let news = usize::try_from(now.events - before.map_or(0, |before| before.events)).unwrap_or(0);
        if now.outcomes > 0 && now.outcomes == outcomes && news > 0 {
            let changed = before.is_none_or(|before| before.state != now.state || before.attention != now.attention);
            hold(changed, "P2 an event tells of a change", say)?;
        }
        for (sequence, _, id) in &audit.events {
            let known = self.events.entry((now.id, *sequence)).or_insert_with(|| id.clone());
            hold(known == id, "I11 the id of an event stays", say)?;
        }
        if let Some(before) = before {
            transition(before, &now)?;
        }
        let settled = now.outcomes > outcomes;
        hold(!settled || step == Step::Word, "I8 time alone makes no outcome", say)?;
        // A list may have told about it as well.
        let unheard = now.watch.checks == 0 && audit.answers == 0;
        let unasked = now.state.status() == Status::Lost && now.provider_id.is_some() && unheard;
        hold(!unasked, "I8 what was never asked about is not given up", say)?;
        if now.state.settled_at().is_none() && now.state != State::Prepared {
            let next = now.next_look_at();
            hold(next.is_some_and(|next| next <= at + longest), "I10 nothing sleeps for ever", say)?;
        }
        self.known.insert(now.id, now);
        Ok(())
    }

    /// When everything is over: what is on record against what was sold.
    pub(super) fn conclude(sold: &Sold, own: Option<&Generation>, jumped: bool) -> Result<(), Fault> {
        let say = || format!("{sold:?} is on record as {own:?}");
        let Some(own) = own else { return hold(false, "I1 what was bought is on record", say) };
        let truth = &sold.purchase.plan.fate;
        let status = own.state.status();
        let right = match truth {
            Fate::Completed => status == Status::Completed,
            // A result that is not shown when it is asked for may be given up.
            Fate::CompletedWithoutUrl { .. } => matches!(status, Status::Completed | Status::Lost),
            Fate::Failed { .. } => status == Status::Failed,
            // Nobody can know; it must not be taken for over without a word.
            Fate::NeverEnds => status == Status::Lost || (jumped && own.next_look_at().is_some()),
            Fate::Forgotten => matches!(status, Status::Lost | Status::Completed) || own.attention.is_some(),
        };
        // A lie that was never contradicted cannot be seen through; a lost answer without a webhook cannot be healed; a
        // contradiction that nobody answered in a day is shown.
        // One bound to an id that the provider lied about is visibly wrong for ever.
        let foreign = own.provider_id.as_ref().is_some_and(|id| id.as_str() != sold.purchase.id);
        let misled = sold.purchase.plan.webhooks.iter().any(|ping| matches!(ping.body, PingBody::WrongId));
        hold(!foreign || misled, "I13 a purchase is never taken for another one", say)?;
        let excused = (sold.lied_to && !sold.told)
            || ((foreign || own.state.outcome().is_some()) && own.attention.is_some())
            || (own.provider_id.is_none() && matches!(status, Status::Lost | Status::Unconfirmed));
        hold(right || excused, "I12 everything ends as the provider says, or is visibly unresolved", say)?;
        let visible = matches!(status, Status::Lost | Status::Unconfirmed) && own.attention.is_none();
        hold(!visible, "P3 what is unresolved calls for a person", say)
    }
}

/// A settled one has the row that settled it.
fn evidence(now: &Generation, audit: &Audit) -> Result<(), Fault> {
    let Some(learned) = now.state.learned() else { return Ok(()) };
    let kept = match (learned.source, learned.verification) {
        (Source::Webhook, Verification::Token | Verification::Signature | Verification::TokenAndSignature) => {
            audit.deliveries > 0
        }
        (Source::Webhook, Verification::Status | Verification::TokenAndStatus) => {
            audit.deliveries > 0 && audit.answers > 0
        }
        (Source::Check, _) => audit.answers > 0,
    };
    hold(kept, "I3 an outcome has its evidence", || format!("{now:?}; {audit:?}"))
}

fn transition(before: &Generation, now: &Generation) -> Result<(), Fault> {
    let say = || format!("{before:?} became {now:?}");
    let settled =
        |state: &State| matches!(state, State::Completed { .. } | State::Failed { .. } | State::Rejected { .. });
    hold(!settled(&before.state) || settled(&now.state), "I2 a final state never goes back", say)?;
    let other = before.state.outcome().zip(now.state.outcome()).is_some_and(|(before, now)| !before.agrees(&now));
    let by_status = |word| matches!(word, Verification::Status | Verification::TokenAndStatus);
    let asked = now.state.learned().is_some_and(|learned| by_status(learned.verification));
    hold(!other || asked, "I2 only the provider's own answer replaces an outcome", say)?;
    hold(before.provider_id.is_none() || before.provider_id == now.provider_id, "the provider's id stays", say)?;
    hold(before.price.is_none() || before.price == now.price, "a price is never overwritten", say)
}
