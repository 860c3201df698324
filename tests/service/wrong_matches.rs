//! What stands in a list and only looks like a lost purchase is never taken for it, and what is odd in a list stops nothing.

use std::time::Duration;

use recoup::config::Span;
use recoup::sandbox::{Fault, Lists, Plan};
use serde_json::{Value, json};

use crate::support::{Answer, KEY, O3, PROVIDER_KEY, World, text};

const BUY: &str = "/gateway/v1/kling/o3-video/generate";

async fn buy(world: &World, key: &str, prompt: &str) -> Answer {
    let request = world.http.post(format!("{}{BUY}", world.url)).bearer_auth(KEY).header("idempotency-key", key);
    World::read(request.json(&json!({ "prompt": prompt })).send().await.unwrap()).await
}

/// A purchase whose answer gets lost, and every webhook.
async fn lose(world: &World, key: &str, prompt: &str, is_sold: bool) -> String {
    world.sandbox.plan_next(Plan::completed().lost().taking(Duration::from_mins(5)));
    world.sandbox.fault_next_submit(if is_sold { Fault::Cut } else { Fault::ServerError });
    text(&json!(buy(world, key, prompt).await.headers["recoup-generation"].to_str().unwrap()))
}

/// A purchase past recoup, with the same account.
async fn buy_elsewhere(world: &World, prompt: &str) -> String {
    world.sandbox.plan_next(Plan::completed().lost().taking(Duration::from_secs(50)));
    let request = world.http.post(format!("{}/v1/{O3}/generate", world.provider_url)).bearer_auth(PROVIDER_KEY);
    let sold = World::read(request.json(&json!({ "prompt": prompt })).send().await.unwrap()).await.expect(201);
    text(&sold["generation_id"])
}

async fn pass(world: &World, seconds: u64) {
    for _ in 0..seconds / 5 {
        world.advance_s(5).await;
    }
}

async fn until_a_list_is_read(world: &World) {
    while world.sandbox.list_reads().is_empty() {
        tokio::task::yield_now().await;
    }
}

async fn with_lists(lists: Lists) -> World {
    let world = World::new().await;
    world.sandbox.set_lists(lists);
    world
}

#[tokio::test]
async fn what_came_into_a_list_while_nobody_read_it_may_be_of_any_time() {
    let world = with_lists(Lists::Everywhere).await;
    let found = lose(&world, "a", "the first", true).await;
    pass(&world, 90).await;
    assert!(world.generation(&found).await["generation_id"].is_string(), "the list is read, and this stands in it");
    world.advance(Duration::from_hours(3)).await;
    buy_elsewhere(&world, "a boat").await;
    world.advance(Duration::from_hours(3)).await;
    let unsold = lose(&world, "b", "a boat", false).await;
    pass(&world, 90).await;
    let shown = world.generation(&unsold).await;
    assert_eq!((&shown["generation_id"], &shown["status"]), (&Value::Null, &json!("unconfirmed")), "{shown}");
}

#[tokio::test]
async fn what_has_stood_in_a_list_for_days_is_not_new() {
    let world = with_lists(Lists::Everywhere).await;
    buy_elsewhere(&world, "a boat").await;
    lose(&world, "a", "the first", true).await;
    pass(&world, 90).await;
    world.advance(Duration::from_hours(50)).await;
    for key in ["b", "c"] {
        // Read shortly before, too.
        let unsold = lose(&world, key, if key == "b" { "another" } else { "a boat" }, false).await;
        pass(&world, 90).await;
        assert_eq!(world.generation(&unsold).await["generation_id"], Value::Null);
        assert!(world.timeline(&unsold, "note").await.is_empty(), "no candidate either: it stood there before");
    }
}

#[tokio::test]
async fn prompts_that_differ_in_blanks_alone_cannot_be_told_apart() {
    let world = with_lists(Lists::Everywhere).await;
    let unsold = lose(&world, "a", "a boat", false).await;
    let sold = lose(&world, "b", "a boat ", true).await;
    pass(&world, 90).await;
    for id in [&unsold, &sold] {
        let shown = world.generation(id).await;
        assert_eq!(shown["generation_id"], Value::Null, "{shown}");
        assert_eq!(world.timeline(id, "note").await.len(), 1, "a person decides");
    }
}

