//! The seats of a listener: so many connections at once, and who has to leave when all are taken.
//!
//! A client that keeps us waiting holds a seat and costs nothing, so strangers could take them all. Who has begun a request and does not
//! get on with it leaves after a few seconds. When a newcomer finds no seat, the one leaves that has used up most of the time it may
//! take, unless it has shown a key: 1,024 silent connections then keep nobody out. Never looks at what is said on a connection.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Extensions;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::places::Places;
use crate::planted;
use crate::telemetry::meters;

/// The clock of the seats: fine enough for limits of seconds, and read for nothing.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Ticks in which the head of a request has to arrive whole, the first one and every later one (reliability.md 5.1).
const HEAD_TICKS: u64 = 50;
/// Ticks that a stranger's connection whose request was answered is kept for another one. Those that showed a key are the HTTP server's
/// affair: it keeps them longer.
const IDLE_TICKS: u64 = 100;
/// Ticks that a webhook or a stranger's request may be in hand before it makes room for a newcomer; an honest one is long answered.
const ASKING_TICKS: u64 = 10;
/// Ticks that a connection whose request was answered may rest before it makes room: who asks again and again is never in the way.
const RESTING_TICKS: u64 = 3;
/// How long a newcomer waits when nobody can be sent away.
const SEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The head of a request is expected, or has begun.
    Head,
    /// A request is in hand.
    Asking,
    /// It was answered, or is being answered; nothing new has begun.
    Rest,
}

impl Phase {
    /// Who has used up most of its time leaves first: it is 5 seconds for a head, 10 for rest, 15 for a whole request.
    fn weight(self) -> u64 {
        match self {
            Self::Head => 6,
            Self::Rest => 3,
            Self::Asking => 2,
        }
    }
}

/// All seats of a listener.
#[derive(Clone, Debug)]
pub(super) struct Seats(Arc<Room>);

#[derive(Debug)]
struct Room {
    places: Places,
    free: Arc<Semaphore>,
    waiting: Semaphore,
    taken: Mutex<BTreeMap<u64, Arc<Seat>>>,
    newest: AtomicU64,
    ticks: Arc<AtomicU64>,
}

/// One connection's seat.
#[derive(Debug)]
pub(super) struct Seat {
    phase: Mutex<(Phase, u64)>,
    /// Whether the request in hand, or the last one, came with a key or a session of ours.
    known: AtomicBool,
    sent_away: AtomicBool,
    waker: AtomicWaker,
    ticks: Arc<AtomicU64>,
}

/// Given back when the connection ends.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) seat: Arc<Seat>,
    number: u64,
    seats: Seats,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
        if planted::is(planted::Fault::LeftBehind) {
            std::mem::forget(vec![1_u8; 65_536]);
        }
    }
}

impl Seats {
    /// So many.
    pub(super) fn new(places: Places) -> Self {
        Self(Arc::new(Room {
            places,
            free: Arc::new(Semaphore::new(places.seats)),
            waiting: Semaphore::new(places.waiting),
            taken: Mutex::default(),
            newest: AtomicU64::new(0),
            ticks: Arc::default(),
        }))
    }

