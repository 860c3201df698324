//! Contract section 10: health, the second listener, the lock, retention, drain, backup.

use std::time::Duration;

use recoup::clock::Clock;
use recoup::config::Span;
use recoup::store::{self, OpenError, Store};
use serde_json::json;

use crate::support::{ANY_PORT, World, completed, failed, text};

#[tokio::test]
async fn live_and_ready_say_what_they_mean() {
    let world = World::new().await;
    let bare = |path: &str| world.http.get(format!("{}{path}", world.url)).send();
    assert_eq!(bare("/livez").await.unwrap().status(), 200, "without a key");
    let ready = World::read(bare("/readyz").await.unwrap()).await.expect(200);
    assert_eq!(ready["status"], "ready");
    let parts: Vec<_> = ready["parts"].as_array().unwrap().iter().map(|part| text(&part["name"])).collect();
    assert_eq!(parts, ["database", "workers", "provider_key"]);
}

#[tokio::test]
async fn with_an_admin_listener_the_public_one_serves_webhooks_only() {
    let world = World::with(|config| config.server.admin_listen = Some(ANY_PORT)).await;
    let admin = format!("http://{}", world.config.server.admin_listen.unwrap());
    for path in ["/v1/generations", "/readyz", "/metrics", "/login"] {
        world.get(path).await.problem(404, "NOT_FOUND");
        let served = world.http.get(format!("{admin}{path}")).bearer_auth(crate::support::KEY).send().await.unwrap();
        assert_eq!(served.status(), 200, "{path}");
    }
    let open = world.http.get(format!("{admin}/metrics")).send().await.unwrap();
    assert_eq!(open.status(), 200, "metrics want no key there");
    for base in [&world.url, &admin] {
        assert_eq!(world.http.get(format!("{base}/livez")).send().await.unwrap().status(), 200);
    }
    let keys = world.standing_url();
    world.webhook(&keys, completed("p-1", "https://x/v")).await.expect(200);
    let there = world.http.post(keys.replace(&world.url, &admin)).body("x").send().await.unwrap();
    assert_eq!(there.status(), 404);
}

#[tokio::test]
async fn a_second_process_on_the_same_database_is_refused_by_name() {
    let mut world = World::new().await;
    let refused = Store::open(&world.config.database.url).await.unwrap_err();
    assert!(matches!(refused, OpenError::Locked(_)), "{refused}");
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    world.stop().await;
    Store::open(&world.config.database.url).await.unwrap();
}

#[tokio::test]
async fn the_database_and_the_files_beside_it_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    world.register("p-1").await;
    for name in ["recoup.db", "recoup.db-wal", "recoup.db-shm"] {
        let mode = world.folder.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recoup.db");
    let garbage = b"this is not a database, but somebody's letter".repeat(100);
    std::fs::write(&file, &garbage).unwrap();
    let error = Store::open(&format!("sqlite://{}", file.display())).await.unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("backup"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), garbage);
}

#[tokio::test]
async fn the_linked_sqlite_has_no_wal_reset_bug() {
    // `open` refuses an affected version; this one opened.
    let folder = tempfile::tempdir().unwrap();
    Store::open(&format!("sqlite://{}", folder.path().join("recoup.db").display())).await.unwrap();
}

#[tokio::test]
async fn a_backup_is_a_database_of_its_own() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    let copy = world.folder.path().join("copy.db");
    let made = store::backup(&world.config.database.url, &copy, world.clock.now()).await.unwrap();
    assert_eq!(made.bytes, copy.metadata().unwrap().len());
    let again = store::backup(&world.config.database.url, &copy, world.clock.now()).await.unwrap_err();
    assert!(again.to_string().contains("does not overwrite"), "{again}");
    let (store, _writer) = Store::open(&format!("sqlite://{}", copy.display())).await.unwrap();
    let id = recoup::domain::id::GenerationId::parse(&id).unwrap();
    let kept = store.generation(id).await.unwrap().unwrap();
    assert!(kept.state.outcome().is_some());
}