#[tokio::test]
async fn a_purchase_that_gets_lost_while_the_list_is_read_is_a_rival() {
    let world = World::with(|config| config.provider.purchase_timeout = Some(Span(Duration::from_millis(400)))).await;
    world.sandbox.set_lists(Lists::Everywhere);
    world.sandbox.plan_next(Plan::completed().lost().taking(Duration::from_mins(5)));
    world.sandbox.fault_next_submit(Fault::Hang);
    let sold = buy(&world, "a", "a boat");
    let unsold = async {
        while world.sandbox.ledger().is_empty() {
            tokio::task::yield_now().await;
        }
        world.sandbox.fault_next_list(Fault::Slow { ms: 1_000 });
        let id = lose(&world, "b", "a boat", false).await;
        until_a_list_is_read(&world).await;
        id
    };
    let (sold, unsold) = tokio::join!(sold, unsold);
    let sold = sold.headers["recoup-generation"].to_str().unwrap().to_owned();
    pass(&world, 90).await;
    for id in [&sold, &unsold] {
        let shown = world.generation(id).await;
        assert_eq!(shown["generation_id"], Value::Null, "{shown}");
    }
}

#[tokio::test]
async fn a_list_that_names_one_twice_names_one() {
    let world = with_lists(Lists::Everywhere).await;
    let entry = json!({"generation_id": "p-7", "status": "processing", "prompt": "a boat", "video_url": null});
    let odd = json!([entry, {"generation_id": "no id!", "status": "pending"}, 7, null, entry]);
    for _ in 0..10 {
        world.sandbox.fault_next_list(Fault::Answer { status: 200, body: odd.clone() });
    }
    let id = lose(&world, "a", "a boat", false).await;
    pass(&world, 90).await;
    assert_eq!(world.generation(&id).await["generation_id"], "p-7");
}

#[tokio::test]
async fn a_list_that_tells_nothing_of_what_is_due_may_still_tell_of_a_lost_purchase() {
    let world = with_lists(Lists::Everywhere).await;
    for n in 0..30 {
        world.register(&format!("p-{n}")).await;
    }
    pass(&world, 300).await;
    assert!(!world.sandbox.list_reads().is_empty(), "the list is read for what is due");
    let reads = world.sandbox.list_reads().len();
    let id = lose(&world, "a", "a boat", true).await;
    pass(&world, 90).await;
    assert!(world.sandbox.list_reads().len() > reads);
    assert!(world.generation(&id).await["generation_id"].is_string());
}

#[tokio::test]
async fn a_list_that_brought_nothing_is_read_again_half_a_minute_later() {
    let world = with_lists(Lists::Own).await;
    world.sandbox.fault_next_list(Fault::ServerError);
    world.sandbox.plan_next(Plan::completed().lost().taking(Duration::from_mins(5)));
    world.sandbox.fault_next_submit(Fault::Cut);
    let lost = world.post("/gateway/v1/veo/generate", &json!({"prompt": "a boat in the rain"})).await;
    let id = lost.headers["recoup-generation"].to_str().unwrap().to_owned();
    until_a_list_is_read(&world).await;
    pass(&world, 35).await;
    assert!(world.generation(&id).await["generation_id"].is_string());
}

#[tokio::test]
async fn what_is_bought_elsewhere_minutes_later_is_not_taken_for_it() {
    let world = with_lists(Lists::Everywhere).await;
    let unsold = lose(&world, "a", "a boat", false).await;
    pass(&world, 300).await;
    buy_elsewhere(&world, "a boat").await;
    pass(&world, 120).await;
    let shown = world.generation(&unsold).await;
    assert_eq!((&shown["generation_id"], &shown["status"]), (&Value::Null, &json!("unconfirmed")), "{shown}");
}
