//! How many connections there is place for: as many as wanted, and never so many that the database is without a descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::planted;

/// Descriptors that are not for clients, at least: the database, the listeners, the provider, the user's endpoints.
const KEPT_MIN: usize = 64;
/// And at most.
const KEPT_MAX: usize = 256;
/// Newcomers that wait until somebody has left, at most.
const WAITING_MAX: usize = 256;

/// Connections that a listener holds at once; each holds a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Those that are served.
    pub seats: usize,
    /// Newcomers that wait for a seat.
    pub waiting: usize,
}

impl Places {
    /// As many seats as wanted at each of the listeners, or fewer where the system gives the process too few descriptors for them.
    pub fn within(wanted: usize, listeners: usize) -> Self {
        let descriptors = descriptors_max();
        let places = Self::of(descriptors, wanted, listeners);
        if places.seats < wanted {
            tracing::warn!(
                descriptors,
                "server.max_connections is {wanted}, but with so few open files only {} are possible: raise the limit (ulimit -Hn, \
                 LimitNOFILE=)",
                places.seats
            );
        }
        if planted::is(planted::Fault::PlacesUnbounded) {
            return Self { seats: wanted, waiting: WAITING_MAX };
        }
        places
    }

    fn of(descriptors: usize, wanted: usize, listeners: usize) -> Self {
        let kept = (descriptors / 4).clamp(KEPT_MIN, KEPT_MAX);
        let each = descriptors.saturating_sub(kept) / listeners.max(1);
        let waiting = (each / 4).clamp(1, WAITING_MAX);
        Self { seats: wanted.min(each.saturating_sub(waiting)).max(1), waiting }
    }
}

/// Open files that the process may have, after it has asked for as many as the system lets it ask for.
fn descriptors_max() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Some systems refuse what they name as their maximum; then it stays as it was.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = if raised.is_ok() { maximum } else { current };
    allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_open_files_leave_enough_for_the_database() {
        let of = |descriptors, listeners| {
            let Places { seats, waiting } = Places::of(descriptors, 1_024, listeners);
            (seats, waiting)
        };
        assert_eq!(of(usize::MAX, 1), (1_024, 256));
        assert_eq!(of(1_536, 1), (1_024, 256));
        assert_eq!(of(1_024, 1), (576, 192));
        assert_eq!(of(1_024, 2), (288, 96));
        assert_eq!(of(256, 1), (144, 48));
        assert_eq!(of(64, 1), (1, 1));
        for descriptors in 72..5_000 {
            for listeners in 1..3 {
                let (seats, waiting) = of(descriptors, listeners);
                assert!((seats + waiting) * listeners + KEPT_MIN <= descriptors, "{descriptors} for {listeners}");
            }
        }
    }

    #[test]
    fn as_many_open_files_as_the_system_allows_are_asked_for() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let allowed = descriptors_max();
        assert_eq!(maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap()), allowed);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
