//! Contract section 9, line by line, with time moved.

use std::time::Duration;

use recoup::sandbox::{Fate, Fault, Plan, Settings};
use serde_json::{Value, json};

use crate::raw::{RawProvider, Then, http};
use crate::support::{World, completed, text};

fn never() -> Plan {
    Plan { fate: Fate::NeverEnds, ..Plan::completed() }
}

fn lost_after(seconds: u64) -> Plan {
    Plan::completed().lost().taking(Duration::from_secs(seconds))
}

#[tokio::test]
async fn a_webhook_in_time_causes_no_check_at_all() {
    let world = World::new().await;
    let bought = world.buy(Plan::completed().taking(Duration::from_secs(150))).await;
    assert_eq!(world.generation(&bought.id).await["next_check_at"], "2026-11-23T10:03:30Z", "expected_by + grace");
    world.advance_s(150).await;
    world.sandbox.until(|ledger| !ledger[0].attempts.is_empty()).await;
    assert_eq!(world.generation(&bought.id).await["status"], "completed");
    world.advance(Duration::from_hours(30)).await;
    assert_eq!(world.reads(), 0);
}

#[tokio::test]
async fn a_lost_webhook_is_recovered_with_one_check() {
    let world = World::new().await;
    let bought = world.buy(lost_after(150)).await;
    world.advance_s(209).await;
    assert_eq!(world.reads(), 0, "not before expected_by + grace");
    world.advance_s(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!(
        (&shown["status"], &shown["source"], &shown["verification"]),
        (&json!("completed"), &json!("check"), &json!("status"))
    );
    assert_eq!((&shown["recovered"], &shown["checks"]), (&json!(true), &json!(1)));
    assert_eq!(world.reads(), 1);
}

#[tokio::test]
async fn one_that_takes_a_little_longer_is_recovered_with_two() {
    let world = World::new().await;
    let bought = world.buy(lost_after(215)).await;
    world.advance_s(210).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["next_check_at"]), (&json!("processing"), &json!("2026-11-23T10:03:45Z")));
    world.advance_s(15).await;
    assert_eq!(world.generation(&bought.id).await["status"], "completed");
    assert_eq!(world.reads(), 2);
}

#[tokio::test]
async fn rechecks_stuck_and_lost_follow_the_schedule() {
    let world = World::new().await;
    let bought = world.buy(never()).await;
    // After "still running": 15 s, 30 s, then every 60 s.
    for (advance, next) in [(210, "10:03:45Z"), (15, "10:04:15Z"), (30, "10:05:15Z"), (60, "10:06:15Z")] {
        world.advance_s(advance).await;
        let shown = world.generation(&bought.id).await;
        assert_eq!(shown["next_check_at"], format!("2026-11-23T{next}"));
    }
    // 10:05:15. Overdue at expected_by (10:03) + retry window (2m30s).
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["attention"], &shown["credits"]), (&Value::Null, &json!("charged")));
    world.advance_s(15).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["attention"], &shown["credits"]), (&json!("overdue"), &json!("at_risk")));
    // Stuck at the hard limit (10:15) + retry window, then every 5 minutes for an hour.
    while world.generation(&bought.id).await["attention"] != "stuck" {
        world.advance_s(15).await;
    }
    assert!(world.clock_text().as_str() >= "2026-11-23T10:17:30Z", "{}", world.clock_text());
    let reads = world.reads();
    world.advance(Duration::from_mins(5)).await;
    world.advance(Duration::from_mins(5)).await;
    assert_eq!(world.reads(), reads + 2);
    world.advance(Duration::from_hours(1)).await;
    let reads = world.reads();
    world.advance(Duration::from_mins(50)).await;
    assert_eq!(world.reads(), reads, "then once an hour");
    world.advance(Duration::from_mins(10)).await;
    assert_eq!(world.reads(), reads + 1);
    // Given up after a day, and only then.
    for _ in 0..22 {
        world.advance(Duration::from_hours(1)).await;
    }
    let shown = world.generation(&bought.id).await;
    assert_eq!(
        (&shown["status"], &shown["attention"], &shown["credits"]),
        (&json!("lost"), &json!("lost"), &json!("at_risk"))
    );
    assert_eq!(shown["next_check_at"], Value::Null);
    assert!(!shown["settled_at"].is_null());
    assert_eq!(world.events(&bought.id).await, ["generation.attention"; 3], "overdue, stuck, lost");
    let reads = world.reads();
    world.advance(Duration::from_hours(48)).await;
    assert_eq!(world.reads(), reads);
    // A late webhook still settles it.
    world.webhook(&bought.callback_url, completed(&bought.provider_id, "https://x/late.mp4")).await.expect(200);
    let shown = world.generation(&bought.id).await;
    assert_eq!(
        (&shown["status"], &shown["attention"], &shown["credits"]),
        (&json!("completed"), &Value::Null, &json!("delivered"))
    );
    assert_eq!(world.events(&bought.id).await.last().unwrap(), "generation.completed");
}

