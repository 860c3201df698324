//! `Idempotency-Key`: the same key and body is one request, whatever happens in between.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use url::Url;

use crate::raw::{RawProvider, Then, sold};
use crate::support::{Answer, KEY, O3, World};

async fn send(world: &World, path: &str, key: &str, body: &str) -> Answer {
    let request = world.http.post(format!("{}{path}", world.url)).bearer_auth(KEY).header("idempotency-key", key);
    World::read(request.body(body.to_owned()).send().await.unwrap()).await
}

fn replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

const BUY: &str = "/gateway/v1/kling/o3-video/generate";
const BODY: &str = r#"{"prompt":"x"}"#;

#[tokio::test]
async fn a_thousand_equal_requests_at_once_buy_one_video() {
    let go = Arc::new(Notify::new());
    let provider = RawProvider::start(Then::Wait(Arc::clone(&go), sold("p-1"))).await;
    let url = Url::parse(&provider.url).unwrap();
    let world = World::with(move |config| config.provider.base_url = url).await;
    let answers = async {
        let all = futures_util::future::join_all((0..1_000).map(|_| send(&world, BUY, "once", BODY)));
        tokio::join!(all, async {
            provider.first().await;
            // Whoever comes while it is under way is told so.
            let meanwhile = send(&world, BUY, "once", BODY).await;
            assert!(meanwhile.headers.contains_key("recoup-generation"));
            meanwhile.problem(409, "IDEMPOTENCY_KEY_IN_USE");
            go.notify_waiters();
        })
        .0
    }
    .await;
    let (mut sold, mut under_way) = (0, 0);
    for answer in answers {
        match answer.status {
            201 => {
                sold += 1;
                assert_eq!(answer.body["generation_id"], "p-1");
            }
            409 => under_way += 1,
            status => panic!("{status}: {}", answer.body),
        }
    }
    assert!(sold >= 1 && sold + under_way == 1_000, "{sold} {under_way}");
    assert_eq!(provider.purchases().len(), 1, "bought once");
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_purchase_is_replayed_for_a_day_and_across_restarts() {
    let mut world = World::new().await;
    let first = send(&world, BUY, "k", BODY).await;
    assert!(first.status == 201 && !replayed(&first));
    for _ in 0..2 {
        let again = send(&world, BUY, "k", BODY).await;
        assert!(replayed(&again));
        assert_eq!((again.status, &again.body), (201, &first.body));
        for header in ["recoup-generation", "content-type"] {
            assert_eq!(again.headers[header], first.headers[header]);
        }
        world.restart().await;
    }
    let other = send(&world, BUY, "k", r#"{"prompt":"y"}"#).await;
    assert_eq!(other.headers["recoup-generation"], first.headers["recoup-generation"]);
    other.problem(422, "IDEMPOTENCY_KEY_REUSED");
    // A key belongs to its route.
    assert_eq!(send(&world, "/gateway/v1/kling/generate", "k", BODY).await.status, 201);
    assert_eq!(world.sandbox.ledger().len(), 2);
    world.advance(Duration::from_hours(23)).await;
    assert!(replayed(&send(&world, BUY, "k", BODY).await));
    world.advance(Duration::from_hours(1)).await;
    assert!(!replayed(&send(&world, BUY, "k", BODY).await));
    assert_eq!(world.sandbox.ledger().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_replayed_with_its_code() {
    let world = World::new().await;
    for again in [false, true] {
        let answer = send(&world, BUY, "k", r#"{"prompt":"x","duration":"6"}"#).await;
        assert_eq!((answer.status, replayed(&answer)), (422, again));
        assert_eq!(answer.headers["recoup-error-code"], "INVALID_DURATION");
    }
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn telling_of_a_generation_happens_once_for_a_key() {
    let mut world = World::new().await;
    let prepare = format!(r#"{{"family":"{O3}","prompt":"a kite"}}"#);
    let all = (0..50).map(|_| send(&world, "/v1/generations", "p", &prepare));
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    let first: &Value = &answers[0].body;
    assert!(first["callback_url"].is_string());
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (201, first));
        assert_eq!(answer.headers["location"], answers[0].headers["location"]);
    }
    world.restart().await;
    // The recorded answer, though more has become known since.
    let id = first["id"].as_str().unwrap().to_owned();
    world.patch(&format!("/v1/generations/{id}"), &json!({"generation_id": "p-1"})).await.expect(200);
    let again = send(&world, "/v1/generations", "p", &prepare).await;
    assert!(replayed(&again));
    assert_eq!(&again.body, first);
    send(&world, "/v1/generations", "p", "{}").await.problem(422, "IDEMPOTENCY_KEY_REUSED");
    // What was refused has used up no key.
    send(&world, "/v1/generations", "q", r#"{"family":"nobody"}"#).await.problem(422, "INVALID_BODY");
    assert_eq!(send(&world, "/v1/generations", "q", "{}").await.status, 201);
    let registered = send(&world, "/v1/generations", "r", r#"{"generation_id":"p-1"}"#).await;
    assert_eq!((registered.status, registered.body["id"].as_str()), (200, Some(id.as_str())));
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"].as_array().unwrap().len(), 2);
}
