//! `kill -9` and a full disk, with real processes. The tests start this test binary again as a
//! child that writes, and reports on its standard output what was acknowledged.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::store::*;

const FOLDER: &str = "STONECHAT_TEST_CRASH_FOLDER";
pub(super) const WRITERS: u64 = 8;

struct Left;
impl Table for Left {
    const ID: u8 = 200;
    const NAME: &'static str = "left";
    const SECRET: bool = false;
    type Key = (u64, u64);
    type Value = Vec<u8>;
}

struct Right;
impl Table for Right {
    const ID: u8 = 250;
    const NAME: &'static str = "right";
    const SECRET: bool = true;
    type Key = (u64, u64);
    type Value = Vec<u8>;
}

fn key(folder: &Path) -> StoreKey {
    let path = folder.join("key");
    if path.exists() {
        StoreKey::from_file(&path)
    } else {
        StoreKey::create_file(&path)
    }
    .unwrap()
}

fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(
        &folder.join("store"),
        &key(folder),
        &StoreOptions {
            cache_bytes: 1 << 20,
        },
    )
}

/// Runs one of the children below.
fn child(name: &str, folder: &Path, before: &str) -> Child {
    let script = format!("{before} exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::tests::crash::{name}")])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Collects the numbers of lines `ack <writer> <number>` until the child ends. Kills the child
/// after the `kill_after`th line, whatever it does at that moment.
fn acknowledged(
    child: &mut Child,
    kill_after: Option<usize>,
    said: &mut Vec<String>,
) -> Vec<(u64, u64)> {
    let mut acks = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        let mut words = line.split(' ');
        if words.next() == Some("ack") {
            let mut number = || words.next().and_then(|word| word.parse().ok());
            if let (Some(writer), Some(n)) = (number(), number()) {
                acks.push((writer, n));
            }
        } else {
            said.push(line);
        }
        if kill_after == Some(acks.len()) {
            child.kill().unwrap();
        }
    }
    acks
}

fn check(store: &Store, acks: &[(u64, u64)]) {
    for (writer, last) in acks {
        let number = (*writer, *last);
        assert!(
            store.contains::<Left>(&number).unwrap(),
            "acknowledged {number:?} is lost"
        );
    }
    for writer in 0..WRITERS {
        let all = |from: Vec<((u64, u64), Vec<u8>)>| from.into_iter().map(|(key, _)| key.1);
        let left: Vec<_> =
            all(store.scan::<Left>(&prefix(&writer), None, 1 << 20).unwrap()).collect();
        let right: Vec<_> = all(store
            .scan::<Right>(&prefix(&writer), None, 1 << 20)
            .unwrap())
        .collect();
        assert_eq!(left, right, "a batch was torn");
        let gapless: Vec<u64> = (0..left.len() as u64).collect();
        assert_eq!(
            left, gapless,
            "a later write is there and an earlier one is not"
        );
    }
}

#[test]
fn acknowledged_writes_survive_kill_nine() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let mut all: Vec<(u64, u64)> = Vec::new();
    for round in 0..10 {
        let mut writing = child("write_until_killed", folder.path(), "");
        let mut said = Vec::new();
        let acks = acknowledged(&mut writing, Some(10 + round * 7), &mut said);
        assert!(
            !writing.wait().unwrap().success() && acks.len() >= 10,
            "{said:?}"
        );
        all.extend(acks);
        let store = open(folder.path()).unwrap();
        check(&store, &all);
    }
    assert!(
        all.len() > 100,
        "hardly anything was written: {}",
        all.len()
    );
    assert!(open(folder.path()).unwrap().crashed_before());
}

#[test]
#[ignore = "the child of acknowledged_writes_survive_kill_nine"]
fn write_until_killed() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let store = open(&folder).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            runtime.spawn(async move {
                let last = store.last::<Left>(&prefix(&writer)).unwrap();
                let mut n = last.map_or(0, |(key, _)| key.1 + 1);
                loop {
                    let mut batch = Batch::new();
                    let value = vec![writer as u8; (n % 40) as usize * 50];
                    batch.put::<Left>(&(writer, n), &value).unwrap();
                    batch.put::<Right>(&(writer, n), &value).unwrap();
                    store.commit(batch).await.unwrap();
                    println!("ack {writer} {n}");
                    n += 1;
                }
            })
        })
        .collect();
    runtime.block_on(futures_util::future::join_all(writers));
}

/// How many records a writer overwrites in turn.
pub(super) const SLOTS: u64 = 40;
/// The key under which a writer stores the number of its last change.
const LAST: u64 = u64::MAX;

