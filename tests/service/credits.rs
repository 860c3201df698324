//! The list's credits filter and the domain's credit state are the same thing.

use std::time::Duration;

use recoup::sandbox::{Fate, Fault, Plan};
use serde_json::json;

use crate::support::{World, text};

#[tokio::test]
async fn the_filter_and_the_shown_state_agree_at_every_time() {
    let world = World::new().await;
    let never = Plan { fate: Fate::NeverEnds, ..Plan::completed() };
    world.prepare().await;
    world.buy(Plan::completed().taking(Duration::ZERO)).await;
    world.buy(Plan::failed("TIMEOUT").taking(Duration::from_mins(1))).await;
    world.buy(Plan::failed("TIMEOUT").lost().taking(Duration::from_mins(1))).await;
    world.buy(never.clone()).await;
    world.buy(Plan { fate: Fate::CompletedWithoutUrl { reads: 50, instead: None }, ..Plan::completed() }).await;
    world.buy(Plan { fate: Fate::Forgotten, ..Plan::completed().lost() }).await;
    let confirmed = world.buy(Plan::failed("TIMEOUT").taking(Duration::ZERO)).await;
    world.sandbox.until(|ledger| ledger.iter().filter(|bought| !bought.attempts.is_empty()).count() >= 2).await;
    world.post(&format!("/v1/generations/{}/refunds", confirmed.id), &json!({})).await.expect(200);
    world.sandbox.fault_next_status(Fault::ServerError);
    let mut seen = std::collections::BTreeSet::new();
    for minutes in [0, 2, 3, 5, 10, 30, 60, 120, 60 * 24] {
        world.advance(Duration::from_mins(minutes)).await;
        let all = world.get("/v1/generations").await.expect(200);
        for state in ["not_charged", "charged", "delivered", "refund_expected", "refunded", "at_risk"] {
            let shown = all["data"].as_array().unwrap().iter().filter(|row| row["credits"] == state);
            let shown: Vec<_> = shown.map(|row| text(&row["id"])).collect();
            let filtered = world.get(&format!("/v1/generations?credits={state}")).await.expect(200);
            let filtered: Vec<_> = filtered["data"].as_array().unwrap().iter().map(|row| text(&row["id"])).collect();
            assert_eq!(filtered, shown, "{state} after {minutes} more minutes");
            if !shown.is_empty() {
                seen.insert(state);
            }
        }
    }
    assert_eq!(seen.len(), 6, "every state was seen: {seen:?}");
}