    /// A seat for a newcomer; somebody else's, when all are taken.
    ///
    /// # Errors
    /// When nobody could be sent away for too long, or too many wait already.
    pub(super) async fn take(&self) -> io::Result<Taken> {
        let full = || io::Error::other("too many connections");
        let free = Arc::clone(&self.0.free);
        let permit = if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
            permit
        } else {
            let _waits = self.0.waiting.try_acquire().map_err(|_| full())?;
            self.make_room();
            let permit = tokio::time::timeout(SEAT_TIMEOUT, free.acquire_owned()).await;
            permit.map_err(|_| full())?.map_err(io::Error::other)?
        };
        let number = self.0.newest.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat::new(Arc::clone(&self.0.ticks)));
        self.taken().insert(number, Arc::clone(&seat));
        Ok(Taken { seat, number, seats: self.clone(), _permit: permit })
    }

    /// To be called every [`TICK`]: sends away who does not get on with a head, and makes room for newcomers for whom nobody could
    /// leave when they came.
    pub(super) fn tick(&self) {
        let now = self.0.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        if planted::is(planted::Fault::HeadsUntimed) {
            return;
        }
        for seat in self.taken().values() {
            if let Some(reason) = seat.dawdles(now) {
                seat.send_away(reason);
            }
        }
        let leaving = self.taken().values().filter(|seat| seat.sent_away.load(Ordering::Relaxed)).count();
        let waiting = self.0.places.waiting.saturating_sub(self.0.waiting.available_permits());
        for _ in leaving..waiting {
            self.make_room();
        }
    }

    fn make_room(&self) {
        let now = self.0.ticks.load(Ordering::Relaxed);
        let taken = self.taken();
        let costs = taken.iter().filter_map(|(number, seat)| Some((seat.patience_used(now)?, u64::MAX - number, seat)));
        let leaves = costs.max_by_key(|(used, oldest, _)| (*used, *oldest));
        if let Some((_, _, seat)) = leaves.filter(|_| !planted::is(planted::Fault::FirstComeOnly)) {
            seat.send_away("full");
        }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Seat>>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn new(ticks: Arc<AtomicU64>) -> Self {
        Self {
            phase: Mutex::new((Phase::Head, ticks.load(Ordering::Relaxed))),
            known: AtomicBool::default(),
            sent_away: AtomicBool::default(),
            waker: AtomicWaker::new(),
            ticks,
        }
    }

    /// Notes that whoever sent this request showed a key or a session: it will not be sent away for a stranger.
    pub(super) fn keep(extensions: &Extensions) {
        if let Some(seat) = extensions.get::<Arc<Self>>() {
            seat.known.store(true, Ordering::Relaxed);
        }
    }

    /// A request has arrived, its head at least.
    pub(super) fn asks(&self) {
        self.known.store(false, Ordering::Relaxed);
        *self.phase() = (Phase::Asking, self.now());
    }

    fn turns(&self, from: Phase, to: Phase) {
        let mut phase = self.phase();
        if phase.0 == from {
            *phase = (to, self.now());
        }
    }

    /// Why it has to leave: a head does not come, or nothing comes any more. `None` for one that stays.
    fn dawdles(&self, now: u64) -> Option<&'static str> {
        let (phase, since) = *self.phase();
        let (ticks, reason) = match phase {
            Phase::Head => (HEAD_TICKS, "slow"),
            Phase::Rest => (IDLE_TICKS, "idle"),
            Phase::Asking => return None,
        };
        (now.saturating_sub(since) > ticks && !self.known.load(Ordering::Relaxed)).then_some(reason)
    }

    /// `None` for one that stays.
    fn patience_used(&self, now: u64) -> Option<u64> {
        let (phase, since) = *self.phase();
        let age = now.saturating_sub(since);
        let grace = match phase {
            Phase::Asking => ASKING_TICKS,
            Phase::Rest => RESTING_TICKS,
            // Who has just come has had no time to say anything.
            Phase::Head => 1,
        };
        let stays = self.known.load(Ordering::Relaxed) || self.sent_away.load(Ordering::Relaxed) || age < grace;
        (!stays).then(|| age * phase.weight())
    }

    fn send_away(&self, reason: &'static str) {
        if !self.sent_away.swap(true, Ordering::AcqRel) {
            meters::connection_ended(reason);
        }
        self.waker.wake();
    }

    /// Whether it has to leave; else its task is woken when it has to.
    fn leaves(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.sent_away.load(Ordering::Acquire)
    }

    fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    fn phase(&self) -> MutexGuard<'_, (Phase, u64)> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that notices what it is doing, and breaks when it has to leave.
#[derive(Debug)]
pub(super) struct Seated<S> {
    pub(super) stream: S,
    pub(super) seat: Arc<Seat>,
}

