//! recoup sees to it that nobody pays for an AI video and is left with nothing.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod flow;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
pub mod http;
pub mod outgoing;
mod planted;
pub mod provider;
pub mod sandbox;
pub mod secret;
pub mod sim;
pub mod sink;
pub mod store;
pub mod telemetry;
pub mod worker;
