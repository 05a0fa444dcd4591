//! CPU time and memory of this process, from `/proc`. CPU time and not the clock on the wall:
//! whatever else the machine does at the moment is not ours.

use std::{collections::BTreeMap, time::Duration};

/// CPU time by the name of the thread.
pub type Threads = BTreeMap<String, Duration>;

/// CPU time so far of each thread that is alive. To be called while they all rest: what a running
/// thread has used is only written down when it stops.
pub fn by_thread() -> Threads {
    std::thread::sleep(Duration::from_millis(2));
    let mut threads = Threads::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let read = |file: &str| {
            let path = thread.as_ref().unwrap().path().join(file);
            // It may have ended meanwhile.
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let name = read("comm").trim().to_owned();
        let used = read("schedstat");
        let used = used.split(' ').next().and_then(|ns| ns.parse().ok());
        *threads.entry(name).or_default() += Duration::from_nanos(used.unwrap_or(0));
    }
    threads
}

/// What was used between two moments, without the threads that belong to somebody else.
pub fn between(before: &Threads, after: &Threads, without: &str) -> Threads {
    let used = after.iter().map(|(name, after)| {
        let before = before.get(name).copied().unwrap_or_default();
        (name.clone(), after.saturating_sub(before))
    });
    used.filter(|(name, used)| {
        !used.is_zero() && (without.is_empty() || !name.starts_with(without))
    })
    .collect()
}

pub fn sum(threads: &Threads) -> Duration {
    threads.values().sum()
}

/// CPU time of all threads of a process, also of those that have ended, to a hundredth of a second.
pub fn of_process(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The name of the program, in parentheses, may hold anything.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Memory of this process that is not backed by a file, in bytes.
pub fn memory() -> u64 {
    memory_of(std::process::id())
}

/// Memory of a process that is not backed by a file, in bytes.
pub fn memory_of(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap() * 1024
}
