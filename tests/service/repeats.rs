//! A purchase that repeats an earlier one is never sent: it waits for what becomes of the first, and is answered that.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use recoup::sandbox::{Fault, Plan};
use serde_json::json;
use tokio::sync::Notify;
use url::Url;

use crate::raw::{RawProvider, Then, http, sold};
use crate::support::{Answer, KEY, World, completed, text};

const BUY: &str = "/gateway/v1/kling/o3-video/generate";
const BODY: &str = r#"{"prompt":"a paper boat"}"#;

async fn send(world: &World, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = world.http.post(format!("{}{BUY}", world.url)).bearer_auth(KEY);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    World::read(request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap()).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

/// Moves time until it is answered, a little with each round trip: the request has arrived long before ten minutes are over.
async fn while_time_passes<T>(world: &World, answered: impl Future<Output = T>) -> T {
    let mut answered = std::pin::pin!(answered);
    loop {
        tokio::select! {
            answer = &mut answered => return answer,
            () = async {
                world.get("/livez").await.expect(200);
                world.advance_s(5).await;
            } => {}
        }
    }
}

async fn with_provider(then: Then) -> (World, RawProvider) {
    let provider = RawProvider::start(then).await;
    let url = Url::parse(&provider.url).unwrap();
    let world = World::with(move |config| {
        config.provider.base_url = url;
        config.provider.request_timeout.0 = Duration::from_secs(5);
    })
    .await;
    (world, provider)
}

#[tokio::test]
async fn all_attempts_of_one_call_are_one_purchase_for_a_day_whatever_became_of_it() {
    let mut world = World::new().await;
    let call = [("x-request-id", "7f00a1b2c3d4e5f6")];
    let first = send(&world, &call, BODY).await;
    assert_eq!((first.status, header(&first, "recoup-repeat-of")), (201, None));
    let generation = header(&first, "recoup-generation").unwrap().to_owned();
    for _ in 0..2 {
        let again = send(&world, &call, BODY).await;
        assert_eq!((again.status, &again.body), (201, &first.body));
        for name in ["recoup-generation", "recoup-repeat-of"] {
            assert_eq!(header(&again, name), Some(generation.as_str()), "{name}");
        }
        assert_eq!(header(&again, "idempotency-replayed"), None, "no key was sent");
        // What was told right before a restart may not have arrived.
        world.advance(Duration::from_secs(11)).await;
        world.restart().await;
    }
    assert_eq!(world.sandbox.ledger().len(), 1);
    // A proxy or a lazy client may send one id for all.
    let other = send(&world, &call, r#"{"prompt":"a kite"}"#).await;
    assert_eq!((other.status, header(&other, "recoup-repeat-of")), (201, None));
    assert_eq!(send(&world, &[("x-request-id", "another")], BODY).await.status, 201);
    assert_eq!(world.sandbox.ledger().len(), 3);
    world.advance(Duration::from_hours(23)).await;
    assert_eq!(header(&send(&world, &call, BODY).await, "recoup-repeat-of"), Some(generation.as_str()));
    world.advance(Duration::from_hours(1)).await;
    assert_eq!(header(&send(&world, &call, BODY).await, "recoup-repeat-of"), None);
    assert_eq!(world.sandbox.ledger().len(), 4);
}

#[tokio::test]
async fn a_refusal_of_the_request_itself_is_repeated_and_one_of_the_account_is_not() {
    let world = World::new().await;
    let call = [("x-request-id", "one-call")];
    world.sandbox.fault_next_submit(Fault::DetailText);
    assert_eq!(send(&world, &call, BODY).await.status, 422);
    let again = send(&world, &call, BODY).await;
    assert!(again.status == 422 && header(&again, "recoup-repeat-of").is_some());
    assert_eq!(header(&again, "recoup-error-code"), Some("INVALID_PARAMETERS"));
    for fault in [
        Fault::Unauthorized { shape: 1 },
        Fault::NoCredits { form: 1 },
        Fault::Answer { status: 403, body: json!({"detail": "no"}) },
        Fault::RateLimited { retry_after: Some(3) },
    ] {
        for headers in [[("x-request-id", "another-call")], [("idempotency-key", "order-77")]] {
            let body = json!({"prompt": format!("{fault:?} {headers:?}")}).to_string();
            world.sandbox.fault_next_submit(fault.clone());
            let refused = send(&world, &headers, &body).await;
            assert!(matches!(refused.status, 401..=429), "{fault:?}: {}", refused.status);
            let kept = world.generation(header(&refused, "recoup-generation").unwrap()).await;
            assert_eq!(kept["status"], "rejected", "what was answered is on record");
            let again = send(&world, &headers, &body).await;
            assert_eq!((again.status, header(&again, "idempotency-replayed")), (201, None), "{fault:?} {headers:?}");
            // From now on it is that purchase.
            let third = send(&world, &headers, &body).await;
            assert_eq!((third.status, &third.body), (201, &again.body));
            // A key is good for one purchase: the next round needs it free.
            let _ = third;
            world.advance(Duration::from_hours(24)).await;
        }
    }
    assert_eq!(world.sandbox.ledger().len(), 8);
}

#[tokio::test]
async fn a_key_spent_on_no_connection_is_free_again() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world =
        World::with(move |config| config.provider.base_url = Url::parse(&format!("http://{closed}")).unwrap()).await;
    let mut generations = Vec::new();
    for headers in [[("idempotency-key", "k")], [("x-request-id", "one-call")]] {
        for _ in 0..2 {
            let answer = send(&world, &headers, BODY).await;
            assert_eq!((header(&answer, "idempotency-replayed"), header(&answer, "recoup-repeat-of")), (None, None));
            generations.push(header(&answer, "recoup-generation").unwrap().to_owned());
            answer.problem(502, "PROVIDER_UNREACHABLE");
        }
    }
    generations.sort();
    generations.dedup();
    assert_eq!(generations.len(), 4, "each was tried");
}

#[tokio::test]
async fn a_repeat_of_a_lost_answer_waits_and_is_answered_with_the_purchase_that_was_made() {
    let world = World::new().await;
    for (n, headers) in [
        vec![],
        // Proxies make ids of their own.
        vec![("x-request-id", "made-by-a-proxy")],
        vec![("idempotency-key", "k")],
        vec![("x-idempotency-key", "k2")],
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"prompt": format!("boat {n}")}).to_string();
        world.sandbox.fault_next_submit(Fault::Cut);
        world.sandbox.plan_next(Plan::completed().taking(Duration::from_secs(80)));
        let lost = send(&world, &headers, &body).await;
        let first = header(&lost, "recoup-generation").unwrap().to_owned();
        assert_eq!(header(&lost, "retry-after"), Some("1"), "the repeat waits here");
        lost.problem(504, "SUBMIT_UNCONFIRMED");
        let other = [("x-request-id", "made-anew")];
        let again = if n < 2 { &other[..] } else { &headers[..] };
        let answer = while_time_passes(&world, send(&world, again, &body)).await;
        let bought = world.sandbox.ledger().pop().unwrap();
        assert_eq!((answer.status, text(&answer.body["generation_id"])), (201, bought.id.clone()), "{}", answer.body);
        assert_eq!((text(&answer.body["status"]), text(&answer.body["price"])), ("pending".into(), "unknown".into()));
        assert_eq!(header(&answer, "recoup-repeat-of"), Some(first.as_str()));
        assert_eq!(header(&answer, "recoup-generation"), Some(first.as_str()));
        assert_eq!(world.generation(&first).await["status"], "completed");
        assert_eq!(world.sandbox.ledger().len(), n + 1, "bought once");
    }
    // Whoever was told has what was bought: the same again is wanted.
    let next = send(&world, &[], r#"{"prompt":"boat 0"}"#).await;
    assert_eq!((next.status, header(&next, "recoup-repeat-of")), (201, None));
    assert_eq!(world.sandbox.ledger().len(), 5);
}

