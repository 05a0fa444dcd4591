//! `kill -9` while a ghost forgets.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use super::*;

const FOLDER: &str = "STONECHAT_TEST_FORGET_FOLDER";

#[test]
fn a_ghost_killed_while_it_forgets_loses_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::create_file(&folder.path().join("key")).unwrap();
    let mut last = 0u64;
    let mut epoch = 0;
    let options = StoreOptions {
        cache_bytes: 1 << 20,
    };
    for round in 0..10u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crypto::store::tests::crash::forget_until_killed",
            ])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut acks = 0;
        for line in lines.lines().map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("ack ").and_then(|n| n.parse().ok()) {
                last = last.max(n);
                acks += 1;
            }
            if acks == 2 + round % 4 {
                // In the middle of one step or another of what comes next.
                std::thread::sleep(Duration::from_micros(round * 700));
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success() && acks >= 2);
        let store = Store::open(&folder.path().join("store"), &key, &options).unwrap();
        let all = GhostStores::open(&store).unwrap();
        let ghost = all.ghost(sam()).unwrap();
        let slots = ghost
            .ghost
            .records
            .shred
            .read(ghost.ghost.records.id)
            .unwrap();
        let now = slots
            .generations
            .iter()
            .flatten()
            .map(|(epoch, _)| *epoch)
            .max()
            .unwrap();
        assert!(now >= epoch, "keys went back from {epoch} to {now}");
        epoch = now;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let found = runtime.block_on(ghost.get_custom_value("n")).unwrap();
        let found = found.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        assert!(found >= last, "{last} was acknowledged, {found} is there");
        assert!(found == 0 || runtime.block_on(ghost.load_account()).unwrap().is_some());
    }
    assert!(
        last > 10 && epoch > 10,
        "hardly anything was written: {last}, {epoch}"
    );
}

#[tokio::test]
#[ignore = "the child of a_ghost_killed_while_it_forgets_loses_nothing_else"]
async fn forget_until_killed() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let key = StoreKey::from_file(&folder.join("key")).unwrap();
    let options = StoreOptions {
        cache_bytes: 1 << 20,
    };
    let store = Store::open(&folder.join("store"), &key, &options).unwrap();
    let all = GhostStores::open(&store).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    if ghost.load_account().await.unwrap().is_none() {
        settle(&ghost, sam()).await;
    }
    let found = ghost.get_custom_value("n").await.unwrap();
    let mut n = found.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    loop {
        n += 1;
        ghost
            .set_custom_value("n", n.to_be_bytes().to_vec())
            .await
            .unwrap();
        store.flush().await.unwrap();
        println!("\nack {n}");
        let account = ghost.load_account().await.unwrap().unwrap();
        converse(&ghost, &account, room()).await;
        ghost.forget_room(room()).await.unwrap();
    }
}