impl World {
    fn clock_text(&self) -> String {
        use recoup::clock::Clock;
        self.clock.now().to_string()
    }
}

#[tokio::test]
async fn a_late_check_settles_a_lost_one_too() {
    let world = World::new().await;
    let bought = world.buy(lost_after(60 * 60 * 25)).await;
    for _ in 0..26 {
        world.advance(Duration::from_hours(1)).await;
    }
    assert_eq!(world.generation(&bought.id).await["status"], "lost");
    let answer = world.post(&format!("/v1/generations/{}/checks", bought.id), &json!({})).await.expect(200);
    assert_eq!(answer["generation"]["status"], "completed");
}

#[tokio::test]
async fn time_alone_never_decides() {
    // Without any answer the generation is worth a look, and never failed.
    let world = World::new().await;
    world.sandbox.fault_every_status(Some(Fault::ServerError));
    let bought = world.buy(never()).await;
    for _ in 0..30 {
        world.advance(Duration::from_hours(1)).await;
        assert_ne!(world.generation(&bought.id).await["status"], "failed");
    }
    assert_eq!(world.generation(&bought.id).await["status"], "lost");
}

#[tokio::test]
async fn not_found_is_believed_after_three_reads_apart_and_is_never_failed() {
    let world = World::new().await;
    let bought = world.buy(Plan { fate: Fate::Forgotten, ..Plan::completed().lost() }).await;
    world.advance_s(210).await;
    assert_eq!(world.generation(&bought.id).await["next_check_at"], "2026-11-23T10:04:30Z");
    // A person's own check in between is not one of the three.
    world.advance_s(10).await;
    world.post(&format!("/v1/generations/{}/checks", bought.id), &json!({})).await.expect(200);
    world.advance_s(60).await;
    assert_ne!(world.generation(&bought.id).await["attention"], "not_found");
    world.advance_s(60).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["attention"], &shown["status"]), (&json!("not_found"), &json!("pending")));
    assert_eq!(shown["credits"], "at_risk");
    assert!(!shown["next_check_at"].is_null(), "it is still looked at");
    world.webhook(&bought.callback_url, completed(&bought.provider_id, "https://x/v.mp4")).await.expect(200);
    assert_eq!(world.generation(&bought.id).await["attention"], Value::Null);
}

#[tokio::test]
async fn the_budget_holds_in_every_sliding_minute_and_across_restarts() {
    let mut world = World::with_provider(Settings { status_reads_per_minute: None, ..Settings::default() }, |config| {
        config.provider.status_checks_per_minute = 5;
    })
    .await;
    // Fewer than make it worth a read to see whether there is a list.
    for _ in 0..19 {
        world.buy(never()).await;
    }
    world.advance_s(210).await;
    assert_eq!(world.reads(), 5);
    world.restart().await;
    assert_eq!(world.reads(), 5, "a restart forgets no read");
    for step in 0..200 {
        world.advance_s(7).await;
        if step % 50 == 49 {
            world.restart().await;
        }
    }
    let mut reads: Vec<_> = world.sandbox.ledger().iter().flat_map(|bought| bought.reads.clone()).collect();
    reads.sort();
    assert!(reads.len() >= 30, "{} reads", reads.len());
    for (n, start) in reads.iter().enumerate() {
        let within = reads[n..].iter().take_while(|read| **read < *start + Duration::from_mins(1)).count();
        assert!(within <= 5, "{within} reads within a minute");
    }
    assert!(world.sandbox.ledger().iter().all(|bought| !bought.reads.is_empty()), "nothing starves");
}

