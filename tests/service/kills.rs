//! kill -9 at random moments while purchases run. The oracle is the simulated provider's ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recoup::domain::money::Usd;
use recoup::sandbox::{Chances, Purchase, Settings};
use serde_json::{Value, json};

use crate::process::{KEY, Provider, Service, call, free_port, http};
use crate::receivers::{Kept, LANGUAGES, Receiver, endpoints, refused};
use crate::support::{O3, completed, failed, often, text};

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
            let answer = request.header("idempotency-key", &key).header("prefer", "wait=0").json(&body).send().await;
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

/// What a teller was told is kept: of each generation the number of events that this makes.
type Acknowledged = BTreeMap<String, u64>;

/// Prepares generations and tells their outcomes until the service is gone. A third of them says more later.
async fn tell_changes(http: &reqwest::Client, url: &str, mark: &str, told: &AtomicU64) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    for n in 0.. {
        let prepare = http.post(format!("{url}/v1/generations")).json(&json!({"family": O3}));
        let Some((201, prepared)) = call(prepare).await else { break };
        let (id, callback_url) = (format!("{mark}-{n}"), text(&prepared["callback_url"]));
        let webhooks = match n % 3 {
            0 => vec![completed(&id, "https://x/v.mp4")],
            // The reason comes later: `generation.updated`.
            1 => vec![json!({"generation_id": id, "status": "failed"}).to_string(), failed(&id, "TIMEOUT")],
            // Another id under the same token: `generation.attention`.
            _ => vec![completed(&id, "https://x/v.mp4"), completed("another", "https://x/w.mp4")],
        };
        for (event, webhook) in (1..).zip(webhooks) {
            let Some((200, _)) = call(http.post(&callback_url).body(webhook)).await else { return acknowledged };
            acknowledged.insert(text(&prepared["id"]), event);
            told.fetch_add(1, Ordering::SeqCst);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_while_outcomes_are_settled_lose_no_event() {
    let kills = often("RECOUP_KILLS", 15);
    let folder = tempfile::tempdir().unwrap();
    let mut receivers = Vec::new();
    for language in LANGUAGES {
        receivers.push(Receiver::start(language).await);
    }
    let urls: Vec<_> = receivers.iter().map(|receiver| receiver.url.clone()).collect();
    // Without a check nothing but the webhooks makes events.
    let config = format!("{}[reconcile]\nenabled = false\n", endpoints(&urls));
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let provider = Provider::with(Settings::default()).await;
    let http = http();
    let mut chance = fastrand::Rng::with_seed(kills);
    let mut acknowledged = Acknowledged::new();
    for round in 0..kills {
        let service = Service::start_at(free_port(), folder.path(), &provider.url);
        let told = AtomicU64::new(0);
        let marks: Vec<_> = (0..4).map(|client| format!("p-{round}-{client}")).collect();
        let (told, url) = (&told, service.url.clone());
        let tellers = marks.iter().map(|mark| tell_changes(&http, &url, mark, told));
        let tellers = futures_util::future::join_all(tellers);
        let (answers, moment) = (chance.u64(0..150), Duration::from_micros(chance.u64(0..6_000)));
        let killer = async move {
            while told.load(Ordering::SeqCst) < answers {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(moment).await;
            service.kill();
        };
        let (answers, ()) = tokio::join!(tellers, killer);
        acknowledged.extend(answers.into_iter().flatten());
    }
    let service = Service::start_at(free_port(), folder.path(), &provider.url);
    let mut sent = 0;
    // Under one id and type everywhere, in each language.
    let mut events = BTreeMap::<(String, u64), BTreeSet<(String, String)>>::new();
    for receiver in &mut receivers {
        let kept = receiver.kept(|kept| tells_all(kept, &acknowledged)).await;
        sent += kept.len();
        let mut highest = BTreeMap::<String, BTreeSet<u64>>::new();
        for one in kept {
            highest.entry(one.generation.clone()).or_default().insert(one.sequence);
            events.entry((one.generation, one.sequence)).or_default().insert((one.id, one.kind));
        }
        for (generation, sequences) in highest {
            assert!((1..).zip(&sequences).all(|(n, sequence)| n == *sequence), "{generation} has a gap: {sequences:?}");
        }
    }
    for (event, told) in &events {
        assert_eq!(told.len(), 1, "{event:?} was told as {told:?}");
    }
    let ids: BTreeSet<_> = events.values().flatten().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), events.len(), "an id was used for two events");
    assert_eq!(refused(&http, &service.url).await, BTreeMap::new());
    let outcomes = acknowledged.len();
    eprintln!("{kills} kills, {outcomes} outcomes acknowledged, {} events, {sent} times verified", events.len());
    assert_eq!(service.terminate(), 0);
}

fn tells_all(kept: &[Kept], acknowledged: &Acknowledged) -> bool {
    let told: BTreeSet<_> = kept.iter().map(|one| (one.generation.as_str(), one.sequence)).collect();
    acknowledged
        .iter()
        .all(|(generation, events)| (1..=*events).all(|event| told.contains(&(generation.as_str(), event))))
}
