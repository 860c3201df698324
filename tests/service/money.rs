//! `/v1/credits` against the provider's own ledger, to the last micro-dollar.

use std::collections::BTreeMap;
use std::time::Duration;

use recoup::domain::money::Usd;
use recoup::domain::time::Time;
use recoup::sandbox::{Fate, Fault, Plan, Purchase, Settings};
use serde_json::{Value, json};

use crate::support::{O3, World, text};

const FAMILIES: [&str; 4] = [O3, "kling", "gemini", "seedance"];

/// A random mix: what is bought, what becomes of it, and how the answer to the purchase misbehaves.
fn mix(chance: &mut fastrand::Rng) -> (&'static str, Value, Plan, Option<Fault>) {
    let family = FAMILIES[chance.usize(..FAMILIES.len())];
    let model = ["kling_o3", "kling_o3_pro"][chance.usize(..2)];
    // Another one each time: an equal one after a lost answer would be a repeat, and not sent.
    let prompt = format!("order {}", chance.u64(..));
    let mut body = json!({"prompt": prompt});
    if family == O3 {
        let duration = ["5", "10", "15"][chance.usize(..3)];
        body = json!({"prompt": prompt, "model": model, "duration": duration});
    }
    let plan = match chance.u8(..10) {
        0 | 1 => Plan::failed("CONTENT_POLICY_VIOLATION"),
        2 => Plan::failed("TIMEOUT"),
        3 => Plan { fate: Fate::NeverEnds, ..Plan::completed() },
        _ => Plan::completed(),
    };
    let plan = if chance.u8(..10) < 3 { plan.lost() } else { plan };
    let fault = match chance.u8(..40) {
        0 => Some(Fault::NoCredits { form: 1 }),
        1 => Some(Fault::DetailList),
        2 => Some(Fault::ServerError),
        3 => Some(Fault::Bought(Box::new(Fault::ServerError))),
        4 => Some(Fault::Cut),
        5 => Some(Fault::Garbage),
        _ => None,
    };
    (family, body, plan.taking(Duration::from_secs(chance.u64(1..600))), fault)
}

fn micros(sum: &Value) -> i64 {
    Usd::parse(sum.as_str().unwrap()).unwrap().as_micros()
}

/// What the ledger says of the purchases of a span of time.
#[derive(Debug, Default, PartialEq)]
struct Ledger {
    /// Charged, of those whose price we were told.
    charged: i64,
    /// Bought, but the price was never told.
    price_unknown: u64,
    count: u64,
}

impl Ledger {
    fn of<'p>(bought: impl Iterator<Item = &'p Purchase>, told: impl Fn(&Purchase) -> bool) -> Self {
        let mut ledger = Self::default();
        for purchase in bought {
            ledger.count += 1;
            if told(purchase) {
                ledger.charged += purchase.price.as_micros();
            } else {
                ledger.price_unknown += 1;
            }
        }
        ledger
    }
}

#[tokio::test]
async fn the_sums_equal_the_ledger_after_thousands_of_random_purchases() {
    // CI buys ten thousand.
    let purchases = crate::support::often("RECOUP_PURCHASES", 2_000);
    let funds = Usd::from_micros(i64::MAX / 2);
    let settings = Settings { status_reads_per_minute: None, funds, ..Settings::default() };
    let world = World::with_provider(settings, |config| config.provider.status_checks_per_minute = 6_000).await;
    let mut chance = fastrand::Rng::with_seed(7);
    let mut answers = BTreeMap::<u16, u64>::new();
    let mut unclear_unbought = 0;
    for _ in 0..purchases / 40 {
        // Forty at once: which gets which plan and which fault is left to chance, the ledger knows.
        let mut orders = Vec::new();
        for _ in 0..40 {
            let (family, body, plan, fault) = mix(&mut chance);
            world.sandbox.plan_next(plan);
            if let Some(fault) = fault {
                unclear_unbought += u64::from(fault == Fault::ServerError);
                world.sandbox.fault_next_submit(fault);
            }
            orders.push((format!("/gateway/v1/{family}/generate"), body));
        }
        let bought = orders.iter().map(|(path, body)| world.post(path, body));
        for answer in futures_util::future::join_all(bought).await {
            *answers.entry(answer.status).or_default() += 1;
        }
        world.clock.advance(Duration::from_secs(chance.u64(1..40)));
    }
    world.idle().await;
    let ledger = world.sandbox.ledger();
    assert_eq!(answers.values().sum::<u64>(), purchases);
    let rejected = answers[&402] + answers[&422];
    let report = world.get("/v1/credits").await.expect(200);
    // Without a price: seedance never tells one, and where the answer was lost nobody did.
    let known = known_prices(&world).await;
    let expected = Ledger::of(ledger.iter(), |bought| known.contains_key(&bought.id));
    let total = &report["total"];
    assert_eq!(micros(&total["charged"]), expected.charged);
    assert_eq!(total["count"], json!(purchases));
    assert_eq!(total["price_unknown"], json!(expected.price_unknown + unclear_unbought));
    assert_eq!(report["by_state"]["not_charged"], json!({"count": rejected, "amount": "0.0000"}));
    for bought in &ledger {
        if let Some(price) = known.get(&bought.id) {
            assert_eq!(*price, bought.price.as_micros(), "{}", bought.id);
        }
    }
    parts_add_up(&report);
    spans_add_up(&world, &report, &ledger).await;
    every_state_lists_what_it_counts(&world).await;
}

/// The prices on record, by the provider's id.
async fn known_prices(world: &World) -> BTreeMap<String, i64> {
    let mut known = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = world.get(&format!("/v1/generations?limit=200{cursor}")).await.expect(200);
        for row in page["data"].as_array().unwrap() {
            if let (Some(id), Some(_)) = (row["generation_id"].as_str(), row["price"].as_str()) {
                known.insert(id.to_owned(), micros(&row["price"]));
            }
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return known,
        }
    }
}

