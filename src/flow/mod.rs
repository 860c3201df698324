//! The story: the only code that joins domain, store and the outside. One file per way in.
//!
//! Ask first, then write: no outside call is made while a write is open.

pub mod adopt;
pub mod balance;
pub mod gateway;
pub mod intake;
mod lists;
pub mod poll;
pub mod reconcile;
mod under_way;
