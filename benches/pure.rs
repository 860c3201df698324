//! What every webhook costs before anything is written: its token, its body, the decision. `cargo bench --bench pure` takes the time;
//! `.ci/instructions` counts instructions, which do not depend on the machine's mood, and holds them to a committed figure.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark, not the service")]

use std::hint::black_box;
use std::time::Duration;

use recoup::config::Config;
use recoup::domain::callback::{CallbackKeys, Reference};
use recoup::domain::decision::{Decision, Fact};
use recoup::domain::experience::Experience;
use recoup::domain::family::{FAMILIES, Family};
use recoup::domain::generation::{Generation, State, Via};
use recoup::domain::id::{GenerationId, ProviderId};
use recoup::domain::notice::Notice;
use recoup::domain::schedule::Rules;
use recoup::domain::time::Time;

const NOW: Time = Time::from_ms(1_795_428_000_000);
const BODY: &[u8] = br#"{"generation_id":"6fd3c1ae-4f5b-4a51-9d0e-0a1b2c3d4e5f","status":"completed",
    "video_url":"https://cdn.example/videos/6fd3c1ae.mp4","model":"kling_o3","message":null}"#;

struct World {
    keys: CallbackKeys,
    token: String,
    rules: Rules,
    generation: Generation,
    experience: Experience,
    fact: Fact,
}

impl World {
    fn new() -> Self {
        let keys = CallbackKeys::new(["a secret of the benchmark"]);
        let id = GenerationId::fresh(NOW);
        let reference = Reference::Generation(id);
        let provider_id = ProviderId::parse("6fd3c1ae-4f5b-4a51-9d0e-0a1b2c3d4e5f").ok();
        let new = Generation::new(id, family(), Via::Gateway, NOW);
        let generation = Generation { state: State::Pending, provider_id, submitted_at: Some(NOW), ..new };
        let fact = Fact::Webhook { reference, notice: Notice::parse(BODY).unwrap() };
        let token = keys.mint(family(), reference).unwrap();
        Self { keys, token, rules: Config::default().rules(), generation, experience: Experience::default(), fact }
    }

    fn token(&self) -> Option<Reference> {
        black_box(&self.keys).verify(family(), black_box(&self.token))
    }

    fn decide(&self) -> Decision {
        let now = NOW + Duration::from_secs(150);
        black_box(&self.rules).decide(&self.generation, black_box(&self.fact), &self.experience, now)
    }
}

fn family() -> &'static Family {
    &FAMILIES[0]
}

#[divan::bench]
fn token(bencher: divan::Bencher<'_, '_>) {
    let world = World::new();
    bencher.bench_local(|| world.token());
}

#[divan::bench]
fn notice() -> bool {
    Notice::parse(black_box(BODY)).is_ok()
}

#[divan::bench]
fn decide(bencher: divan::Bencher<'_, '_>) {
    let world = World::new();
    bencher.bench_local(|| world.decide());
}

/// Does one of them so many times, for a tool that counts instructions.
fn repeat(what: &str, times: u32) {
    let world = World::new();
    for _ in 0..times {
        match what {
            "token" => assert!(world.token().is_some()),
            "notice" => assert!(notice()),
            "decide" => assert!(world.decide().settled),
            _ => panic!("token, notice or decide"),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [what, times] if times.parse::<u32>().is_ok() => repeat(what, times.parse().unwrap()),
        _ => divan::main(),
    }
}