#[tokio::test]
async fn raw_bodies_go_after_a_while_and_rows_and_hashes_stay() {
    let world = World::with(|config| config.retention.payloads = Span(Duration::from_hours(24 * 30))).await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    let delivery = text(&world.timeline(&id, "delivery").await[0]["id"]);
    let path = format!("/v1/deliveries/{delivery}");
    world.advance(Duration::from_hours(24 * 29)).await;
    assert!(!world.get(&path).await.expect(200)["body"].is_null());
    let hash = world.get(&path).await.expect(200)["body_sha256"].clone();
    world.advance(Duration::from_hours(25)).await;
    // Retention looks every hour; wait for the removal itself.
    let mut pruned = world.get(&path).await.expect(200);
    while !pruned["body"].is_null() {
        world.advance(Duration::from_hours(1)).await;
        pruned = world.get(&path).await.expect(200);
    }
    assert_eq!(pruned["body_sha256"], hash);
    world.post(&format!("{path}/replays"), &json!({})).await.problem(410, "GONE");
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    assert_eq!(world.events(&id).await, ["generation.completed"], "a repeat is still known as one");
}

#[tokio::test]
async fn generations_with_open_money_are_never_removed() {
    use recoup::sandbox::{Fate, Plan};
    let world = World::with(|config| config.retention.generations = Span(Duration::from_hours(1))).await;
    let open = world.buy(Plan { fate: Fate::NeverEnds, ..Plan::completed() }).await;
    let done = world.buy(Plan::completed().taking(Duration::ZERO)).await;
    world.sandbox.until(|ledger| ledger.iter().any(|bought| !bought.attempts.is_empty())).await;
    let path = format!("/v1/generations/{}", done.id);
    while world.get(&path).await.status == 200 {
        world.advance(Duration::from_hours(1)).await;
    }
    for _ in 0..30 {
        world.advance(Duration::from_hours(1)).await;
    }
    assert_eq!(world.generation(&open.id).await["status"], "lost");
}

#[tokio::test]
async fn what_retention_removed_is_not_new_when_its_webhook_comes_again() {
    let world = World::with(|config| config.retention.generations = Span(Duration::from_hours(1))).await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    let path = format!("/v1/generations/{id}");
    while world.get(&path).await.status == 200 {
        world.advance(Duration::from_hours(1)).await;
    }
    let standing = world.standing_url();
    for url in [&url, &standing] {
        world.webhook(url, completed("p-1", "https://x/v")).await.expect(200);
        world.webhook(url, failed("p-1", "TIMEOUT")).await.expect(200);
    }
    world.webhook(&url, completed("p-2", "https://x/v")).await.expect(200);
    world.webhook(&url, "cut off in the mid").await.problem(422, "UNREADABLE_WEBHOOK");
    for list in ["generations", "deliveries", "events"] {
        assert_eq!(world.get(&format!("/v1/{list}")).await.expect(200)["data"], json!([]), "{list}");
    }
    // Others are taken on as ever, and who registers the removed one anew means it.
    world.webhook(&standing, completed("p-3", "https://x/v")).await.expect(200);
    world.post("/v1/generations", &json!({"family": "kling/o3-video", "generation_id": "p-1"})).await.expect(201);
    world.webhook(&standing, completed("p-1", "https://x/v")).await.expect(200);
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"].as_array().unwrap().len(), 2);
    assert_eq!(world.get("/v1/deliveries").await.expect(200)["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn stopping_answers_those_who_wait() {
    let mut world = World::new().await;
    let (id, _) = world.prepare().await;
    let request = world.http.get(format!("{}/v1/generations/{id}?wait=60", world.url)).bearer_auth(crate::support::KEY);
    let (sent, waiting) = tokio::sync::oneshot::channel();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        sent.send(()).unwrap();
        request.send().await.unwrap().status()
    });
    waiting.await.unwrap();
    // Until the request is in, a stop would refuse it; its own line in the log says when: here, the answer does.
    while world.get("/metrics").await.status != 200 {}
    world.stop().await;
    let status = tasks.join_next().await.unwrap();
    assert!(status.is_ok_and(|status| status == 200));
}
