//! Clients that poll (contract section 9): what their polls pull forward, and what they do not.

use std::time::Duration;

use recoup::sandbox::{Fate, Plan};
use serde_json::{Value, json};

use crate::support::{World, text};

fn lost_after(seconds: u64) -> Plan {
    Plan::completed().lost().taking(Duration::from_secs(seconds))
}

fn never() -> Plan {
    Plan { fate: Fate::NeverEnds, ..Plan::completed() }
}

/// A purchase through the gateway.
struct Order {
    family: &'static str,
    id: String,
}

async fn order(world: &World, family: &'static str, body: Value, plan: Plan) -> Order {
    world.sandbox.plan_next(plan);
    let sold = world.post(&format!("/gateway/v1/{family}/generate"), &body).await.expect(201);
    Order { family, id: text(&sold["generation_id"]) }
}

/// Five seconds in standard: 120 to 180 s, asked about by itself after 210.
async fn five_seconds(world: &World, plan: Plan) -> Order {
    order(world, "kling/o3-video", json!({"prompt": "a boat", "model": "kling_o3", "duration": "5"}), plan).await
}

impl Order {
    /// What the provider's own client asks.
    async fn poll(&self, world: &World) -> String {
        let status = world.get(&format!("/gateway/v1/{}/generations/{}", self.family, self.id)).await.expect(200);
        text(&status["status"])
    }

    /// When the provider was asked, in seconds after the purchase.
    fn reads_s(&self, world: &World) -> Vec<u64> {
        let purchase = world.purchase(&self.id);
        purchase.reads.iter().map(|read| read.since(purchase.bought_at).as_secs()).collect()
    }
}

#[tokio::test]
async fn a_lost_webhook_is_found_long_before_a_polling_client_gives_up() {
    let pro = json!({"prompt": "a boat", "model": "kling_o3_pro", "duration": "15"});
    let (o1, veo) = (json!({"prompt": "a boat"}), json!({"prompt": "a small boat"}));
    for (family, body, shortest, takes) in
        [("kling/o3-video", pro, 390, 455), ("kling/o1-video", o1.clone(), 60, 85), ("veo", veo, 60, 300)]
    {
        let world = World::new().await;
        let order = order(&world, family, body, lost_after(takes)).await;
        let mut reads = Vec::new();
        let mut found = None;
        for at in (10..600).step_by(10) {
            world.advance_s(10).await;
            if order.poll(&world).await == "completed" {
                found = Some(at);
                break;
            }
            // Alone it is read at the first poll past its shortest time, and at every second one from then on.
            if at >= shortest && reads.last().is_none_or(|last| at - last >= 15) {
                reads.push(at);
                world.after_reads(reads.len()).await;
            }
        }
        assert!(found.is_some_and(|at| at <= takes + 30), "{family}: found at {found:?}, done at {takes}");
        assert_eq!(order.reads_s(&world), reads, "{family}");
    }
}

#[tokio::test]
async fn a_generation_is_read_once_in_fifteen_seconds_however_often_it_is_polled() {
    let world = World::new().await;
    let order = five_seconds(&world, never()).await;
    world.advance_s(118).await;
    let mut reads = Vec::new();
    for at in 119..180 {
        world.advance_s(1).await;
        for _ in 0..3 {
            order.poll(&world).await;
        }
        if at == 120 || reads.last().is_some_and(|last| at - last == 15) {
            reads.push(at);
            world.after_reads(reads.len()).await;
        }
    }
    assert_eq!(order.reads_s(&world), [120, 135, 150, 165]);
}

#[tokio::test]
async fn a_webhook_that_comes_in_time_costs_a_lonely_poller_few_reads_and_a_rare_one_none() {
    for (every, reads) in [(10, vec![120, 140]), (110, vec![])] {
        let world = World::new().await;
        let order = five_seconds(&world, Plan::completed().taking(Duration::from_secs(150))).await;
        let mut expected = 0;
        for at in (every..=150).step_by(10.max(usize::try_from(every).unwrap())) {
            world.advance_s(every).await;
            order.poll(&world).await;
            expected += usize::from(reads.contains(&at));
            world.after_reads(expected).await;
        }
        world.advance_s(40).await;
        assert_eq!(order.poll(&world).await, "completed");
        assert_eq!(order.reads_s(&world), reads, "polled every {every} s");
    }
}

#[tokio::test]
async fn a_spent_budget_is_not_overdrawn_by_polls() {
    let world = World::with(|config| config.provider.status_checks_per_minute = 1).await;
    let (one, other) = (five_seconds(&world, never()).await, five_seconds(&world, never()).await);
    world.advance_s(120).await;
    one.poll(&world).await;
    world.after_reads(1).await;
    for _ in 0..5 {
        other.poll(&world).await;
        world.advance_s(10).await;
    }
    assert_eq!((one.reads_s(&world).len(), other.reads_s(&world).len()), (1, 0));
}

#[tokio::test]
async fn who_waits_for_the_outcome_is_told_by_the_read_that_this_pulls_forward() {
    let world = World::new().await;
    let order = five_seconds(&world, lost_after(125)).await;
    world.advance_s(119).await;
    let early = world.get(&format!("/v1/generations/{}", order.id)).await.expect(200);
    assert_eq!(early["next_check_at"], "2026-11-23T10:03:30Z");
    world.advance_s(11).await;
    // Time stands still: only the read that it pulls forward can end the wait.
    let waited = world.get(&format!("/v1/generations/{}?wait=60", order.id)).await.expect(200);
    assert_eq!(
        (&waited["status"], &waited["source"], &waited["checks"]),
        (&json!("completed"), &json!("check"), &json!(1))
    );
    assert_eq!(order.reads_s(&world), [130]);
}

#[tokio::test]
async fn a_read_that_finds_it_running_leaves_the_first_one_where_it_was() {
    let world = World::new().await;
    let order = five_seconds(&world, lost_after(200)).await;
    world.advance_s(130).await;
    order.poll(&world).await;
    world.after_reads(1).await;
    world.advance_s(79).await;
    assert_eq!(order.reads_s(&world), [130], "nobody polled any more");
    world.advance_s(1).await;
    world.after_reads(2).await;
    assert_eq!(order.reads_s(&world), [130, 210]);
    assert_eq!(order.poll(&world).await, "completed");
}

#[tokio::test]
async fn switched_off_polls_cause_no_reads() {
    let world = World::with(|config| config.reconcile.enabled = false).await;
    let order = five_seconds(&world, lost_after(125)).await;
    world.clock.advance(Duration::from_secs(150));
    order.poll(&world).await;
    let shown = world.get(&format!("/v1/generations/{}", order.id)).await.expect(200);
    assert_eq!((&shown["next_check_at"], world.reads()), (&json!("2026-11-23T10:03:30Z"), 0));
}
