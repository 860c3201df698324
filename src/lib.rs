//! recoup sees to it that nobody pays for an AI video and is left with nothing.

pub mod clock;
pub mod domain;
pub mod store;
