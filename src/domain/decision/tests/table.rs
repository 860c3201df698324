//! Every decision that differs, as a table to read: `../table.txt` is made of what is decided, and compared with it.
//!
//! `RECOUP_REWRITE=1 cargo test --lib domain::decision` writes it anew; what changed is then read in the diff, line by line.

use super::*;
use crate::domain::callback::Reference;
use crate::domain::outcome::Learned;
use crate::domain::poll::Poll;

/// A situation.
pub(super) struct Situation {
    /// What it is called.
    pub(super) name: &'static str,
    /// The one before it with which it is compared.
    pub(super) like: Option<&'static str>,
    /// What is decided about.
    pub(super) generation: Generation,
    /// How long after its purchase it is.
    pub(super) seconds: u64,
}

const KEPT: &str = include_str!("../table.txt");
const ABOUT: &str = "What follows from every fact in every situation. Written by src/domain/decision/tests/table.rs, read by people.

A heading is a situation: a state, what is special about it, how long ago it was bought, and which other one it is like: of that only
what differs is told. A generation of five seconds in standard is expected within 3 min, asked about first after 3 min 30 s, overdue after
5 min 30 s, stuck after 17 min 30 s, and given up after a day. p-1 and p-2 are ids of the provider, u and v links.

Where no webhook is expected, only some situations and facts are told, and of them what differs from where one is: the first read comes
after 2 min 30 s, overdue is one after 3 min 15 s, stuck after 15 min.

A line is what is decided, and behind the arrow the facts that it follows from. Before the colon stands what became of a webhook and what
the user is told; then every field that changes, with its new value. `no x`: the field becomes empty. `so`: the outcome that the fact
tells. `ask` is when the provider is asked next, `turn` when time alone changes something next, from the moment of the fact on; at rest
there is neither. A fact that no line names changes nothing.
";

pub(super) fn after_s(seconds: u64) -> Time {
    T0 + Duration::from_secs(seconds)
}

/// Every kind of fact.
fn facts() -> Vec<(String, Fact)> {
    let url = |url| Word::Outcome(completed(url));
    let code = |code| Word::Outcome(failed(code));
    let words = [
        ("pending", Word::Pending),
        ("processing", Word::Processing),
        ("a word nobody knows", Word::Unknown("paused".to_owned())),
        ("completed without a link", Word::CompletedWithoutResult),
        ("completed u", url("u")),
        ("completed v", url("v")),
        ("failed", code(None)),
        ("failed TIMEOUT", code(Some("TIMEOUT"))),
        ("failed TASK_FAILED", code(Some("TASK_FAILED"))),
    ];
    let told = |reference, provider_id: &str, word: &Word| Fact::Webhook {
        reference,
        signed: false,
        notice: notice(provider_id, word.clone()),
    };
    let signed = |reference| Fact::Webhook { reference, signed: true, notice: notice("p-1", url("u")) };
    let own = Reference::Generation(GenerationId::from_bytes(&[7; 16]).unwrap());
    let mut facts = Vec::new();
    for (name, word) in &words {
        facts.push((format!("webhook {name}"), told(own, "p-1", word)));
    }
    for (name, word) in words.iter().filter(|(name, _)| ["completed u", "failed TIMEOUT"].contains(name)) {
        facts.push((format!("webhook by a standing URL {name}"), told(Reference::Standing, "p-1", word)));
    }
    let webhooks = [
        ("webhook signed completed u", signed(own)),
        ("webhook signed by a standing URL completed u", signed(Reference::Standing)),
        ("webhook of p-2 completed u", told(own, "p-2", &url("u"))),
        ("webhook unreadable", Fact::UnreadableWebhook),
        ("webhook with another's id", Fact::ForeignWebhook),
        ("a doubt", Fact::Doubted),
    ];
    facts.extend(webhooks.map(|(name, fact)| (name.to_owned(), fact)));
    for (name, word) in words {
        facts.push((format!("answer {name}"), answer(word)));
    }
    let seconds = Duration::from_secs;
    let answers = [
        ("answer 404", Answer::NotFound),
        ("answer 429 for 40 s", Answer::Paused { pause: seconds(40) }),
        ("answer 5xx", Answer::Nothing),
    ];
    facts.extend(answers.map(|(name, answer)| (name.to_owned(), Fact::Answer(answer))));
    facts.extend(users());
    let polled = |reads_used| Fact::Polled(Poll { read_ago: None, polled: 1, reads_used, reads_per_minute: 48 });
    facts.push(("polled".to_owned(), polled(0)));
    facts.push(("polled while half the budget is used".to_owned(), polled(24)));
    facts.push(("time".to_owned(), Fact::TimePassed));
    facts
}

