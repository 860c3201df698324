//! A database of an earlier version is brought up to date with everything that is in it.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Executor};

use super::timeline::Entry;
use super::{DeliveryFilter, EventFilter, Filter, Order, Paging, Store};
use crate::domain::event::DispatchState;
use crate::domain::generation::{Attention, Status};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::time::Time;

const HOUR: Duration = Duration::from_hours(1);
const PAGING: Paging = Paging { order: Order::Ascending, limit: 50, after: None };

/// Rows as version 5 wrote them: one completed and corrected, one failed and told of, one refused, one open with an odd id.
const ROWS: &str = "
INSERT INTO generations (id, uid, provider_id, family, status, attention, model, result_url, error_code, price_micros, source,
    verification, recovered, via, created_at, submitted_at, settled_at, check_at, checks, running_streak, not_found_streak, error_streak,
    deliveries, outcomes, events, metadata)
VALUES
 (1, x'01000000000000000000000000000000', '6fd3c1ae-4f5b-4a51-9d0e-0a1b2c3d4e5f', 'kling/o3-video', 'completed', NULL, 'kling_o3',
  'https://cdn.example/1.mp4', NULL, 84000, 'check', 'token+status', 1, 'gateway', 7200000, 7200500, 7300000, NULL, 1, 0, 0, 0, 1, 2, 2,
  '{\"order\":\"77\"}'),
 (2, x'02000000000000000000000000000000', '6FD3C1AE-4F5B-4A51-9D0E-0A1B2C3D4E60', 'veo', 'failed', NULL, NULL, NULL, 'NSFW', 84000,
  'webhook', 'token', 0, 'api', 7200001, NULL, 7300001, NULL, 0, 0, 0, 0, 1, 1, 1, '{}'),
 (3, x'03000000000000000000000000000000', NULL, 'kling', 'rejected', NULL, NULL, NULL, 'NO_CREDITS', NULL, NULL, NULL, 0, 'gateway',
  7200002, NULL, 7200003, NULL, 0, 0, 0, 0, 0, 0, 0, '{}'),
 (4, x'04000000000000000000000000000000', 'an-odd_id', 'chatgpt-images', 'processing', 'overdue', NULL, NULL, NULL, NULL, NULL, NULL, 0,
  'webhook', 7200003, NULL, NULL, 9900000, 0, 0, 0, 0, 0, 0, 0, '{}');
INSERT INTO outcomes (generation, version, at, status, source, verification, result_url, error_code) VALUES
 (1, 1, 7250000, 'failed', 'webhook', 'token', NULL, 'NSFW'), (1, 2, 7300000, 'completed', 'check', 'token+status', 'https://cdn.example/1.mp4', NULL),
 (2, 1, 7300001, 'failed', 'webhook', 'token', NULL, 'NSFW');
INSERT INTO deliveries (id, uid, generation, family, standing, received_at, disposition, body, body_bytes, body_sha256) VALUES
 (1, x'11000000000000000000000000000000', 1, 'kling/o3-video', 0, 7250000, 'accepted', x'7b7d', 2, zeroblob(32)),
 (2, x'12000000000000000000000000000000', 2, 'veo', 1, 7300001, 'accepted', NULL, 2, zeroblob(32)),
 (3, x'13000000000000000000000000000000', NULL, 'veo', 1, 7300002, 'unreadable', x'00', 1, zeroblob(32));
INSERT INTO events (id, uid, generation, sequence, at, kind, attention, shown) VALUES
 (1, x'21000000000000000000000000000000', 1, 1, 7250000, 'generation.failed', NULL, '{\"as\":\"it was\"}'),
 (2, x'22000000000000000000000000000000', 1, 2, 7300000, 'generation.corrected', NULL, NULL),
 (3, x'23000000000000000000000000000000', 2, 1, 7300001, 'generation.failed', NULL, NULL);
INSERT INTO outlets (id, name, position) VALUES (1, 'https://example.com/hook', 3), (2, 'callers', 0);
INSERT INTO dispatches (outlet, event, state, attempts, next_at) VALUES (1, 1, 'pending', 2, 9900000), (1, 3, 'dead', 8, NULL);
INSERT INTO submissions (generation, sent_at, request_bytes, request_sha256, callback_url) VALUES (1, 7200000, 2, zeroblob(32), 'https://example.com/c');
INSERT INTO notes (generation, at, author, text) VALUES (2, 7300002, 'ops', 'looked at');
INSERT INTO checks (uid, generation, sent_at) VALUES (x'31000000000000000000000000000000', 1, 7290000);
";

