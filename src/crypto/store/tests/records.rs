//! Ghosts do not see each other; what the files show; bounds; runs.

use assert_matches::assert_matches;
use matrix_sdk_crypto::{
    OlmMachine,
    olm::{OlmMessageHash, Session},
    vodozemac::olm::Account as VodozemacAccount,
};
use ruma::device_id;

use super::{
    super::{
        GhostStoreError,
        changes::OLM_SESSIONS_MAX,
        olm_hashes::GENERATION_HASHES,
        record::{ACCOUNT, OLM_HASH, OUTBOUND},
    },
    *,
};
use crate::store::{Batch, StoreError, raw};

#[tokio::test]
async fn ghosts_do_not_see_each_others_records() {
    let store = Store::in_memory();
    let all = GhostStores::open(&store).unwrap();
    let (sam_store, kim_store) = (all.ghost(sam()).unwrap(), all.ghost(kim()).unwrap());
    let account = settle(&sam_store, sam()).await;
    let (_, inbound) = converse(&sam_store, &account, room()).await;
    sam_store
        .save_tracked_users(&[(kim(), true)])
        .await
        .unwrap();
    sam_store
        .set_custom_value("name", b"value".to_vec())
        .await
        .unwrap();

    assert!(kim_store.load_account().await.unwrap().is_none());
    assert!(
        kim_store
            .get_inbound_group_sessions()
            .await
            .unwrap()
            .is_empty()
    );
    let id = inbound.session_id();
    assert!(
        kim_store
            .get_inbound_group_session(room(), id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        kim_store
            .get_outbound_group_session(room())
            .await
            .unwrap()
            .is_none()
    );
    assert!(kim_store.load_tracked_users().await.unwrap().is_empty());
    assert!(kim_store.get_user_devices(sam()).await.unwrap().is_empty());
    assert!(kim_store.get_custom_value("name").await.unwrap().is_none());

    // Nor can a record of one be passed off as the other's.
    let own = sam_store.ghost.records.keys.of(ACCOUNT, &[]);
    let other = kim_store.ghost.records.keys.of(ACCOUNT, &[]);
    let mut batch = Batch::new();
    raw::put(
        &mut batch,
        other.clone(),
        raw::get(&store, &own).unwrap().unwrap(),
    )
    .unwrap();
    store.apply(batch).unwrap();
    let error = kim_store.load_account().await.unwrap_err();
    assert_matches!(error, GhostStoreError::Unseal { kind: "account" });

    kim_store.wipe().await.unwrap();
    assert!(sam_store.load_account().await.unwrap().is_some());
    assert_eq!(
        sam_store.get_inbound_group_sessions().await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn two_handles_of_one_ghost_share_everything() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let (one, other) = (
        all.ghost(sam()).unwrap(),
        all.existing(sam()).unwrap().unwrap(),
    );
    settle(&one, sam()).await;
    assert!(other.get_own_device().await.is_ok());
    one.rotate_epoch().await.unwrap();
    assert!(other.load_account().await.unwrap().is_some());
    assert!(all.existing(kim()).unwrap().is_none());
    assert_eq!(all.users(None, 10).unwrap(), [sam()]);
    assert!(all.users(Some(sam()), 10).unwrap().is_empty());
}

#[tokio::test]
async fn the_files_do_not_say_with_whom_a_ghost_talked() {
    let house = House::new();
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    let (_, inbound) = converse(&ghost, &account, room()).await;
    let person = user_id!("@alice.of.the.letters:example.org");
    ghost.save_tracked_users(&[(person, false)]).await.unwrap();
    store.shut_down().await.unwrap();
    let bytes = bytes_of(&house.path());
    assert!(
        contains(&bytes, sam().as_bytes()),
        "the list of ghosts is no secret"
    );
    for hidden in [
        room().as_str(),
        person.as_str(),
        inbound.session_id(),
        "DOORBELL",
    ] {
        assert!(!contains(&bytes, hidden.as_bytes()), "{hidden} is in clear");
    }
}

#[tokio::test]
async fn a_machine_finds_itself_again_after_a_restart() {
    let house = House::new();
    let (user, device) = (sam(), device_id!("DOORBELL"));
    let (store, all) = house.open();
    let ghost = all.ghost(user).unwrap();
    let machine = OlmMachine::with_store(user, device, ghost, None)
        .await
        .unwrap();
    machine.bootstrap_cross_signing(false).await.unwrap();
    let keys = machine.identity_keys();
    assert!(machine.cross_signing_status().await.is_complete());
    drop(machine);
    store.flush().await.unwrap();
    drop((store, all));

    let (_store, all) = house.open();
    let ghost = all.existing(user).unwrap().unwrap();
    let machine = OlmMachine::with_store(user, device, ghost.clone(), None)
        .await
        .unwrap();
    assert_eq!(machine.identity_keys(), keys);
    assert!(machine.cross_signing_status().await.is_complete());
    // And after its records were sealed anew.
    drop(machine);
    ghost.rotate_epoch().await.unwrap();
    let machine = OlmMachine::with_store(user, device, ghost, None)
        .await
        .unwrap();
    assert_eq!(machine.identity_keys(), keys);
    assert!(machine.cross_signing_status().await.is_complete());
}

#[tokio::test]
async fn after_an_unclean_end_outbound_sessions_are_not_used_again() {
    let house = House::new();
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    let (_, inbound) = converse(&ghost, &account, room()).await;
    store.shut_down().await.unwrap();
    drop((store, all, ghost));

    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    assert!(
        ghost
            .get_outbound_group_session(room())
            .await
            .unwrap()
            .is_some(),
        "a clean end"
    );
    store.flush().await.unwrap();
    drop((store, all, ghost));

    let (store, all) = house.open();
    assert!(store.crashed_before());
    let ghost = all.ghost(sam()).unwrap();
    assert!(
        ghost
            .get_outbound_group_session(room())
            .await
            .unwrap()
            .is_none(),
        "an unclean one"
    );
    let id = inbound.session_id();
    assert!(
        ghost
            .get_inbound_group_session(room(), id)
            .await
            .unwrap()
            .is_some()
    );
    // A session of this run is used.
    let account = ghost.load_account().await.unwrap().unwrap();
    converse(&ghost, &account, room()).await;
    assert!(
        ghost
            .get_outbound_group_session(room())
            .await
            .unwrap()
            .is_some()
    );
}

/// Says something, and saves what a machine saves then.
async fn encrypt_and_save(ghost: &GhostStore, session: &OutboundGroupSession) {
    let content = serde_json::json!({ "body": "hello" });
    let content = ruma::serde::Raw::new(&content).unwrap().cast_unchecked();
    session.encrypt("m.room.message", &content).await;
    let changes = Changes {
        outbound_group_sessions: vec![session.clone()],
        ..Default::default()
    };
    ghost.save_changes(changes).await.unwrap();
}

#[tokio::test]
async fn an_outbound_session_in_use_is_in_memory_alone_and_on_disk_as_it_was_last() {
    let house = House::new();
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let on_disk = |ghost: &GhostStore| {
        let key = ghost.ghost.records.keys.of(OUTBOUND, &[room().as_bytes()]);
        raw::get(&store, &key).unwrap().is_some()
    };
    let account = settle(&ghost, sam()).await;
    let (session, _) = converse(&ghost, &account, room()).await;
    encrypt_and_save(&ghost, &session).await;
    assert!(!on_disk(&ghost));
    let found = ghost.get_outbound_group_session(room()).await.unwrap();
    assert_eq!(found.unwrap().message_index().await, 1);

    // The machine is put away and comes back.
    let other = all.existing(sam()).unwrap().unwrap();
    drop(ghost);
    assert!(!on_disk(&other), "somebody has it");
    drop(other);
    let ghost = all.ghost(sam()).unwrap();
    assert!(on_disk(&ghost));
    let found = ghost.get_outbound_group_session(room()).await.unwrap();
    let session = found.unwrap();
    assert_eq!(session.message_index().await, 1);
    assert!(on_disk(&ghost), "it was only looked at");
    let flushes = store.flushes();
    for _ in 0..5 {
        encrypt_and_save(&ghost, &session).await;
        assert!(!on_disk(&ghost));
    }
    assert!(
        store.flushes() <= flushes + 1,
        "what was made void, if that"
    );
    store.shut_down().await.unwrap();
    let error = ghost
        .save_changes(Changes {
            outbound_group_sessions: vec![session],
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_matches!(error, GhostStoreError::Store(StoreError::Closed));
    drop((store, all, ghost));

    let (_store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let found = ghost.get_outbound_group_session(room()).await.unwrap();
    assert_eq!(found.unwrap().message_index().await, 6);
}

/// Whatever was on disk before, a session that was used and not put down is gone.
#[tokio::test]
async fn a_session_that_was_used_after_it_was_written_down_is_not_found_at_its_former_place() {
    let house = House::new();
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    let (session, _) = converse(&ghost, &account, room()).await;
    ghost.ghost.persist_outbound_sessions().await.unwrap();
    encrypt_and_save(&ghost, &session).await;
    // A clean end without the last act.
    store.on_shutdown(|| Box::pin(async {}));
    store.shut_down().await.unwrap();
    drop((store, all, ghost));
    let (store, all) = house.open();
    assert!(!store.crashed_before());
    let ghost = all.ghost(sam()).unwrap();
    let found = ghost.get_outbound_group_session(room()).await.unwrap();
    assert!(found.is_none());
}

#[tokio::test]
async fn olm_hashes_are_bounded_and_the_latest_are_known() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let hash = |n: usize| OlmMessageHash {
        sender_key: "key".to_owned(),
        hash: n.to_string(),
    };
    let count = || {
        ghost
            .ghost
            .records
            .keys_of(&ghost.ghost.records.keys.of(OLM_HASH, &[]))
            .unwrap()
            .len()
    };
    let total = GENERATION_HASHES * 4 + 7;
    for part in (0..total).collect::<Vec<_>>().chunks(50) {
        let message_hashes = part.iter().map(|n| hash(*n)).collect();
        ghost
            .save_changes(Changes {
                message_hashes,
                ..Default::default()
            })
            .await
            .unwrap();
        assert!(count() <= GENERATION_HASHES * 2, "{}", count());
    }
    for n in total - GENERATION_HASHES..total {
        assert!(
            ghost.is_message_known(&hash(n)).await.unwrap(),
            "{n} of {total}"
        );
    }
    assert!(!ghost.is_message_known(&hash(0)).await.unwrap());
    let other = OlmMessageHash {
        sender_key: "other".to_owned(),
        hash: (total - 1).to_string(),
    };
    assert!(!ghost.is_message_known(&other).await.unwrap());
    // What is known is counted again after a restart.
    *ghost.ghost.olm_hashes.lock().unwrap() = None;
    assert!(ghost.is_message_known(&hash(total - 1)).await.unwrap());
    assert_eq!(count(), GENERATION_HASHES + 7);
}

#[tokio::test]
async fn of_two_keys_of_a_session_that_come_at_once_the_one_that_reads_further_back_is_kept() {
    let store = Store::in_memory();
    let all = GhostStores::open(&store).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let account = settle(&ghost, sam()).await;
    let (_, whole) = account
        .create_group_session_pair_with_defaults(room())
        .await;
    let late = whole.export_at_index(4).await;
    for late_first in [false, true] {
        let late = InboundGroupSession::try_from(&late).unwrap();
        assert_eq!(late.first_known_index(), 4);
        let mut both = vec![whole.clone(), late];
        if late_first {
            both.reverse();
        }
        let changes = Changes {
            inbound_group_sessions: both,
            ..Default::default()
        };
        ghost.save_changes(changes).await.unwrap();
        let found = ghost
            .get_inbound_group_session(room(), whole.session_id())
            .await;
        assert_eq!(found.unwrap().unwrap().first_known_index(), 0);
    }
}

/// Any device can begin as many as it likes, with the fallback key.
#[tokio::test]
async fn of_the_olm_sessions_with_one_device_those_used_last_are_kept() {
    let store = Store::in_memory();
    let all = GhostStores::open(&store).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    settle(&ghost, sam()).await;
    let own = ghost.get_own_device().await.unwrap();
    let session = |sender: &VodozemacAccount, used: u32| {
        olm_session(own.as_device_keys(), sender.curve25519_key(), used)
    };
    let save = async |sessions: Vec<Session>| {
        let changes = Changes {
            sessions,
            ..Default::default()
        };
        ghost.save_changes(changes).await.unwrap();
    };
    let used = async |sender: &VodozemacAccount| {
        let key = sender.curve25519_key().to_base64();
        let sessions = ghost.get_sessions(&key).await.unwrap().unwrap_or_default();
        let used = sessions.iter().map(|it| u64::from(it.last_use_time.0));
        let mut used: Vec<u64> = used.collect();
        used.sort_unstable();
        used
    };
    let (friend, attacker) = (VodozemacAccount::new(), VodozemacAccount::new());
    save(vec![session(&friend, 5)]).await;
    for n in 0..3 * OLM_SESSIONS_MAX as u32 {
        save(vec![session(&attacker, 100 + n)]).await;
    }
    assert_eq!(used(&attacker).await, (120..130).collect::<Vec<u64>>());
    save((200..230).map(|n| session(&attacker, n)).collect()).await;
    assert_eq!(used(&attacker).await, (220..230).collect::<Vec<u64>>());
    assert_eq!(used(&friend).await, [5]);
}