#[tokio::test]
async fn a_429_stops_all_checks_and_the_missed_ones_go_on_later() {
    for (retry_after, wait) in [(Some(90), 90), (None, 30)] {
        let world = World::new().await;
        let bought = [world.buy(lost_after(150)).await, world.buy(lost_after(150)).await];
        world.sandbox.fault_next_status(Fault::RateLimited { retry_after });
        world.sandbox.fault_next_status(Fault::RateLimited { retry_after });
        world.advance_s(210).await;
        let reads = world.reads();
        assert!(reads <= 2);
        world.advance_s(wait - 1).await;
        assert_eq!(world.reads(), reads, "rest for {wait} s");
        for _ in 0..2 {
            world.advance_s(wait).await;
        }
        for bought in bought {
            assert_eq!(world.generation(&bought.id).await["status"], "completed");
        }
    }
}

#[tokio::test]
async fn a_refused_key_stops_checking_and_is_said_where_people_look() {
    for shape in 1..=3 {
        let world = World::new().await;
        world.sandbox.fault_every_status(Some(Fault::Unauthorized { shape }));
        let bought = world.buy(lost_after(150)).await;
        world.advance_s(210).await;
        assert_eq!(world.reads(), 1);
        for _ in 0..4 {
            world.advance_s(60).await;
        }
        assert_eq!(world.reads(), 1, "no knocking");
        let ready = world.get("/readyz").await.expect(200);
        let key = ready["parts"].as_array().unwrap().iter().find(|part| part["name"] == "provider_key").unwrap();
        assert_eq!(key["status"], "warning");
        // Webhooks are taken all the same.
        let other = world.prepare().await;
        world.webhook(&other.1, completed("p-1", "https://x/v")).await.expect(200);
        world.sandbox.fault_every_status(None);
        world.advance_s(120).await;
        assert_eq!(
            world.generation(&bought.id).await["status"],
            "completed",
            "and it goes on when the key works again"
        );
        let ready = world.get("/readyz").await.expect(200);
        assert!(ready["parts"].as_array().unwrap().iter().all(|part| part["status"] == "ok"));
    }
}

