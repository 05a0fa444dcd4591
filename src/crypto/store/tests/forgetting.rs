//! What is forgotten cannot be read by anybody who has everything that is on the disk; what is
//! not forgotten is never lost on the way.

use std::{
    os::unix::fs::{FileExt, PermissionsExt},
    sync::{Arc, atomic::Ordering::SeqCst},
};

use assert_matches::assert_matches;
use matrix_sdk_crypto::{olm::Session, vodozemac::Curve25519PublicKey};

use super::{
    super::{
        GhostStoreError, RoomKeyFate, RoomKeyFilter,
        record::{INBOUND, OLM, PARKED},
    },
    *,
};
use crate::{
    clock::Timestamp,
    store::{Batch, StoreError, raw},
    testing::TestClock,
};

#[tokio::test]
async fn after_forgetting_a_room_old_copies_of_the_database_do_not_open() {
    let house = House::new();
    let other_room = room_id!("!control:example.org");
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    let (_, inbound) = converse(&ghost, &account, room()).await;
    converse(&ghost, &account, other_room).await;
    let id = inbound.session_id();
    store.flush().await.unwrap();
    let old = house.folder.path().join("old");
    copy_folder(&house.path(), &old);

    ghost.forget_room(room()).await.unwrap();
    assert!(
        ghost
            .get_inbound_group_session(room(), id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        ghost
            .get_outbound_group_session(room())
            .await
            .unwrap()
            .is_none()
    );
    let rest = ghost.get_inbound_group_sessions().await.unwrap();
    assert_eq!(rest.len(), 1, "other rooms stay");
    assert!(
        ghost
            .get_outbound_group_session(other_room)
            .await
            .unwrap()
            .is_some()
    );
    let sender = account.identity_keys().curve25519;
    let by_device = ghost
        .get_inbound_group_sessions_for_device_batch(sender, rest[0].sender_data_type(), None, 10)
        .await
        .unwrap();
    assert_eq!(by_device.len(), 1);
    store.shut_down().await.unwrap();
    drop((store, all, ghost));

    // With the keys of then the old copy opens: it does hold the session.
    let with_old_keys = house.folder.path().join("with-old-keys");
    copy_folder(&old, &with_old_keys);
    let (_store, all) = house.open_at(&with_old_keys);
    let ghost = all.existing(sam()).unwrap().unwrap();
    assert!(
        ghost
            .get_inbound_group_session(room(), id)
            .await
            .unwrap()
            .is_some()
    );

    // With the keys of now, which are all that is left, it does not: not the session, not the
    // account with its one-time keys.
    std::fs::copy(house.path().join("shred.keys"), old.join("shred.keys")).unwrap();
    let (_store, all) = house.open_at(&old);
    let ghost = all.existing(sam()).unwrap().unwrap();
    let error = ghost
        .get_inbound_group_session(room(), id)
        .await
        .unwrap_err();
    assert_matches!(error, GhostStoreError::Unseal { .. });
    assert_matches!(
        ghost.load_account().await,
        Err(GhostStoreError::Unseal { .. })
    );
    // And what was under no key of its own is readable, so this test does not pass by accident.
    assert_eq!(ghost.get_user_devices(sam()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_that_was_parked_before_its_room_was_expected_is_destroyed_with_the_others() {
    let house = House::new();
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    settle(&ghost, sam()).await;
    ghost.set_room_key_filter(RoomKeyFilter {
        judge: Arc::new(|_: &RoomId| RoomKeyFate::Park),
        clock: Arc::new(TestClock::at(1000)),
    });
    let phone = Account::with_device_id(kim(), device_id!("PHONE"));
    let (_, key) = phone.create_group_session_pair_with_defaults(room()).await;
    let changes = Changes {
        inbound_group_sessions: vec![key],
        ..Default::default()
    };
    ghost.save_changes(changes).await.unwrap();
    store.flush().await.unwrap();
    let old = house.folder.path().join("old");
    copy_folder(&house.path(), &old);
    let parked = |ghost: &GhostStore| {
        let records = &ghost.ghost.records;
        let parked = records.list(PARKED, &records.keys.of(PARKED, &[]));
        parked.map(|all| all.len())
    };
    assert_eq!(parked(&ghost).unwrap(), 1);
    let admitted = ghost.admit_parked_keys(room(), Timestamp(1000));
    admitted.await.unwrap();
    assert_eq!(parked(&ghost).unwrap(), 0);
    ghost.forget_room(room()).await.unwrap();
    store.shut_down().await.unwrap();
    drop((store, all, ghost));

    let with_old_keys = house.folder.path().join("with-old-keys");
    copy_folder(&old, &with_old_keys);
    let (_store, all) = house.open_at(&with_old_keys);
    let ghost = all.existing(sam()).unwrap().unwrap();
    assert_eq!(parked(&ghost).unwrap(), 1, "the copy does hold it");
    std::fs::copy(house.path().join("shred.keys"), old.join("shred.keys")).unwrap();
    let (_store, all) = house.open_at(&old);
    let ghost = all.existing(sam()).unwrap().unwrap();
    assert_matches!(parked(&ghost), Err(GhostStoreError::Unseal { .. }));
}

#[tokio::test]
async fn the_old_key_is_gone_from_the_disk() {
    let house = House::new();
    let (_store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    settle(&ghost, sam()).await;
    let file = house.path().join("shred.keys");
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for _ in 0..4 {
        let slots = ghost
            .ghost
            .records
            .shred
            .read(ghost.ghost.records.id)
            .unwrap();
        let keys: Vec<_> = slots
            .generations
            .iter()
            .flatten()
            .map(|(_, key)| key.to_vec())
            .collect();
        assert_eq!(keys.len(), 1);
        let bytes = std::fs::read(&file).unwrap();
        assert!(contains(&bytes, &keys[0]));
        for old in &seen {
            assert!(!contains(&bytes, old));
        }
        seen.extend(keys);
        ghost.rotate_epoch().await.unwrap();
    }
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Saves an Olm session with each of as many devices, numbered from 0, as copies of one.
async fn meet(ghost: &GhostStore, one: &Session, devices: u32, used: u32) {
    let own = ghost.get_own_device().await.unwrap();
    let mut sessions = Vec::new();
    for n in 0..devices {
        let mut pickle = one.pickle().await;
        pickle.sender_key = device_key(n);
        pickle.last_use_time = SecondsSinceUnixEpoch(used.into());
        let own = own.as_device_keys().clone();
        sessions.push(Session::from_pickle(own, pickle).unwrap());
    }
    let changes = Changes {
        sessions,
        ..Default::default()
    };
    ghost.save_changes(changes).await.unwrap();
}

async fn some_session(ghost: &GhostStore) -> Session {
    let own = ghost.get_own_device().await.unwrap();
    olm_session(own.as_device_keys(), device_key(0), 1)
}

fn device_key(number: u32) -> Curve25519PublicKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Curve25519PublicKey::from_bytes(bytes)
}

/// Returns how many values are sealed while a room is forgotten by a ghost that has met people with
/// as many devices elsewhere.
async fn cost_of_forgetting(devices: u32) -> usize {
    let store = Store::in_memory();
    let all = GhostStores::open(&store).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    meet(&ghost, &some_session(&ghost).await, devices, 1).await;
    ghost.rotate_epoch().await.unwrap();
    converse(&ghost, &account, room()).await;
    let before = ghost.ghost.records.sealed.load(SeqCst);
    ghost.forget_room(room()).await.unwrap();
    ghost.ghost.records.sealed.load(SeqCst) - before
}

#[tokio::test]
async fn forgetting_a_room_costs_the_same_however_many_people_are_elsewhere() {
    let few = cost_of_forgetting(10).await;
    assert!(few < 10, "{few}");
    assert_eq!(cost_of_forgetting(2000).await, few);
}

/// Others get a turn between the batches, and none of them is large.
#[tokio::test]
async fn a_ghost_of_which_everything_changed_is_sealed_anew_in_several_batches() {
    let store = Store::in_memory();
    let all = GhostStores::open(&store).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    settle(&ghost, sam()).await;
    let session = some_session(&ghost).await;
    meet(&ghost, &session, 3000, 1).await;
    meet(&ghost, &session, 3000, 2).await;
    let (applied, sealed) = (store.applied(), ghost.ghost.records.sealed.load(SeqCst));
    ghost.rotate_epoch().await.unwrap();
    assert!(ghost.ghost.records.sealed.load(SeqCst) - sealed > 3000);
    assert!((6..20).contains(&(store.applied() - applied)));
    let key = device_key(2999).to_base64();
    assert_eq!(ghost.get_sessions(&key).await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn old_bytes_open_only_if_nothing_replaced_them_before_a_room_was_forgotten() {
    let store = Store::in_memory();
    let all = GhostStores::open(&store).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    let session = some_session(&ghost).await;
    meet(&ghost, &session, 300, 1).await;
    converse(&ghost, &account, room()).await;
    let records = &ghost.ghost.records;
    let all_of = |kind| raw::scan(&store, &records.keys.of(kind, &[]), None, 1000).unwrap();
    let (olm, inbound) = (all_of(OLM), all_of(INBOUND));
    assert_eq!((olm.len(), inbound.len()), (300, 1));
    meet(&ghost, &session, 1, 2).await;
    ghost.forget_room(room()).await.unwrap();

    let opens = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let mut batch = Batch::new();
        raw::put(&mut batch, key.clone(), value.clone()).unwrap();
        store.apply(batch).unwrap();
        records.read(OLM, key).is_ok()
    };
    assert!(!opens(&inbound[0]), "of the room");
    let prefix = records
        .keys
        .of(OLM, &[device_key(0).to_base64().as_bytes()]);
    let used = olm
        .iter()
        .find(|(key, _)| key.starts_with(&prefix))
        .unwrap();
    assert!(!opens(used), "of a session used since");
    let stays = olm.iter().filter(|it| opens(it)).count();
    assert!(stays > 250, "{stays} were not sealed again");
}

/// The last step of a rotation before the process died.
#[derive(Clone, Copy, Debug)]
enum Died {
    FreshKey,
    Sealing,
    Flush,
}

#[tokio::test]
async fn a_rotation_cut_short_at_any_step_is_finished_by_the_next_start() {
    for died in [Died::FreshKey, Died::Sealing, Died::Flush] {
        let house = House::new();
        let (store, all) = house.open();
        let ghost = all.ghost(sam()).unwrap();
        let account = settle(&ghost, sam()).await;
        let (_, inbound) = converse(&ghost, &account, room()).await;
        store.flush().await.unwrap();

        ghost.ghost.records.begin_rotation().unwrap();
        // Written while two keys are in use.
        ghost
            .set_custom_value("between", b"here".to_vec())
            .await
            .unwrap();
        store.flush().await.unwrap();
        if !matches!(died, Died::FreshKey) {
            ghost.ghost.records.renew_outdated_groups().unwrap();
        }
        if matches!(died, Died::Flush) {
            store.flush().await.unwrap();
        }
        // A copy of the files is what a crash leaves: what was not flushed is not in it.
        let copy = house.folder.path().join("copy");
        copy_folder(&house.path(), &copy);

        let (_store, all) = house.open_at(&copy);
        // Before anybody asks for the ghost.
        let slots = all.registry.shred.read(ghost.ghost.records.id).unwrap();
        assert_eq!(
            slots.generations.iter().flatten().count(),
            1,
            "{died:?}: the old key is gone"
        );
        let ghost = all.existing(sam()).unwrap().unwrap();
        assert_eq!(
            ghost.load_account().await.unwrap().unwrap(),
            account,
            "{died:?}"
        );
        let id = inbound.session_id();
        assert!(
            ghost
                .get_inbound_group_session(room(), id)
                .await
                .unwrap()
                .is_some(),
            "{died:?}"
        );
        let between = ghost.get_custom_value("between").await.unwrap();
        assert_eq!(between.as_deref(), Some(&b"here"[..]), "{died:?}");
        ghost.rotate_epoch().await.unwrap();
        assert!(ghost.load_account().await.unwrap().is_some(), "{died:?}");
    }
}

#[tokio::test]
async fn a_rotation_goes_on_beside_readers_and_writers() {
    let house = House::new();
    let (_store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy = tokio::spawn({
        let (ghost, done) = (ghost.clone(), done.clone());
        async move {
            let mut n = 0u64;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let value = n.to_be_bytes().to_vec();
                ghost.set_custom_value("n", value.clone()).await.unwrap();
                assert_eq!(ghost.get_custom_value("n").await.unwrap(), Some(value));
                assert!(ghost.load_account().await.unwrap().is_some());
                n += 1;
                tokio::task::yield_now().await;
            }
            n
        }
    });
    for _ in 0..20 {
        ghost.rotate_epoch().await.unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(busy.await.unwrap() > 0);
    assert_eq!(ghost.load_account().await.unwrap().unwrap(), account);
}

#[tokio::test]
async fn forgetting_goes_on_when_its_caller_stops_waiting() {
    let house = House::new();
    let (_store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    for _ in 0..10 {
        converse(&ghost, &account, room()).await;
        let waiting = tokio::time::timeout(
            std::time::Duration::from_micros(300),
            ghost.forget_room(room()),
        );
        let _ = waiting.await;
    }
    // Waits for the last of them, since they take turns.
    ghost.rotate_epoch().await.unwrap();
    assert_eq!(
        ghost
            .ghost
            .records
            .shred
            .read(0)
            .unwrap()
            .generations
            .iter()
            .flatten()
            .count(),
        1
    );
    assert_eq!(ghost.load_account().await.unwrap().unwrap(), account);
}

#[tokio::test]
async fn a_wiped_ghost_is_gone_and_may_begin_anew() {
    let house = House::new();
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    store.flush().await.unwrap();
    let old = house.folder.path().join("old");
    copy_folder(&house.path(), &old);

    ghost.wipe().await.unwrap();
    assert_matches!(
        ghost.load_account().await,
        Ok(None) | Err(GhostStoreError::Wiped)
    );
    let pending = PendingChanges {
        account: Some(account),
    };
    assert_matches!(
        ghost.save_pending_changes(pending).await,
        Err(GhostStoreError::Wiped)
    );
    assert!(all.existing(sam()).unwrap().is_none());
    let anew = all.ghost(sam()).unwrap();
    assert!(anew.load_account().await.unwrap().is_none());
    assert_ne!(anew.ghost.records.id, ghost.ghost.records.id);
    settle(&anew, sam()).await;
    store.shut_down().await.unwrap();

    // Of what lay in the old copy not even the devices can be read. Opening it goes on with the
    // wiping, as after a crash between the keys and the records.
    std::fs::copy(house.path().join("shred.keys"), old.join("shred.keys")).unwrap();
    let (store, all) = house.open_at(&old);
    assert!(all.existing(sam()).unwrap().is_none());
    let left = crate::store::raw::scan(&store, &[super::super::record::TABLE], None, 10).unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn without_its_keys_file_nothing_starts_and_nothing_is_made_anew() {
    let house = House::new();
    let (store, all) = house.open();
    settle(&all.ghost(sam()).unwrap(), sam()).await;
    assert_matches!(
        GhostStores::open(&store),
        Err(GhostStoreError::Store(StoreError::InUse { .. })),
        "two of them would not know of each other's keys"
    );
    store.shut_down().await.unwrap();
    drop((store, all));

    let file = house.path().join("shred.keys");
    let kept = std::fs::read(&file).unwrap();
    let attempt = || {
        let options = StoreOptions::default();
        let store = Store::open(&house.path(), &house.key, &options).unwrap();
        GhostStores::open(&store).and_then(|all| all.ghost(sam()).map(drop))
    };
    std::fs::remove_file(&file).unwrap();
    assert_matches!(attempt(), Err(GhostStoreError::KeysGone { .. }));
    std::fs::write(&file, vec![0; kept.len()]).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_matches!(
        attempt(),
        Err(GhostStoreError::Store(StoreError::Key { .. }))
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_matches!(attempt(), Err(GhostStoreError::KeysGone { .. }));
    // The header is right, the ghost's slots are not.
    std::fs::write(&file, &kept[..64]).unwrap();
    assert_matches!(attempt(), Err(GhostStoreError::KeysGone { .. }));
    std::fs::write(&file, &kept).unwrap();
    let damaged = std::fs::File::options().write(true).open(&file).unwrap();
    damaged.write_all_at(&[1], 64 + 48 + 5).unwrap();
    assert_matches!(attempt(), Err(GhostStoreError::KeysGone { .. }));
    std::fs::write(&file, &kept).unwrap();
    attempt().unwrap();
}