/// What comes from the side of the user.
fn users() -> impl Iterator<Item = (String, Fact)> {
    let accepted = |provider_id: &str, micros: Option<i64>| {
        Fact::Submission(Submission::Accepted { provider_id: id(provider_id), price: micros.map(Usd::from_micros) })
    };
    let details = |details: Details| Fact::Details(details);
    let named = |name: &str| Details { provider_id: Some(id(name)), ..Details::default() };
    let pro =
        Request { model: Some("kling_o3_pro".to_owned()), duration_seconds: Some(10), prompt: Some("a".to_owned()) };
    let five = Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: None };
    let labels = std::iter::once(("user".to_owned(), "42".to_owned())).collect();
    let price = |micros| Details { price: Some(Usd::from_micros(micros)), ..Details::default() };
    [
        ("meant to be bought", Fact::Intended(Details { request: five.clone(), ..Details::default() })),
        ("bought as p-1", accepted("p-1", Some(150_000))),
        ("bought as p-2", accepted("p-2", Some(300_000))),
        (
            "refused",
            Fact::Submission(Submission::Refused(Failure { code: Some("INVALID_MODEL".to_owned()), text: None })),
        ),
        ("its answer lost", Fact::Submission(Submission::Unclear)),
        ("answered with another's id", Fact::Submission(Submission::Foreign)),
        ("user: p-1", details(named("p-1"))),
        ("user: p-1 bought at 10 s", details(Details { submitted_at: Some(after_s(10)), ..named("p-1") })),
        ("user: p-2", details(named("p-2"))),
        ("user: 0.15", details(price(150_000))),
        ("user: 0.30", details(price(300_000))),
        ("user: kling_o3 5 s", details(Details { request: five, ..Details::default() })),
        ("user: kling_o3_pro 10 s and a prompt", details(Details { request: pro, ..Details::default() })),
        ("user: labels", details(Details { metadata: Some(labels), ..Details::default() })),
        ("the credits were seen", Fact::RefundConfirmed),
    ]
    .map(|(name, fact)| (name.to_owned(), fact))
    .into_iter()
}

fn span(span: Duration) -> String {
    let (seconds, ms) = (span.as_secs(), span.subsec_millis());
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (ms.into(), "ms"),
    ];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect::<Vec<_>>().concat()
}

fn learned(learned: Learned) -> String {
    let recovered = if learned.recovered { ", recovered" } else { "" };
    format!("by {}, {}{recovered}", learned.source.as_str(), learned.verification.as_str())
}

fn said(failure: &Failure) -> String {
    let parts = [failure.code.clone(), failure.text.as_ref().map(|text| format!("\"{text}\""))];
    parts.into_iter().flatten().map(|part| format!(" {part}")).collect::<Vec<_>>().concat()
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed { result_url } => format!("completed {result_url}"),
        Outcome::Failed(failure) => format!("failed{}", said(failure)),
    }
}

