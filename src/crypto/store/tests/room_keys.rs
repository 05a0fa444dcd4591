//! How many room keys of a device are kept, and which.

use std::{sync::Arc, time::Duration};

use matrix_sdk_crypto::olm::SenderData;
use ruma::OwnedRoomId;

use super::{
    super::{
        RoomKeyFate, RoomKeyFilter,
        inbound_sessions::{INBOUND_SESSIONS_MAX, ROOM_SESSIONS_LEFT, ROOM_SESSIONS_MAX},
        record::{BY_DEVICE, INBOUND, RIVAL},
    },
    *,
};
use crate::{clock::Timestamp, store::raw, testing::TestClock};

fn rooms(count: usize) -> Vec<OwnedRoomId> {
    let rooms = (0..count).map(|n| format!("!room{n}:example.org").try_into().unwrap());
    rooms.collect()
}

fn device_of(user: &str) -> Account {
    Account::with_device_id(&UserId::parse(user).unwrap(), device_id!("PHONE"))
}

/// Makes keys of a device, for these rooms by turns.
async fn room_keys(
    device: &Account,
    rooms: &[OwnedRoomId],
    count: usize,
) -> Vec<InboundGroupSession> {
    let mut keys = Vec::new();
    for room in rooms.iter().cycle().take(count) {
        let pair = device.create_group_session_pair_with_defaults(room).await;
        keys.push(pair.1);
    }
    keys
}

async fn receive(ghost: &GhostStore, keys: &[InboundGroupSession]) {
    let changes = Changes {
        inbound_group_sessions: keys.to_vec(),
        ..Default::default()
    };
    ghost.save_changes(changes).await.unwrap();
}

/// Returns which of the keys are kept.
async fn kept(ghost: &GhostStore, keys: &[InboundGroupSession]) -> Vec<usize> {
    let mut kept = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let found = ghost.get_inbound_group_session(key.room_id(), key.session_id());
        if found.await.unwrap().is_some() {
            kept.push(n);
        }
    }
    kept
}

/// Returns how many sessions there are, and how many entries of the index.
fn counts(ghost: &GhostStore) -> (usize, usize) {
    let records = &ghost.ghost.records;
    let count = |kind| {
        let all = raw::scan(&records.store, &records.keys.of(kind, &[]), None, 10_000);
        all.unwrap().len()
    };
    (count(INBOUND) + count(RIVAL), count(BY_DEVICE))
}

/// A session as another device passes it off as its own.
async fn claimed_by(device: &Account, session: &InboundGroupSession) -> InboundGroupSession {
    let mut pickle = session.pickle().await;
    pickle.sender_key = device.identity_keys().curve25519;
    InboundGroupSession::from_pickle(pickle).unwrap()
}

#[tokio::test]
async fn of_the_room_keys_of_a_device_the_last_two_hundred_are_kept() {
    for rooms in [rooms(1), rooms(3)] {
        let house = House::new();
        let (store, all) = house.open();
        let ghost = all.ghost(sam()).unwrap();
        let friends = room_keys(&device_of("@friend:x"), &rooms, 3).await;
        let keys = room_keys(&device_of("@attacker:x"), &rooms, 251).await;
        receive(&ghost, &friends).await;
        for key in &keys[..210] {
            receive(&ghost, std::slice::from_ref(key)).await;
        }
        receive(&ghost, &keys[210..250]).await;
        let newest: Vec<usize> = (50..250).collect();
        assert_eq!(kept(&ghost, &keys).await, newest);
        store.flush().await.unwrap();
        drop((store, all, ghost));

        let (_store, all) = house.open();
        let ghost = all.ghost(sam()).unwrap();
        assert_eq!(kept(&ghost, &keys).await, newest);
        receive(&ghost, &keys[250..]).await;
        let newest: Vec<usize> = (51..251).collect();
        assert_eq!(kept(&ghost, &keys).await, newest);
        assert_eq!(kept(&ghost, &friends).await, [0, 1, 2]);
        assert_eq!(counts(&ghost), (203, 203));
    }
}