async fn upgraded(folder: &tempfile::TempDir) -> Store {
    let url = format!("sqlite://{}", folder.path().join("old.db").display());
    let mut connection = super::options(&url).unwrap().connect().await.unwrap();
    let mut earlier: Migrator = sqlx::migrate!();
    earlier.migrations = Cow::Owned(earlier.migrations.iter().filter(|one| one.version <= 5).cloned().collect());
    earlier.run(&mut connection).await.unwrap();
    connection.execute(ROWS).await.unwrap();
    drop(connection);
    Store::open(&url).await.unwrap().0
}

fn id(number: u8) -> GenerationId {
    let mut bytes = [0; 16];
    bytes[0] = number;
    GenerationId::from_bytes(&bytes).unwrap()
}

#[tokio::test]
async fn an_older_database_keeps_everything_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = upgraded(&folder).await;
    let found = async |number| store.generation(id(number)).await.unwrap().unwrap();

    let corrected = found(1).await;
    assert_eq!((corrected.state.status(), corrected.family.path), (Status::Completed, "kling/o3-video"));
    assert_eq!(corrected.metadata["order"], "77");
    for text in ["6fd3c1ae-4f5b-4a51-9d0e-0a1b2c3d4e5f", "6FD3C1AE-4F5B-4A51-9D0E-0A1B2C3D4E60", "an-odd_id"] {
        let by_theirs = store.generation_of(&ProviderId::parse(text).unwrap()).await.unwrap().unwrap();
        assert_eq!(by_theirs.provider_id.unwrap().as_str(), text, "one spelling only, as it came");
    }
    let open = found(4).await;
    assert_eq!((open.attention, open.watch.check_at), (Some(Attention::Overdue), Some(Time::from_ms(9_900_000))));

    let versions = async |number| {
        let timeline = store.timeline(&found(number).await).await.unwrap();
        let version = |entry: &Entry| {
            if let Entry::Outcome { version, status, .. } = entry { Some((*version, *status)) } else { None }
        };
        (timeline.len(), timeline.iter().filter_map(version).collect::<Vec<_>>())
    };
    // Bought, webhook, read, two outcomes, two events; and bought, webhook, outcome, event, note.
    assert_eq!(versions(1).await, (7, vec![(1, Status::Failed), (2, Status::Completed)]));
    assert_eq!(versions(2).await, (5, vec![(1, Status::Failed)]));

    let deliveries = store.deliveries(&DeliveryFilter::default(), &PAGING).await.unwrap().rows;
    let mut bodies = Vec::new();
    for delivery in &deliveries {
        bodies.push(store.delivery(delivery.id).await.unwrap().unwrap().body);
    }
    assert_eq!(bodies, [Some(b"{}".to_vec()), None, Some(vec![0])]);

    let told = store.events(&EventFilter::default(), &PAGING, HOUR).await.unwrap().rows;
    let states: Vec<_> = told.iter().map(|told| told.state).collect();
    assert_eq!(states, [DispatchState::Pending, DispatchState::Delivered, DispatchState::Dead]);
    let shown = told.iter().map(|told| told.event.shown.as_ref().unwrap().get());
    assert_eq!(shown.filter(|shown| *shown == r#"{"as":"it was"}"#).count(), 1, "what was kept of then is");

    let labelled = Filter { metadata: [("order".to_owned(), "77".to_owned())].into(), ..Filter::default() };
    let page = store.generations(&labelled, &PAGING, Time::from_ms(8_000_000), HOUR).await.unwrap();
    assert_eq!(page.rows.iter().map(|generation| generation.id).collect::<Vec<_>>(), [id(1)]);

    let report = store.money_report(None, None, Time::from_ms(8_000_000), HOUR).await.unwrap();
    let cut = store
        .money_report(Some(Time::from_ms(1)), Some(Time::from_ms(9_000_000)), Time::from_ms(8_000_000), HOUR)
        .await;
    let text = |report| serde_json::to_string(&report).unwrap();
    assert_eq!(text(report), text(cut.unwrap()), "sums and rows say the same");
}
