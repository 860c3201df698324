//! What the system says of this process. Nothing where there is no `/proc`.

use std::fs;

/// The process as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) started_at_s: f64,
    pub(super) resident_bytes: u64,
    pub(super) cpu_seconds: u64,
    pub(super) open_files: u64,
    pub(super) open_files_max: Option<u64>,
}

/// Looks.
pub(super) fn look() -> Option<Seen> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let page_bytes = u64::try_from(rustix::param::page_size()).ok()?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // The look itself has the folder open.
    let open_files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    let Stat { ticks_used, ticks_at_start, pages } = Stat::read(&stat)?;
    let seconds = |ticks: u64| ticks / ticks_per_second.max(1);
    let booted_at_s: u64 = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    let started_at_s = booted_at_s + seconds(ticks_at_start);
    Some(Seen {
        started_at_s: f64::from(u32::try_from(started_at_s).ok()?),
        resident_bytes: pages * page_bytes,
        cpu_seconds: seconds(ticks_used),
        open_files: u64::try_from(open_files).ok()?,
        open_files_max: limit,
    })
}

/// What of `/proc/self/stat` is used (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ticks_used: u64,
    ticks_at_start: u64,
    pages: u64,
}

impl Stat {
    fn read(line: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything; the third is the first behind it.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { ticks_used: field(14)? + field(15)?, ticks_at_start: field(22)?, pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_nothing() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 4 0 9000 123456 77 184467 1 1 0 0";
        assert_eq!(Stat::read(line), Some(Stat { ticks_used: 300, ticks_at_start: 9_000, pages: 77 }));
        assert_eq!(Stat::read("nonsense"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let seen = look().unwrap();
        assert!(seen.resident_bytes > 1_000_000 && seen.open_files > 2 && seen.started_at_s > 1.6e9, "{seen:?}");
    }
}
