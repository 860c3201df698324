//! Keeps the secrets of the process inside it: nothing of its memory is written by a crash. Called by the commands that hold secrets.

use std::any::Any;
use std::panic;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// No core dumps, and no other process of the same user may read the memory.
///
/// # Errors
/// When the system does not do it.
pub(super) fn seal_memory() -> std::io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// From now on a panic is logged with its place, and with its text only where that is part of the program: a formatted one may hold anything.
pub(super) fn silence_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, said = text(panic.payload()), "panicked: this is a bug");
    }));
}

fn text(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(kept back: it may hold a secret)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_program_itself_says_is_told() {
        let caught = |panics: fn(&str)| text(&*panic::catch_unwind(|| panics("hunter2")).unwrap_err());
        assert_eq!(caught(|_| panic!("never so")), "never so");
        assert_eq!(caught(|secret| panic!("{secret} is wrong")), "(kept back: it may hold a secret)");
        assert_eq!(caught(|secret| panic::panic_any(secret.to_owned())), "(kept back: it may hold a secret)");
    }
}
