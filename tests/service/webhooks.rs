//! The table of contract section 4, row by row, over real HTTP.

use recoup::config::Confirm;
use recoup::sandbox::{Fate, Plan};
use serde_json::{Value, json};

use crate::support::{O3, World, completed, failed};

const URL: &str = "https://cdn.example.net/v.mp4";

async fn dispositions(world: &World, id: &str) -> Vec<String> {
    let deliveries = world.timeline(id, "delivery").await;
    deliveries.iter().map(|delivery| delivery["disposition"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_authentic_webhook_is_kept_before_it_is_answered() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    let answer = world.webhook(&url, completed("p-1", URL)).await.expect(200);
    assert_eq!(answer, json!({"status": "received"}));
    let shown = world.generation(&id).await;
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["result_url"], URL);
    assert_eq!(shown["generation_id"], "p-1");
    assert_eq!((&shown["source"], &shown["verification"]), (&json!("webhook"), &json!("token")));
    assert_eq!(shown["credits"], "delivered");
    assert_eq!(shown["next_check_at"], Value::Null);
    assert_eq!(world.events(&id).await, ["generation.completed"]);
    assert_eq!(dispositions(&world, &id).await, ["accepted"]);
    assert_eq!(world.generation("p-1").await["id"], id, "found by the provider's id too");
}

#[tokio::test]
async fn a_failure_carries_its_reason_and_advice() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, failed("p-1", "CONTENT_POLICY_VIOLATION")).await.expect(200);
    let shown = world.generation(&id).await;
    assert_eq!(shown["status"], "failed");
    assert_eq!(shown["error"]["code"], "CONTENT_POLICY_VIOLATION");
    assert_eq!(shown["error"]["category"], "content");
    assert_eq!(shown["error"]["known"], true);
    assert!(shown["error"]["solution"].as_str().unwrap().contains("prompt"));
    assert_eq!(shown["credits"], "refund_expected");
    assert_eq!(shown["refund_expected_by"], "2026-11-23T10:05:00Z");
    assert_eq!(world.events(&id).await, ["generation.failed"]);
    world.advance_s(299).await;
    assert_eq!(world.generation(&id).await["credits"], "refund_expected");
    world.advance_s(1).await;
    assert_eq!(world.generation(&id).await["credits"], "refunded");
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    for _ in 0..5 {
        world.webhook(&url, completed("p-1", URL)).await.expect(200);
    }
    let shown = world.generation(&id).await;
    assert_eq!(shown["deliveries"], 5);
    assert_eq!(world.events(&id).await, ["generation.completed"], "no second event");
    assert_eq!(dispositions(&world, &id).await, ["accepted", "duplicate", "duplicate", "duplicate", "duplicate"]);
    assert_eq!(world.timeline(&id, "outcome").await.len(), 1);
}

#[tokio::test]
async fn a_hundred_equal_webhooks_at_once_make_one_outcome() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    let all = (0..100).map(|_| world.webhook(&url, completed("p-1", URL)));
    for answer in futures_util::future::join_all(all).await {
        answer.expect(200);
    }
    assert_eq!(world.events(&id).await, ["generation.completed"]);
    let dispositions = dispositions(&world, &id).await;
    assert_eq!(dispositions.iter().filter(|word| *word == "accepted").count(), 1);
    assert_eq!(world.generation(&id).await["deliveries"], 100);
}

#[tokio::test]
async fn a_contradiction_is_settled_by_the_providers_own_answer() {
    let world = World::new().await;
    // The provider completed it; a webhook says it failed, and then the true one comes.
    let bought = world.buy(Plan::completed().lost().taking(std::time::Duration::ZERO)).await;
    world.webhook(&bought.callback_url, failed(&bought.provider_id, "TIMEOUT")).await.expect(200);
    assert_eq!(world.generation(&bought.id).await["status"], "failed");
    let truth = world.purchase(&bought.provider_id).result_url();
    world.webhook(&bought.callback_url, completed(&bought.provider_id, &truth)).await.expect(200);
    world.after_reads(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["result_url"], truth);
    assert_eq!(shown["attention"], Value::Null);
    assert_eq!((&shown["source"], &shown["verification"]), (&json!("check"), &json!("token+status")));
    let events = world.events(&bought.id).await;
    assert_eq!(events, ["generation.failed", "generation.attention", "generation.corrected"]);
    assert_eq!(dispositions(&world, &bought.id).await, ["accepted", "conflict"]);
    assert_eq!(world.reads(), 1, "one check at once");
}

