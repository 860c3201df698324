//! What recoup knows and how it decides: pure values and functions.
//!
//! Nothing here waits, reads a clock, or knows of HTTP or a database; `tests/architecture.rs` holds it to that.

pub mod family;
pub mod time;
