//! Every fault that `recoup doctor` is there for, planted; it has to name it, and to say what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use recoup::sandbox::Plan;
use recoup::secret::Secret;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;

use crate::support::{ANY_PORT, KEY, PROVIDER_KEY, World};

const SECRET: &str = "a secret for callback URLs";

/// What doctor says, by the names of its checks.
struct Found {
    code: i32,
    checks: Vec<Value>,
}

impl Found {
    /// The check of that name, which has to be of that verdict.
    #[track_caller]
    fn expect(&self, name: &str, verdict: &str) -> String {
        let check = self.checks.iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["verdict"], verdict, "{:#?}", self.checks);
        let advised = check["advice"].as_str().is_some_and(|advice| !advice.is_empty());
        assert_eq!(advised, ["warning", "failed"].contains(&verdict), "advice where something is to be done: {check}");
        check["seen"].as_str().unwrap().to_owned()
    }

    /// The names of what failed.
    fn failed(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| check["verdict"] == "failed");
        failed.map(|check| check["name"].as_str().unwrap()).collect()
    }
}

/// Doctor in this world, with its configuration but for what `planted` says.
async fn doctor(world: &World, planted: &[(&str, &str)]) -> Found {
    let output = run(world, &["doctor", "--json"], planted).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}"));
    let code = output.status.code().unwrap();
    assert_eq!(code == 1, report["verdict"] == "failed", "{report:#}");
    Found { code, checks: report["checks"].as_array().unwrap().clone() }
}

async fn run(world: &World, arguments: &[&str], planted: &[(&str, &str)]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
    command.args(arguments).current_dir(world.folder.path()).env_clear().envs([
        ("RECOUP_SERVER__LISTEN", world.url.strip_prefix("http://").unwrap()),
        ("RECOUP_SERVER__PUBLIC_URL", &world.url),
        ("RECOUP_DATABASE__URL", &world.config.database.url),
        ("RECOUP_PROVIDER__BASE_URL", &world.provider_url),
        ("RECOUP_PROVIDER__API_KEY", world.config.provider.api_key.expose()),
        ("RECOUP_WEBHOOK__SECRETS", SECRET),
        ("RECOUP_API__KEY", KEY),
    ]);
    command.envs(planted.iter().copied()).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// A server that answers every request as `answer` says; gives its address and what it was sent.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read(&mut stream);
            told.lock().unwrap().push_str(&request);
            // Whoever has gone does not hear it.
            drop(stream.write_all(answer(&request).as_bytes()));
        }
    });
    (url, heard)
}

