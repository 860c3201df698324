//! What recoup knows and how it decides: pure values and functions.
//!
//! Nothing here waits, reads a clock, or knows of HTTP or a database; `tests/architecture.rs` holds it to that.

pub mod callback;
pub mod candidates;
pub mod credits;
pub mod decision;
pub mod delivery_headers;
pub mod diagnosis;
pub mod equal_purchases;
pub mod error_code;
pub mod event;
pub mod evidence;
pub mod experience;
pub mod family;
pub mod generation;
pub mod history;
pub mod id;
pub mod lanes;
pub mod link;
pub mod listing;
pub mod money;
pub mod money_report;
pub mod notice;
pub mod outcome;
pub mod pace;
pub mod pass_through;
pub mod poll;
pub mod provider_signature;
pub mod purchase;
pub mod reading;
pub mod refusal;
pub mod schedule;
pub(crate) mod schema;
pub mod shape;
pub mod shown;
pub mod spelling;
pub mod time;
pub mod trust;
mod words;