fn parts_add_up(report: &Value) {
    let states = report["by_state"].as_object().unwrap();
    assert_eq!(states.len(), 6);
    let amount: i64 = states.values().map(|sum| micros(&sum["amount"])).sum();
    let count: u64 = states.values().map(|sum| sum["count"].as_u64().unwrap()).sum();
    assert_eq!((amount, count), (micros(&report["total"]["charged"]), report["total"]["count"].as_u64().unwrap()));
}

/// Any cut of time gives the same sums together.
async fn spans_add_up(world: &World, report: &Value, ledger: &[Purchase]) {
    let mut chance = fastrand::Rng::with_seed(11);
    let (first, last) = (ledger[0].bought_at.as_ms(), world.clock_now().as_ms());
    for _ in 0..8 {
        let cut = Time::from_ms(chance.i64(first..last));
        let before = world.get(&format!("/v1/credits?until={cut}")).await.expect(200);
        let after = world.get(&format!("/v1/credits?since={cut}")).await.expect(200);
        for state in ["delivered", "charged", "refund_expected", "refunded", "at_risk", "not_charged"] {
            let sum = |part: &Value| {
                let part = &part["by_state"][state];
                (micros(&part["amount"]), part["count"].as_u64().unwrap())
            };
            let ((a, n), (b, m)) = (sum(&before), sum(&after));
            assert_eq!((a + b, n + m), sum(report), "{state} cut at {cut}");
        }
        parts_add_up(&before);
        parts_add_up(&after);
        let expected = ledger.iter().filter(|bought| bought.bought_at < cut).count();
        let bought = before["total"]["count"].as_u64().unwrap();
        assert!(usize::try_from(bought).unwrap() >= expected, "{cut}");
    }
    let hour = "/v1/credits?since=2026-11-23T10:00:00Z&until=2026-11-23T10:30:00Z";
    assert!(world.get(hour).await.expect(200)["total"]["count"].as_u64().unwrap() > 0);
}

async fn every_state_lists_what_it_counts(world: &World) {
    let report = world.get("/v1/credits").await.expect(200);
    for (state, sum) in report["by_state"].as_object().unwrap() {
        let mut count = 0;
        let mut cursor = String::new();
        loop {
            let page = world.get(&format!("/v1/generations?credits={state}&limit=200{cursor}")).await.expect(200);
            count += page["data"].as_array().unwrap().len();
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(json!(count), sum["count"], "{state}");
    }
}

#[tokio::test]
async fn the_report_tells_apart_what_the_contract_tells_apart() {
    let world = World::new().await;
    let minute = Duration::from_mins(1);
    let buy = async |plan: Plan| {
        world.sandbox.plan_next(plan);
        let answer = world.post("/gateway/v1/kling/o3-video/generate", &json!({"prompt": "x"})).await.expect(201);
        text(&answer["generation_id"])
    };
    buy(Plan::completed().taking(minute)).await;
    buy(Plan::completed().lost().taking(minute)).await;
    buy(Plan::failed("TIMEOUT").taking(minute)).await;
    buy(Plan { fate: Fate::NeverEnds, ..Plan::completed() }).await;
    world.sandbox.fault_next_submit(Fault::ServerError);
    world.post("/gateway/v1/kling/o3-video/generate", &json!({"prompt": "x"})).await;
    world.sandbox.fault_next_submit(Fault::NoCredits { form: 1 });
    world.post("/gateway/v1/kling/o3-video/generate", &json!({"prompt": "y"})).await;
    world.advance(minute).await;
    let sum = |count: u64, amount: &str| json!({"count": count, "amount": amount});
    let report = world.get("/v1/credits").await.expect(200);
    assert_eq!((&report["since"], &report["until"], &report["currency"]), (&Value::Null, &Value::Null, &json!("USD")));
    assert_eq!(report["total"], json!({"count": 6, "charged": "0.6000", "price_unknown": 1}));
    assert_eq!(
        report["by_state"],
        json!({
            "delivered": sum(1, "0.1500"), "charged": sum(2, "0.3000"), "refund_expected": sum(1, "0.1500"),
            "refunded": sum(0, "0.0000"), "at_risk": sum(1, "0.0000"), "not_charged": sum(1, "0.0000"),
        })
    );
    assert_eq!(report["by_attention"], json!({"unconfirmed": sum(1, "0.0000")}));
    let codes = json!({"TIMEOUT": sum(1, "0.1500"), "INSUFFICIENT_CREDITS": sum(1, "0.0000")});
    assert_eq!(report["by_error_code"], codes);
    assert_eq!(report["by_model"], json!({"kling_o3": sum(6, "0.6000")}));
    assert_eq!(report["recovered"], sum(0, "0.0000"));
    // The lost webhook is recovered by a check, the refund window passes, the endless one is stuck.
    for _ in 0..20 {
        world.advance(minute).await;
    }
    let report = world.get("/v1/credits").await.expect(200);
    assert_eq!(report["recovered"], sum(1, "0.1500"));
    assert_eq!(report["by_state"]["refunded"], sum(1, "0.1500"));
    assert_eq!(report["by_state"]["at_risk"], sum(2, "0.1500"));
    assert_eq!(report["by_attention"]["stuck"], sum(1, "0.1500"));
    for (query, parameter) in
        [("since=yesterday", "since"), ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "until"), ("x=1", "x")]
    {
        let problem = world.get(&format!("/v1/credits?{query}")).await.problem(400, "INVALID_QUERY");
        assert_eq!(problem["errors"][0]["parameter"], parameter);
    }
}