/// Returns a writer's `n`th value, of 8 to 60,000 bytes.
fn filling(writer: u64, n: u64) -> Vec<u8> {
    let mixed = (writer * 1000 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let length = match mixed % 20 {
        0 => 60_000,
        1..4 => 9_000,
        _ => mixed % 1500,
    };
    let mut value = n.to_be_bytes().to_vec();
    value.resize(8 + length as usize, writer as u8);
    value
}

/// Returns the changes with which a writer makes its `n`th change.
pub(super) fn write_over(writer: u64, n: u64, value: &Vec<u8>) -> Batch {
    let mut batch = Batch::new();
    batch.put::<Left>(&(writer, n % SLOTS), value).unwrap();
    let number = n.to_be_bytes().to_vec();
    batch.put::<Right>(&(writer, LAST), &number).unwrap();
    batch
}

/// Returns the number of a writer's next change.
pub(super) fn next_change(store: &Store, writer: u64) -> u64 {
    let last = store.get::<Right>(&(writer, LAST)).unwrap();
    last.map_or(0, |n| u64::from_be_bytes(n.try_into().unwrap()) + 1)
}

/// Checks that every writer's changes are there up to the last one acknowledged at least, and that
/// nothing older is left.
fn check_written_over(store: &Store, acked: &[Option<u64>], when: &str) {
    check_values_written_over(store, acked, when, filling);
}

/// Checks like [`check_written_over`], for values of any kind.
pub(super) fn check_values_written_over(
    store: &Store,
    acked: &[Option<u64>],
    when: &str,
    value: impl Fn(u64, u64) -> Vec<u8>,
) {
    for (writer, acked) in (0..).zip(acked) {
        let last = next_change(store, writer).checked_sub(1);
        assert!(last >= *acked, "{when}: {last:?}, {acked:?}");
        for slot in 0..SLOTS {
            let newest = last.and_then(|last| {
                let latest = (0..=last).rev().take(SLOTS as usize);
                latest.into_iter().find(|n| n % SLOTS == slot)
            });
            let found = store.get::<Left>(&(writer, slot)).unwrap();
            let expected = newest.map(|n| value(writer, n));
            assert!(found == expected, "{when}: slot {slot}");
        }
    }
}

/// A database that no longer grows overwrites old segments, and a crash must not lose what they
/// still hold. `STONECHAT_KILL_ROUNDS` sets the number of kills, 10 by default.
#[test]
fn a_store_that_is_written_over_and_over_survives_kill_nine() {
    let rounds = std::env::var("STONECHAT_KILL_ROUNDS").map_or(10, |text| text.parse().unwrap());
    let mut folder = tempfile::tempdir().unwrap();
    folder.disable_cleanup(true);
    let mut acked = [None; WRITERS as usize];
    // A kill while the key or an empty database is being made is another matter.
    drop(open(folder.path()).unwrap());
    for round in 0..rounds {
        // Killed while it still recovers from the last kill.
        for _ in 0..rand::random_range(0..3) {
            let mut opening = child("write_over_until_killed", folder.path(), "");
            std::thread::sleep(Duration::from_micros(rand::random_range(0..60_000)));
            opening.kill().unwrap();
            opening.wait().unwrap();
        }
        let mut writing = child("write_over_until_killed", folder.path(), "");
        let mut said = Vec::new();
        let kill_after = 10 + rand::random_range(0..200);
        let acks = acknowledged(&mut writing, Some(kill_after), &mut said);
        let kept = folder.path().display();
        assert!(
            !writing.wait().unwrap().success() && acks.len() >= 10,
            "round {round}, kept in {kept}: {said:?}"
        );
        for (writer, n) in acks {
            acked[writer as usize] = Some(n);
        }
        let store = open(folder.path()).unwrap_or_else(|e| panic!("{round}, kept in {kept}: {e}"));
        check_written_over(&store, &acked, &format!("round {round}, kept in {kept}"));
    }
    folder.disable_cleanup(false);
}

#[test]
#[ignore = "the child of a_store_that_is_written_over_and_over_survives_kill_nine"]
fn write_over_until_killed() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let store = open(&folder).unwrap_or_else(|e| {
        println!("cannot open: {e}");
        panic!("{e}");
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            runtime.spawn(async move {
                let mut n = next_change(&store, writer);
                loop {
                    let batch = write_over(writer, n, &filling(writer, n));
                    store.apply(batch).unwrap();
                    if n % 3 == writer % 3 {
                        store.flush().await.unwrap();
                        println!("ack {writer} {n}");
                    }
                    n += 1;
                }
            })
        })
        .collect();
    runtime.block_on(futures_util::future::join_all(writers));
}

#[test]
fn a_full_disk_is_an_error_and_what_was_acknowledged_stays() {
    let folder = tempfile::tempdir().unwrap();
    // A limit on the size of files replaces a full disk. Without the trap it would raise a signal.
    let before = "trap '' XFSZ; ulimit -f 8000;";
    let mut writing = child("write_until_full", folder.path(), before);
    let mut said = Vec::new();
    let acks = acknowledged(&mut writing, None, &mut said);
    let ended = writing.wait().unwrap();
    let said = said.join("\n");
    assert!(ended.success(), "{said}");
    assert!(said.contains("refused: no space left"), "{said}");
    assert!(acks.len() > 5, "{acks:?}");
    let store = open(folder.path()).unwrap();
    check(&store, &acks);
}

#[test]
#[ignore = "the child of a_full_disk_is_an_error_and_what_was_acknowledged_stays"]
fn write_until_full() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let store = open(&folder).unwrap();
    for n in 0..10_000u64 {
        let mut batch = Batch::new();
        batch.put::<Left>(&(0, n), &vec![n as u8; 40_000]).unwrap();
        batch.put::<Right>(&(0, n), &vec![n as u8; 40_000]).unwrap();
        if let Err(error) = store.apply(batch).and_then(|()| store.flush_blocking()) {
            println!("\nrefused: {error}");
            let next = store.apply(Batch::new()).unwrap_err();
            assert!(matches!(next, StoreError::Stopped(_)), "{next}");
            return;
        }
        println!("ack 0 {n}");
    }
    panic!("the disk never filled");
}
