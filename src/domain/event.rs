//! What goes out to the user's systems: events, what they say, and how a place that gets them is treated.
//!
//! One event per change, never two for the same. Which change makes which event is decided in `decision/`.

use serde::Serialize;
use serde_json::value::RawValue;

use super::id::{EventId, GenerationId};
use super::time::Time;
use super::words::words;

words! {
    /// What happened (contract section 8).
    EventKind {
        /// There is a result.
        Completed = "generation.completed",
        /// There will be none.
        Failed = "generation.failed",
        /// A person should look.
        Attention = "generation.attention",
        /// A later fact filled a gap of a settled generation.
        Updated = "generation.updated",
        /// The outcome told before was wrong.
        Corrected = "generation.corrected",
    }
}

words! {
    /// How an event on its way stands.
    DispatchState {
        /// It has not arrived yet.
        Pending = "pending",
        /// It was answered with 2xx, or there is nowhere to send it.
        Delivered = "delivered",
        /// It was tried as often as the schedule says; a person can send it again.
        Dead = "dead",
    }
}

/// Something that happened to a generation, to be told.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id: the same on every attempt.
    pub id: EventId,
    /// What it is about.
    pub generation: GenerationId,
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub at: Time,
    /// Its number among this generation's events, from one.
    pub sequence: u32,
    /// The generation as it was then, as JSON; `None` for events of before this was kept.
    pub shown: Option<Box<RawValue>>,
}

/// The body of an event, as it is sent.
#[derive(Debug, Serialize)]
pub struct EventBody<'e> {
    r#type: EventKind,
    timestamp: Time,
    sequence: u32,
    data: Option<&'e RawValue>,
}

impl Event {
    /// What is sent.
    pub fn body(&self) -> EventBody<'_> {
        EventBody { r#type: self.kind, timestamp: self.at, sequence: self.sequence, data: self.shown.as_deref() }
    }
}