/// Every field, in words; an empty one where there is nothing.
fn fields(generation: &Generation, now: Time, told: Option<&Outcome>) -> Vec<(&'static str, String)> {
    let Generation { id: _, family: _, via: _, created_at: _, events: _, request, watch, .. } = generation;
    let when = |at: Time| match (at.since(now), now.since(at)) {
        (Duration::ZERO, Duration::ZERO) => "now".to_owned(),
        (ahead, Duration::ZERO) => format!("in {}", span(ahead)),
        (_, ago) => format!("{} ago", span(ago)),
    };
    let some = |at: Option<Time>| at.map(when).unwrap_or_default();
    let count = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    let so = |known: &Outcome| if told == Some(known) { "so".to_owned() } else { outcome(known) };
    let state = match (&generation.state, generation.state.outcome()) {
        (State::Rejected { error, .. }, _) => format!("rejected{}", said(error)),
        (state, Some(known)) => format!("{}, {}", so(&known), state.learned().map(learned).unwrap_or_default()),
        (state, None) => state.status().as_str().to_owned(),
    };
    let settled = generation.state.settled_at().map(|at| format!("{state} {}", when(at)));
    let mut fields = vec![
        ("", settled.unwrap_or(state)),
        ("attention", generation.attention.map(|attention| attention.as_str().to_owned()).unwrap_or_default()),
        ("id", generation.provider_id.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("claim", generation.claim.as_ref().map(so).unwrap_or_default()),
        ("price", generation.price.map(|price| price.to_string()).unwrap_or_default()),
        ("model", request.model.clone().unwrap_or_default()),
        ("seconds", request.duration_seconds.map(|seconds| seconds.to_string()).unwrap_or_default()),
        ("prompt", request.prompt.clone().unwrap_or_default()),
        (
            "labels",
            generation.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().concat(),
        ),
        ("bought", some(generation.submitted_at)),
        ("expected", some(generation.expected_by)),
        ("told first", some(generation.webhook_at)),
        ("refunded", some(generation.refunded_at)),
        ("webhooks", count(generation.deliveries)),
        ("outcomes", count(generation.outcomes)),
        ("reads", count(watch.checks)),
    ];
    if *watch == (Watch { checks: watch.checks, ..Watch::default() }) {
        fields.push(("at rest", "yes".to_owned()));
        return fields;
    }
    fields.extend([
        ("at rest", String::new()),
        ("still running", count(watch.running_streak)),
        ("not found", count(watch.not_found_streak)),
        ("not found at", some(watch.not_found_at)),
        ("nothing learned", count(watch.error_streak)),
        ("late answers", count(watch.late_answers)),
        ("late at", some(watch.late_at)),
        ("ask", some(watch.check_at)),
        ("turn", some(watch.turn_at)),
    ]);
    fields
}

/// What a fact says of the outcome.
fn told(fact: &Fact) -> Option<&Outcome> {
    let (Fact::Webhook { notice, .. } | Fact::Answer(Answer::Known(notice))) = fact else { return None };
    if let Word::Outcome(outcome) = &notice.word { Some(outcome) } else { None }
}

/// What is decided, in a line; an empty one when nothing is.
fn line(before: &Generation, fact: &Fact, decision: &Decision, now: Time) -> String {
    let after = &decision.generation;
    let events = u32::try_from(decision.events.len()).unwrap();
    assert_eq!((after.events, after.outcomes), (before.events + events, before.outcomes + u32::from(decision.settled)));
    let mut first: Vec<_> = decision.disposition.iter().map(|disposition| disposition.as_str().to_owned()).collect();
    first.extend(decision.events.iter().map(|event| event.as_str().replace("generation.", "tells ")));
    first.extend(decision.refused.iter().map(|field| format!("refuses {field}")));
    // Twice without what the fact says: only what becomes so is told so.
    let (known, next) = (fields(before, now, None), fields(after, now, None));
    let shown = fields(after, now, told(fact));
    let was = |name: &str| known.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.as_str());
    let mut changed = Vec::new();
    for ((name, value), (_, shown)) in next.iter().zip(&shown).filter(|((name, value), _)| was(name) != value) {
        changed.push(match (*name, value.as_str(), was(name)) {
            ("", ..) => shown.clone(),
            ("at rest", "yes", _) => "at rest".to_owned(),
            ("at rest", ..) => continue,
            ("webhooks" | "outcomes", value, was) => {
                let count = |text: &str| text.parse().unwrap_or(0_i64);
                format!("{name} {:+}", count(value) - count(was))
            }
            (name, "", _) => format!("no {name}"),
            (name, ..) => format!("{name} {shown}"),
        });
    }
    assert!(!first.is_empty() || !changed.is_empty() || before == after, "{fact:?} changes what is not told");
    [first, changed]
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| part.join(", "))
        .collect::<Vec<_>>()
        .join(": ")
}

/// What is decided of each fact.
fn decided(rules: &Rules, situation: &Situation) -> Vec<(String, String)> {
    let now = after_s(situation.seconds);
    let decided = facts().into_iter().map(|(name, fact)| {
        let decision = rules.decide(&situation.generation, &fact, &Experience::default(), now);
        (name, line(&situation.generation, &fact, &decision, now))
    });
    decided.collect()
}

/// Several facts; the word that begins one stands for those behind it, too.
fn listed(names: &[String]) -> String {
    let mut listed = String::new();
    let mut first = "";
    for name in names {
        let (kind, rest) = name.split_once(' ').unwrap_or((name, ""));
        match kind {
            "webhook" | "answer" | "user:" if kind == first => listed.extend([", ", rest]),
            _ if listed.is_empty() => listed.push_str(name),
            _ => listed.extend(["; ", name.as_str()]),
        }
        first = kind;
    }
    listed
}

