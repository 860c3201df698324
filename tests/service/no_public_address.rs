//! Where the provider does not reach us: outcomes are read, and nothing is amiss because of it (contract section 11).

use std::process::Command;
use std::time::Duration;

use recoup::config::Config;
use recoup::sandbox::{Fate, Plan, Settings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::outbox::Recorder;
use crate::page::Browser;
use crate::support::{KEY, O3, World, completed, text};

/// Buys five seconds in standard through the gateway; gives our id and the provider's.
async fn buy(world: &World, plan: Plan, extra: Value) -> (String, String) {
    let mut order = json!({"prompt": "a paper boat", "model": "kling_o3", "duration": "5"});
    order.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    world.sandbox.plan_next(plan);
    let answer = world.post(&format!("/gateway/v1/{O3}/generate"), &order).await;
    let id = answer.headers["recoup-generation"].to_str().unwrap().to_owned();
    (id, text(&answer.expect(201)["generation_id"]))
}

fn taking(seconds: u64) -> Plan {
    Plan::completed().taking(Duration::from_secs(seconds))
}

/// A command of the real binary, in this world and with its configuration.
async fn said(world: &World, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
    command.args(arguments).current_dir(world.folder.path()).env_clear().envs([
        ("RECOUP_SERVER__LISTEN", world.url.strip_prefix("http://").unwrap()),
        ("RECOUP_DATABASE__URL", &world.config.database.url),
        ("RECOUP_PROVIDER__BASE_URL", &world.provider_url),
        ("RECOUP_PROVIDER__API_KEY", world.config.provider.api_key.expose()),
        ("RECOUP_WEBHOOK__SECRETS", "a secret for callback URLs"),
        ("RECOUP_API__KEY", KEY),
    ]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[tokio::test]
async fn the_provider_gets_no_callback_and_the_callers_own_is_served_by_us() {
    let caller = Recorder::start().await;
    let local = |config: &mut Config| config.events.allow_private_addresses = true;
    let world = World::set_up(Settings::default(), false, local).await;
    let (id, provider_id) = buy(&world, taking(140), json!({"callback_url": caller.url})).await;
    assert_eq!(world.purchase(&provider_id).callback_url, None, "neither ours nor the caller's");
    let shown = world.generation(&id).await;
    assert_eq!(
        shown["next_check_at"],
        json!(world.clock_now() + Duration::from_secs(150)),
        "in the middle of 120 to 180"
    );
    world.advance_s(149).await;
    assert_eq!(world.reads(), 0);
    world.advance_s(1).await;
    let shown = world.generation(&id).await;
    assert_eq!(
        (&shown["status"], &shown["source"], &shown["checks"]),
        (&json!("completed"), &json!("check"), &json!(1))
    );
    assert_eq!((&shown["recovered"], &shown["attention"]), (&json!(false), &Value::Null), "nothing was lost");
    assert_eq!(caller.after(1).await[0].json()["generation_id"], json!(provider_id));
    let credits = world.get("/v1/credits").await.expect(200);
    assert_eq!(credits["recovered"]["count"], 0);
}

#[tokio::test]
async fn after_the_first_read_the_next_come_ten_to_fifteen_seconds_apart_and_an_outcome_is_never_further_behind() {
    let world = World::without_public_address().await;
    let began = world.clock_now();
    let (id, provider_id) = buy(&world, taking(179), json!({})).await;
    for _ in 0..200 {
        world.advance_s(1).await;
    }
    let reads: Vec<_> = world.purchase(&provider_id).reads.iter().map(|at| at.since(began).as_secs()).collect();
    assert_eq!(reads[0], 150);
    assert!(reads.windows(2).all(|pair| (10..=16).contains(&(pair[1] - pair[0]))), "{reads:?}");
    assert!((179..=194).contains(reads.last().unwrap()), "{reads:?}");
    assert_eq!(world.generation(&id).await["status"], "completed");
    assert_eq!(
        world.events(&id).await,
        ["generation.completed"],
        "one that ends in time is not called overdue because it was read later"
    );
}

#[tokio::test]
async fn one_that_never_ends_is_overdue_stuck_and_asked_about_ever_less() {
    let world = World::without_public_address().await;
    let (id, _) = buy(&world, Plan { fate: Fate::NeverEnds, ..Plan::completed() }, json!({})).await;
    let mut attention = Vec::new();
    for _ in 0..(16 * 12) {
        world.advance_s(5).await;
        let now = world.generation(&id).await["attention"].clone();
        if attention.last() != Some(&now) {
            attention.push(now);
        }
    }
    assert_eq!(attention, [Value::Null, json!("overdue"), json!("stuck")]);
    let reads = world.reads();
    assert!((49..=76).contains(&reads), "twelve and a half minutes, every ten to fifteen seconds: {reads}");
    for _ in 0..10 {
        world.advance_s(60).await;
    }
    assert_eq!(world.reads() - reads, 2, "every five minutes");
}

#[tokio::test]
async fn nothing_calls_it_a_fault_and_each_says_it_in_a_line() {
    let world = World::without_public_address().await;
    for _ in 0..6 {
        buy(&world, taking(140), json!({})).await;
    }
    world.advance_s(150).await;
    world.after_reads(6).await;
    let line = "read, as server.public_url is empty: from the middle of the expected time on about every 12 s, \
                at present at most 15 s behind the provider";

    let ready = world.get("/readyz").await.expect(200);
    assert!(ready["parts"].as_array().unwrap().iter().all(|part| part["status"] == "ok"), "{ready}");
    let part = ready["parts"].as_array().unwrap().iter().find(|part| part["name"] == "outcomes").unwrap();
    assert_eq!(part["detail"], line);

    let stats = world.get("/v1/stats").await.expect(200);
    assert_eq!(stats["outcomes"], json!({"learned_by": "reads", "behind_seconds": 15.0}));
    assert_eq!((&stats["webhooks"], &stats["times"][0]["completed"]), (&json!([]), &json!(6)));
    assert_eq!(stats["generations"]["needing_attention"], 0);

    let browser = Browser::logged_in(&world, KEY).await;
    for path in ["/", "/setup"] {
        let html = browser.page(path).await;
        assert!(html.to_lowercase().contains("outcomes are read"), "{html}");
        for word in ["do not arrive", "None has", "class=\"warning", "role=\"alert\"", "/webhooks/"] {
            assert!(!html.contains(word), "{path}: {word} in {html}");
        }
    }
    let setup = browser.page("/setup").await;
    assert!(setup.contains(&format!("{}/gateway", world.url)), "{setup}");
    let trends = browser.page("/trends").await;
    assert!(trends.contains("No outcome was told by a webhook, or lost its webhook, in this time."), "{trends}");

    let metrics = world.get("/metrics").await.expect(200);
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("\nrecoup_outcomes_behind_seconds 15\n"), "{metrics}");

    let (code, told) = said(&world, &["status"]).await;
    assert!(code == 0 && told.contains(&format!("outcomes       {line}\n")) && !told.contains("webhook"), "{told}");
    let (code, doctor) = said(&world, &["doctor"]).await;
    assert_eq!(code, 0, "{doctor}");
    assert!(doctor.contains(&format!("outcomes       {line}\n")), "{doctor}");
    let warned: Vec<_> = doctor.lines().filter(|said| said.starts_with("warning")).collect();
    assert!(warned.iter().all(|said| said.contains("backup")), "{doctor}");
    assert!(!doctor.contains("webhook") || doctor.lines().all(|said| !said.starts_with("failed")), "{doctor}");
    let (code, url) = said(&world, &["callback-url", O3]).await;
    assert_eq!((code, url.lines().count()), (2, 1), "{url}");
    assert!(url.contains("server.public_url is empty"), "{url}");
}

#[tokio::test]
async fn what_webhooks_failed_to_do_before_is_forgotten_with_the_address() {
    let mut world = World::new().await;
    for _ in 0..6 {
        world.buy(taking(140).lost()).await;
    }
    world.advance_s(210).await;
    world.after_reads(6).await;
    let silent = async |world: &World| world.get("/v1/stats").await.expect(200)["webhooks"][0]["silent"].clone();
    assert_eq!(silent(&world).await, true);
    (world.public, world.config.server.public_url) = (false, None);
    world.restart().await;
    assert_eq!(silent(&world).await, false);
    let html = Browser::logged_in(&world, KEY).await.page("/").await;
    assert!(!html.contains("do not arrive"), "{html}");
    assert_eq!(said(&world, &["status"]).await.0, 0);
}

#[tokio::test]
async fn an_address_can_be_given_later_and_needs_nothing_but_the_setting() {
    let mut world = World::without_public_address().await;
    let (earlier, _) = buy(&world, taking(170), json!({})).await;
    world.advance_s(100).await;
    world.stop().await;
    world.public = true;
    world.resume().await;
    let (later, provider_id) = buy(&world, taking(140), json!({})).await;
    let url = world.purchase(&provider_id).callback_url.unwrap();
    assert!(url.starts_with(&format!("{}/webhooks/{O3}/{later}.", world.url)), "{url}");
    for _ in 0..15 {
        world.advance_s(10).await;
    }
    let (earlier, later) = (world.generation(&earlier).await, world.generation(&later).await);
    assert_eq!((&earlier["status"], &earlier["source"]), (&json!("completed"), &json!("check")));
    assert_eq!(
        (&later["status"], &later["source"], &later["checks"]),
        (&json!("completed"), &json!("webhook"), &json!(0))
    );
}

#[tokio::test]
async fn a_webhook_that_comes_all_the_same_is_taken_as_ever() {
    let world = World::without_public_address().await;
    let (id, provider_id) = buy(&world, taking(140), json!({})).await;
    world.advance_s(140).await;
    let url = world.purchase(&provider_id).results_at;
    let told = completed(&provider_id, &format!("{url}/v.mp4"));
    world.webhook(&world.standing_url(), told).await.expect(200);
    world.after_reads(1).await;
    let shown = world.generation(&id).await;
    assert_eq!((&shown["status"], &shown["deliveries"]), (&json!("completed"), &json!(1)));
    assert_eq!(world.get("/v1/stats").await.expect(200)["webhooks"], json!([]), "it was not expected");
}

#[tokio::test]
async fn what_is_prepared_has_no_callback_url_and_is_read_once_it_is_bought() {
    let world = World::without_public_address().await;
    let order = json!({"family": O3, "model": "kling_o3", "duration_seconds": 5});
    let prepared = world.post("/v1/generations", &order).await.expect(201);
    assert_eq!(prepared.get("callback_url"), Some(&Value::Null));
    world.sandbox.plan_next(taking(140));
    let request = world.http.request(Method::POST, format!("{}/v1/{O3}/generate", world.provider_url));
    let request = request.bearer_auth(world.config.provider.api_key.expose()).json(&json!({"prompt": "a paper boat"}));
    let bought = World::read(request.send().await.unwrap()).await.expect(201);
    let id = text(&prepared["id"]);
    world.patch(&format!("/v1/generations/{id}"), &json!({"generation_id": bought["generation_id"]})).await.expect(200);
    world.advance_s(150).await;
    assert_eq!(world.generation(&id).await["status"], "completed");
}

#[test]
fn an_address_that_the_provider_cannot_call_is_refused_with_both_ways_out() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], public_url: &str, provider: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
        command.args(arguments).current_dir(folder.path()).env_clear().envs([
            ("RECOUP_SERVER__PUBLIC_URL", public_url),
            ("RECOUP_PROVIDER__BASE_URL", provider),
            ("RECOUP_PROVIDER__API_KEY", "a key"),
            ("RECOUP_WEBHOOK__SECRETS", "a secret for callback URLs"),
            ("RECOUP_API__KEY", "the key that may do everything"),
        ]);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let provider = "https://platform.runblob.io";
    for url in ["http://127.0.0.1:8080", "https://localhost", "http://[::1]:8080", "http://hooks.example.com"] {
        for arguments in [&["serve"][..], &["config", "check"]] {
            let (code, said) = run(arguments, url, provider);
            assert_eq!(code, 2, "{url}: {said}");
            assert!(
                said.contains("server.public_url") && said.contains("https address") && said.contains("\"\""),
                "{said}"
            );
        }
    }
    let loopback = "http://127.0.0.1:8090";
    for (url, provider) in
        [("", provider), ("https://hooks.example.com", provider), ("http://127.0.0.1:8080", loopback)]
    {
        assert_eq!(run(&["config", "check"], url, provider), (0, String::new()), "{url}");
    }
}