#[tokio::test]
async fn of_more_room_keys_than_are_kept_in_one_batch_the_last_ones_are() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let keys = room_keys(&device_of("@attacker:x"), &rooms(2), 250).await;
    receive(&ghost, &keys[..20]).await;
    receive(&ghost, &keys[20..]).await;
    assert_eq!(kept(&ghost, &keys).await, (50..250).collect::<Vec<_>>());
    assert_eq!(counts(&ghost), (200, 200));
}

#[tokio::test]
async fn a_key_that_is_saved_again_keeps_its_age() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let keys = room_keys(&device_of("@alice:x"), &rooms(1), 201).await;
    receive(&ghost, &keys[..200]).await;
    let again = ghost.save_inbound_group_sessions(vec![keys[0].clone()], Some("1"));
    again.await.unwrap();
    assert_eq!(counts(&ghost), (200, 200));
    let before = ghost.inbound_group_session_counts(Some("1")).await;
    assert_eq!(before.unwrap().backed_up, 1);
    receive(&ghost, &keys[200..]).await;
    assert_eq!(kept(&ghost, &keys).await, (1..201).collect::<Vec<_>>());
    let after = ghost.inbound_group_session_counts(Some("1")).await;
    assert_eq!(after.unwrap().backed_up, 0, "nothing of it is left");
}

#[tokio::test]
async fn what_a_forgotten_room_held_counts_no_longer() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let rooms = rooms(2);
    let keys = room_keys(&device_of("@alice:x"), &rooms, 300).await;
    receive(&ghost, &keys[..200]).await;
    ghost.forget_room(&rooms[0]).await.unwrap();
    assert_eq!(counts(&ghost), (100, 100));
    receive(&ghost, &keys[200..]).await;
    let odd = (0..200).filter(|n| n % 2 == 1);
    let expected: Vec<usize> = odd.chain(200..300).collect();
    assert_eq!(kept(&ghost, &keys).await, expected);
}

#[tokio::test]
async fn one_session_for_many_rooms_is_kept_for_the_last() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let first = room_keys(&device_of("@attacker:x"), &rooms(1), 1).await;
    let mut copies = first.clone();
    for room in rooms(5).drain(1..) {
        let mut pickle = first[0].pickle().await;
        pickle.room_id = room;
        copies.push(InboundGroupSession::from_pickle(pickle).unwrap());
    }
    receive(&ghost, &copies[..2]).await;
    for copy in &copies[2..] {
        receive(&ghost, std::slice::from_ref(copy)).await;
    }
    assert_eq!(kept(&ghost, &copies).await, [4]);
    assert_eq!(counts(&ghost), (1, 1));
}

/// Somebody who got a key can send it as their own before the one who made it does.
#[tokio::test]
async fn nobody_drives_out_the_key_of_another_device() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let attacker = device_of("@attacker:x");
    let alices = room_keys(&device_of("@alice:x"), &rooms(1), 2).await;
    let mut claimed = Vec::new();
    for key in &alices {
        claimed.push(claimed_by(&attacker, key).await);
    }
    receive(&ghost, &claimed).await;
    receive(&ghost, &alices[..1]).await;
    assert_eq!(counts(&ghost), (3, 3));
    let mut flood = room_keys(&attacker, &rooms(1), INBOUND_SESSIONS_MAX).await;
    flood.push(alices[1].clone());
    receive(&ghost, &flood).await;
    assert_eq!(counts(&ghost), (202, 202));
    for key in &alices {
        let found = ghost.get_inbound_group_session(key.room_id(), key.session_id());
        let found = found.await.unwrap().unwrap();
        assert_eq!(found.sender_key(), key.sender_key(), "only hers is left");
    }
    ghost.forget_room(alices[0].room_id()).await.unwrap();
    assert_eq!(counts(&ghost), (0, 0));
}

