//! kill -9 at random moments while purchases run. The oracle is the simulated provider's ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use recoup::domain::money::Usd;
use recoup::sandbox::{Chances, Purchase, Settings};
use serde_json::{Value, json};

use crate::outbox::{Recorder, SECRET, verify};
use crate::process::{KEY, Provider, Service, call, free_port, http, tell_until_killed};
use crate::support::{O3, often, text};

/// A client that gives every order its own key and repeats it until it has an answer.
struct Buyer {
    number: usize,
    orders: usize,
    /// Sent, and not answered.
    open: Option<String>,
    answers: BTreeMap<String, u16>,
}

impl Buyer {
    /// Buys until the service is gone.
    async fn buy(&mut self, http: &reqwest::Client, url: &str, answered: &AtomicU64) {
        loop {
            let key = self.open.take().unwrap_or_else(|| {
                self.orders += 1;
                format!("order-{}-{}", self.number, self.orders)
            });
            let request = http.post(format!("{url}/gateway/v1/{O3}/generate")).bearer_auth(KEY);
            let body = json!({"prompt": key, "model": "kling_o3", "duration": "5"});
            let answer = request.header("idempotency-key", &key).json(&body).send().await;
            let Ok(answer) = answer else {
                self.open = Some(key);
                return;
            };
            let status = answer.status().as_u16();
            assert!(matches!(status, 201 | 504), "{status}: {}", answer.text().await.unwrap_or_default());
            answered.fetch_add(1, Ordering::SeqCst);
            self.answers.insert(key, status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_while_purchases_run_lose_nothing_and_buy_nothing_twice() {
    let kills = often("RECOUP_KILLS", 30);
    let folder = tempfile::tempdir().unwrap();
    let config = "[expected.\"kling/o3-video\"]\nkling_o3 = { \"5\" = [\"100ms\", \"500ms\"] }\n";
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let funds = Usd::from_micros(i64::MAX / 2);
    let chances = Chances { fail: 20, lose: 20, double: 10, ..Chances::default() };
    let provider = Provider::with(Settings { speed: 600, funds, chances, ..Settings::default() }).await;
    let (http, port) = (http(), free_port());
    let mut chance = fastrand::Rng::with_seed(kills);
    let mut buyers: Vec<_> =
        (0..4).map(|number| Buyer { number, orders: 0, open: None, answers: BTreeMap::new() }).collect();
    for _ in 0..kills {
        let service = Service::start_at(port, folder.path(), &provider.url);
        let url = service.url.clone();
        let answered = Arc::new(AtomicU64::new(0));
        // At any point of a purchase: some answers, and then a moment.
        let (answers, moment) = (chance.u64(0..12), Duration::from_micros(chance.u64(0..6_000)));
        let killer = async {
            while answered.load(Ordering::SeqCst) < answers {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(moment).await;
            service.kill();
        };
        let buying = futures_util::future::join_all(buyers.iter_mut().map(|buyer| buyer.buy(&http, &url, &answered)));
        tokio::join!(buying, killer);
    }
    let service = Service::start_at(port, folder.path(), &provider.url);
    let ledger = provider.sandbox.ledger();
    let keys: BTreeSet<_> = ledger.iter().map(|bought| bought.prompt.clone()).collect();
    assert_eq!(keys.len(), ledger.len(), "a key was bought twice");
    let (mut settled, mut at_risk, mut unanswered) = (0, 0, 0);
    for bought in &ledger {
        let answer = buyers.iter().find_map(|buyer| buyer.answers.get(&bought.prompt));
        unanswered += usize::from(answer.is_none());
        let shown = end(&http, &service.url, bought).await;
        // Who was told that it was sold finds it bought.
        assert!(answer != Some(&201) || shown["generation_id"] == json!(bought.id), "{shown}");
        match shown["status"].as_str().unwrap() {
            "completed" | "failed" => settled += 1,
            "unconfirmed" => {
                assert_eq!((&shown["credits"], &shown["attention"]), (&json!("at_risk"), &json!("unconfirmed")));
                at_risk += 1;
            }
            other => panic!("{other}: {shown}"),
        }
    }
    for (key, _) in buyers.iter().flat_map(|buyer| &buyer.answers).filter(|(_, status)| **status == 201) {
        assert!(keys.contains(key), "{key} was answered and never bought");
    }
    assert!(unanswered <= buyers.len(), "only the last orders may be open");
    let (_, report) = call(http.get(format!("{}/v1/credits", service.url))).await.unwrap();
    let reported = report["by_attention"]["unconfirmed"]["count"].as_u64().unwrap_or(0);
    assert_eq!(reported, unconfirmed(&http, &service.url).await);
    eprintln!("{kills} kills, {} bought: {settled} settled, {at_risk} visibly at risk", ledger.len());
    assert_eq!(service.terminate(), 0);
}

/// The record of a purchase once it is over, found by the callback URL that the provider was given.
async fn end(http: &reqwest::Client, url: &str, bought: &Purchase) -> Value {
    let callback_url = bought.callback_url.as_deref().unwrap();
    let id = callback_url.rsplit_once('/').unwrap().1.split_once('.').unwrap().0;
    let record = format!("{url}/v1/generations/{id}");
    let (status, shown) = call(http.get(&record)).await.unwrap();
    assert_eq!(status, 200, "{} was paid and is not on record", bought.id);
    assert_ne!(shown["status"], "submitting", "{shown}");
    if shown["status"] == "unconfirmed" {
        return shown;
    }
    assert_eq!(shown["generation_id"], json!(bought.id));
    call(http.get(format!("{record}?wait=9"))).await.unwrap().1
}

async fn unconfirmed(http: &reqwest::Client, url: &str) -> u64 {
    let mut count = 0;
    let mut cursor = String::new();
    loop {
        let (_, page) =
            call(http.get(format!("{url}/v1/generations?status=unconfirmed&limit=200{cursor}"))).await.unwrap();
        count += u64::try_from(page["data"].as_array().unwrap().len()).unwrap();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return count,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_while_outcomes_are_settled_lose_no_event() {
    let kills = often("RECOUP_KILLS", 15);
    let (folder, recorder) = (tempfile::tempdir().unwrap(), Recorder::start().await);
    let config = format!(
        "[events]\nallow_private_addresses = true\n[[events.endpoints]]\nurl = \"{}\"\nsecret = \"{SECRET}\"\n",
        recorder.url
    );
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let provider = Provider::with(Settings::default()).await;
    let http = http();
    let mut chance = fastrand::Rng::with_seed(kills);
    let mut acknowledged = Vec::new();
    for round in 0..kills {
        let service = Service::start_at(free_port(), folder.path(), &provider.url);
        let url = service.url.clone();
        let told = Arc::new(AtomicUsize::new(0));
        let round = usize::try_from(round).unwrap() * 10;
        let clients = (0..4).map(|client| tell_until_killed(&http, &url, round + client, Arc::clone(&told)));
        let (answers, moment) = (chance.usize(0..60), Duration::from_micros(chance.u64(0..6_000)));
        let killer = async {
            while told.load(Ordering::SeqCst) < answers {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(moment).await;
            service.kill();
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(clients), killer);
        acknowledged.extend(answers.into_iter().flatten());
    }
    let service = Service::start_at(free_port(), folder.path(), &provider.url);
    // Each acknowledged outcome under exactly one event id, in order, however often it was sent.
    let mut events = BTreeMap::<String, BTreeSet<String>>::new();
    let mut seen = 0;
    while !acknowledged.iter().all(|id| events.contains_key(id)) {
        let got = recorder.after(seen + 1).await;
        for one in &got[seen..] {
            assert!(verify(one, SECRET));
            let body = one.json();
            assert_eq!((&body["type"], &body["sequence"]), (&json!("generation.completed"), &json!(1)));
            events.entry(text(&body["data"]["generation_id"])).or_default().insert(one.header("webhook-id"));
        }
        seen = got.len();
    }
    assert!(events.values().all(|ids| ids.len() == 1), "an outcome was told under two ids");
    eprintln!("{kills} kills, {} acknowledged, {seen} sent", acknowledged.len());
    assert_eq!(service.terminate(), 0);
}
