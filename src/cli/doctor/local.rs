//! What can be seen on this machine: the configuration, the database, the disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::Check;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Loaded, Span};
use crate::domain::spelling::rough;
use crate::domain::time::Time;
use crate::store::LastBackup;
use crate::store::inspect::{self, Inspection, Whole};

/// How long the database is looked through. What is larger than that allows is looked through whole by `recoup backup`.
const PATIENCE: Duration = Duration::from_secs(10);
/// With less room than this the database stops taking writes at any moment.
const ROOM_MIN: u64 = 64 << 20;
/// With less than this somebody should look after it.
const ROOM_ENOUGH: u64 = 1 << 30;

const DATABASE: &str = "database";
const DISK: &str = "disk";
const BACKUP: &str = "backup";
/// A daily one, and an hour for it to be made.
const BACKUP_AGE_MAX: Duration = Duration::from_hours(25);

/// One line for what is wrong, else one that all is well.
pub(super) fn configuration(loaded: &Loaded) -> Vec<Check> {
    let name = "configuration";
    let missing = loaded.config.require_for_serve().err().map(|error| error.0).unwrap_or_default();
    let mut checks: Vec<_> = missing
        .into_iter()
        .map(|fault| Check::failed(name, fault, "`recoup serve` refuses to start without it"))
        .collect();
    let warn = |warning: &String| Check::warning(name, warning, "see config.example.toml and `recoup config check`");
    checks.extend(loaded.warnings.iter().map(warn));
    if checks.is_empty() {
        let origin = loaded.file.as_ref().map_or("built-in defaults".to_owned(), |file| file.display().to_string());
        checks.push(Check::ok(name, format!("{origin} and the environment; keys and secrets are set and long enough")));
    }
    checks
}

/// Which process holds the database. `running`: a service answers; then the lock is not touched.
pub(super) fn holder(config: &Config, running: bool) -> Option<String> {
    let path = inspect::path_of(&config.database.url).ok()?;
    if running {
        return inspect::last_holder(&path).or_else(|| Some("the service".to_owned()));
    }
    // Who cannot even read the lock file is told by what is found of the database.
    inspect::holder(&path).ok().flatten()
}

/// Whether the database is there, whole, and takes writes.
pub(super) fn database(config: &Config, running: bool, held: Option<&str>) -> Check {
    let path = match inspect::path_of(&config.database.url) {
        Ok(path) => path,
        Err(error) => return Check::failed(DATABASE, error.to_string(), "write it like sqlite://recoup.db"),
    };
    let shown = path.display();
    if !path.exists() {
        return missing(&path, running);
    }
    let seen = match inspect::inspect(&path, PATIENCE) {
        Ok(seen) => seen,
        Err(error) => {
            return Check::failed(DATABASE, format!("{shown}: {error}"), "restore a backup, or correct database.url");
        }
    };
    let writes = if held.is_none() { inspect::try_write(&path) } else { Ok(()) };
    if let Err(error) = writes {
        let advice = "give the user that runs recoup the right to write the file and its folder, and look at the disk";
        return Check::failed(DATABASE, format!("{shown} takes no writes: {error}"), advice);
    }
    found(&path, &seen, held)
}

fn missing(path: &Path, running: bool) -> Check {
    let shown = path.display();
    let folder = folder(path);
    if running {
        let advice = "run doctor with the service's own --config and in its working directory";
        Check::failed(DATABASE, format!("{shown} does not exist, yet a service answers: it has another one"), advice)
    } else if folder.is_dir() {
        Check::warning(
            DATABASE,
            format!("{shown} does not exist yet"),
            "`recoup serve` creates it; if there was one, look where it went",
        )
    } else {
        let advice = "create the folder, or correct database.url";
        Check::failed(DATABASE, format!("{shown} cannot be: there is no folder {}", folder.display()), advice)
    }
}

fn found(path: &Path, seen: &Inspection, held: Option<&str>) -> Check {
    let shown = path.display();
    let (size, sqlite) = (ByteSize(seen.bytes), &seen.sqlite);
    let held = held.map_or("nobody has it open".to_owned(), |holder| format!("held by {holder}"));
    if seen.ahead {
        let advice = "run that version or a later one; a backup of before the upgrade works with this one";
        return Check::failed(DATABASE, format!("{shown} was made by a later version of recoup"), advice);
    }
    let known = match &seen.whole {
        Whole::Yes => "whole",
        Whole::NotKnown => "too large to be looked through here (`recoup backup` does that)",
        Whole::No(what) => {
            let advice = "stop the service, keep the file, and restore the last backup";
            return Check::failed(DATABASE, format!("{shown} is damaged: {what}"), advice);
        }
    };
    let text = format!("{shown}: {size}, {known}, SQLite {sqlite}, {held}");
    match seen.behind {
        0 => Check::ok(DATABASE, text),
        behind => Check::warning(
            DATABASE,
            format!("{text}; {behind} migrations behind"),
            "the next start runs them: back it up first",
        ),
    }
}

