//! What follows from the answer to a purchase, and from what the user adds.

use super::{Attention, Details, Draft, EventKind, State, Submission};
use crate::domain::outcome::fill;

impl Draft<'_> {
    pub(super) fn intended(&mut self, details: &Details) {
        self.details(details);
        if self.next.state == State::Prepared {
            self.next.state = State::Submitting;
            self.next.submitted_at.get_or_insert(self.now);
        }
    }

    pub(super) fn submission(&mut self, submission: &Submission) {
        match submission {
            Submission::Accepted { provider_id, price } => {
                match &self.next.provider_id {
                    // The webhook was faster and named another generation.
                    Some(bound) if bound != provider_id => self.raise(Attention::Conflict),
                    Some(_) => {}
                    None => self.bind(provider_id),
                }
                fill(&mut self.next.price, price.as_ref());
            }
            Submission::Refused(error) => match self.next.state {
                // Time may have declared the answer lost before it came after all.
                State::Submitting | State::Unconfirmed => {
                    self.next.state = State::Rejected { at: self.now, error: error.clone() };
                    self.next.attention = None;
                    self.rest();
                }
                State::Prepared
                | State::Pending
                | State::Processing
                | State::Rejected { .. }
                | State::Completed { .. }
                | State::Failed { .. }
                | State::Lost { .. } => self.raise(Attention::Conflict),
            },
            Submission::Unclear => {
                if self.next.state == State::Submitting {
                    self.next.state = State::Unconfirmed;
                    self.raise(Attention::Unconfirmed);
                }
            }
            Submission::Foreign => {
                if self.next.state == State::Submitting {
                    self.next.state = State::Unconfirmed;
                }
                self.raise(Attention::Conflict);
            }
        }
    }

    /// Fills gaps; what would overwrite is refused by name.
    pub(super) fn details(&mut self, details: &Details) {
        let known_before = self.next.clone();
        if let Some(provider_id) = &details.provider_id {
            match &self.next.provider_id {
                None if matches!(self.next.state, State::Rejected { .. }) => self.refused.push("generation_id"),
                None => {
                    // Who tells us an id has just bought it, unless he says otherwise.
                    let submitted_at = details.submitted_at.unwrap_or(self.now);
                    self.next.submitted_at.get_or_insert(submitted_at);
                    self.bind(provider_id);
                    // One that was given up, or settled without an id, has only now something to ask about.
                    if self.next.state.settled_at().is_some() {
                        self.check_now();
                    }
                }
                Some(bound) if bound == provider_id => {}
                Some(_) => self.refused.push("generation_id"),
            }
        }
        let next = &mut self.next;
        let request = &details.request;
        self.refused.extend(
            [
                gap(&mut next.price, details.price.as_ref(), "price"),
                gap(&mut next.submitted_at, details.submitted_at.as_ref(), "submitted_at"),
                gap(&mut next.request.model, request.model.as_ref(), "model"),
                gap(&mut next.request.duration_seconds, request.duration_seconds.as_ref(), "duration_seconds"),
                gap(&mut next.request.prompt, request.prompt.as_ref(), "prompt"),
            ]
            .into_iter()
            .flatten(),
        );
        if let Some(metadata) = &details.metadata {
            next.metadata.clone_from(metadata);
        }
        let filled = next.price != known_before.price || next.request != known_before.request;
        if filled && next.state.outcome().is_some() {
            self.events.push(EventKind::Updated);
        }
        self.reschedule();
    }

    /// Before the first check, a better-known purchase moves it.
    fn reschedule(&mut self) {
        let untouched = self.next.watch.checks == 0 && self.next.claim.is_none();
        if untouched && self.next.state.is_running() && self.next.watch.check_at.is_some_and(|at| at > self.now) {
            self.next.watch.check_at = None;
        }
    }
}

/// Fills a gap with what is told; gives the field's name back when that would overwrite.
fn gap<T: Clone + PartialEq>(known: &mut Option<T>, told: Option<&T>, field: &'static str) -> Option<&'static str> {
    fill(known, told);
    (told.is_some() && known.as_ref() != told).then_some(field)
}
