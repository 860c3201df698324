//! A deterministic simulation: the real decisions, schedule, budget, flows and SQL in a random world under virtual time.
//!
//! One seed is one history, hash for hash. After every step the invariants of `check.rs` are looked at, against the oracle outside:
//! the provider's ledger. Never part of a running service.

mod check;
mod client;
mod clock;
mod event;
mod fate;
mod history;
mod machine;
mod pollers;
mod reading;
mod scenario;
mod service;
mod world;

#[cfg(test)]
mod tests;

pub use history::{History, Settings, run};
pub use pollers::{Heard, Kinds, MeasuredPolls, Pollers, measure_pollers};
pub use reading::{ReadBehind, ReadingScenario, measure_reading};
pub use scenario::{Measured, Scenario, at_most, measure, unavoidable};

use crate::store::StoreError;

/// An invariant that does not hold.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "seed {seed}, event {event} ({doing}): {rule}: {how}\nreplay with: cargo run --release --bin sim -- replay {seed}"
)]
pub struct Broken {
    /// The history's seed.
    pub seed: u64,
    /// Which event of it.
    pub event: u64,
    /// What the event was.
    pub doing: String,
    /// The invariant.
    pub rule: &'static str,
    /// How it was broken.
    pub how: String,
}

/// A history ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// An invariant does not hold.
    #[error(transparent)]
    Broken(#[from] Box<Broken>),
    /// The database could not do it, which has nothing to do with the world.
    #[error("the database in memory: {0}")]
    Store(#[from] StoreError),
    /// The same seed gave two histories.
    #[error("seed {0} gave two histories: something in them does not follow from the seed")]
    Unsteady(u64),
    /// There is no runtime to run in.
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
}
