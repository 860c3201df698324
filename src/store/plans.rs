//! Every statement of this folder, asked how SQLite would run it: nothing may walk a table that grows.

use std::path::Path;
use std::time::Duration;

use sqlx::{ConnectOptions, Row, SqliteConnection};

use super::pages::{Filter, Order, Paging};
use super::walk::Walk;
use super::{DeliveryFilter, EventFilter};
use crate::domain::credits::CreditState;
use crate::domain::decision::Disposition;
use crate::domain::event::{DispatchState, EventKind};
use crate::domain::generation::Status;
use crate::domain::id::GenerationId;
use crate::domain::outcome::Source;
use crate::domain::time::Time;

/// Statements that may walk or sort: where they begin, and why that ends soon.
const MAY_WALK: [(&str, &str); 8] = [
    ("SELECT received_at FROM deliveries ORDER BY id DESC LIMIT 5000", "the newest rows, a bounded number"),
    (
        "SELECT sent_at, answered_at FROM checks WHERE listed = 0 ORDER BY id DESC LIMIT",
        "the newest rows, as many as the budget",
    ),
    ("SELECT c.id, g.uid FROM (SELECT id, generation, answered_at FROM checks ORDER BY id DESC LIMIT", "the same"),
    ("DELETE FROM bodies WHERE delivery IN (SELECT delivery FROM", "the oldest rows, a bounded number"),
    ("SELECT id, * FROM generations WHERE id IN", "the index of unanswered purchases holds few, at a start only"),
    ("SELECT name FROM sqlite_schema", "tables, not rows"),
    ("SELECT id, * FROM generations WHERE provider_id = ?1 ORDER BY id DESC", "sorts one row of each family at most"),
    ("SELECT code, family, seen, last_at FROM unknown_codes", "sorts a table that stays small"),
];

/// Tables that stay small, however many generations there are.
const SMALL: [&str; 7] = ["outlets", "o", "json_each", "heartbeat", "unknown_codes", "paces", "trusts"];

/// What stands for the names inside `{}`; the plan does not depend on them.
fn named(sql: String) -> String {
    let names = [
        ("{JOINED}, {COLUMNS}", "1"),
        ("({COLUMNS}) = ({MARKS})", "uid = uid"),
        ("({PROGRESS}) = ({PROGRESS_MARKS})", "status = status"),
        ("({COLUMNS}) VALUES ({MARKS})", "DEFAULT VALUES"),
        ("SELECT {}", "SELECT 1"),
        ("SELECT {JOINED} FROM", "SELECT 1 FROM"),
        ("{COLUMNS}", "*"),
        ("{JOINED}", "g.*"),
        ("{REPLY}", "*"),
        ("{STATE}", "''"),
        ("{GROUPED}", "model"),
        ("{order}", ""),
        ("{table}", "heartbeat"),
        ("{sums}", "credit_hours"),
        ("{GROUPED_ROWS}", "status, attention, error_code, model, recovered, refunded_at"),
    ];
    names.iter().fold(sql, |sql, (name, value)| sql.replace(name, value))
}

async fn database() -> (tempfile::TempDir, SqliteConnection) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("plans.db").display());
    let mut connection = super::options(&url).unwrap().connect().await.unwrap();
    sqlx::migrate!().run(&mut connection).await.unwrap();
    (folder, connection)
}

/// The steps of a statement that walk a whole table or index, or sort what they found.
async fn walks(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let explained = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(connection).await;
    let steps = explained.unwrap_or_else(|error| panic!("{error}: {sql}"));
    let steps = steps.iter().map(|step| step.get::<String, _>("detail"));
    steps
        .filter(|step| {
            let walked = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            // What a subquery found was looked for by steps of its own.
            let small =
                |table: &str| SMALL.contains(&table) || table.starts_with("(subquery") || table.starts_with("pragma_");
            let walks = walked.is_some_and(|table| !small(table)) && !step.ends_with("CONSTANT ROW");
            walks || step.contains("TEMP B-TREE FOR ORDER BY")
        })
        .collect()
}

/// The string literals of a source file, its tests left out.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n").replace("'\"'", "' '");
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some((_, after)) = rest.split_once('"') {
        let mut text = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => {
                    text.push(chars.next().map_or(' ', |(_, escaped)| if escaped == '\n' { ' ' } else { escaped }));
                }
                Some((at, '"')) => break at,
                Some((_, other)) => text.push(other),
                None => break after.len() - 1,
            }
        };
        rest = &after[end + 1..];
        found.push(text);
    }
    found
}

