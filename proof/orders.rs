//! The budget of status reads in every order of three threads, and in random orders of six. `proof/orders` builds this with
//! src/provider/budget.rs as it is, but for its mutex: that is shuttle's, which decides who goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lean::clock::Clock;
use lean::domain::decision::{Answer, Told};
use lean::domain::time::Time;
use lean::provider::budget::Budget;
use shuttle::rand::Rng;
use shuttle::scheduler::{DfsScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

const MINUTE: u64 = 60;

/// Seconds, moved by hand. Who asks for them may find that others went on meanwhile.
#[derive(Debug, Default)]
struct Seconds(AtomicU64);

impl Seconds {
    /// Without letting others go on.
    fn peek(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
        thread::yield_now();
    }
}

impl Clock for Seconds {
    fn now(&self) -> Time {
        Time::from_ms(0) + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        let seen = Duration::from_secs(self.peek());
        thread::yield_now();
        seen
    }

    fn sleep(&self, _: Duration) -> futures_util::future::BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Reads as the provider sees them: when each was answered, `None` until then.
#[derive(Debug)]
struct Provider {
    most: usize,
    seconds: Arc<Seconds>,
    reads: Mutex<Vec<Option<u64>>>,
}

impl Provider {
    /// A read comes: with those not answered yet, and those answered within the last minute, they are not too many.
    fn begin(&self) -> usize {
        let now = self.seconds.peek();
        let mut reads = self.reads.lock().unwrap();
        let counted = reads.iter().filter(|answered| answered.is_none_or(|at| at + MINUTE > now)).count();
        assert!(counted < self.most, "{} reads within a minute, {} are allowed", counted + 1, self.most);
        reads.push(None);
        reads.len() - 1
    }

    fn answer(&self, read: usize) {
        self.reads.lock().unwrap()[read] = Some(self.seconds.peek());
    }

    /// It was not made after all.
    fn forget(&self, read: usize) {
        self.reads.lock().unwrap()[read] = Some(0);
    }
}

fn start(most: u32) -> (Arc<Seconds>, Arc<Budget>, Arc<Provider>) {
    // Later than a minute after nothing, so that what is forgotten counts no more.
    let seconds = Arc::new(Seconds(AtomicU64::new(2 * MINUTE)));
    let clock: Arc<dyn Clock> = seconds.clone();
    let budget = Budget::new(most, clock, []);
    let most = usize::try_from(most).unwrap();
    let provider = Arc::new(Provider { most, seconds: Arc::clone(&seconds), reads: Mutex::default() });
    (seconds, budget, provider)
}

/// Two that read beside one that comes a minute later; one read a minute.
fn three() {
    let (seconds, budget, provider) = start(1);
    let read = |late| {
        let (seconds, budget, provider) = (Arc::clone(&seconds), Arc::clone(&budget), Arc::clone(&provider));
        move || {
            seconds.0.fetch_add(late, Ordering::Relaxed);
            if let Ok(slot) = budget.take(late > 0) {
                let read = provider.begin();
                provider.answer(read);
                drop(slot);
            }
        }
    };
    let others = [thread::spawn(read(0)), thread::spawn(read(0))];
    read(MINUTE)();
    for other in others {
        other.join().unwrap();
    }
    over(&seconds, &budget);
}

/// Six with three reads each; four reads a minute. Some are asked for, some given back, some refused with a 429.
fn six() {
    let (seconds, budget, provider) = start(4);
    let mut threads = Vec::new();
    for nth in 0..6 {
        let (seconds, budget, provider) = (Arc::clone(&seconds), Arc::clone(&budget), Arc::clone(&provider));
        threads.push(thread::spawn(move || {
            for _ in 0..3 {
                let mut chance = shuttle::rand::thread_rng();
                let Ok(slot) = budget.take(nth % 3 == 0) else {
                    seconds.pass(chance.gen_range(0..30));
                    continue;
                };
                let read = provider.begin();
                seconds.pass(chance.gen_range(0..20));
                match chance.gen_range(0..8) {
                    0 => {
                        provider.forget(read);
                        slot.give_back();
                        continue;
                    }
                    1 => budget.learn(&told(Answer::Paused { pause: Duration::from_secs(5) }, 429)),
                    2 => budget.learn(&told(Answer::Nothing, 500)),
                    _ => budget.learn(&told(Answer::NotFound, 404)),
                }
                provider.answer(read);
                drop(slot);
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    over(&seconds, &budget);
}

fn told(answer: Answer, http_status: u16) -> Told {
    Told { answer, http_status: Some(http_status), said: String::new(), body: Vec::new() }
}

/// Nothing is under way any more, so a minute later all is as it was.
fn over(seconds: &Seconds, budget: &Budget) {
    seconds.pass(MINUTE);
    assert_eq!(budget.used(), 0, "reads count as under way that have ended");
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let (seed, random) = (arguments.next().unwrap(), arguments.next().unwrap());
    let every = Runner::new(DfsScheduler::new(None, false), Config::default()).run(three);
    let scheduler = RandomScheduler::new_from_seed(seed, usize::try_from(random).unwrap());
    let drawn = Runner::new(scheduler, Config::default()).run(six);
    println!("all {every} orders of 3 threads and {drawn} random ones of 6");
}