#[tokio::test]
async fn a_contradiction_that_the_provider_does_not_share_changes_nothing() {
    let world = World::new().await;
    let bought = world.buy(Plan::completed().lost().taking(std::time::Duration::ZERO)).await;
    let truth = world.purchase(&bought.provider_id).result_url();
    world.webhook(&bought.callback_url, completed(&bought.provider_id, &truth)).await.expect(200);
    world.webhook(&bought.callback_url, failed(&bought.provider_id, "TASK_FAILED")).await.expect(200);
    world.after_reads(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["attention"]), (&json!("completed"), &Value::Null));
    assert_eq!(shown["verification"], "token+status");
    assert_eq!(world.events(&bought.id).await, ["generation.completed", "generation.attention"]);
}

#[tokio::test]
async fn another_link_is_a_contradiction_and_another_signature_of_the_same_link_is_not() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", &format!("{URL}?sig=1"))).await.expect(200);
    world.webhook(&url, completed("p-1", &format!("{URL}?sig=2"))).await.expect(200);
    world.webhook(&url, completed("p-1", "https://cdn.example.net/other.mp4")).await.expect(200);
    assert_eq!(dispositions(&world, &id).await, ["accepted", "duplicate", "conflict"]);
    let shown = world.generation(&id).await;
    assert_eq!(shown["result_url"], format!("{URL}?sig=1"), "the first stands");
    assert_eq!(shown["attention"], "conflict");
}

