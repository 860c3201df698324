//! The real binary in real time: kill -9, drain, the lock, the log. The oracle is outside: the simulated provider's ledger
//! and the client's own list of answers.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use recoup::clock::SystemClock;
use recoup::sandbox::{Plan, Sandbox, Settings};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{O3, PROVIDER_KEY, text};

pub(crate) const KEY: &str = "a key of the process tests";
pub(crate) const SECRET: &str = "a callback secret of the process tests";

/// The service as a process.
pub(crate) struct Service {
    child: Child,
    pub url: String,
}

impl Service {
    pub(crate) fn command(folder: &Path, port: u16, provider: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
        command.arg("serve").current_dir(folder).env_clear().envs([
            ("RECOUP_SERVER__LISTEN", format!("127.0.0.1:{port}")),
            ("RECOUP_SERVER__PUBLIC_URL", format!("http://127.0.0.1:{port}")),
            ("RECOUP_DATABASE__URL", format!("sqlite://{}", folder.join("recoup.db").display())),
            ("RECOUP_PROVIDER__BASE_URL", provider.to_owned()),
            ("RECOUP_PROVIDER__API_KEY", PROVIDER_KEY.to_owned()),
            ("RECOUP_PROVIDER__STATUS_CHECKS_PER_MINUTE", "6000".to_owned()),
            ("RECOUP_PROVIDER__REQUEST_TIMEOUT", "1s".to_owned()),
            ("RECOUP_WEBHOOK__SECRETS", SECRET.to_owned()),
            ("RECOUP_API__KEY", KEY.to_owned()),
            ("RECOUP_RECONCILE__GRACE", "100ms".to_owned()),
            ("RECOUP_RECONCILE__RECHECK", "100ms,200ms".to_owned()),
            ("RECOUP_LOG__FORMAT", "json".to_owned()),
            ("RECOUP_LOG__LEVEL", "debug".to_owned()),
        ]);
        command
    }

    /// Starts it and waits until it says that it runs.
    fn start(folder: &Path, provider: &str) -> Self {
        Self::start_at(free_port(), folder, provider)
    }

    /// The same at a port that was free a moment ago.
    pub(crate) fn start_at(port: u16, folder: &Path, provider: &str) -> Self {
        Self::start_with(port, folder, provider, &[])
    }

