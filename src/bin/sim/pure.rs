//! What every webhook costs before anything is written: its token, its body, the decision. For a tool that counts instructions, which do
//! not depend on the machine's mood: `.ci/instructions` holds them to a committed figure.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use recoup::config::Config;
use recoup::domain::callback::{CallbackKeys, Reference};
use recoup::domain::decision::{Decision, Fact};
use recoup::domain::experience::Experience;
use recoup::domain::family::{FAMILIES, Family};
use recoup::domain::generation::{Generation, State, Via};
use recoup::domain::id::{GenerationId, ProviderId};
use recoup::domain::notice::Notice;
use recoup::domain::schedule::{Rules, Webhooks};
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
    fn new() -> Option<Self> {
        let keys = CallbackKeys::new(["a secret of the benchmark"]);
        let id = GenerationId::fresh(NOW);
        let reference = Reference::Generation(id);
        let provider_id = ProviderId::parse("6fd3c1ae-4f5b-4a51-9d0e-0a1b2c3d4e5f").ok();
        let new = Generation::new(id, family(), Via::Gateway, NOW);
        let generation = Generation { state: State::Pending, provider_id, submitted_at: Some(NOW), ..new };
        let fact = Fact::Webhook { reference, signed: false, notice: Notice::parse(BODY).ok()? };
        let token = keys.mint(family(), reference)?;
        let rules = Rules { webhooks: Webhooks::Expected, ..Config::default().rules() };
        Some(Self { keys, token, rules, generation, experience: Experience::default(), fact })
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

/// What is done again and again.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Work {
    /// A token is verified.
    Token,
    /// A body is read.
    Notice,
    /// It is decided what it means.
    Decide,
}

/// Does it so many times, and fails when it once went wrong.
pub(super) fn repeat(work: Work, times: u32) -> ExitCode {
    let went_well = |world: World| {
        (0..times).all(|_| match work {
            Work::Token => world.token().is_some(),
            Work::Notice => Notice::parse(black_box(BODY)).is_ok(),
            Work::Decide => world.decide().settled,
        })
    };
    if World::new().is_some_and(went_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
