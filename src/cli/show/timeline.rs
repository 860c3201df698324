//! The timeline of a generation as a list: how long after the purchase, what, and what came of it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::print::{FAINT, in_style, tell};
use crate::cli::status::amount;
use crate::domain::spelling::{clock, line};
use crate::domain::time::Time;

/// One thing that happened, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Entry {
    Submission {
        via: String,
        price: Option<String>,
        result: Option<String>,
        http_status: Option<u16>,
        error_code: Option<String>,
    },
    Delivery {
        id: String,
        disposition: String,
        reason: Option<String>,
        replay_of: Option<String>,
    },
    Check {
        answer: Option<String>,
        http_status: Option<u16>,
        said: Option<String>,
    },
    Outcome {
        version: u32,
        status: String,
        source: String,
        verification: String,
        error_code: Option<String>,
    },
    Event {
        id: String,
        r#type: String,
        attention: Option<String>,
    },
    Note {
        author: String,
        text: String,
    },
    /// A kind of a later version.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Deserialize)]
struct At {
    at: Time,
    kind: String,
}

/// Prints the entries, their times counted from `begin`.
pub(super) fn show(entries: &[Box<RawValue>], begin: Time) -> anyhow::Result<()> {
    tell(format!("\nWhat happened, counted from {begin}"))?;
    for entry in entries {
        let At { at, kind } = serde_json::from_str(entry.get())?;
        let told: Entry = serde_json::from_str(entry.get())?;
        let (sign, span) = if at < begin { ('-', begin.since(at)) } else { ('+', at.since(begin)) };
        let when = in_style(FAINT, format_args!("{:>12}", format!("{sign}{}", clock(span))));
        tell(format!("{when}  {:<11} {}", line(&kind), told.words()))?;
    }
    Ok(())
}

impl Entry {
    fn words(&self) -> String {
        let and = |text: &Option<String>| text.as_deref().map_or(String::new(), |text| format!(", {}", line(text)));
        let http = |status: &Option<u16>| status.map_or(String::new(), |status| format!(", HTTP {status}"));
        match self {
            Self::Submission { via, price, result, http_status, error_code } => {
                let price = price.as_deref().map_or(String::new(), |price| format!(", ${}", amount(price)));
                format!("via {}{price}{}{}{}", line(via), and(result), http(http_status), and(error_code))
            }
            Self::Delivery { id, disposition, reason, replay_of } => {
                let replay = replay_of.as_deref().map_or(String::new(), |id| format!(", a replay of {}", line(id)));
                format!("{}{}{replay} ({})", line(disposition), and(reason), line(id))
            }
            Self::Check { answer, http_status, said } => {
                let answer = answer.as_deref().map_or("not answered yet".to_owned(), line);
                format!("{answer}{}{}", http(http_status), and(said))
            }
            Self::Outcome { version, status, source, verification, error_code } => {
                let again = if *version > 1 { format!(", version {version}") } else { String::new() };
                let (status, source, by) = (line(status), line(source), line(verification));
                format!("{status}{}, learned from {source}, vouched for by {by}{again}", and(error_code))
            }
            Self::Event { id, r#type, attention } => format!("{}{} ({})", line(r#type), and(attention), line(id)),
            Self::Note { author, text } => format!("{}: {}", line(author), line(text)),
            Self::Unknown => String::new(),
        }
    }
}
