//! What a prompt can ask of the sandbox: `[sandbox: word word=value ...]`, so that any client can script it by its own prompts.
//!
//! Some words tell the fate of the generation ([`Plan`]), some what becomes of the answer to the purchase ([`Script`]). Only
//! reads them; `answers.rs` acts on them.

use std::time::Duration;

use serde_json::Value;

use super::plan::{Fate, Ping, PingBody, Plan};

/// Every word with its meaning, for `recoup sandbox --help`.
pub const WORDS: &str = "\
A prompt can script what becomes of it: [sandbox: WORD WORD=VALUE ...]

The generation:
  fail=CODE             fails with this code
  never                 never ends
  no-url                completes, and the link is missing at first
  no-url=WORD           the same, with that word in the link's place
  takes=SECONDS         ends after that time, whatever the speed
  lose                  its webhook gets lost
  late=SECONDS          its webhook comes that much later
  double                its webhook comes twice
  contradict            its webhook is followed by its opposite
  truncate              its webhook is cut in the middle
  garble                its webhook is HTML

The answer to the purchase, which is made all the same:
  answer=lost           never comes
  answer=cut            breaks off in the middle
  answer=STATUS         is this status, from 400 to 599 (429 sells nothing unless sold is said)
  answer-after=SECONDS  comes that much later, alone or with one of these
  retry-after=SECONDS   carries that Retry-After
  unsold, sold          whether the purchase is made
  times=N               holds for the first N requests with exactly this prompt, not only for the first one";

/// What the answer to a purchase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScriptedAnswer {
    /// As documented.
    Documented,
    /// None, ever.
    Lost,
    /// It breaks off in the middle.
    Cut,
    /// This status.
    Status(u16),
}

/// What becomes of the answer to a purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) answer: ScriptedAnswer,
    /// Whether the purchase is made.
    pub(super) sells: bool,
    /// How long the answer takes.
    pub(super) after: Duration,
    /// Seconds in `Retry-After`.
    pub(super) retry_after: Option<u64>,
    /// How many requests with the same prompt it holds for.
    pub(super) times: u32,
}

/// All that a prompt asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Directions {
    pub(super) plan: Option<Plan>,
    pub(super) script: Option<Script>,
}

/// Reads the directions out of a prompt.
///
/// # Errors
/// The word that is not understood.
pub(super) fn read(prompt: &str) -> Result<Directions, String> {
    let Some((_, rest)) = prompt.split_once("[sandbox:") else { return Ok(Directions::default()) };
    let Some((words, _)) = rest.split_once(']') else { return Err("[sandbox: without ]".to_owned()) };
    let (mut plan, mut script) = (None, ScriptWords::default());
    for word in words.split_whitespace() {
        if !script.take(word)? {
            direct(plan.get_or_insert_with(Plan::default), word)?;
        }
    }
    Ok(Directions { plan, script: script.finish()? })
}

#[derive(Debug, Default)]
struct ScriptWords {
    answer: Option<ScriptedAnswer>,
    sells: Option<bool>,
    after: Option<Duration>,
    retry_after: Option<u64>,
    times: Option<u32>,
}

impl ScriptWords {
    /// Takes the word in; tells whether it is one about the answer.
    fn take(&mut self, word: &str) -> Result<bool, String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "answer" => self.answer = Some(answer(word, value)?),
            "answer-after" => self.after = Some(seconds(word, value)?),
            "retry-after" => self.retry_after = Some(seconds(word, value)?.as_secs()),
            "times" => self.times = Some(value.parse().map_err(|_| format!("{word}: wants a number"))?),
            "sold" => self.sells = Some(true),
            "unsold" => self.sells = Some(false),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self) -> Result<Option<Script>, String> {
        let Self { answer, sells, after, retry_after, times } = self;
        if answer.is_none() && after.is_none() {
            let idle = sells.is_some() || retry_after.is_some() || times.is_some();
            return if idle { Err("times, sold, unsold and retry-after want an answer".to_owned()) } else { Ok(None) };
        }
        let answer = answer.unwrap_or(ScriptedAnswer::Documented);
        let sells = sells.unwrap_or(answer != ScriptedAnswer::Status(429));
        if answer == ScriptedAnswer::Documented && !sells {
            return Err("unsold: wants an answer".to_owned());
        }
        let (after, times) = (after.unwrap_or_default(), times.unwrap_or(1));
        Ok(Some(Script { answer, sells, after, retry_after, times }))
    }
}

fn answer(word: &str, value: &str) -> Result<ScriptedAnswer, String> {
    match value {
        "lost" => Ok(ScriptedAnswer::Lost),
        "cut" => Ok(ScriptedAnswer::Cut),
        _ => match value.parse() {
            Ok(status) if (400..=599).contains(&status) => Ok(ScriptedAnswer::Status(status)),
            Ok(_) | Err(_) => Err(format!("{word}: wants lost, cut or a status from 400 to 599")),
        },
    }
}

