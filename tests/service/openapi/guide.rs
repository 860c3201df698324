//! docs/API.md, run as it stands there: every request is sent, and what is shown of its answer is held against the real one.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use recoup::config::Endpoint;
use recoup::sandbox::Plan;
use recoup::secret::Secret;
use serde_json::Value;

use crate::support::{KEY, World, text};

/// Texts that are the same every time.
const WORDS: [&str; 20] = [
    "status",
    "credits",
    "code",
    "category",
    "source",
    "verification",
    "kind",
    "via",
    "disposition",
    "reference",
    "type",
    "state",
    "question",
    "fact",
    "currency",
    "parameter",
    "title",
    "error_code",
    "price",
    "amount",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_is_true() {
    let world = World::with(|config| {
        // Nobody listens there: the event stays on its way.
        let url = "http://127.0.0.1:9/hooks".parse().unwrap();
        let secret = Secret::new("whsec_c2VjcmV0IG9mIHRoZSBndWlkZSBpbiB0ZXN0cw==");
        config.events.endpoints =
            vec![Endpoint { url, secret, secrets: Vec::new(), types: vec!["generation.*".to_owned()] }];
        config.events.allow_private_addresses = true;
    })
    .await;
    world.sandbox.plan_next(Plan::failed("CONTENT_POLICY_VIOLATION").taking(Duration::from_secs(150)));
    let mut reader = Reader::new(&world);
    let guide = include_str!("../../../docs/API.md");
    for (nth, part) in guide.split("```").enumerate() {
        if nth % 2 == 0 {
            for (said, minutes) in [("<!-- five minutes later -->", 5), ("<!-- an hour later -->", 60)] {
                // By the minute: in one leap the webhook and the read that it makes needless would be due at once.
                for _ in 0..if part.contains(said) { minutes } else { 0 } {
                    world.advance_s(60).await;
                }
            }
            continue;
        }
        let (language, block) = part.split_once('\n').unwrap();
        match language {
            "sh" if block.contains("curl") => reader.run(block),
            "sh" => reader.set(block),
            "json" => reader.compare(block),
            "text" => reader.compare_stream(block),
            other => panic!("{other}"),
        }
    }
    assert!(reader.requests > 20 && reader.requests == reader.compared, "{} {}", reader.requests, reader.compared);
}

/// Somebody who follows the guide.
struct Reader {
    variables: BTreeMap<String, String>,
    /// What is set in the shell itself.
    shell: String,
    answer: String,
    shown: Value,
    request: String,
    requests: usize,
    compared: usize,
}

impl Reader {
    fn new(world: &World) -> Self {
        let variables = [
            ("RECOUP_URL", world.url.as_str()),
            ("RECOUP_KEY", KEY),
            ("NO_PROXY", "127.0.0.1"),
            ("no_proxy", "127.0.0.1"),
        ];
        Self {
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            shell: String::new(),
            answer: String::new(),
            shown: Value::Null,
            request: String::new(),
            requests: 0,
            compared: 0,
        }
    }

    fn run(&mut self, block: &str) {
        let script = format!("{}{block}", self.shell);
        let ran = Command::new("bash").args(["-euc", &script]).envs(&self.variables).output().unwrap();
        assert!(ran.status.success(), "{block}{}", String::from_utf8_lossy(&ran.stderr));
        block.clone_into(&mut self.request);
        self.answer = String::from_utf8(ran.stdout).unwrap();
        self.requests += 1;
    }

    /// `export NAME=value`: the value stands in the answer above, and is taken from the same place of the real one.
    fn set(&mut self, block: &str) {
        for line in block.lines() {
            let Some((name, value)) = line.strip_prefix("export ").and_then(|line| line.split_once('=')) else {
                self.shell.push_str(line);
                self.shell.push('\n');
                continue;
            };
            if !self.variables.contains_key(name) {
                let place =
                    place_of(&self.shown, value).unwrap_or_else(|| panic!("{value} is not in the answer above"));
                let real: Value = serde_json::from_str(&self.answer).unwrap();
                self.variables.insert(name.to_owned(), text(real.pointer(&place).unwrap()));
            }
        }
    }

    fn compare(&mut self, block: &str) {
        self.shown = serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"));
        let real: Value = serde_json::from_str(&self.answer).unwrap_or_else(|error| panic!("{error}: {}", self.answer));
        alike(&self.shown, &real, "", &format!("{}\n{real:#}", self.request));
        self.compared += 1;
    }

    fn compare_stream(&mut self, block: &str) {
        let names = |stream: &str| {
            let lines = stream.lines().take(3).map(|line| line.split_once(": ").unwrap());
            lines
                .map(|(name, value)| (name.to_owned(), if name == "event" { value.to_owned() } else { String::new() }))
                .collect()
        };
        let (shown, real): (Vec<_>, Vec<_>) = (names(block), names(&self.answer));
        assert_eq!(shown, real, "{}", self.answer);
        self.compared += 1;
    }
}

/// The JSON pointer at which the text stands.
fn place_of(value: &Value, wanted: &str) -> Option<String> {
    match value {
        Value::String(text) => (text == wanted).then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(nth, item)| Some(format!("/{nth}{}", place_of(item, wanted)?)))
        }
        Value::Object(fields) => {
            fields.iter().find_map(|(name, field)| Some(format!("/{name}{}", place_of(field, wanted)?)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Whatever is shown is there, in the same form.
#[track_caller]
fn alike(shown: &Value, real: &Value, place: &str, case: &str) {
    match (shown, real) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, field) in fields {
                let real = real.get(name).unwrap_or_else(|| panic!("{place}/{name} is not there: {case}"));
                alike(field, real, &format!("{place}/{name}"), case);
            }
        }
        (Value::Array(items), Value::Array(real)) => {
            for (nth, item) in items.iter().enumerate() {
                alike(
                    item,
                    real.get(nth).unwrap_or_else(|| panic!("{place}/{nth}: {case}")),
                    &format!("{place}/{nth}"),
                    case,
                );
            }
        }
        (Value::String(shown), Value::String(real)) => {
            let name = place.rsplit('/').next().unwrap();
            assert!(!WORDS.contains(&name) || shown == real, "{place}: {shown} is {real}: {case}");
        }
        (shown, real) => assert_eq!(shown, real, "{place}: {case}"),
    }
}
