//! The house rules of docs/ARCHITECTURE.md, read from the sources.

use std::path::{Path, PathBuf};

use sha2::Digest;

pub(crate) fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(read).collect()
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Every place outside `rooms` where `word` stands.
fn outside(word: &str, rooms: &[&str]) -> Vec<String> {
    let elsewhere = sources().into_iter().filter(|(name, _)| !rooms.iter().any(|room| name.starts_with(room)));
    elsewhere.filter(|(_, text)| code(text).any(|line| line.contains(word))).map(|(name, _)| name).collect()
}

#[test]
fn everything_stays_in_its_room() {
    for (word, rooms) in [
        ("sqlx::", &["store/"][..]),
        ("axum::", &["http/", "sandbox/", "app.rs"]),
        ("axum_server::", &["http/server.rs"]),
        ("tokio::spawn", &["worker/"]),
        ("anyhow::", &["cli/"]),
        ("opentelemetry", &["telemetry/"]),
        ("SystemTime::now", &["clock.rs"]),
        ("metrics_exporter_prometheus::", &["telemetry/", "http/mod.rs", "worker/upkeep.rs"]),
        ("Instant::now", &["clock.rs"]),
        ("println!", &["bin/"]),
        // Asked where a layer has a filter of its own, it hides the next line of the log.
        ("_enabled!(", &[]),
    ] {
        assert_eq!(outside(word, rooms), Vec::<String>::new(), "{word} outside {rooms:?}");
    }
}

#[test]
fn who_may_use_whom() {
    // The right side may not be used by the left one.
    for (room, strangers) in [
        (
            "domain/",
            &["store", "provider", "flow", "http", "worker", "app", "cli", "config", "clock", "sandbox", "telemetry"][..],
        ),
        ("store/", &["provider", "flow", "http", "worker", "app", "cli", "sandbox"]),
        ("provider/", &["store", "flow", "http", "worker", "app", "cli", "sandbox"]),
        ("flow/", &["http", "worker", "app", "cli", "sandbox"]),
        ("worker/", &["http", "app", "cli", "sandbox"]),
        ("http/", &["app", "cli", "sandbox"]),
        ("telemetry/", &["store", "provider", "sink", "flow", "http", "worker", "app", "cli", "sandbox", "sim"]),
        ("sandbox/", &["store", "flow", "http", "worker", "app", "cli", "sim"]),
        // The simulator is for tests and measurements: no part of the service knows of it.
        ("sim/", &["http", "worker", "app", "cli"]),
        ("app.rs", &["sim"]),
        ("cli/", &["sim"]),
    ] {
        for (name, text) in sources().into_iter().filter(|(name, _)| name.starts_with(room)) {
            for stranger in strangers {
                let used = code(&text).any(|line| line.contains(&format!("crate::{stranger}")));
                assert!(!used, "{name} uses {stranger}");
            }
        }
    }
}

#[test]
fn the_domain_is_pure() {
    // Its tests may rewrite what they compare with.
    let pure = |name: &str| name.starts_with("domain/") && !name.contains("/tests/");
    for (name, text) in sources().into_iter().filter(|(name, _)| pure(name)) {
        for word in
            [".await", "async ", "tokio::", "reqwest::", "std::time::SystemTime", "std::time::Instant", "std::fs"]
        {
            assert!(!code(&text).any(|line| line.contains(word)), "{name}: {word}");
        }
    }
}

#[test]
fn every_file_says_what_it_owns_and_none_is_too_long() {
    for (name, text) in sources() {
        assert!(text.starts_with("//!"), "{name} has no head");
        let own = text.split("#[cfg(test)]").next().unwrap().lines().count();
        let data = name.ends_with("error_code.rs") || name.ends_with("table.rs");
        assert!(own <= 400 || data || name.ends_with("tests.rs"), "{name} has {own} lines");
        for left in ["todo!", "unimplemented!", "FIXME", "XXX", "dbg!"] {
            assert!(!text.contains(left), "{name}: {left}");
        }
    }
}

#[test]
fn what_the_image_is_built_from_is_not_kept_from_the_build() {
    let lines = include_str!("../../Dockerfile").lines();
    let copies = lines.filter_map(|line| line.strip_prefix("COPY ")).filter(|copy| !copy.starts_with("--from"));
    let mut sources: Vec<_> = copies.flat_map(|copy| copy.rsplit_once(' ').unwrap().0.split(' ')).collect();
    let ignored = include_str!("../../.dockerignore");
    let mut sent: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    sources.sort_unstable();
    sent.sort_unstable();
    assert!(ignored.starts_with("*\n") && sources == sent, "{sources:?} is copied, {sent:?} is there");
}

#[test]
fn landed_migrations_never_change() {
    // `sha256sum *` in migrations/: a new migration adds a line, an old one never changes.
    let landed = include_str!("../migrations.landed");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut lines = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let hash = hex::encode(sha2::Sha256::digest(std::fs::read(&path).unwrap()));
        lines.push(format!("{hash}  {}", path.file_name().unwrap().to_str().unwrap()));
    }
    lines.sort_by(|a, b| a[66..].cmp(&b[66..]));
    assert_eq!(lines.join("\n"), landed.trim_end(), "migrations are append-only: add a new file and its line here");
}
