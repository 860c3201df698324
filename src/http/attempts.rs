//! Slows down whoever guesses API keys: who sent wrong ones is not listened to for a while, with a right one neither, or guessing would go on.
//!
//! A key that has worked from an address goes on working from there, whatever else comes from it: an honest user behind the same proxy is not
//! locked out. Kept in memory, of bounded size, with nothing of the keys but their number in the configuration. Asked by `auth.rs`, for every
//! request that carries a key, and by the login.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::problem::Problem;
use crate::planted;

/// Wrong keys that are answered as such before an address is slowed down: enough for a program that was given the wrong one.
const AT_ONCE: u32 = 200;
/// After that, one more in each of these: a guess every three seconds never gets anywhere.
const EVERY: Duration = Duration::from_secs(3);
/// Addresses kept at the same time.
const ADDRESSES_MAX: usize = 4_096;

/// What is known of one address.
#[derive(Debug, Default)]
struct Address {
    /// When all its wrong keys are forgiven, by the monotonic clock.
    forgiven_at: Duration,
    /// The keys that have worked from here.
    worked: Vec<usize>,
}

impl Address {
    /// How long it has to wait until it is listened to again.
    fn wait(&self, now: Duration) -> Duration {
        self.forgiven_at.saturating_sub(now + EVERY * (AT_ONCE - 1))
    }
}

/// Who has tried which keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<IpAddr, Address>>>);

impl Attempts {
    /// Takes note that somebody came with a key: which one, or `None` for a wrong one.
    ///
    /// # Errors
    /// 429 with the time to wait, whether the key is right or not.
    pub(super) fn admit(&self, peer: IpAddr, key: Option<usize>, now: Duration) -> Result<(), Problem> {
        // A thread that panicked in here has left nothing half done.
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(peer);
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&network) {
            forget(&mut addresses, now);
        }
        let address = addresses.entry(network).or_default();
        if key.is_some_and(|key| address.worked.contains(&key)) {
            return Ok(());
        }
        let wait = address.wait(now);
        if !wait.is_zero() && !planted::is(planted::Fault::GuessesUncounted) {
            return Err(Problem::too_many_wrong_keys(
                "Too many wrong API keys came from this address. Until it has rested, no other key is looked at.",
            )
            .retry_after(wait));
        }
        match key {
            Some(key) => address.worked.push(key),
            None => address.forgiven_at = address.forgiven_at.max(now) + EVERY,
        }
        Ok(())
    }
}

/// Makes room: those without a wrong key lose nothing; if there are none, the one that is forgiven next.
fn forget(addresses: &mut HashMap<IpAddr, Address>, now: Duration) {
    addresses.retain(|_, address| address.forgiven_at > now);
    if addresses.len() >= ADDRESSES_MAX {
        let next = addresses.iter().min_by_key(|(_, address)| address.forgiven_at).map(|(network, _)| *network);
        next.map(|network| addresses.remove(&network));
    }
}

/// Who counts as one: an IPv4 address, or the /64 that every IPv6 user has all addresses of.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(1);

    fn peer(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xC633_6400 + last).into()
    }

    fn guess(attempts: &Attempts, from: u32, now: Duration) -> bool {
        attempts.admit(peer(from), None, now).is_ok()
    }

    #[test]
    fn guesses_are_slowed_down_to_one_in_three_seconds() {
        let attempts = Attempts::default();
        let answered = (0..1_000).filter(|_| guess(&attempts, 1, NOW)).count();
        assert_eq!(answered, 200);
        let minute = (0..60_000).filter(|ms| guess(&attempts, 1, NOW + Duration::from_millis(*ms))).count();
        assert_eq!(minute, 19, "after each three seconds one, the first after three");
        assert!(guess(&attempts, 2, NOW), "nobody else is meant");
    }

    #[test]
    fn a_right_key_is_not_looked_at_either_unless_it_worked_from_there_before() {
        let attempts = Attempts::default();
        assert!(attempts.admit(peer(1), Some(7), NOW).is_ok());
        while guess(&attempts, 1, NOW) {}
        let refused = attempts.admit(peer(1), Some(8), NOW).unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (429, "TOO_MANY_WRONG_KEYS"));
        assert!(attempts.admit(peer(1), Some(7), NOW).is_ok(), "an honest user behind the same proxy");
        assert!(attempts.admit(peer(2), Some(8), NOW).is_ok());
        assert!(attempts.admit(peer(1), Some(8), NOW + EVERY).is_ok());
    }

    #[test]
    fn the_wait_that_is_told_is_long_enough() {
        let attempts = Attempts::default();
        let mut now = NOW;
        for _ in 0..100 {
            let wait = attempts.0.lock().unwrap().get(&peer(1)).map_or(Duration::ZERO, |address| address.wait(now));
            now += wait;
            assert!(guess(&attempts, 1, now));
        }
    }

    #[test]
    fn memory_is_bounded_and_the_guilty_are_remembered_longest() {
        let attempts = Attempts::default();
        while guess(&attempts, 1, NOW) {}
        for other in 2..20_000 {
            assert!(attempts.admit(peer(other), Some(0), NOW).is_ok());
        }
        assert!(!guess(&attempts, 1, NOW), "forgotten for the sake of those who did nothing");
        for other in 2..20_000 {
            assert!(guess(&attempts, other, NOW));
        }
        assert!(!guess(&attempts, 1, NOW), "forgotten for the sake of those who guessed once");
        assert!(attempts.0.lock().unwrap().len() <= ADDRESSES_MAX);
    }

    #[test]
    fn a_whole_ipv6_network_counts_as_one() {
        let attempts = Attempts::default();
        let guesses = (0..1_000).map(|nth| format!("2001:db8::{nth:x}").parse().unwrap());
        assert_eq!(guesses.filter(|from| attempts.admit(*from, None, NOW).is_ok()).count(), 200);
        let mapped: IpAddr = "::ffff:198.51.100.1".parse().unwrap();
        assert_eq!(network(mapped), peer(1));
    }
}