#[tokio::test]
async fn parked_keys_that_are_admitted_count() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    settle(&ghost, sam()).await;
    let rooms = rooms(2);
    let expected = rooms[0].clone();
    let judge = move |room: &RoomId| {
        if room == expected {
            RoomKeyFate::Keep
        } else {
            RoomKeyFate::Park
        }
    };
    ghost.set_room_key_filter(RoomKeyFilter {
        judge: Arc::new(judge),
        clock: Arc::new(TestClock::at(1000)),
    });
    let attacker = device_of("@attacker:x");
    let expected = room_keys(&attacker, &rooms[..1], 150).await;
    let parked = room_keys(&attacker, &rooms[1..], 100).await;
    receive(&ghost, &expected).await;
    receive(&ghost, &parked).await;
    assert_eq!(counts(&ghost), (150, 150));
    let admitted = ghost.admit_parked_keys(&rooms[1], Timestamp(1000));
    admitted.await.unwrap();
    assert_eq!(kept(&ghost, &expected).await, (50..150).collect::<Vec<_>>());
    assert_eq!(kept(&ghost, &parked).await, (0..100).collect::<Vec<_>>());
}

/// A group in which every message begins a session, and a chat in which one is enough.
#[tokio::test]
async fn a_busy_room_does_not_drive_out_the_session_of_a_quiet_one() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    let rooms = rooms(2);
    let alice = device_of("@alice:x");
    let quiet = room_keys(&alice, &rooms[..1], 2).await;
    let busy = room_keys(&alice, &rooms[1..], 250).await;
    receive(&ghost, &quiet).await;
    for key in &busy[..220] {
        receive(&ghost, std::slice::from_ref(key)).await;
    }
    receive(&ghost, &busy[220..]).await;
    assert_eq!(kept(&ghost, &quiet).await, [0, 1]);
    assert_eq!(kept(&ghost, &busy).await, (52..250).collect::<Vec<_>>());
    assert_eq!(counts(&ghost), (200, 200));
}

/// A homeserver can make up a device for each key.
#[tokio::test]
async fn of_the_room_keys_of_a_room_a_thousand_are_kept_and_those_of_signed_devices_longest() {
    let all = GhostStores::open(&Store::in_memory()).unwrap();
    let ghost = all.ghost(sam()).unwrap();
    settle(&ghost, sam()).await;
    let clock = Arc::new(TestClock::at(1000));
    ghost.set_room_key_filter(RoomKeyFilter {
        judge: Arc::new(|_| RoomKeyFate::Keep),
        clock: clock.clone(),
    });
    let rooms = rooms(2);
    let elsewhere = room_keys(&device_of("@bob:x"), &rooms[1..], 3).await;
    receive(&ghost, &elsewhere).await;
    let mut alices = room_keys(&device_of("@alice:x"), &rooms[..1], 50).await;
    for key in &mut alices {
        let (user, master) = (user_id!("@alice:x"), Account::new(user_id!("@alice:x")));
        let master = master.identity_keys().ed25519;
        key.sender_data = SenderData::sender_unverified(user, device_id!("PHONE"), master);
    }
    receive(&ghost, &alices).await;
    let mut flood = Vec::new();
    for _ in 0..=ROOM_SESSIONS_MAX {
        let made_up = Account::with_device_id(user_id!("@attacker:x"), device_id!("PHONE"));
        flood.extend(room_keys(&made_up, &rooms[..1], 1).await);
    }
    // With Alice's 50, the last of the first 951 makes it 1,001, and the oldest go.
    let gone = ROOM_SESSIONS_MAX + 1 - ROOM_SESSIONS_LEFT;
    let (oldest, others) = flood.split_at(gone);
    let (others, last) = others.split_at(951 - gone - 1);
    for keys in [oldest, others].into_iter().chain(last.chunks(1)) {
        clock.advance(Duration::from_millis(1));
        receive(&ghost, keys).await;
    }
    let newest: Vec<usize> = (gone..flood.len()).collect();
    assert_eq!(kept(&ghost, &flood).await, newest);
    assert_eq!(kept(&ghost, &alices).await, (0..50).collect::<Vec<_>>());
    assert_eq!(kept(&ghost, &elsewhere).await, [0, 1, 2]);
    let all = newest.len() + alices.len() + elsewhere.len();
    assert_eq!(counts(&ghost), (all, all));
}
