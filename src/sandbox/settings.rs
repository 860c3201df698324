//! How the simulated provider is: what is set when it starts, and what of the real one is not known and can be switched.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::plan::Chances;
use crate::domain::money::Usd;

/// How the simulated provider is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key it accepts; `None` accepts any.
    pub api_key: Option<String>,
    /// Of its chances: the same seed and the same purchases give the same fates.
    pub seed: u64,
    /// Divides all its times: 60 makes minutes of seconds.
    pub speed: u32,
    /// Status reads a minute, beyond which it answers 429; `None` for no limit.
    pub status_reads_per_minute: Option<u32>,
    /// What is on the account.
    pub funds: Usd,
    /// Misbehaviour by chance.
    pub chances: Chances,
    /// What it signs its webhooks with; `None` sends them unsigned.
    pub webhook_secret: Option<String>,
    /// Which lists of generations there are at first.
    pub lists: Lists,
    /// What `X-Idempotency-Key` does at first.
    pub idempotency: Idempotency,
    /// Whether callback URLs have to be HTTPS even on loopback, as the real one wants them.
    pub https_callbacks_only: bool,
    /// Its own address, to serve results from; `None` gives links that lead nowhere.
    pub results_at: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_key: None,
            seed: 1,
            speed: 1,
            status_reads_per_minute: Some(60),
            funds: Usd::from_micros(1_000_000_000),
            chances: Chances::default(),
            webhook_secret: None,
            lists: Lists::default(),
            idempotency: Idempotency::default(),
            https_callbacks_only: false,
            results_at: None,
        }
    }
}

/// Which lists of generations there are. Of the real one it is known that its client asks `kling`, `veo`, `gemini` and
/// `chatgpt-images`, and that `sora` documents one; not what `kling` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Lists {
    /// None: 404.
    Absent,
    /// Those five; `kling` shows only what was bought at `kling` itself.
    #[default]
    Own,
    /// Those five; `kling` shows O1 and O3 too.
    AllKling,
    /// Every family has its own.
    Everywhere,
}

impl Lists {
    pub(super) fn has(self, path: &str) -> bool {
        match self {
            Self::Absent => false,
            Self::Own | Self::AllKling => matches!(path, "kling" | "veo" | "gemini" | "chatgpt-images" | "sora"),
            Self::Everywhere => true,
        }
    }
}

/// What `X-Idempotency-Key` does: of the real one it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Idempotency {
    /// Nothing.
    #[default]
    Ignored,
    /// The same key of the same key-holder is answered the same 201 again, and nothing is sold.
    Honoured,
}