fn sent_away() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "kept us waiting for too long")
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seat.leaves(context) {
            return Poll::Ready(Err(sent_away()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if into.filled().len() > before {
            self.seat.turns(Phase::Rest, Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Seated<S> {
    fn writes(&self, context: &Context<'_>) -> io::Result<()> {
        self.seat.turns(Phase::Asking, Phase::Rest);
        // Whoever is still being answered has not rested yet.
        self.seat.turns(Phase::Rest, Phase::Rest);
        if self.seat.leaves(context) { Err(sent_away()) } else { Ok(()) }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.writes(context)?;
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seat.leaves(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(seats: &Seats) -> Option<Taken> {
        seats.take().now_or_never()?.ok()
    }

    fn is_sent_away(taken: &Taken) -> bool {
        taken.seat.sent_away.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_is_not_waited_for() {
        let seats = Seats::new(Places { seats: 4, waiting: 256 });
        let (silent, asking) = (take(&seats).unwrap(), take(&seats).unwrap());
        asking.seat.asks();
        for _ in 0..=HEAD_TICKS {
            assert!(!is_sent_away(&silent));
            seats.tick();
        }
        assert!(is_sent_away(&silent) && !is_sent_away(&asking));
        asking.seat.turns(Phase::Asking, Phase::Rest);
        asking.seat.turns(Phase::Rest, Phase::Head);
        for _ in 0..=HEAD_TICKS {
            seats.tick();
        }
        assert!(is_sent_away(&asking), "a later head is timed too");
    }

    #[tokio::test]
    async fn a_connection_that_showed_a_key_may_rest_for_longer_than_a_strangers() {
        let seats = Seats::new(Places { seats: 4, waiting: 256 });
        let [stranger, known] = [take(&seats).unwrap(), take(&seats).unwrap()];
        for taken in [&stranger, &known] {
            taken.seat.asks();
            taken.seat.turns(Phase::Asking, Phase::Rest);
        }
        known.seat.known.store(true, Ordering::Relaxed);
        for _ in 0..=IDLE_TICKS {
            assert!(!is_sent_away(&stranger));
            seats.tick();
        }
        assert!(is_sent_away(&stranger) && !is_sent_away(&known));
    }

    #[tokio::test]
    async fn who_asks_again_and_again_is_not_sent_away_in_between() {
        let seats = Seats::new(Places { seats: 1, waiting: 256 });
        let busy = take(&seats).unwrap();
        busy.seat.asks();
        busy.seat.turns(Phase::Asking, Phase::Rest);
        seats.tick();
        seats.tick();
        let mut newcomer = Box::pin(seats.take());
        assert!((&mut newcomer).now_or_never().is_none() && !is_sent_away(&busy));
        seats.tick();
        assert!(is_sent_away(&busy), "it does not ask again");
    }

    #[tokio::test]
    async fn a_newcomer_gets_the_seat_of_the_one_that_dawdles_most() {
        let seats = Seats::new(Places { seats: 3, waiting: 256 });
        let [idle, silent, known] = [take(&seats).unwrap(), take(&seats).unwrap(), take(&seats).unwrap()];
        idle.seat.asks();
        idle.seat.turns(Phase::Asking, Phase::Rest);
        known.seat.known.store(true, Ordering::Relaxed);
        seats.tick();
        seats.tick();
        seats.tick();
        assert!(take(&seats).is_none(), "nobody has left yet");
        assert!(is_sent_away(&silent) && !is_sent_away(&idle));
        drop(silent);
        let newcomer = take(&seats).unwrap();
        assert!(take(&seats).is_none());
        assert!(is_sent_away(&idle) && !is_sent_away(&newcomer));
        drop(idle);
        let other = take(&seats).unwrap();
        let mut waiting = Box::pin(seats.take());
        assert!((&mut waiting).now_or_never().is_none());
        assert!(!is_sent_away(&newcomer), "it has had no time yet");
        newcomer.seat.asks();
        seats.tick();
        assert!(is_sent_away(&other), "for one that waits room is made as soon as somebody may be sent away");
        assert!(!is_sent_away(&newcomer) && !is_sent_away(&known), "what is in hand, and who is known, stays");
    }
}
