//! The service from outside: real HTTP against the real router, the real database, the simulated provider.
//!
//! Time is moved by hand, never slept; only `process` runs the real binary in real time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod api;
mod architecture;
mod as_provider;
mod cli;
mod commands;
mod credits;
mod doctor;
mod drop_in;
mod equal_purchases;
mod events;
mod gateway;
mod guesses;
mod idempotency;
mod kills;
mod learning;
mod lists;
mod lost_purchases;
mod money;
mod no_public_address;
mod openapi;
mod operations;
mod outbox;
mod page;
mod polls;
mod process;
mod promql;
mod raw;
mod receivers;
mod reconcile;
mod repeats;
mod seats;
mod signatures;
mod support;
mod telemetry;
mod traces;
mod webhooks;
mod wrong_matches;