#[tokio::test]
async fn an_unreadable_webhook_is_kept_once_and_asked_about_at_once() {
    let world = World::new().await;
    let bought = world.buy(Plan::completed().lost().taking(std::time::Duration::ZERO)).await;
    for body in ["<html>", r#"{"generation_id":"x","sta"#, r#"{"status":"completed"}"#, r#"{"generation_id":"x"}"#, ""]
    {
        let problem = world.webhook(&bought.callback_url, body).await.problem(422, "UNREADABLE_WEBHOOK");
        assert!(problem["detail"].as_str().unwrap().contains("status"));
        // The same again, as the provider's retry would: kept once.
        world.webhook(&bought.callback_url, body).await.problem(422, "UNREADABLE_WEBHOOK");
    }
    world.after_reads(1).await;
    assert_eq!(world.generation(&bought.id).await["status"], "completed", "the check found the outcome");
    assert_eq!(dispositions(&world, &bought.id).await, ["unreadable"; 5]);
    let list = world.get(&format!("/v1/deliveries?disposition=unreadable&generation={}", bought.id)).await.expect(200);
    let first = list["data"].as_array().unwrap().last().unwrap();
    let one = world.get(&format!("/v1/deliveries/{}", first["id"].as_str().unwrap())).await.expect(200);
    assert_eq!((&one["body"], &one["reason"]), (&json!("<html>"), &json!("the body is not JSON")));
}

#[tokio::test]
async fn bytes_that_are_no_text_come_back_in_base64() {
    let world = World::new().await;
    let (_, url) = world.prepare().await;
    world.webhook(&url, vec![0xff, 0xfe, 0x00]).await.problem(422, "UNREADABLE_WEBHOOK");
    let list = world.get("/v1/deliveries").await.expect(200);
    let one = world.get(&format!("/v1/deliveries/{}", list["data"][0]["id"].as_str().unwrap())).await.expect(200);
    assert_eq!((&one["body"], &one["body_base64"], &one["body_bytes"]), (&Value::Null, &json!("//4A"), &json!(3)));
}

#[tokio::test]
async fn an_unreadable_standing_webhook_belongs_to_nobody_and_is_kept_once() {
    let world = World::new().await;
    let url = world.standing_url();
    for _ in 0..3 {
        world.webhook(&url, "not json").await.problem(422, "UNREADABLE_WEBHOOK");
    }
    let list = world.get("/v1/deliveries?disposition=unreadable").await.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!((&list["data"][0]["generation"], &list["data"][0]["reference"]), (&Value::Null, &json!("standing")));
}

#[tokio::test]
async fn another_generations_id_under_a_bound_token_changes_nothing() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    world.patch(&format!("/v1/generations/{id}"), &json!({"generation_id": "mine"})).await.expect(200);
    world.webhook(&url, completed("somebody-elses", URL)).await.expect(200);
    let shown = world.generation(&id).await;
    assert_eq!((&shown["status"], &shown["attention"]), (&json!("pending"), &json!("conflict")));
    assert_eq!((&shown["generation_id"], &shown["result_url"]), (&json!("mine"), &Value::Null));
    assert_eq!(dispositions(&world, &id).await, ["mismatch"]);
    assert_eq!(world.events(&id).await, ["generation.attention"]);
    // The true one still settles it.
    world.webhook(&url, completed("mine", URL)).await.expect(200);
    assert_eq!(world.generation(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_token_that_brings_the_id_of_another_known_generation_overwrites_neither() {
    let world = World::new().await;
    let (prepared, url) = world.prepare().await;
    let registered = world.register("p-1").await;
    world.webhook(&url, completed("p-1", URL)).await.expect(200);
    let shown = world.generation(&prepared).await;
    assert_eq!((&shown["generation_id"], &shown["attention"]), (&Value::Null, &json!("conflict")));
    assert_eq!(world.generation(&registered).await["generation_id"], "p-1");
    assert_eq!(dispositions(&world, &prepared).await, ["mismatch"]);
    // The sweeper hears of it after the answer: the provider is asked about the one that has the id.
    while world.timeline(&registered, "check").await.is_empty() {
        tokio::task::yield_now().await;
    }
    world.idle().await;
    assert_eq!(world.timeline(&registered, "check").await.len(), 1, "once");
}

#[tokio::test]
async fn an_unknown_status_word_is_kept_as_still_running() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    let body = json!({"generation_id": "p-1", "status": "moderation_blocked"}).to_string();
    world.webhook(&url, body).await.expect(200);
    let shown = world.generation(&id).await;
    assert_eq!((&shown["status"], &shown["generation_id"]), (&json!("pending"), &json!("p-1")));
    assert_eq!(dispositions(&world, &id).await, ["unknown_status"]);
    let metrics = world.get("/metrics").await.expect(200);
    assert!(metrics.as_str().unwrap().contains("recoup_webhook_unknown_status_total{family=\"kling/o3-video\"}"));
}

#[tokio::test]
async fn every_refusal_before_the_token_is_proven_looks_the_same() {
    let world = World::with(|config| {
        config.webhook.allow_ips = vec!["203.0.113.0/24".parse().unwrap()];
    })
    .await;
    let (_, good_url) = world.prepare().await;
    let open = World::new().await;
    let (id, url) = open.prepare().await;
    let path = url.strip_prefix(&open.url).unwrap().to_owned();
    let token = path.rsplit_once('/').unwrap().1.to_owned();
    let other_family = format!("/webhooks/kling/o1-video/{token}");
    let (_, mac) = token.split_once('.').unwrap();
    let wrong = [
        "/webhooks".to_owned(),
        format!("/webhooks/{O3}"),
        format!("/webhooks/{O3}/"),
        format!("/webhooks/{O3}/{id}"),
        format!("/webhooks/{O3}/{id}."),
        format!("/webhooks/{O3}/any.{mac}"),
        format!("/webhooks/{O3}/{}", &token[..token.len() - 1]),
        format!("/webhooks/{O3}/{token}x"),
        format!("/webhooks/no/such-family/{token}"),
        other_family,
        format!("/webhooks/{O3}/{token}%ff"),
    ];
    let mut seen = Vec::new();
    for path in wrong {
        let problem =
            open.webhook(&format!("{}{path}", open.url), completed("p-1", URL)).await.problem(404, "NOT_FOUND");
        seen.push((problem["title"].clone(), problem["detail"].clone()));
    }
    // The right token from the wrong address.
    let problem = world.webhook(&good_url, completed("p-1", URL)).await.problem(404, "NOT_FOUND");
    seen.push((problem["title"].clone(), problem["detail"].clone()));
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    assert_eq!(open.get("/v1/deliveries").await.expect(200)["data"], json!([]), "nothing is kept");
    assert_eq!(open.generation(&id).await["status"], "prepared");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    let long = vec![b' '; 64 * 1_024 + 1];
    world.webhook(&url, long).await.problem(413, "BODY_TOO_LARGE");
    let mut just_fits = completed("p-1", URL).into_bytes();
    just_fits.resize(64 * 1_024, b' ');
    world.webhook(&url, just_fits).await.expect(200);
    assert_eq!(world.generation(&id).await["status"], "completed");
}

#[tokio::test]
async fn completed_without_a_result_is_checked_until_the_result_is_there() {
    for instead in [None, Some("None"), Some("/a.mp4"), Some("javascript:alert(1)")] {
        becomes_completed_once_there_is_a_link(instead.map(str::to_owned)).await;
    }
}

/// What stands in the link's place, if anything does, is no result.
async fn becomes_completed_once_there_is_a_link(instead: Option<String>) {
    let world = World::new().await;
    let plan = Plan { fate: Fate::CompletedWithoutUrl { reads: 2, instead }, ..Plan::completed() };
    let bought = world.buy(plan.taking(std::time::Duration::ZERO)).await;
    world.after_reads(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["attention"]), (&json!("processing"), &json!("no_result")));
    assert_eq!((&shown["credits"], &shown["result_url"]), (&json!("at_risk"), &Value::Null));
    world.advance_s(15).await;
    assert_eq!(world.generation(&bought.id).await["attention"], "no_result");
    world.advance_s(30).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["attention"]), (&json!("completed"), &Value::Null));
    assert_eq!(world.reads(), 3);
    assert_eq!(world.events(&bought.id).await, ["generation.attention", "generation.completed"]);
}