#[tokio::test]
async fn a_repeat_that_waits_in_vain_is_told_so_and_bought_is_nothing() {
    let (world, provider) = with_provider(Then::Close).await;
    let lost = send(&world, &[], BODY).await;
    let first = header(&lost, "recoup-generation").unwrap().to_owned();
    lost.problem(504, "SUBMIT_UNCONFIRMED");
    let again = while_time_passes(&world, send(&world, &[], BODY)).await;
    assert_eq!(header(&again, "recoup-repeat-of"), Some(first.as_str()));
    assert_eq!(header(&again, "retry-after"), Some("30"));
    let problem = again.problem(504, "SUBMIT_UNCONFIRMED");
    assert!(text(&problem["detail"]).contains("Idempotency-Key"), "{problem}");
    // Who has no time says so.
    let hurried = send(&world, &[("prefer", "respond-async, wait=0")], BODY).await;
    assert_eq!(header(&hurried, "recoup-repeat-of"), Some(first.as_str()));
    hurried.problem(504, "SUBMIT_UNCONFIRMED");
    assert_eq!(provider.purchases().len(), 1, "sent once");
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn who_really_wants_another_gets_it() {
    let (world, provider) = with_provider(Then::Close).await;
    send(&world, &[], BODY).await.problem(504, "SUBMIT_UNCONFIRMED");
    for (n, headers) in [[("idempotency-key", "a")], [("x-idempotency-key", "b")]].into_iter().enumerate() {
        let answer = send(&world, &headers, BODY).await;
        assert_eq!(header(&answer, "recoup-repeat-of"), None);
        answer.problem(504, "SUBMIT_UNCONFIRMED");
        assert_eq!(provider.purchases().len(), n + 2);
    }
    // Another body, another route, another prompt: not the same.
    send(&world, &[], r#"{"prompt":"a paper boat","duration":"10"}"#).await.problem(504, "SUBMIT_UNCONFIRMED");
    let elsewhere = world.post("/gateway/v1/kling/generate", &json!({"prompt": "a paper boat"})).await;
    elsewhere.problem(504, "SUBMIT_UNCONFIRMED");
    assert_eq!(provider.purchases().len(), 5);
    // Ten minutes later it is wanted again.
    world.advance(Duration::from_mins(10)).await;
    send(&world, &[], BODY).await.problem(504, "SUBMIT_UNCONFIRMED");
    assert_eq!(provider.purchases().len(), 6);
    // A person saw the credits come back: there is nothing to wait for.
    let newest = world.get("/v1/generations?limit=1").await.expect(200);
    let last = text(&newest["data"][0]["id"]);
    world.post(&format!("/v1/generations/{last}/refunds"), &json!({})).await.expect(200);
    send(&world, &[], BODY).await.problem(504, "SUBMIT_UNCONFIRMED");
    assert_eq!(provider.purchases().len(), 7);
}

#[tokio::test]
async fn four_equal_purchases_side_by_side_are_four() {
    let go = Arc::new(Notify::new());
    let (world, provider) = with_provider(Then::Wait(Arc::clone(&go), sold("p-1"))).await;
    let all = futures_util::future::join_all((0..4).map(|_| send(&world, &[], BODY)));
    let arrived = async {
        while provider.purchases().len() < 4 {
            tokio::task::yield_now().await;
        }
        go.notify_waiters();
    };
    let (answers, ()) = tokio::join!(all, arrived);
    assert_eq!(answers.len(), 4);
    assert_eq!(provider.purchases().len(), 4);
}

#[tokio::test]
async fn whoever_waits_is_answered_as_soon_as_a_webhook_tells_whatever_the_provider_still_does() {
    let go = Arc::new(Notify::new());
    let (world, provider) = with_provider(Then::Wait(Arc::clone(&go), http("500 X", "", "{}"))).await;
    let call = [("x-request-id", "one-call")];
    let told = async {
        let callback_url = provider.first().await.callback_url();
        // Another attempt of the same call waits beside it.
        let (again, ()) = tokio::join!(send(&world, &call, BODY), async {
            world.webhook(&callback_url, completed("p-7", "https://x/v.mp4")).await.expect(200);
        });
        again
    };
    let (is_told, mut first) = (std::cell::Cell::new(false), std::pin::pin!(send(&world, &call, BODY)));
    let first = async {
        loop {
            tokio::select! {
                first = &mut first => return first,
                // Its own answer is waited for a moment.
                () = async {
                    world.get("/livez").await.expect(200);
                    world.advance_s(u64::from(is_told.get())).await;
                } => {}
            }
        }
    };
    let told = async {
        let again = told.await;
        is_told.set(true);
        again
    };
    let (first, again) = tokio::join!(first, told);
    for answer in [&first, &again] {
        assert_eq!((answer.status, &answer.body["generation_id"]), (201, &json!("p-7")), "{}", answer.body);
    }
    assert_eq!(header(&first, "recoup-repeat-of"), None);
    assert_eq!(header(&again, "recoup-repeat-of"), header(&first, "recoup-generation"));
    go.notify_waiters();
    let shown = world.generation("p-7").await;
    assert_eq!((&shown["status"], &shown["attention"]), (&json!("completed"), &json!(null)));
    assert_eq!(provider.purchases().len(), 1);
}

/// Buys, and leaves while the provider thinks; gives our id once that is on record.
async fn send_and_leave(world: &World, provider: &RawProvider) -> String {
    {
        let leaving = send(world, &[], BODY);
        tokio::select! {
            answer = leaving => panic!("{}", answer.status),
            _ = provider.first() => {}
        }
    }
    let id = text(&world.get("/v1/generations").await.expect(200)["data"][0]["id"]);
    while !caller_has_left(world, &id).await {
        tokio::task::yield_now().await;
    }
    id
}

#[tokio::test]
async fn what_a_caller_that_left_sends_again_is_a_repeat() {
    let go = Arc::new(Notify::new());
    let (world, provider) = with_provider(Then::Wait(Arc::clone(&go), sold("p-1"))).await;
    let id = send_and_leave(&world, &provider).await;
    let (again, ()) = tokio::join!(send(&world, &[], BODY), async {
        while world.get("/metrics").await.body.to_string().matches("recoup_purchase_repeats_total").count() == 0 {
            tokio::task::yield_now().await;
        }
        go.notify_waiters();
    });
    assert_eq!((again.status, header(&again, "recoup-repeat-of")), (201, Some(id.as_str())));
    assert_eq!(again.body, json!({"generation_id": "p-1", "status": "pending", "price": "0.1500"}));
    assert_eq!(provider.purchases().len(), 1);
}

#[tokio::test]
async fn what_a_caller_that_left_sends_again_is_a_repeat_after_the_answer_came_too() {
    let go = Arc::new(Notify::new());
    let (world, provider) = with_provider(Then::Wait(Arc::clone(&go), sold("p-1"))).await;
    let id = send_and_leave(&world, &provider).await;
    go.notify_waiters();
    while world.generation(&id).await["status"] != "pending" {
        tokio::task::yield_now().await;
    }
    let again = send(&world, &[], BODY).await;
    assert_eq!((again.status, header(&again, "recoup-repeat-of")), (201, Some(id.as_str())));
    assert_eq!((&again.body["generation_id"], provider.purchases().len()), (&json!("p-1"), 1));
    // Now that somebody was told, the same again is wanted.
    let (next, ()) = tokio::join!(send(&world, &[], BODY), async {
        while provider.purchases().len() < 2 {
            tokio::task::yield_now().await;
        }
        go.notify_waiters();
    });
    assert_eq!(header(&next, "recoup-repeat-of"), None);
}

#[tokio::test]
async fn repeats_that_wait_keep_no_room_from_purchases() {
    let world = World::new().await;
    world.sandbox.fault_next_submit(Fault::Cut);
    world.sandbox.plan_next(Plan::completed().lost());
    send(&world, &[], BODY).await.problem(504, "SUBMIT_UNCONFIRMED");
    // Of a body that does not tell its length the longest is expected.
    let chunked = |body: &'static str| {
        let pieces = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
        let request = world.http.post(format!("{}{BUY}", world.url)).bearer_auth(KEY);
        request.header("content-type", "application/json").body(reqwest::Body::wrap_stream(pieces)).send()
    };
    let repeats = futures_util::future::join_all((0..7).map(|_| chunked(BODY)));
    let other = async {
        loop {
            let metrics = world.get("/metrics").await.body.to_string();
            let lines = metrics.split("\\n").filter(|line| line.starts_with("recoup_purchase_repeats_total{"));
            if lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() >= 7.0 {
                break;
            }
        }
        chunked(r#"{"prompt":"a kite"}"#).await.unwrap().status().as_u16()
    };
    tokio::select! {
        _ = repeats => panic!("they wait"),
        status = other => assert_eq!(status, 201),
    }
}

/// Whether it is on record that the caller of a purchase has left.
async fn caller_has_left(world: &World, id: &str) -> bool {
    use sqlx::Connection;
    let mut database = sqlx::SqliteConnection::connect(&world.config.database.url).await.unwrap();
    let sql = "SELECT left_at IS NOT NULL FROM purchase_requests r JOIN generations g ON g.id = r.generation
               WHERE 'gen_' || lower(hex(g.uid)) = ?1";
    sqlx::query_scalar::<_, bool>(sql).bind(id).fetch_one(&mut database).await.unwrap()
}

#[tokio::test]
async fn a_repeat_after_a_restart_waits_for_the_purchase_that_the_process_before_had_sent() {
    let go = Arc::new(Notify::new());
    let (mut world, provider) = with_provider(Then::Wait(Arc::clone(&go), Vec::new())).await;
    let call = [("x-request-id", "one-call")];
    {
        let cut = send(&world, &call, BODY);
        tokio::select! {
            answer = cut => panic!("{}", answer.status),
            _ = provider.first() => {}
        }
    }
    tokio::join!(world.stop(), async { go.notify_waiters() });
    world.resume().await;
    let callback_url = provider.first().await.callback_url();
    let path = callback_url.split_once("/webhooks/").unwrap().1;
    let url = format!("{}/webhooks/{path}", world.url);
    let (again, ()) = tokio::join!(send(&world, &call, BODY), async {
        world.webhook(&url, completed("p-7", "https://x/v.mp4")).await.expect(200);
    });
    assert_eq!((again.status, &again.body["generation_id"]), (201, &json!("p-7")));
    assert_eq!(provider.purchases().len(), 1);
}

#[tokio::test]
async fn what_is_sent_again_right_after_a_restart_repeats_what_was_sold_right_before_it() {
    let mut world = World::new().await;
    let first = send(&world, &[], BODY).await;
    world.restart().await;
    // The answer may have died with the process.
    let again = send(&world, &[], BODY).await;
    assert_eq!((again.status, header(&again, "recoup-repeat-of")), (201, header(&first, "recoup-generation")));
    assert_eq!(header(&send(&world, &[], BODY).await, "recoup-repeat-of"), None, "told now");
    assert_eq!(world.sandbox.ledger().len(), 2);
    world.advance(Duration::from_secs(11)).await;
    world.restart().await;
    assert_eq!(header(&send(&world, &[], BODY).await, "recoup-repeat-of"), None, "told long before");
}

#[tokio::test]
async fn what_is_sent_again_right_after_a_restart_repeats_a_lost_purchase_that_was_told_right_before_it() {
    let mut world = World::new().await;
    world.sandbox.fault_next_submit(Fault::Cut);
    world.sandbox.plan_next(Plan::completed().taking(Duration::from_secs(80)));
    send(&world, &[], BODY).await.problem(504, "SUBMIT_UNCONFIRMED");
    let told = while_time_passes(&world, send(&world, &[], BODY)).await;
    assert_eq!(told.status, 201);
    world.restart().await;
    // What told it may have died with the process too.
    let again = send(&world, &[], BODY).await;
    assert_eq!((again.status, header(&again, "recoup-repeat-of")), (201, header(&told, "recoup-repeat-of")));
    assert_eq!(world.sandbox.ledger().len(), 1);
    assert_eq!(header(&send(&world, &[], BODY).await, "recoup-repeat-of"), None, "told now");
}

#[tokio::test]
async fn our_own_id_goes_along_as_the_idempotency_key() {
    let (world, provider) = with_provider(Then::Answer(sold("p-1"))).await;
    let answer = send(&world, &[("idempotency-key", "the caller's")], BODY).await;
    let seen = provider.purchases().remove(0);
    assert_eq!(seen.header("x-idempotency-key"), header(&answer, "recoup-generation"));
    assert_eq!(seen.header("idempotency-key"), None);
    // Both names of the key may stand, with the same value.
    let both = [("idempotency-key", "k"), ("x-idempotency-key", "other")];
    send(&world, &both, BODY).await.problem(400, "INVALID_HEADER");
    let both = [("idempotency-key", "the caller's"), ("x-idempotency-key", "the caller's")];
    assert_eq!(header(&send(&world, &both, BODY).await, "idempotency-replayed"), Some("true"));
    assert_eq!(provider.purchases().len(), 1);
}