/// Every statement that is written down whole; those put together at run time are looked at where they are built.
fn statements() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("plans.rs") && !file.ends_with("upgrade.rs")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for literal in literals(&std::fs::read_to_string(file).unwrap()) {
            let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];
            // Those put together at run time end openly.
            let whole = !["WHERE ", "= ", "> "].iter().any(|end| literal.ends_with(end)) && literal.contains(' ');
            if whole && verbs.iter().any(|verb| literal.trim_start().starts_with(verb)) {
                found.push((name.clone(), named(literal)));
            }
        }
    }
    found
}

#[tokio::test]
async fn no_list_walks_or_sorts_however_it_is_filtered() {
    let (_folder, mut connection) = database().await;
    let filters = lists();
    let mut bad = Vec::new();
    for (name, walk) in &filters {
        for order in [Order::Descending, Order::Ascending] {
            for (after, until) in [(None, None), (Some((1, 1)), Some((2, 2)))] {
                let (end, rows) = walk.statements("1", &Paging { order, limit: 50, after }, until);
                for sql in [end, rows] {
                    let (sql, _) = sql.query().unwrap();
                    for step in walks(&mut connection, &sql).await {
                        // Without an index condition the whole list is walked, in its order and to its page's end.
                        let ordered = ["generations_created_at", "SCAN e", "SCAN d", "SCAN json_each"]
                            .iter()
                            .any(|walk| step.contains(walk));
                        if !ordered || step.contains("TEMP") {
                            bad.push(format!("{name}: {step} by {sql}"));
                        }
                    }
                }
            }
        }
    }
    assert!(filters.len() > 40, "{}", filters.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Every list with each of its filters.
fn lists() -> Vec<(String, Walk)> {
    let mut found = Vec::new();
    let id = GenerationId::fresh(Time::from_ms(1));
    let now = Time::from_ms(1_000_000);
    let mut generations: Vec<(&str, Filter)> = vec![
        ("all", Filter::default()),
        ("attention", Filter { any_attention: true, ..Filter::default() }),
        ("error code", Filter { error_codes: vec!["X".to_owned(), "Y".to_owned()], ..Filter::default() }),
        ("model", Filter { models: vec!["m".to_owned()], ..Filter::default() }),
        ("family", Filter { families: vec!["kling".to_owned()], ..Filter::default() }),
        ("source", Filter { sources: Source::ALL.to_vec(), ..Filter::default() }),
        ("refused", Filter { refused_at_submission: true, ..Filter::default() }),
        ("created", Filter { created_after: Some(now), created_before: Some(now), ..Filter::default() }),
        ("doubled", Filter { doubled: true, created_after: Some(now), ..Filter::default() }),
        ("label", Filter { metadata: [("order".to_owned(), "7".to_owned())].into(), ..Filter::default() }),
    ];
    generations.extend(
        CreditState::ALL.iter().map(|state| ("credits", Filter { credits: vec![*state], ..Filter::default() })),
    );
    generations.extend(
        Status::ALL.iter().map(|status| {
            ("status", Filter { statuses: vec![*status], created_after: Some(now), ..Filter::default() })
        }),
    );
    for (name, filter) in generations {
        let walks = filter.walks(now, Duration::from_mins(5));
        found.extend(walks.into_iter().map(|walk| (format!("generations by {name}"), walk)));
    }
    let deliveries = [
        DeliveryFilter::default(),
        DeliveryFilter { dispositions: Disposition::ALL.to_vec(), generation: None },
        DeliveryFilter { dispositions: vec![Disposition::Conflict, Disposition::Mismatch], generation: None },
        DeliveryFilter { dispositions: Disposition::ALL.to_vec(), generation: Some(id) },
    ];
    found.extend(deliveries.iter().flat_map(DeliveryFilter::walks).map(|walk| ("deliveries".to_owned(), walk)));
    let all = DispatchState::ALL;
    let events = [
        EventFilter::default(),
        EventFilter { kinds: EventKind::ALL.to_vec(), ..EventFilter::default() },
        EventFilter { kinds: vec![EventKind::Failed, EventKind::Attention], ..EventFilter::default() },
        EventFilter { states: all.to_vec(), ..EventFilter::default() },
        EventFilter { states: vec![DispatchState::Pending, DispatchState::Dead], ..EventFilter::default() },
        EventFilter { kinds: EventKind::ALL.to_vec(), states: all.to_vec(), generation: Some(id) },
    ];
    found.extend(events.iter().flat_map(EventFilter::walks).map(|walk| ("events".to_owned(), walk)));
    found
}

#[tokio::test]
async fn no_statement_walks_a_table_that_grows() {
    let (_folder, mut connection) = database().await;
    let statements = statements();
    assert!(statements.len() > 60, "only {} statements were found", statements.len());
    let mut bad = Vec::new();
    for (file, sql) in &statements {
        let walks = walks(&mut connection, sql).await;
        let may = MAY_WALK.iter().any(|(begins, _)| sql.starts_with(begins));
        if walks.is_empty() == may {
            bad.push(format!("{file}: {walks:?} by {sql}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
