//! What goes out to the user's systems: the kinds of events.
//!
//! One event per change, never two for the same. Which change makes which event is decided in `decision/`.

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
