//! Stamps of a store: what a history says of the one that the homeserver holds, and what a start
//! makes of a store that was set back.

use assert_matches::assert_matches;
use serde_json::Value;

use super::stamp::{STAMP_TYPE, Stamp, StampHistory};
use crate::{
    engine::{
        Engine, EngineError,
        records::{Stamps, SyncTokens},
    },
    store::{Store, StoreKey, StoreOptions},
    testing::{self, FakeHomeserver, When, bot},
};

fn stamp(number: u64, mark: &str) -> Stamp {
    Stamp {
        number,
        mark: mark.to_owned(),
    }
}

fn history(stamps: &[(u64, &str)]) -> StampHistory {
    StampHistory {
        has_users: true,
        stamps: stamps.iter().map(|(n, mark)| stamp(*n, mark)).collect(),
        ..StampHistory::default()
    }
}

#[test]
fn only_a_stamp_that_the_store_cannot_have_had_outdates_it() {
    let known = history(&[(5, "five"), (6, "six")]);
    for (held, is_outdated) in [
        (stamp(6, "six"), false),
        (stamp(5, "five"), false),
        (stamp(1, "no longer known"), false),
        (stamp(7, "seven"), true),
        (stamp(6, "of a copy"), true),
        (stamp(5, "of a copy"), true),
    ] {
        assert_eq!(known.is_outdated_by(&held), is_outdated, "{held:?}");
    }
    let restored = StampHistory {
        is_restored: true,
        ..known
    };
    assert!(!restored.is_outdated_by(&stamp(7, "seven")));
    assert!(history(&[]).is_outdated_by(&stamp(1, "one")));
    assert!(!StampHistory::default().is_outdated_by(&stamp(1, "one")));
}

#[test]
fn a_homeserver_that_lacks_more_than_the_newest_stamp_was_set_back() {
    let known = history(&[(5, "five"), (6, "six"), (7, "seven")]);
    for (held, is_set_back) in [
        (Some(stamp(7, "seven")), false),
        (Some(stamp(6, "six")), false),
        (Some(stamp(5, "five")), true),
        (None, true),
    ] {
        assert_eq!(known.outdates(held.as_ref()), is_set_back, "{held:?}");
    }
    // A crash came before the homeserver had the first one.
    assert!(!history(&[(1, "one")]).outdates(None));
    assert!(!StampHistory::default().outdates(None));
    let restored = StampHistory {
        is_restored: true,
        ..known
    };
    assert!(!restored.outdates(None));
}

#[tokio::test]
async fn a_homeserver_that_was_set_back_is_asked_with_no_token_of_its_future() {
    let fake = FakeHomeserver::start().await;
    let store = Store::in_memory();
    for seed in 0..3 {
        lives(&store, &fake, seed).await.unwrap();
    }
    let known = StampHistory::load(&store).unwrap();
    for (back, is_kept) in [(1, true), (2, false)] {
        let mut batch = crate::store::Batch::new();
        batch
            .put::<SyncTokens>(&sam(), &"s999_999".to_owned())
            .unwrap();
        store.apply(batch).unwrap();
        let newest = StampHistory::load(&store).unwrap().stamps;
        let older = &newest[newest.len() - 1 - back];
        set_held(&fake, &Some(serde_json::to_value(older).unwrap()));
        lives(&store, &fake, 10 + back as u64).await.unwrap();
        assert_eq!(store.contains::<SyncTokens>(&sam()).unwrap(), is_kept);
    }
    assert!(known.stamps.len() >= 3);
}

fn sam() -> ruma::OwnedUserId {
    ruma::owned_user_id!("@_dm_sam:hs.test")
}

/// The stamp that the homeserver holds.
fn held(fake: &FakeHomeserver) -> Option<Value> {
    fake.with(|server| {
        let data = &server.accounts.get(bot().as_str())?.account_data;
        data.get(STAMP_TYPE).cloned()
    })
}

fn set_held(fake: &FakeHomeserver, stamp: &Option<Value>) {
    fake.with(|server| {
        let data = &mut server
            .accounts
            .get_mut(bot().as_str())
            .unwrap()
            .account_data;
        data.remove(STAMP_TYPE);
        data.extend(stamp.clone().map(|stamp| (STAMP_TYPE.to_owned(), stamp)));
    });
}

async fn engine(store: &Store, fake: &FakeHomeserver, seed: u64) -> Engine {
    let built = testing::engine().store(store).homeserver(fake).seed(seed);
    built.build().await.engine
}

/// Starts an engine on a store, and stops it.
async fn lives(store: &Store, fake: &FakeHomeserver, seed: u64) -> Result<(), EngineError> {
    let engine = engine(store, fake, seed).await;
    let started = engine.start().await;
    engine.stop().await.unwrap();
    started
}