/// One request, whole.
fn read(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let start = request.len();
        reader.read_line(&mut request).unwrap();
        let line = request[start..].to_ascii_lowercase();
        if let Some(announced) = line.strip_prefix("content-length:") {
            length = announced.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request + &String::from_utf8(body).unwrap()
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn where_nothing_is_wrong_nothing_fails() {
    let world = World::new().await;
    let found = doctor(&world, &[]).await;
    assert_eq!(found.code, 0, "{:#?}", found.checks);
    for name in
        ["configuration", "database", "disk", "service", "body size", "provider key", "clock", "events", "retention"]
    {
        found.expect(name, "ok");
    }
    assert!(found.expect("database", "ok").ends_with(&format!("held by process {}", std::process::id())));
    assert!(found.expect("database", "ok").contains("whole"));
    assert!(found.expect("public URL", "warning").contains("only from inside"), "it is a loopback address");
    found.expect("certificate", "skipped");
    found.expect("webhooks", "skipped");
    let told = String::from_utf8(run(&world, &["doctor"], &[]).await.stdout).unwrap();
    assert!(told.lines().any(|line| line == "ok       body size      a webhook of 64 KiB passes"), "{told}");
    assert!(!told.contains('\u{1b}'));
}

#[tokio::test]
async fn the_key_is_tried_within_the_budget_of_the_service() {
    let world = World::new().await;
    assert!(doctor(&world, &[]).await.expect("provider key", "ok").contains("service's budget"));
    let stats = world.get("/v1/stats").await.expect(200);
    assert_eq!(stats["reads"]["in_last_minute"], 1);
    doctor(&world, &[]).await.expect("provider key", "ok");
    let stats = world.get("/v1/stats").await.expect(200);
    assert_eq!(stats["reads"]["in_last_minute"], 1, "asked again at once, it costs nothing");
}

#[tokio::test]
async fn a_service_with_a_listener_of_its_own_for_operators_is_found() {
    let world = World::with(|config| config.server.admin_listen = Some(ANY_PORT)).await;
    let admin = world.config.server.admin_listen.unwrap().to_string();
    let found = doctor(&world, &[("RECOUP_SERVER__ADMIN_LISTEN", &admin)]).await;
    assert!(found.expect("service", "ok").contains(&admin));
    assert!(found.expect("public URL", "warning").contains("leads here"));
    found.expect("provider key", "ok");
}

#[tokio::test]
async fn a_redirect_in_front_is_named_with_its_target() {
    let world = World::new().await;
    let (url, _) = server(|_| http("301 Moved Permanently", "location: https://www.example.com/hooks\r\n", ""));
    let found = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", &url)]).await;
    let seen = found.expect("public URL", "failed");
    assert!(seen.contains("301") && seen.contains("https://www.example.com/hooks"), "{seen}");
    assert_eq!(found.failed(), ["public URL"]);
}

#[tokio::test]
async fn what_answers_at_the_public_url_and_is_not_this_service_is_told_apart() {
    let (world, other) = (World::new().await, World::new().await);
    let (page, _) = server(|_| http("200 OK", "content-type: text/html\r\n", "<h1>It works!</h1>"));
    let seen = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", &page)]).await.expect("public URL", "failed");
    assert!(seen.contains("HTTP 200") && seen.contains("not recoup"), "{seen}");
    let seen = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", &other.url)]).await.expect("public URL", "failed");
    assert!(seen.contains("another recoup"), "{seen}");
    let nobody = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", "http://127.0.0.1:1")]).await;
    assert!(nobody.expect("public URL", "failed").contains("cannot be reached"));
    let nowhere = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", "https://recoup.invalid")]).await;
    assert!(nowhere.expect("public URL", "failed").contains("recoup.invalid"));
    nowhere.expect("certificate", "skipped");
}

#[tokio::test]
async fn a_limit_of_size_in_front_is_named() {
    let world = World::new().await;
    let behind = world.url.strip_prefix("http://").unwrap().to_owned();
    let (url, _) = server(move |request| {
        if request.len() > 8 << 10 {
            return http("413 Content Too Large", "", "<html>");
        }
        let mut upstream = TcpStream::connect(&behind).unwrap();
        let once = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        upstream.write_all(once.as_bytes()).unwrap();
        let mut answer = String::new();
        upstream.read_to_string(&mut answer).unwrap();
        answer
    });
    let found = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", &url)]).await;
    assert!(found.expect("body size", "failed").contains("413"));
    assert!(found.expect("public URL", "warning").contains("leads here"), "through the proxy too");
}

/// A server with a certificate of its own for `localhost` that ends in that year.
fn tls_server(year: i32) -> String {
    let mut wanted = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    wanted.not_before = rcgen::date_time_ymd(2020, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = wanted.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            // The client hangs up in the middle: it does not trust us.
            drop(rustls::StreamOwned::new(connection, stream.unwrap()).read(&mut [0]));
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn a_certificate_that_nobody_can_trust_is_named_with_its_reason() {
    let world = World::new().await;
    let found = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", &tls_server(2021))]).await;
    assert_eq!(found.expect("certificate", "failed"), "it expired at 2021-01-01T00:00:00Z");
    assert!(found.expect("public URL", "failed").contains("no secure connection"));
    let found = doctor(&world, &[("RECOUP_SERVER__PUBLIC_URL", &tls_server(4000))]).await;
    assert!(found.expect("certificate", "failed").contains("self-signed"));
}

#[tokio::test]
async fn a_refused_key_is_named_whether_or_not_the_service_runs() {
    let mut world = World::with(|config| config.provider.api_key = Secret::new("a key that was revoked")).await;
    let asked = doctor(&world, &[]).await;
    assert!(asked.expect("provider key", "failed").contains("refuses provider.api_key"));
    assert_eq!(asked.failed(), ["provider key"]);
    let known = doctor(&world, &[]).await;
    assert!(known.expect("provider key", "failed").contains("says the service"), "it is not tried again");
    world.stop().await;
    doctor(&world, &[]).await.expect("provider key", "failed");
    let right = doctor(&world, &[("RECOUP_PROVIDER__API_KEY", PROVIDER_KEY)]).await;
    assert!(right.expect("provider key", "ok").contains("asked directly"));
}

#[tokio::test]
async fn a_service_that_is_down_is_named_and_the_rest_is_looked_at() {
    let mut world = World::new().await;
    world.stop().await;
    let found = doctor(&world, &[]).await;
    assert!(found.expect("service", "failed").contains("nothing answers"));
    assert_eq!(found.failed(), ["service"]);
    assert!(found.expect("database", "ok").contains("nobody has it open"));
    for skipped in ["public URL", "webhooks", "events"] {
        found.expect(skipped, "skipped");
    }
    for looked_at in ["disk", "provider key", "clock"] {
        found.expect(looked_at, "ok");
    }
}

#[tokio::test]
async fn another_program_at_our_address_is_named() {
    let mut world = World::new().await;
    world.stop().await;
    let (url, heard) = server(|_| http("200 OK", "content-type: text/html\r\n", "<h1>It works!</h1>"));
    let found = doctor(&world, &[("RECOUP_SERVER__LISTEN", url.strip_prefix("http://").unwrap())]).await;
    assert!(found.expect("service", "failed").contains("not recoup"));
    let heard = heard.lock().unwrap();
    assert!(!heard.contains(PROVIDER_KEY) && !heard.contains(KEY), "no key is told to a stranger: {heard}");
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_named() {
    let mut world = World::new().await;
    world.stop().await;
    let at = |path: &str| format!("sqlite://{}", world.folder.path().join(path).display());
    let with = async |url: String| doctor(&world, &[("RECOUP_DATABASE__URL", &url)]).await;
    assert!(with(at("nowhere/recoup.db")).await.expect("database", "failed").contains("no folder"));
    assert!(with(at("new.db")).await.expect("database", "warning").contains("does not exist yet"));
    assert!(!world.folder.path().join("new.db").exists(), "it creates nothing");
    std::fs::write(
        world.folder.path().join("text.db"),
        "no database, but long enough to be taken for one. ".repeat(99),
    )
    .unwrap();
    assert!(with(at("text.db")).await.expect("database", "failed").contains("not a database"));
    std::fs::create_dir(world.folder.path().join("folder.db")).unwrap();
    with(at("folder.db")).await.expect("database", "failed");
    // A page in the middle is overwritten.
    let whole = world.folder.path().join("recoup.db");
    let mut bytes = std::fs::read(&whole).unwrap();
    let middle = bytes.len() / 8_192 * 4_096;
    bytes[middle..middle + 4_096].fill(0xa5);
    std::fs::write(world.folder.path().join("damaged.db"), bytes).unwrap();
    assert!(with(at("damaged.db")).await.expect("database", "failed").contains("damaged"));
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_named() {
    let mut world = World::new().await;
    world.stop().await;
    // SQLite itself refuses writes to a table whose trigger does: as root, no file mode would keep anybody from it.
    let connection = rusqlite::Connection::open(world.folder.path().join("recoup.db")).unwrap();
    let forbid = "CREATE TRIGGER no_writes BEFORE INSERT ON heartbeat BEGIN SELECT raise(ABORT, 'read only, says the test'); END";
    connection.execute_batch(forbid).unwrap();
    drop(connection);
    let seen = doctor(&world, &[]).await.expect("database", "failed");
    assert!(seen.contains("takes no writes") && seen.contains("says the test"), "{seen}");
}

#[tokio::test]
async fn a_clock_that_is_off_is_named() {
    let world = World::new().await;
    let provider = |date: &'static str| server(move |_| http("404 Not Found", &format!("date: {date}\r\n"), "{}")).0;
    let long_ago = provider("Sun, 06 Nov 1994 08:49:37 GMT");
    let seen = doctor(&world, &[("RECOUP_PROVIDER__BASE_URL", &long_ago)]).await.expect("clock", "failed");
    assert!(seen.ends_with("d ahead of that of the provider"), "{seen}");
    let far = provider("Fri, 06 Nov 2099 08:49:37 GMT");
    let seen = doctor(&world, &[("RECOUP_PROVIDER__BASE_URL", &far)]).await.expect("clock", "failed");
    assert!(seen.ends_with("d behind that of the provider"), "{seen}");
}

#[tokio::test]
async fn webhooks_that_never_arrive_are_named() {
    let world = World::new().await;
    for _ in 0..5 {
        world.buy(Plan::completed().lost()).await;
    }
    for _ in 0..20 {
        world.advance_s(30).await;
    }
    let found = doctor(&world, &[]).await;
    let seen = found.expect("webhooks", "failed");
    assert!(seen.contains("kling/o3-video: 0 arrived, 5 missed"), "{seen}");
    assert_eq!(found.failed(), ["webhooks"]);
    let advice = found.checks.iter().find(|check| check["name"] == "webhooks").unwrap()["advice"].to_string();
    assert!(advice.contains("server.public_url"), "{advice}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_named_and_weak_keys_are_warned_of() {
    let world = World::new().await;
    let found = doctor(&world, &[("RECOUP_SERVER__MAX_CONNECTIONS", "0")]).await;
    assert!(found.expect("configuration", "failed").contains("server.max_connections"));
    assert_eq!(found.checks.len(), 1, "nothing else can be looked at");
    let found = doctor(&world, &[("RECOUP_PROVIDER__API_KEY", "")]).await;
    assert!(found.expect("configuration", "failed").contains("provider.api_key"));
    let found = doctor(&world, &[("RECOUP_WEBHOOK__SECRETS", "short")]).await;
    assert!(found.expect("configuration", "warning").contains("webhook.secrets"));
    let found = doctor(&world, &[("RECOUP_API__KEY", "another key, long enough")]).await;
    assert!(found.expect("service", "warning").contains("does not know this API key"));
    assert!(found.expect("provider key", "skipped").contains("does not take the API key"));
}

#[tokio::test]
async fn the_providers_key_goes_to_the_provider_only() {
    let mut world = World::new().await;
    world.stop().await;
    let refusal = |_: &str| {
        http("404 Not Found", "content-type: application/problem+json\r\n", r#"{"code":"NOT_FOUND","detail":"x"}"#)
    };
    let (public, public_heard) = server(refusal);
    let (provider, provider_heard) =
        server(|_| http("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", ""));
    let planted = [("RECOUP_SERVER__PUBLIC_URL", &*public), ("RECOUP_PROVIDER__BASE_URL", &provider)];
    let found = doctor(&world, &planted).await;
    assert!(found.expect("public URL", "warning").contains("cannot be told"));
    assert!(found.expect("provider key", "warning").contains("307"), "a redirect is not followed");
    let (public_heard, provider_heard) = (public_heard.lock().unwrap(), provider_heard.lock().unwrap());
    assert!(!public_heard.contains(PROVIDER_KEY) && !public_heard.contains(KEY));
    assert_eq!(provider_heard.matches(PROVIDER_KEY).count(), 1, "with the one status read: {provider_heard}");
    assert!(!provider_heard.contains(KEY), "ours does not go there");
}