#[tokio::test]
async fn a_standing_url_is_confirmed_before_it_is_believed() {
    let world = World::new().await;
    let bought = world.buy(Plan::failed("INVALID_IMAGE").lost().taking(std::time::Duration::ZERO)).await;
    world.webhook(&world.standing_url(), failed(&bought.provider_id, "INVALID_IMAGE")).await.expect(200);
    world.after_reads(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!(shown["status"], "failed");
    assert_eq!((&shown["source"], &shown["verification"]), (&json!("webhook"), &json!("token+status")));
    assert_eq!(shown["error"]["code"], "INVALID_IMAGE", "the reason is the webhook's: the status answer carries none");
    assert_eq!(world.events(&bought.id).await, ["generation.failed"]);
}

#[tokio::test]
async fn a_forged_standing_webhook_settles_nothing() {
    let world = World::new().await;
    let bought = world.buy(Plan { fate: Fate::NeverEnds, ..Plan::completed() }).await;
    world.advance_s(30).await;
    world
        .webhook(&world.standing_url(), completed(&bought.provider_id, "https://evil.example/v.mp4"))
        .await
        .expect(200);
    world.after_reads(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["result_url"]), (&json!("processing"), &Value::Null));
    assert_eq!(world.events(&bought.id).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_standing_webhook_about_an_unknown_id_is_taken_on() {
    let world = World::with(|config| config.webhook.confirm = Confirm::Never).await;
    world.webhook(&world.standing_url(), completed("early", URL)).await.expect(200);
    let shown = world.generation("early").await;
    assert_eq!((&shown["status"], &shown["submitted_via"]), (&json!("completed"), &json!("webhook")));
    assert_eq!((&shown["verification"], &shown["submitted_at"]), (&json!("token"), &Value::Null));
    // The caller registers it afterwards: the gaps are filled, the outcome stays.
    let body = json!({"generation_id": "early", "family": O3, "price": "0.1500", "metadata": {"user": "42"}});
    let known = world.post("/v1/generations", &body).await.expect(200);
    assert_eq!((&known["id"], &known["price"]), (&shown["id"], &json!("0.1500")));
    assert_eq!((&known["status"], &known["metadata"]["user"]), (&json!("completed"), &json!("42")));
}

#[tokio::test]
async fn with_confirm_always_even_a_minted_url_is_confirmed() {
    let world = World::with(|config| config.webhook.confirm = Confirm::Always).await;
    let bought = world.buy(Plan::completed().taking(std::time::Duration::ZERO)).await;
    world.after_reads(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["verification"]), (&json!("completed"), &json!("token+status")));
    assert_eq!(shown["source"], "webhook");
}

#[tokio::test]
async fn a_late_reason_fills_the_gap_and_is_told() {
    let world = World::new().await;
    let bought = world.buy(Plan::failed("IMAGE_INACCESSIBLE").lost().taking(std::time::Duration::ZERO)).await;
    world.advance_s(210).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["source"]), (&json!("failed"), &json!("check")));
    assert_eq!((&shown["error"]["code"], &shown["recovered"]), (&Value::Null, &json!(true)));
    let settled_at = shown["settled_at"].clone();
    world.advance_s(5).await;
    world.webhook(&bought.callback_url, failed(&bought.provider_id, "IMAGE_INACCESSIBLE")).await.expect(200);
    world.webhook(&bought.callback_url, failed(&bought.provider_id, "IMAGE_INACCESSIBLE")).await.expect(200);
    let shown = world.generation(&bought.id).await;
    assert_eq!(shown["error"]["code"], "IMAGE_INACCESSIBLE");
    assert_eq!((&shown["source"], &shown["settled_at"]), (&json!("check"), &settled_at));
    assert_eq!(world.events(&bought.id).await, ["generation.failed", "generation.updated"]);
    assert_eq!(dispositions(&world, &bought.id).await, ["accepted", "duplicate"]);
}

