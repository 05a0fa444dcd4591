//! Tests of the directory, by subject, and what they share.

mod acts;
mod bans;
mod blocks;
mod claims;
mod contacts;
mod erase;
mod expiry;
mod export;
mod limits;
mod listing;
mod options;
mod pairs;
mod reach;
mod records;
mod requests;
mod transactions;

use ruma::server_name;

use super::*;
use crate::{clock::Timestamp, handle::HandleRules, ids::Ghost, store::Table, testing::person};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn handle(text: &str) -> Handle {
    Handle::parse(text, &HandleRules::default()).unwrap()
}

fn directory_with(change: impl FnOnce(&mut DirectorySettings)) -> Directory {
    let mut settings = DirectorySettings::new(server_name!("example.org").to_owned());
    change(&mut settings);
    Directory::new(Store::in_memory(), settings)
}

fn directory() -> Directory {
    directory_with(|_| {})
}

fn sam() -> &'static Person {
    person("@samuel:example.org")
}

fn kim() -> &'static Person {
    person("@kim:example.org")
}

fn alice() -> &'static Person {
    person("@alice:example.org")
}

/// Runs one transaction and commits it whatever the result is.
async fn write<T>(
    directory: &Directory,
    work: impl FnOnce(&mut DirectoryTransaction<'_>) -> Result<T, DirectoryError>,
) -> Result<T, DirectoryError> {
    let mut tx = directory.begin().await;
    let result = work(&mut tx);
    tx.commit().await.unwrap();
    result
}

async fn claim(
    directory: &Directory,
    owner: &Person,
    name: &str,
    now: Timestamp,
) -> Result<HandleRecord, DirectoryError> {
    write(directory, |tx| {
        tx.claim(owner, &handle(name), ClaimedBy::Person, now)
    })
    .await
}

async fn reach(directory: &Directory, asker: &Person, name: &str, now: Timestamp) -> Verdict {
    let handle = handle(name);
    write(directory, |tx| {
        tx.decide_reach(&ReachQuery {
            asker,
            handle: &handle,
            now,
        })
    })
    .await
    .unwrap()
}

fn label(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Introduce { .. } => "introduce",
        Verdict::Relay { .. } => "relay",
        Verdict::Request { .. } => "request",
        Verdict::NotNow(why) => why.metric_label(),
        Verdict::Unclaimed { decline: true } => "unclaimed",
        Verdict::Unclaimed { decline: false } => "unclaimed, left alone",
        Verdict::OwnHandle { .. } => "own",
    }
}

fn records<T: Table>(directory: &Directory) -> usize {
    directory
        .store()
        .scan::<T>(&[], None, 10_000)
        .unwrap()
        .len()
}
