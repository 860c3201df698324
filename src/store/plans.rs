//! Every statement of this folder, asked how SQLite would run it: nothing may walk a table that grows.

use std::path::Path;

use sqlx::{ConnectOptions, Row, SqliteConnection};

/// Statements that may walk or sort: where they begin, and why that ends soon.
const MAY_WALK: [(&str, &str); 6] = [
    ("SELECT sent_at, answered_at FROM checks ORDER BY id DESC LIMIT", "the newest rows, as many as the budget"),
    ("SELECT id, generation FROM (SELECT id, generation, answered_at FROM checks ORDER BY id DESC LIMIT", "the same"),
    ("SELECT id, * FROM generations WHERE id IN", "the index of unanswered purchases holds few, at a start only"),
    ("SELECT name FROM sqlite_schema", "tables, not rows"),
    ("SELECT id, * FROM generations WHERE provider_id = ?1 ORDER BY id DESC", "sorts one row of each family at most"),
    ("SELECT code, family, seen, last_at FROM unknown_codes", "sorts a table that stays small"),
];

/// Tables that stay small, however many generations there are.
const SMALL: [&str; 6] = ["outlets", "o", "heartbeat", "unknown_codes", "paces", "trusts"];

/// What stands for the names inside `{}`; the plan does not depend on them.
const NAMES: [(&str, &str); 8] = [
    ("({COLUMNS}) = ({MARKS})", "uid = uid"),
    ("({COLUMNS}) VALUES ({MARKS})", "DEFAULT VALUES"),
    ("{COLUMNS}", "*"),
    ("{REPLY}", "*"),
    ("{STATE}", "''"),
    ("{GROUPED}", "hour"),
    ("{order}", ""),
    ("{table}", "heartbeat"),
];

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
            let walks = walked.is_some_and(|table| !SMALL.contains(&table)) && !step.ends_with("CONSTANT ROW");
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
    for file in files.iter().filter(|file| !file.ends_with("plans.rs")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for literal in literals(&std::fs::read_to_string(file).unwrap()) {
            let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];
            let whole = !literal.ends_with("WHERE TRUE") && !literal.ends_with("= ") && !literal.ends_with("> ");
            if whole && verbs.iter().any(|verb| literal.trim_start().starts_with(verb)) {
                found.push((name.clone(), NAMES.iter().fold(literal, |sql, (name, value)| sql.replace(name, value))));
            }
        }
    }
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