/// Whether there is room where the database lies.
pub(super) fn disk(config: &Config) -> Check {
    let Ok(path) = inspect::path_of(&config.database.url) else {
        return Check::skipped(DISK, "database.url makes no sense");
    };
    let folder = folder(&path);
    match rustix::fs::statvfs(&folder) {
        Ok(disk) => {
            room(&folder, disk.f_bavail.saturating_mul(disk.f_frsize), path.metadata().map_or(0, |file| file.len()))
        }
        Err(error) => Check::skipped(DISK, format!("{}: {error}", folder.display())),
    }
}

fn room(folder: &Path, free: u64, database: u64) -> Check {
    let seen = format!("{} free in {}", ByteSize(free), folder.display());
    if free < ROOM_MIN {
        Check::failed(
            DISK,
            seen,
            "make room: when the disk is full, webhooks and purchases are refused until there is space",
        )
    } else if free < ROOM_ENOUGH.max(database.saturating_mul(2)) {
        Check::warning(
            DISK,
            seen,
            "make room, or shorten `retention.payloads`; a backup beside the database needs as much as it has",
        )
    } else {
        Check::ok(DISK, seen)
    }
}

fn folder(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// What is removed when. Says it only: both are somebody's choice.
pub(super) fn retention(config: &Config) -> Check {
    let kept = |span: Span| {
        if span.0.is_zero() { "for ever".to_owned() } else { format!("for {}", rough(span.0)) }
    };
    let (bodies, generations) = (kept(config.retention.payloads), kept(config.retention.generations));
    Check::ok("retention", format!("bodies of webhooks are kept {bodies}, settled generations {generations}"))
}

/// Whether there is a copy to go back to.
pub(super) fn backup(config: &Config) -> Check {
    let advice = "run `recoup backup FILE` daily and keep the copy on another machine";
    let Ok(path) = inspect::path_of(&config.database.url) else {
        return Check::skipped(BACKUP, "database.url makes no sense");
    };
    if !path.exists() {
        return Check::skipped(BACKUP, "there is no database yet");
    }
    match LastBackup::of(&path) {
        None if is_new(&path) => Check::ok(BACKUP, "none yet: the database is younger than a day"),
        None => Check::warning(BACKUP, "none was made by `recoup backup`; others are not known of", advice),
        Some(made) => aged(made, SystemClock::new().now(), advice),
    }
}

/// Whether the database was made within a day; what cannot be told counts as old.
fn is_new(path: &Path) -> bool {
    let made = std::fs::metadata(path).and_then(|file| file.created()).ok();
    made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age < BACKUP_AGE_MAX)
}

fn aged(made: LastBackup, now: Time, advice: &str) -> Check {
    let age = now.since(made.at);
    let seen = format!("{} ago, {}", rough(age), ByteSize(made.bytes));
    if age > BACKUP_AGE_MAX { Check::warning(BACKUP, seen, advice) } else { Check::ok(BACKUP, seen) }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn little_room_is_told_before_there_is_none() {
        let verdict = |free, database| room(Path::new("/data"), free, database).verdict;
        assert_eq!(verdict(ROOM_MIN - 1, 0), Verdict::Failed);
        assert_eq!(verdict(ROOM_MIN, 0), Verdict::Warning);
        assert_eq!(verdict(ROOM_ENOUGH, 0), Verdict::Ok);
        assert_eq!(verdict(ROOM_ENOUGH, ROOM_ENOUGH), Verdict::Warning, "no room for a backup");
    }

    #[test]
    fn a_backup_is_made_daily() {
        let made = LastBackup { at: Time::parse("2026-11-23T03:00:00Z").unwrap(), bytes: 4_096 };
        assert_eq!(aged(made, made.at + BACKUP_AGE_MAX, "").verdict, Verdict::Ok);
        let old = aged(made, made.at + Duration::from_hours(72), "");
        assert_eq!((old.verdict, old.seen.as_str()), (Verdict::Warning, "3 d ago, 4.0 KiB"));
    }

    #[test]
    fn a_damaged_or_later_database_fails() {
        let seen = |whole, behind, ahead| Inspection { bytes: 1, sqlite: "3.51.3".to_owned(), behind, ahead, whole };
        let check = |seen| found(Path::new("recoup.db"), &seen, None);
        assert_eq!(check(seen(Whole::Yes, 0, false)).verdict, Verdict::Ok);
        assert_eq!(check(seen(Whole::NotKnown, 0, false)).verdict, Verdict::Ok);
        assert_eq!(check(seen(Whole::Yes, 2, false)).verdict, Verdict::Warning);
        assert_eq!(check(seen(Whole::Yes, 0, true)).verdict, Verdict::Failed);
        let damaged = check(seen(Whole::No("page 7".to_owned()), 0, false));
        assert_eq!((damaged.verdict, damaged.seen.as_str()), (Verdict::Failed, "recoup.db is damaged: page 7"));
    }
}