#[tokio::test]
async fn an_old_secret_is_accepted_while_the_new_one_signs() {
    let mut world = World::new().await;
    let (id, url) = world.prepare().await;
    world.config.webhook.secrets.insert(0, recoup::secret::Secret::new("a newer secret for callback URLs"));
    let path = url.strip_prefix(&world.url).unwrap().to_owned();
    world.restart().await;
    let (_, new_url) = world.prepare().await;
    world.webhook(&format!("{}{path}", world.url), completed("p-1", URL)).await.expect(200);
    assert_eq!(world.generation(&id).await["status"], "completed");
    world.webhook(&new_url, completed("p-2", URL)).await.expect(200);
}

#[tokio::test]
async fn a_replay_runs_a_kept_body_again() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", URL)).await.expect(200);
    let first = world.timeline(&id, "delivery").await[0]["id"].as_str().unwrap().to_owned();
    let again = world.post(&format!("/v1/deliveries/{first}/replays"), &json!({})).await.expect(200);
    assert_eq!((&again["disposition"], &again["replay_of"]), (&json!("duplicate"), &json!(first)));
    assert_eq!(world.events(&id).await, ["generation.completed"]);
    let unknown = "dlv_00000000000000000000000000000000";
    world.post(&format!("/v1/deliveries/{unknown}/replays"), &json!({})).await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn every_family_is_understood_in_its_own_shape() {
    use recoup::domain::family::FAMILIES;
    for family in FAMILIES {
        for plan in [Plan::completed(), Plan::failed("TASK_FAILED")] {
            let world = World::new().await;
            let body = json!({"family": family.path});
            let prepared = world.post("/v1/generations", &body).await.expect(201);
            world.sandbox.plan_next(plan.clone().taking(std::time::Duration::ZERO));
            let purchase = json!({"prompt": "a paper boat", "callback_url": prepared["callback_url"]});
            let url = format!("{}/v1/{}/generate", world.provider_url, family.path);
            let bought = world.http.post(url).bearer_auth("the provider's key").json(&purchase).send().await.unwrap();
            let bought = World::read(bought).await.expect(201);
            world.sandbox.until(|ledger| ledger.iter().any(|bought| !bought.attempts.is_empty())).await;
            let shown = world.generation(prepared["id"].as_str().unwrap()).await;
            assert_eq!(shown["generation_id"], bought[family.id_field], "{}", family.path);
            if plan.fate == Fate::Completed {
                assert_eq!(shown["result_url"], world.sandbox.ledger()[0].result_url(), "{}", family.path);
            } else {
                assert_eq!(shown["error"]["code"], "TASK_FAILED", "{}", family.path);
            }
        }
    }
}

/// A proxy sends all it has before it reads: what is answered meanwhile must not be lost in a reset.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_who_sends_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new().await;
    let (_, url) = world.prepare().await;
    let address = world.url.trim_start_matches("http://");
    let paths = [(url.split(address).nth(1).unwrap(), "413"), ("/webhooks/kling/o3-video/any.wrong", "404")];
    for (path, status) in paths.into_iter().chain([("/gateway/v1/kling/o3-video/generate", "401")]) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let body = vec![b'x'; 4 << 20];
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}