/// One situation: what is decided, each with the facts that it follows from.
fn told_of(rules: &Rules, situation: &Situation, all: &[Situation]) -> String {
    let other = situation.like.map(|name| all.iter().find(|other| other.name == name).unwrap());
    let usual = other.map(|other| decided(rules, other)).unwrap_or_default();
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for (n, (name, line)) in decided(rules, situation).into_iter().enumerate() {
        if line == usual.get(n).map_or("", |(_, line)| line.as_str()) {
            continue;
        }
        let line = if line.is_empty() { "nothing".to_owned() } else { line };
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, names)) => names.push(name),
            None => lines.push((line, vec![name])),
        }
    }
    let lines: Vec<_> = lines.iter().map(|(line, names)| format!("{line} <- {}\n", listed(names))).collect();
    let compared = situation.like.map(|name| format!(", like {name}")).unwrap_or_default();
    let later = span(Duration::from_secs(situation.seconds));
    format!("\n# {}, {later} after the purchase{compared}\n{}", situation.name, lines.concat())
}

/// What is shown of where no webhook is expected.
const WITHOUT_WEBHOOKS: [&str; 6] = [
    "submitting",
    "pending",
    "pending, its first read due",
    "pending, stuck",
    "processing, asked twice",
    "pending, stuck for an hour",
];

/// What differs where no webhook is expected.
fn told_without_webhooks(usual: &Rules, all: &[Situation]) -> String {
    let reading = reading();
    let differs = |situation: &Situation| {
        let pairs = decided(&reading, situation).into_iter().zip(decided(usual, situation));
        let mut lines: Vec<(String, Vec<String>)> = Vec::new();
        let shown =
            |name: &str| ["bought as p-1", "webhook completed u", "time"].contains(&name) || name.starts_with("answer");
        for ((name, line), _) in pairs.filter(|((name, line), (_, usual))| line != usual && shown(name)) {
            let line = if line.is_empty() { "nothing".to_owned() } else { line };
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, names)) => names.push(name),
                None => lines.push((line, vec![name])),
            }
        }
        if lines.is_empty() {
            return String::new();
        }
        let lines: Vec<_> = lines.iter().map(|(line, names)| format!("{line} <- {}\n", listed(names))).collect();
        let later = span(Duration::from_secs(situation.seconds));
        format!("\n# No webhook is expected: {}, {later} after the purchase\n{}", situation.name, lines.concat())
    };
    let waiting = situations::waiting_without_webhooks();
    let time = told_of_time(&reading, "Time alone where no webhook is expected", waiting);
    let some = all.iter().filter(|situation| WITHOUT_WEBHOOKS.contains(&situation.name));
    format!("{time}{}", some.map(differs).collect::<String>())
}

/// What time alone does, each at its last moment before and its first.
fn told_of_time(rules: &Rules, heading: &str, waiting: Vec<(&'static str, Generation, Vec<Time>)>) -> String {
    let told = |(name, generation, moments): (&str, Generation, Vec<Time>)| {
        let told = moments.into_iter().map(|now| {
            let decision = rules.decide(&generation, &Fact::TimePassed, &Experience::default(), now);
            let line = line(&generation, &Fact::TimePassed, &decision, now);
            let line = if line.is_empty() { "nothing".to_owned() } else { line };
            format!("{line} <- {name}, {} after the purchase\n", span(now.since(T0)))
        });
        told.collect::<String>()
    };
    format!("\n# {heading}\n{}", waiting.into_iter().map(told).collect::<String>())
}

#[test]
fn what_is_decided_is_what_the_table_says() {
    let rules = rules(Confirm::Untrusted);
    let all = situations::all();
    let told: Vec<_> = all.iter().map(|one| told_of(&rules, one, &all)).collect();
    let time = told_of_time(&rules, "Time alone", situations::waiting());
    let told = format!("{ABOUT}{time}{}{}", told.concat(), told_without_webhooks(&rules, &all));
    if std::env::var_os("RECOUP_REWRITE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/domain/decision/table.txt"), &told).unwrap();
        return;
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (kept, told) = (lines(KEPT), lines(&told));
    let at = kept.iter().zip(&told).take_while(|(kept, told)| kept == told).count();
    let heading = kept[..at].iter().rfind(|line| line.starts_with('#')).cloned().unwrap_or_default();
    let shown =
        |lines: &[String]| lines[at..].iter().take(4).map(|line| format!("\n{line}")).collect::<Vec<_>>().concat();
    assert!(
        kept == told,
        "src/domain/decision/table.txt differs from line {} on, under \"{heading}\". It says:{}\n\nand decided is:{}\n\n\
         Where that is meant, RECOUP_REWRITE=1 writes it anew.",
        at + 1,
        shown(&kept),
        shown(&told)
    );
}