#[tokio::test]
async fn answers_that_tell_nothing_are_asked_again_with_growing_pauses() {
    for fault in [
        Fault::ServerError,
        Fault::Html,
        Fault::Empty,
        Fault::Garbage,
        Fault::WrongId,
        Fault::Cut,
        Fault::NoCredits { form: 1 },
        Fault::NoCredits { form: 2 },
        Fault::DetailText,
        Fault::DetailList,
        Fault::DetailObject,
        Fault::Huge { bytes: 2_000_000 },
        Fault::Answer { status: 200, body: json!({"generation_id": 7, "status": ["completed"]}) },
        Fault::Answer { status: 200, body: json!([]) },
        Fault::Answer { status: 204, body: Value::Null },
    ] {
        let world = World::new().await;
        for _ in 0..3 {
            world.sandbox.fault_next_status(fault.clone());
        }
        let bought = world.buy(lost_after(150)).await;
        let mut pauses = Vec::new();
        world.advance_s(210).await;
        while world.generation(&bought.id).await["status"] != "completed" {
            let reads = world.reads();
            let mut waited = 0;
            while world.reads() == reads {
                world.advance_s(1).await;
                waited += 1;
                assert!(waited < 200, "{fault:?}: never asked again");
            }
            pauses.push(waited);
        }
        assert_eq!(world.reads(), 4, "{fault:?}");
        let spread = |pause: u64| pause * 3 / 4..=pause * 5 / 4 + 1;
        assert!(
            spread(15).contains(&pauses[0]) && spread(30).contains(&pauses[1]) && spread(60).contains(&pauses[2]),
            "{pauses:?}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_goes_nowhere_else() {
    let world = World::new().await;
    let elsewhere = World::new().await;
    let location = format!("{}/v1/kling/o3-video/generations/x", elsewhere.provider_url);
    world.sandbox.fault_next_status(Fault::Redirect { location });
    let bought = world.buy(lost_after(150)).await;
    let theirs = elsewhere.buy(never()).await;
    world.advance_s(210).await;
    assert_eq!(world.reads(), 1);
    assert_ne!(world.generation(&bought.id).await["status"], "completed");
    assert!(elsewhere.purchase(&theirs.provider_id).reads.is_empty());
    let check = &world.timeline(&bought.id, "check").await[0];
    assert_eq!((&check["answer"], &check["http_status"]), (&json!("nothing"), &json!(307)));
    world.advance_s(20).await;
    assert_eq!(world.generation(&bought.id).await["status"], "completed");
}

#[tokio::test]
async fn a_provider_that_is_down_opens_the_breaker() {
    let world = World::new().await;
    world.sandbox.fault_every_status(Some(Fault::ServerError));
    for _ in 0..40 {
        world.buy(lost_after(150)).await;
    }
    world.advance_s(210).await;
    assert!(world.reads() < 12, "{} reads into a dead host", world.reads());
    world.sandbox.fault_every_status(None);
    for _ in 0..60 {
        world.advance_s(10).await;
    }
    let open = world.get("/v1/generations?status=pending&status=processing").await.expect(200);
    assert_eq!(open["data"], json!([]), "all recovered once it is back");
}

#[tokio::test]
async fn what_was_settled_meanwhile_is_not_read() {
    let world = World::with(|config| config.provider.status_checks_per_minute = 1).await;
    let first = world.buy(lost_after(150)).await;
    let second = world.buy(lost_after(150)).await;
    world.advance_s(210).await;
    assert_eq!(world.reads(), 1);
    let waiting = if world.generation(&first.id).await["status"] == "completed" { second } else { first };
    world.webhook(&waiting.callback_url, completed(&waiting.provider_id, "https://x/v")).await.expect(200);
    world.advance_s(120).await;
    assert_eq!(world.reads(), 1);
}

#[tokio::test]
async fn a_restart_loses_nothing_and_starts_no_storm() {
    let mut world = World::new().await;
    let mut bought = Vec::new();
    for _ in 0..10 {
        bought.push(world.buy(lost_after(150)).await);
    }
    world.stop().await;
    world.clock.advance(Duration::from_mins(20));
    world.resume().await;
    assert_eq!(world.reads(), 10, "one read each");
    for bought in bought {
        assert_eq!(world.generation(&bought.id).await["status"], "completed");
    }
}

#[tokio::test]
async fn switched_off_nothing_is_asked_but_on_request() {
    let world = World::with(|config| config.reconcile.enabled = false).await;
    let bought = world.buy(lost_after(150)).await;
    world.clock.advance(Duration::from_hours(30));
    assert_eq!(world.reads(), 0);
    let answer = world.post(&format!("/v1/generations/{}/checks", bought.id), &json!({})).await.expect(200);
    assert_eq!(answer["generation"]["status"], "completed");
}

#[tokio::test]
async fn nothing_open_is_without_a_next_look() {
    let world = World::new().await;
    for plan in [never(), lost_after(150), Plan { fate: Fate::Forgotten, ..Plan::completed().lost() }] {
        world.buy(plan).await;
    }
    for _ in 0..100 {
        world.advance(Duration::from_mins(17)).await;
        let all = world.get("/v1/generations").await.expect(200);
        for row in all["data"].as_array().unwrap() {
            let open = row["settled_at"].is_null();
            assert_eq!(open, !row["next_check_at"].is_null(), "{}", text(&row["status"]));
        }
    }
}

/// Which lists there are is not known: one that is forbidden or broken says nothing of the key, nor of the reads of a status.
#[tokio::test]
async fn a_list_that_is_refused_or_fails_rests_no_other_read() {
    for status in ["403 Forbidden", "500 Internal Server Error"] {
        let provider = RawProvider::start(Then::AnswerReads(http(status, "", "{}"))).await;
        let url = url::Url::parse(&provider.url).unwrap();
        let world = World::with(move |config| config.provider.base_url = url).await;
        let slow = json!({"generation_id": "p-9", "family": "kling/o3-video", "model": "kling_o3_pro", "duration_seconds": 15});
        world.post("/v1/generations", &slow).await.expect(201);
        let lost = world.post("/gateway/v1/kling/o3-video/generate", &json!({"prompt": "a paper boat"})).await;
        lost.problem(504, "SUBMIT_UNCONFIRMED");
        for _ in 0..36 {
            world.advance_s(5).await;
        }
        let lists = provider.seen().iter().filter(|seen| seen.head.contains("/generations?limit=")).count();
        assert!(lists >= if status.starts_with('5') { 6 } else { 2 }, "{status}: {lists} lists");
        let ready = world.get("/readyz").await.expect(200);
        assert!(!ready.to_string().contains("refused"), "{status}: {ready}");
        world.post("/v1/generations/p-9/checks", &json!({})).await.expect(200);
    }
}