#[tokio::test]
async fn an_older_copy_of_a_store_is_refused_and_an_older_homeserver_is_not() {
    let fake = FakeHomeserver::start().await;
    let key = StoreKey::random().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let open = || Store::open(&path, &key, &StoreOptions::default()).unwrap();
    let mut held_then = Vec::new();
    for seed in 0..3 {
        let store = open();
        lives(&store, &fake, seed).await.unwrap();
        store.shut_down().await.unwrap();
        drop(store);
        held_then.push(held(&fake));
        if seed == 0 {
            copy_folder(&path, &copy);
        }
    }
    // The homeserver was set back, to any moment.
    for (seed, stamp) in (3..).zip([held_then[0].clone(), held_then[1].clone(), None]) {
        set_held(&fake, &stamp);
        let store = open();
        lives(&store, &fake, seed).await.unwrap();
        store.shut_down().await.unwrap();
    }
    // The data folder was.
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    let newest = held(&fake);
    let error = lives(&open(), &fake, 9).await.unwrap_err();
    assert_matches!(error, EngineError::StoreSetBack);
    assert!(error.to_string().contains("stonechat restore --force"));
    assert_eq!(held(&fake), newest, "nothing is overwritten");
}

#[tokio::test]
async fn no_crash_between_the_two_writes_raises_an_alarm() {
    // One that did not get there is sent again.
    for (when, count) in [(When::Before, 2), (When::After, 3)] {
        let fake = FakeHomeserver::start().await;
        let store = Store::in_memory();
        lives(&store, &fake, 0).await.unwrap();
        let first = engine(&store, &fake, 1).await;
        // The second request writes the stamp.
        fake.fail(1, when);
        assert!(first.renew_stamp().await.unwrap_err().is_transient());
        assert!(!fake.failure_pending());
        drop(first);
        lives(&store, &fake, 2).await.unwrap();
        let history = StampHistory::load(&store).unwrap();
        assert_eq!(history.stamps.len(), count);
        let newest = serde_json::to_value(history.stamps.last()).unwrap();
        assert_eq!(held(&fake), Some(newest));
    }
}

#[tokio::test]
async fn a_second_service_on_a_copy_is_noticed_by_the_first() {
    let fake = FakeHomeserver::start().await;
    let store = Store::in_memory();
    let first = engine(&store, &fake, 1).await;
    first.start().await.unwrap();
    let own = StampHistory::load(&store).unwrap().stamps.pop().unwrap();
    let theirs = serde_json::to_value(stamp(own.number + 1, "theirs")).unwrap();
    set_held(&fake, &Some(theirs));
    let renewed = first.renew_stamp().await;
    assert_matches!(renewed, Err(EngineError::StoreSetBack));
    first.stop().await.unwrap();
}

#[tokio::test]
async fn the_stamps_that_are_remembered_are_bounded() {
    let fake = FakeHomeserver::start().await;
    let store = Store::in_memory();
    let engine = engine(&store, &fake, 1).await;
    engine.machines().provision(&bot(), "Bot").await.unwrap();
    for _ in 0..210 {
        engine.renew_stamp().await.unwrap();
    }
    let stamps = StampHistory::load(&store).unwrap().stamps;
    let numbers: Vec<u64> = stamps.iter().map(|stamp| stamp.number).collect();
    assert_eq!(numbers, (11..=210).collect::<Vec<_>>());
    assert!(store.contains::<Stamps>(&210).unwrap());
}

#[tokio::test]
async fn a_homeserver_without_account_data_is_no_reason_not_to_start() {
    let fake = FakeHomeserver::start().await;
    let store = Store::in_memory();
    fake.forbid("account_data");
    lives(&store, &fake, 1).await.unwrap();
    assert_eq!(held(&fake), None);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_stamp_that_the_homeserver_does_not_take_does_not_look_like_a_database_that_was_set_back()
{
    let fake = FakeHomeserver::start().await;
    let store = Store::in_memory();
    lives(&store, &fake, 0).await.unwrap();
    let mut batch = crate::store::Batch::new();
    batch.put::<SyncTokens>(&sam(), &"s1".to_owned()).unwrap();
    store.apply(batch).unwrap();
    for seed in 1..6 {
        let engine = engine(&store, &fake, seed).await;
        fake.fail(1, When::Before);
        assert!(engine.renew_stamp().await.is_err());
    }
    assert!(store.contains::<SyncTokens>(&sam()).unwrap());
    assert_eq!(StampHistory::load(&store).unwrap().stamps.len(), 2);
}
