//! What happens in the simulated world, and in which order.

use std::time::Duration;

use super::pollers::{Product, Waiting};
use super::world::Mood;
use crate::domain::id::GenerationId;

/// What happens in the world.
#[derive(Debug)]
pub(super) enum Event {
    /// A client buys: its key, its prompt, and the O3 model and seconds where it names any.
    Buy {
        key: Option<String>,
        prompt: String,
        asked: Option<(&'static str, u32)>,
    },
    /// A client buys this, and polls for it.
    Order {
        prompt: String,
        product: Product,
    },
    /// A client asks where its generation stands.
    Poll(Waiting),
    Webhook {
        sold: usize,
        ping: usize,
        attempt: usize,
    },
    Answer {
        permit: u64,
    },
    Sweep,
    Ask {
        about: Option<GenerationId>,
    },
    Forge,
    Restart {
        down: Duration,
    },
    Up,
    Jump {
        ms: i64,
    },
    SetRight,
    Mood(Mood),
    Pace(u32),
}

/// One of them in the queue: in the order of time, and of two at once the one that was queued first.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) at: Duration,
    pub(super) nth: u64,
    pub(super) event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.nth) == (other.at, other.nth)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.nth).cmp(&(other.at, other.nth))
    }
}
