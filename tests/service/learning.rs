//! What settled generations teach, and how reads are shared.

use std::time::Duration;

use recoup::config::Span;
use recoup::sandbox::{Fault, Plan};
use serde_json::{Value, json};

use crate::support::{O3, World, completed};

/// Buys so many at once and lets them end after so many seconds.
async fn settle(world: &World, count: usize, plan: Plan, seconds: u64) {
    for _ in 0..count {
        world.buy(plan.clone().taking(Duration::from_secs(seconds))).await;
    }
    world.advance_s(seconds).await;
}

async fn learned(world: &World) -> Value {
    let models = world.get("/v1/models").await.expect(200);
    let model = models["data"].as_array().unwrap().iter().find(|model| model["model"] == "kling_o3").unwrap().clone();
    model["durations"][0]["expected_seconds"].clone()
}

#[tokio::test]
async fn what_a_kind_takes_is_learned_and_outlives_a_restart() {
    let mut world = World::new().await;
    assert_eq!(learned(&world).await, json!({"from": 120, "to": 180, "learned": null, "outcomes": 0}));
    settle(&world, 49, Plan::completed(), 140).await;
    assert_eq!(learned(&world).await, json!({"from": 120, "to": 180, "learned": null, "outcomes": 49}));
    assert_eq!(world.get("/v1/stats").await.expect(200)["times"][0]["expected_seconds"], json!(180.0));
    settle(&world, 1, Plan::completed(), 140).await;
    world.restart().await;
    assert_eq!(learned(&world).await, json!({"from": 120, "to": 180, "learned": 140, "outcomes": 50}));
    let bought = world.buy(Plan::completed().lost().taking(Duration::from_secs(140))).await;
    let began = world.clock_now();
    let shown = world.generation(&bought.id).await;
    assert_eq!(shown["expected_by"], json!(began + Duration::from_secs(140)));
    assert_eq!(shown["next_check_at"], json!(began + Duration::from_secs(170)));
    let stats = world.get("/v1/stats").await.expect(200);
    let times = json!([{
        "family": O3, "model": "kling_o3", "duration_seconds": 5, "completed": 50,
        "seconds": {"median": 140.0, "p95": 140.0}, "expected_seconds": 140.0, "learned_seconds": 140.0,
    }]);
    assert_eq!(stats["times"], times);
    let webhooks = json!([{
        "family": O3, "told": 50, "missed": 0, "late": 0, "silent": false, "loss": 0.0, "of_last": 50, "lag_seconds": null,
        "grace_seconds": 30.0,
    }]);
    assert_eq!(stats["webhooks"], webhooks);
    let reads = json!({
        "per_minute": 48, "in_last_minute": 0, "due": 0, "oldest_due_since": null, "due_within_ten_minutes": 1,
        "worked_off_at": stats["at"],
    });
    assert_eq!(stats["reads"], reads);
    let nothing = json!({"count": 0, "amount": "0.0000"});
    let generations = json!({"open": 1, "overdue": 0, "needing_attention": 0, "at_risk": nothing, "at_risk_by": {}});
    assert_eq!((&stats["generations"], &stats["events"]), (&generations, &json!({"pending": 0, "dead": 0})));
    assert_eq!((&stats["version"], &stats["last_webhook_at"]), (&json!(env!("CARGO_PKG_VERSION")), &stats["at"]));
    world.advance_s(170).await;
    let stats = world.get("/v1/stats").await.expect(200);
    assert_eq!((&stats["times"][0]["completed"], &stats["webhooks"][0]["missed"]), (&json!(51), &json!(1)));
}

#[tokio::test]
async fn where_webhooks_are_missed_the_first_read_comes_sooner() {
    let world = World::new().await;
    settle(&world, 50, Plan::completed().lost(), 150).await;
    world.advance_s(60).await;
    world.advance_s(60).await;
    world.advance_s(60).await;
    let stats = world.get("/v1/stats").await.expect(200);
    let webhooks = &stats["webhooks"][0];
    assert_eq!(
        (&webhooks["missed"], &webhooks["loss"], &webhooks["grace_seconds"]),
        (&json!(50), &json!(1.0), &json!(10.0))
    );
    let bought = world.buy(Plan::completed()).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!(shown["next_check_at"], json!(world.clock_now() + Duration::from_secs(190)));
    // A webhook behind the read was late, not lost.
    let bought = world.buy(Plan::completed().lost().taking(Duration::from_secs(150))).await;
    world.advance_s(190).await;
    assert_eq!(world.generation(&bought.id).await["source"], "check");
    let url = world.generation(&bought.id).await["result_url"].as_str().unwrap().to_owned();
    world.advance_s(20).await;
    world.webhook(&bought.callback_url, completed(&bought.provider_id, &url)).await.expect(200);
    let stats = world.get("/v1/stats").await.expect(200);
    let webhooks = &stats["webhooks"][0];
    assert_eq!((&webhooks["late"], &webhooks["lag_seconds"]), (&json!(1), &json!({"median": 20.0, "p95": 20.0})));
}

#[tokio::test]
async fn a_read_under_way_answers_everybody_who_asks() {
    let world = World::with(|config| config.provider.request_timeout = Span(Duration::from_millis(300))).await;
    let id = world.register("p-1").await;
    world.sandbox.fault_every_status(Some(Fault::Hang));
    let asks =
        (0..3).map(|_| async { world.post(&format!("/v1/generations/{id}/checks"), &json!({})).await.expect(200) });
    let answers = futures_util::future::join_all(asks).await;
    let checks: std::collections::BTreeSet<_> =
        answers.iter().map(|answer| answer["check"]["id"].to_string()).collect();
    assert_eq!(checks.len(), 1, "{answers:?}");
    assert_eq!(world.generation(&id).await["checks"], 1);
}