    /// The same with more variables in its environment.
    pub(crate) fn start_with(port: u16, folder: &Path, provider: &str, more: &[(&str, &str)]) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Self::command(folder, port, provider);
        let mut child = command.envs(more.iter().copied()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("recoup is running") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before it ran");
            std::io::Write::write_all(&mut &log, line.as_bytes()).unwrap();
        }
        // Keep reading, or it would block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut &log));
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }

    /// Starts it with a log that takes nothing, as on a full disk, and waits until it answers.
    async fn start_without_log(folder: &Path, provider: &str) -> Self {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let port = free_port();
        let child = Self::command(folder, port, provider).stderr(full).spawn().unwrap();
        let service = Self { child, url: format!("http://127.0.0.1:{port}") };
        let http = http();
        while call(http.get(format!("{}/readyz", service.url))).await.is_none_or(|(status, _)| status != 200) {
            tokio::task::yield_now().await;
        }
        service
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    pub(crate) fn terminate(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

/// A port below those the kernel gives to outgoing connections, another one each time: no client takes it before its server is there,
/// or between two starts of it. Tried by calling, not by binding: a child that is being forked would hold it a little longer.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    std::iter::repeat_with(|| 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 22_000)
        .find(|port| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err())
        .unwrap()
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The simulated provider, on real time.
pub(crate) struct Provider {
    pub sandbox: Arc<Sandbox>,
    pub url: String,
    stop: CancellationToken,
}

impl Provider {
    async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let settings = Settings { status_reads_per_minute: None, ..settings };
        let sandbox = Sandbox::new(settings, Arc::new(SystemClock::new())).unwrap();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serving = Arc::clone(&sandbox).serve(listener, stop.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the token")]
        tokio::spawn(async move { serving.await.unwrap() });
        Self { sandbox, url, stop }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn http() -> reqwest::Client {
    recoup::provider::http_client(Duration::from_secs(10)).unwrap()
}

pub(crate) async fn call(request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
    let answer = request.bearer_auth(KEY).send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.json().await.ok()?))
}

/// Posts webhooks until the service is gone; gives what was answered 200.
pub(crate) async fn tell_until_killed(
    http: &reqwest::Client,
    url: &str,
    round: usize,
    told: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let Some((201, prepared)) = call(http.post(format!("{url}/v1/generations")).json(&json!({"family": O3}))).await
        else {
            break;
        };
        let id = format!("r{round}-{n}-{}", text(&prepared["id"]));
        let body = json!({"generation_id": id, "status": "completed", "video_url": format!("https://x/{id}.mp4")});
        let Some((200, _)) = call(http.post(text(&prepared["callback_url"])).json(&body)).await else { break };
        acknowledged.push(id);
        told.fetch_add(1, Ordering::SeqCst);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_loses_no_acknowledged_webhook_and_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let http = http();
    let mut acknowledged = Vec::new();
    for round in 0..25 {
        let service = Service::start(folder.path(), &provider.url);
        let told = Arc::new(AtomicUsize::new(0));
        let url = service.url.clone();
        let clients = (0..4).map(|client| tell_until_killed(&http, &url, round * 10 + client, Arc::clone(&told)));
        let clients = futures_util::future::join_all(clients);
        // Killed in full flight, each time after another number of answers.
        let killer = async move {
            while told.load(Ordering::SeqCst) < 3 + round * 7 % 23 {
                tokio::task::yield_now().await;
            }
            service.kill();
        };
        let (answers, ()) = tokio::join!(clients, killer);
        acknowledged.extend(answers.into_iter().flatten());
    }
    assert!(acknowledged.len() > 250, "{} acknowledged", acknowledged.len());
    let service = Service::start(folder.path(), &provider.url);
    for id in &acknowledged {
        let (status, shown) = call(http.get(format!("{}/v1/generations/{id}", service.url))).await.unwrap();
        assert_eq!((status, &shown["status"]), (200, &json!("completed")), "{id}");
        let (_, timeline) = call(http.get(format!("{}/v1/generations/{id}/timeline", service.url))).await.unwrap();
        let count =
            |kind: &str| timeline["data"].as_array().unwrap().iter().filter(|entry| entry["kind"] == kind).count();
        assert_eq!((count("outcome"), count("event"), count("delivery")), (1, 1, 1), "{id}: {timeline}");
    }
    assert_eq!(service.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_checks_forgets_none_and_settles_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let http = http();
    let mut ids = Vec::new();
    let service = Service::start(folder.path(), &provider.url);
    for _ in 0..40 {
        provider.sandbox.plan_next(Plan::completed().lost().taking(Duration::ZERO));
        let purchase = http.post(format!("{}/v1/{O3}/generate", provider.url)).bearer_auth(PROVIDER_KEY);
        let bought: Value = purchase.json(&json!({"prompt": "x"})).send().await.unwrap().json().await.unwrap();
        // Bought long enough ago that it is due at once.
        let body = json!({
            "generation_id": bought["generation_id"], "price": bought["price"], "submitted_at": "2026-01-01T00:00:00Z",
        });
        let (status, registered) =
            call(http.post(format!("{}/v1/generations", service.url)).json(&body)).await.unwrap();
        assert_eq!(status, 201, "{registered}");
        ids.push(text(&registered["id"]));
    }
    service.kill();
    let reads = || provider.sandbox.ledger().iter().map(|bought| bought.reads.len()).sum::<usize>();
    // Each run is killed as soon as it has made a few more reads.
    for round in 0..8 {
        let service = Service::start(folder.path(), &provider.url);
        let wanted = reads() + 1 + round % 4;
        if open(&http, &service.url).await < 8 {
            break;
        }
        provider.sandbox.until(|ledger| ledger.iter().map(|bought| bought.reads.len()).sum::<usize>() >= wanted).await;
        service.kill();
    }
    let service = Service::start(folder.path(), &provider.url);
    for id in &ids {
        let url = format!("{}/v1/generations/{id}", service.url);
        let (_, shown) = call(http.get(format!("{url}?wait=9"))).await.unwrap();
        assert_eq!(shown["status"], "completed", "{id}");
        let (_, timeline) = call(http.get(format!("{url}/timeline"))).await.unwrap();
        let count =
            |kind: &str| timeline["data"].as_array().unwrap().iter().filter(|entry| entry["kind"] == kind).count();
        assert_eq!(count("outcome"), 1, "{timeline}");
        let told =
            timeline["data"].as_array().unwrap().iter().filter(|entry| entry["type"] == "generation.completed").count();
        assert_eq!(told, 1, "{timeline}");
        assert!((1..=9).contains(&count("check")), "{timeline}");
    }
    assert_eq!(service.terminate(), 0);
}

async fn open(http: &reqwest::Client, url: &str) -> usize {
    let (_, list) = call(http.get(format!("{url}/v1/generations?status=pending&limit=200"))).await.unwrap();
    list["data"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_exits_with_75_and_names_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let first = Service::start(folder.path(), "http://127.0.0.1:1");
    let mut second = Service::command(folder.path(), 0, "http://127.0.0.1:1").stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(75), "{said}");
    assert!(said.contains(&format!("process {}", first.child.id())), "{said}");
    first.kill();
    // A killed process leaves no lock behind.
    assert_eq!(Service::start(folder.path(), "http://127.0.0.1:1").terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_backup_work_beside_a_running_service() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), "http://127.0.0.1:1");
    let recoup = |arguments: &[&str]| {
        let database = format!("sqlite://{}", folder.path().join("recoup.db").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
        command.args(arguments).current_dir(folder.path()).env_clear().env("RECOUP_DATABASE__URL", database);
        command.output().unwrap()
    };
    let health = recoup(&["health", "--url", &service.url]);
    assert_eq!(health.status.code(), Some(0), "{}", String::from_utf8_lossy(&health.stderr));
    assert!(String::from_utf8_lossy(&health.stdout).contains("\"ready\""));
    let backup = recoup(&["backup", "copy.db"]);
    assert_eq!(backup.status.code(), Some(0), "{}", String::from_utf8_lossy(&backup.stderr));
    assert!(folder.path().join("copy.db").metadata().unwrap().len() > 4_096);
    assert_eq!(recoup(&["backup", "copy.db"]).status.code(), Some(1), "it does not overwrite");
    assert_eq!(service.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_one_line_for_each_request_and_no_secret_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), "http://127.0.0.1:1");
    let http = http();
    let (_, prepared) =
        call(http.post(format!("{}/v1/generations", service.url)).json(&json!({"prompt": "a-secret-prompt"})))
            .await
            .unwrap();
    let url = text(&prepared["callback_url"]);
    let body = json!({"generation_id": "p-1", "status": "completed", "video_url": "https://x/a-secret-link"});
    let sent = http.post(&url).header("x-request-id", "find-me").json(&body).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    http.post(format!("{}x", &url)).header("x-request-id", "refuse-me").json(&body).send().await.unwrap();
    assert_eq!(service.terminate(), 0);
    // The reader of the pipe ends after the process; what it wrote by then is all there is.
    let log = loop {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        if log.contains("\"stopped\"") {
            break log;
        }
        tokio::task::yield_now().await;
    };
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (request_id, status) in [("find-me", 200), ("refuse-me", 404)] {
        let of_request: Vec<_> = lines.iter().filter(|line| line["request_id"] == request_id).collect();
        assert_eq!(of_request.len(), 1, "{of_request:?}");
        assert_eq!((&of_request[0]["route"], &of_request[0]["status"]), (&json!("/webhooks/{*path}"), &json!(status)));
    }
    let token = url.rsplit_once('.').unwrap().1;
    for secret in [token, KEY, SECRET, PROVIDER_KEY, "a-secret-prompt", "a-secret-link"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_no_webhook_and_no_purchase() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let service = Service::start_without_log(folder.path(), &provider.url).await;
    let http = http();
    let body = json!({"prompt": "a boat", "model": "kling_o3", "duration": "5"});
    let purchase = http.post(format!("{}/gateway/v1/{O3}/generate", service.url)).json(&body);
    let (status, bought) = call(purchase).await.unwrap();
    assert_eq!(status, 201, "{bought}");
    let (_, page) = call(http.get(format!("{}/v1/generations", service.url))).await.unwrap();
    assert_eq!(page["data"][0]["generation_id"], bought["generation_id"], "it is on record");
    let (_, prepared) =
        call(http.post(format!("{}/v1/generations", service.url)).json(&json!({"family": O3}))).await.unwrap();
    let told =
        http.post(text(&prepared["callback_url"])).body(crate::support::completed("p-1", "https://x/v")).send().await;
    assert_eq!(told.unwrap().status(), 200);
    assert_eq!(service.terminate(), 0);
}

#[tokio::test]
async fn a_database_that_is_taken_away_ends_it_and_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (database, elsewhere) = (folder.path().join("recoup.db"), folder.path().join("elsewhere"));
    let provider = Provider::start().await;
    let mut service = Service::start(folder.path(), &provider.url);
    let http = http();
    let prepare = || http.post(format!("{}/v1/generations", service.url)).json(&json!({"family": O3}));
    let (_, prepared) = call(prepare()).await.unwrap();
    std::fs::rename(&database, &elsewhere).unwrap();
    let told =
        http.post(text(&prepared["callback_url"])).body(crate::support::completed("p-1", "https://x/v")).send().await;
    assert_eq!(told.unwrap().status(), 503, "nothing is acknowledged that goes into a file nobody finds again");
    assert_eq!(service.child.wait().unwrap().code(), Some(1));
    let again = Service::command(folder.path(), free_port(), &provider.url).output().unwrap();
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.code() == Some(1) && said.contains("recoup.db is gone"), "{said}");
    assert!(!database.exists());
    std::fs::rename(&elsewhere, &database).unwrap();
    let service = Service::start(folder.path(), &provider.url);
    let record = format!("{}/v1/generations/{}", service.url, text(&prepared["id"]));
    assert_eq!(call(http.get(record)).await.unwrap().0, 200, "put back, it is as it was");
    assert_eq!(service.terminate(), 0);
}

#[tokio::test]
async fn a_database_with_pages_that_cannot_be_ends_it_and_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start().await;
    let service = Service::start(folder.path(), &provider.url);
    let http = http();
    for n in 0..50 {
        let body = json!({"family": O3, "generation_id": format!("p-{n}"), "prompt": "x".repeat(2_000)});
        assert_eq!(call(http.post(format!("{}/v1/generations", service.url)).json(&body)).await.unwrap().0, 201);
    }
    assert_eq!(service.terminate(), 0);
    let file = folder.path().join("recoup.db");
    rusqlite::Connection::open(&file).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let last_pages = bytes.len() - 8 * 4_096;
    bytes[last_pages..].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    let ended = Service::command(folder.path(), free_port(), &provider.url).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && (said.contains("malformed") || said.contains("corrupt")), "{said}");
    assert_eq!(std::fs::read(&file).unwrap().len(), bytes.len());
}
