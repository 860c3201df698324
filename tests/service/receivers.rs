//! The README's receivers, run as they stand there: they verify with the public Standard Webhooks libraries.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use crate::outbox::SECRET;
use crate::process::{KEY, Provider, Service, call, free_port, http};
use crate::support::{O3, completed, text};

pub(crate) const LANGUAGES: [&str; 3] = ["python", "js", "rust"];

/// An event that a receiver found authentic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept {
    pub id: String,
    pub kind: String,
    pub sequence: u64,
    pub generation: String,
}

/// A receiver as a process.
pub(crate) struct Receiver {
    child: Child,
    pub url: String,
    kept: watch::Receiver<Vec<Kept>>,
}

impl Receiver {
    pub(crate) async fn start(language: &str) -> Self {
        let port = free_port();
        let mut command = program(language);
        command.env("WEBHOOK_SECRET", SECRET).env("PORT", port.to_string()).stdout(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{language} is needed for its receiver: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, kept) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in lines {
                let line = line.unwrap();
                let words: Vec<_> = line.split(' ').collect();
                let [id, kind, sequence, generation] = words[..] else { panic!("{line}") };
                told.send_modify(|kept| {
                    let sequence = sequence.parse().unwrap();
                    kept.push(Kept { id: id.into(), kind: kind.into(), sequence, generation: generation.into() });
                });
            }
        });
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "the {language} receiver ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { child, url: format!("http://127.0.0.1:{port}/"), kept }
    }

    /// What it was sent, once that is as wanted.
    pub(crate) async fn kept(&mut self, wanted: impl Fn(&[Kept]) -> bool) -> Vec<Kept> {
        self.kept.wait_for(|kept| wanted(kept)).await.unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The configuration that has every event sent to those receivers.
pub(crate) fn endpoints(urls: &[String]) -> String {
    let endpoint = |url: &String| format!("[[events.endpoints]]\nurl = \"{url}\"\nsecret = \"{SECRET}\"\n");
    format!("[events]\nallow_private_addresses = true\n{}", urls.iter().map(endpoint).collect::<String>())
}

/// How often each receiver refused, by the service's own counter.
pub(crate) async fn refused(http: &reqwest::Client, url: &str) -> BTreeMap<String, u64> {
    let metrics = http.get(format!("{url}/metrics")).bearer_auth(KEY).send().await.unwrap().text().await.unwrap();
    let attempts = metrics.lines().filter_map(|line| line.strip_prefix("recoup_event_attempts_total{state=\""));
    let count = |line: &str| {
        let (state, count) = line.split_once("\"} ").unwrap();
        (state.to_owned(), count.parse().unwrap())
    };
    attempts.map(count).filter(|(state, count)| state != "delivered" && *count > 0).collect()
}

fn program(language: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = root.join("target/receivers");
    if !libraries.exists() {
        let installed = Command::new(root.join("examples/install")).status().unwrap();
        assert!(installed.success(), "examples/install says what is missing");
    }
    match language {
        "python" => {
            let mut command = Command::new("python3");
            command.arg(root.join("examples/receiver.py")).env("PYTHONPATH", libraries.join("python"));
            command
        }
        "js" => {
            // Node looks for libraries from the file's own folder upward: the file is linked to beside them.
            let mut command = Command::new("node");
            command.arg("--preserve-symlinks-main").arg(libraries.join("receiver.mjs"));
            command
        }
        "rust" => Command::new(PathBuf::from(env!("CARGO_BIN_EXE_recoup")).with_file_name("examples").join("receiver")),
        other => panic!("no receiver in {other}"),
    }
}

#[test]
fn the_readme_shows_the_receivers_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for (language, file) in LANGUAGES.into_iter().zip(["receiver.py", "receiver.mjs", "receiver.rs"]) {
        let source = std::fs::read_to_string(root.join("examples").join(file)).unwrap();
        assert!(
            readme.contains(&format!("```{language}\n{source}```\n")),
            "examples/{file} is not what the README shows"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_receivers_take_what_is_signed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut receivers = Vec::new();
    for language in LANGUAGES {
        receivers.push(Receiver::start(language).await);
    }
    let urls: Vec<_> = receivers.iter().map(|receiver| receiver.url.clone()).collect();
    std::fs::write(folder.path().join("config.toml"), endpoints(&urls)).unwrap();
    let (provider, http) = (Provider::with(recoup::sandbox::Settings::default()).await, http());
    let service = Service::start_at(free_port(), folder.path(), &provider.url);
    let (_, prepared) =
        call(http.post(format!("{}/v1/generations", service.url)).json(&json!({"family": O3}))).await.unwrap();
    // Not plain ASCII: what is signed are bytes.
    let body = completed("p-1", "https://x/ein-papierschiff-\u{1f6a2}.mp4");
    assert_eq!(call(http.post(text(&prepared["callback_url"])).body(body)).await.unwrap().0, 200);
    for receiver in &mut receivers {
        let kept = receiver.kept(|kept| !kept.is_empty()).await;
        let told = (kept[0].kind.as_str(), kept[0].sequence, &kept[0].generation);
        assert_eq!(told, ("generation.completed", 1, &text(&prepared["id"])));
        let forged = http.post(&receiver.url).header("webhook-id", "evt_1").header("webhook-timestamp", "1795428000");
        let forged = forged.header("webhook-signature", "v1,AAAA").json(&json!({"type": "generation.completed"}));
        assert_eq!(forged.send().await.unwrap().status(), 400);
        assert_eq!(receiver.kept(|_| true).await.len(), 1);
    }
    assert_eq!(service.terminate(), 0);
}