/// Seconds, parts of them too.
fn seconds(word: &str, value: &str) -> Result<Duration, String> {
    let number = value.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    number.filter(|span| span.as_secs() < 1_000_000).ok_or_else(|| format!("{word}: wants seconds"))
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn direct(plan: &mut Plan, word: &str) -> Result<(), String> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let body = |body| vec![Ping { after_ms: 0, body }];
    match name {
        "fail" => plan.fate = Fate::Failed { reason: Value::from(value) },
        "never" => plan.fate = Fate::NeverEnds,
        "no-url" => {
            let instead = Some(value.to_owned()).filter(|word| !word.is_empty());
            plan.fate = Fate::CompletedWithoutUrl { reads: 1, instead };
        }
        "takes" => plan.takes_ms = Some(ms(seconds(word, value)?)),
        "lose" => plan.webhooks.clear(),
        "late" => plan.webhooks = vec![Ping { after_ms: ms(seconds(word, value)?), body: PingBody::Documented }],
        "double" => plan.webhooks = vec![Ping::default(), Ping { after_ms: 1_000, body: PingBody::Documented }],
        "contradict" => {
            plan.webhooks = vec![Ping::default(), Ping { after_ms: 1_000, body: PingBody::Contradicting }];
        }
        "truncate" => plan.webhooks = body(PingBody::Truncated),
        "garble" => plan.webhooks = body(PingBody::NotJson),
        _ => return Err(format!("{word}: is no direction the sandbox knows")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_can_script_its_fate() {
        assert_eq!(read("a paper boat"), Ok(Directions::default()));
        let plan = Plan::failed("TIMEOUT").lost().taking(Duration::from_millis(5_500));
        assert_eq!(
            read("a boat [sandbox: fail=TIMEOUT lose takes=5.5] at sea"),
            Ok(Directions { plan: Some(plan), script: None })
        );
        let Directions { plan, .. } = read("[sandbox: no-url=None]").unwrap();
        assert_eq!(plan.unwrap().fate, Fate::CompletedWithoutUrl { reads: 1, instead: Some("None".to_owned()) });
        for wrong in ["explode", "late=soon", "takes=-1", "late=1e99", "answer=99", "answer=", "times=2", "unsold"] {
            assert!(read(&format!("[sandbox: {wrong}]")).is_err(), "{wrong}");
        }
        assert!(read("[sandbox: lose").is_err());
        assert!(read("[sandbox: answer-after=2 unsold]").is_err(), "an answer that names a purchase");
    }

    #[test]
    fn a_prompt_can_script_the_answer_to_its_purchase() {
        let script = |words: &str| read(&format!("a boat [sandbox: {words}]")).unwrap().script.unwrap();
        let usual =
            Script { answer: ScriptedAnswer::Lost, sells: true, after: Duration::ZERO, retry_after: None, times: 1 };
        assert_eq!(script("answer=lost"), usual);
        assert_eq!(script("answer=cut"), Script { answer: ScriptedAnswer::Cut, ..usual });
        assert_eq!(script("answer=504"), Script { answer: ScriptedAnswer::Status(504), ..usual });
        let late = Script { answer: ScriptedAnswer::Documented, after: Duration::from_millis(2_500), ..usual };
        assert_eq!(script("answer-after=2.5"), late);
        let crowded = Script { answer: ScriptedAnswer::Status(429), sells: false, ..usual };
        assert_eq!(script("answer=429"), crowded);
        assert_eq!(script("answer=429 sold times=3"), Script { sells: true, times: 3, ..crowded });
        assert!(!script("answer=503 unsold").sells);
        assert_eq!(script("answer=429 retry-after=7").retry_after, Some(7));
        assert_eq!(read("[sandbox: answer=lost]").unwrap().plan, None, "its fate is whatever it would be");
        assert!(read("[sandbox: answer=lost lose]").unwrap().plan.is_some());
    }

    #[test]
    fn the_document_shows_the_help() {
        assert!(include_str!("../../docs/SANDBOX.md").contains(&format!("```text\n{WORDS}\n```")));
    }

    /// The help names what there is, and nothing else.
    #[test]
    fn the_help_knows_every_word() {
        for line in WORDS.lines().filter(|line| line.starts_with("  ")) {
            for word in line.trim().split("  ").next().unwrap().split(", ") {
                let word = word.replace("SECONDS", "1").replace("CODE", "TIMEOUT").replace("STATUS", "500");
                let alone = word.replace("=N", "=2");
                assert!(read(&format!("[sandbox: answer=lost {alone}]")).is_ok(), "{alone}");
            }
        }
    }
}
