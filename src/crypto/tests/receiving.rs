use std::{collections::BTreeMap, time::Duration};

use matrix_sdk_crypto::store::CryptoStore;
use ruma::{UInt, uint};

use super::*;
use crate::crypto::store::{PARKED_FOR, PARKED_MAX};

const ALICE: &str = "@alice:hs.test";

fn count(left: UInt) -> IncomingCrypto {
    IncomingCrypto {
        otk_counts: Some(BTreeMap::from([("signed_curve25519".into(), left)])),
        ..Default::default()
    }
}

#[tokio::test]
async fn keys_that_were_claimed_are_made_anew() {
    let world = World::with_sam().await;
    let device = world.device(sam());
    assert_eq!(world.fake.claim_all(sam(), &device), 50);
    world
        .machines
        .receive_and_respond(sam(), count(uint!(0)))
        .await
        .unwrap();
    assert_eq!(world.fake.uploaded(sam(), &device), 100);
}

#[tokio::test]
async fn a_listed_device_without_a_number_has_none_left() {
    let world = World::with_sam().await;
    let device = world.device(sam());
    world.fake.claim_all(sam(), &device);
    let incoming = IncomingCrypto {
        otk_counts: Some(BTreeMap::new()),
        ..Default::default()
    };
    world
        .machines
        .receive_and_respond(sam(), incoming)
        .await
        .unwrap();
    assert_eq!(world.fake.uploaded(sam(), &device), 100);
}

#[tokio::test]
async fn nothing_is_done_for_a_ghost_without_work() {
    let world = World::with_sam().await.restart().await;
    let asked = world.fake.log().len();
    world
        .machines
        .receive_and_respond(sam(), IncomingCrypto::default())
        .await
        .unwrap();
    world
        .machines
        .receive_and_respond(sam(), count(uint!(50)))
        .await
        .unwrap();
    world
        .machines
        .receive_and_respond(sam(), count(uint!(30)))
        .await
        .unwrap();
    assert_eq!(world.fake.log().len(), asked);
    assert_eq!(
        world.machines.live_count(),
        0,
        "its machine was not even loaded"
    );
}

#[tokio::test]
async fn a_stranger_who_keeps_claiming_keys_cannot_make_us_hoard() {
    let world = World::with_sam().await;
    let device = world.device(sam());
    // As fast as can be: one top-up, then the fallback key serves.
    for _ in 0..20 {
        world.fake.claim_all(sam(), &device);
        world.deliver(sam()).await;
    }
    assert_eq!(world.fake.uploaded(sam(), &device), 100);
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice
        .says(room(), &[sam()], "through the fallback key")
        .await;
    world.deliver(sam()).await;
    assert_eq!(
        world.decrypt(&event).await.unwrap(),
        "through the fallback key"
    );
    // For days: the private halves are thrown away.
    for _ in 0..40 {
        world.clock.advance(Duration::from_secs(601));
        world.fake.claim_all(sam(), &device);
        world.deliver(sam()).await;
    }
    assert!(world.fake.uploaded(sam(), &device) > 2000);
    let store = world.machines.0.stores.existing(sam()).unwrap().unwrap();
    let account = store.load_account().await.unwrap();
    let pickle = serde_json::to_value(account.unwrap().pickle()).unwrap();
    let held = pickle["pickle"]["one_time_keys"]["private_keys"]
        .as_object()
        .unwrap()
        .len();
    assert!((50..=600).contains(&held), "{held} are held");
    // And the newest still work.
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    let event = bob.says(room(), &[sam()], "still here").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "still here");
}

fn is_unreadable<T>(read: &Result<T, DecryptError>) -> bool {
    matches!(read, Err(DecryptError::NoKey { .. }))
}

#[tokio::test]
async fn a_key_that_comes_before_its_room_is_expected_waits_for_it() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let other = other_room();
    let event = alice.says(other, &[sam()], "early").await;
    assert!(world.deliver(sam()).await.is_empty());
    let read = world.machines.decrypt(sam(), other, &event).await;
    assert!(is_unreadable(&read), "it cannot be used yet: {read:?}");
    let world = world.restart().await;
    world.clock.advance(PARKED_FOR);
    world.machines.sweep(|_| Ok(Vec::new())).await.unwrap();
    world.machines.expect_room(sam(), other).await.unwrap();
    let read = world.machines.decrypt(sam(), other, &event).await;
    assert_eq!(read.unwrap().event_type, "m.room.message");
}

#[tokio::test]
async fn a_key_that_comes_twice_is_reported_once_and_disturbs_nothing() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says(room(), &[sam()], "one").await;
    let to_device = world.fake.take_incoming(sam(), &world.device(sam()));
    let to_device = to_device.to_device;
    let mut reported = Vec::new();
    for _ in 0..2 {
        let incoming = IncomingCrypto {
            to_device: to_device.clone(),
            ..Default::default()
        };
        let keys = world.machines.receive_and_respond(sam(), incoming).await;
        reported.push(keys.unwrap().len());
        assert_eq!(world.decrypt(&event).await.unwrap(), "one");
    }
    assert_eq!(reported, [1, 0]);
    let next = alice.says(room(), &[sam()], "two").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&next).await.unwrap(), "two");
    world.encrypt(&[alice.user()], "three").await.unwrap();
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.unreadable(), 0);
}

#[tokio::test]
async fn a_key_of_a_room_that_nobody_expects_is_kept_for_minutes_only() {
    for sweeps in [false, true] {
        let world = World::with_sam().await;
        let alice = Person::new(&world.fake, ALICE).await;
        let other = other_room();
        let event = alice.says(other, &[sam()], "unasked").await;
        world.deliver(sam()).await;
        let store = world.machines.0.stores.existing(sam()).unwrap().unwrap();
        assert!(store.holds_keys_of(other).unwrap());
        world.clock.advance(PARKED_FOR + Duration::from_millis(1));
        if sweeps {
            world.machines.sweep(|_| Ok(Vec::new())).await.unwrap();
            assert!(!store.holds_keys_of(other).unwrap());
        }
        world.machines.expect_room(sam(), other).await.unwrap();
        let read = world.machines.decrypt(sam(), other, &event).await;
        assert!(is_unreadable(&read), "{read:?}");
        assert!(!store.holds_keys_of(other).unwrap());
    }
}

#[tokio::test]
async fn few_keys_of_rooms_that_nobody_expects_are_kept() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let rooms = (0..=PARKED_MAX).map(|n| format!("!made{n}:hs.test").try_into().unwrap());
    let rooms: Vec<ruma::OwnedRoomId> = rooms.collect();
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    let bobs = ruma::room_id!("!bobs:hs.test");
    bob.says(bobs, &[sam()], "I invite you in a moment").await;
    world.deliver(sam()).await;
    for room in &rooms {
        alice.says(room, &[sam()], "unasked").await;
        world.deliver(sam()).await;
        world.clock.advance(Duration::from_millis(1));
    }
    let store = world.machines.0.stores.existing(sam()).unwrap().unwrap();
    let kept = rooms
        .iter()
        .filter(|room| store.holds_keys_of(room).unwrap());
    assert_eq!(kept.count(), PARKED_MAX - 1);
    assert!(!store.holds_keys_of(&rooms[0]).unwrap(), "her oldest went");
    assert!(store.holds_keys_of(bobs).unwrap(), "and none of his");
    // None of them opens anything, and the others go on.
    world.machines.turn_away(sam(), &rooms[7]).await.unwrap();
    assert!(!store.holds_keys_of(&rooms[7]).unwrap());
    assert!(store.holds_keys_of(&rooms[8]).unwrap());
}

#[tokio::test]
async fn a_room_stays_expected_over_a_restart() {
    let world = World::with_sam().await.restart().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says(room(), &[sam()], "hello").await;
    assert_eq!(world.deliver(sam()).await.len(), 1);
    let world = world.restart().await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
}

/// Anybody can send it, unencrypted, for any session that they invent.
#[tokio::test]
async fn nothing_is_kept_of_a_key_that_is_withheld() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    // Alice shares with nobody whom she has not verified.
    let strategy = matrix_sdk_crypto::CollectStrategy::OnlyTrustedDevices;
    let event = alice
        .says_with(room(), &[sam()], "not for you", strategy)
        .await;
    let incoming = world.fake.take_incoming(sam(), &world.device(sam()));
    let message = incoming.to_device[0].get().to_owned();
    assert!(message.contains("m.room_key.withheld"), "{message}");
    let copies = ["m.room_key.withheld", "org.matrix.room_key.withheld"]
        .map(|kind| message.replace("m.room_key.withheld", kind))
        .map(|copy| RawValue::from_string(copy).unwrap());
    let incoming = IncomingCrypto {
        to_device: copies.into(),
        ..Default::default()
    };
    let received = world.machines.receive_and_respond(sam(), incoming).await;
    assert!(received.unwrap().is_empty());
    let read = world.decrypt(&event).await;
    assert!(is_unreadable(&read), "{read:?}");
    let store = world.machines.0.stores.existing(sam()).unwrap().unwrap();
    let kept = store.get_withheld_sessions_by_room_id(room()).await;
    assert_eq!(kept.unwrap().len(), 0);
}

async fn make_sessions_old(world: &World, person: &Person) {
    let device = person.machine.identity_keys().curve25519.to_base64();
    world.machines.make_sessions_old(sam(), &device).await;
}

#[tokio::test]
async fn a_key_that_got_lost_comes_again_in_a_new_session() {
    for have_talked in [false, true] {
        let world = World::with_sam().await;
        let alice = Person::new(&world.fake, ALICE).await;
        if have_talked {
            alice.says(other_room(), &[sam()], "elsewhere").await;
            world.deliver(sam()).await;
            make_sessions_old(&world, &alice).await;
        }
        let lost = alice.says(room(), &[sam()], "lost").await;
        world.fake.take_incoming(sam(), &world.device(sam()));
        let also_lost = alice.says(room(), &[sam()], "also lost").await;
        assert!(world.deliver(sam()).await.is_empty());
        for event in [&lost, &also_lost] {
            world.decrypt(event).await.unwrap_err();
        }
        let renewed = world.machines.renew_olm_sessions(sam(), alice.user());
        renewed.await.unwrap();
        alice.receives().await;
        assert_eq!(alice.unreadable(), 0);
        let next = alice.says(room(), &[sam()], "readable").await;
        assert_eq!(world.deliver(sam()).await.len(), 1);
        assert_eq!(world.decrypt(&next).await.unwrap(), "readable");
    }
}

#[tokio::test]
async fn a_session_that_broke_is_repaired() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    world.encrypt(&[alice.user()], "before").await.unwrap();
    alice.query(&[sam()]).await;
    alice.receives().await;
    // The library repairs no session that is younger than an hour.
    make_sessions_old(&world, &alice).await;
    world.encrypt(&[alice.user()], "well").await.unwrap();

    alice.says(room(), &[sam()], "lost").await;
    let mut incoming = world.fake.take_incoming(sam(), &world.device(sam()));
    let mut damaged: Value = serde_json::from_str(incoming.to_device[0].get()).unwrap();
    for (_, message) in damaged["content"]["ciphertext"].as_object_mut().unwrap() {
        let text = message["body"].as_str().unwrap();
        message["body"] = format!("{}{}", &text[..text.len() - 8], "AAAAAAAA").into();
    }
    incoming.to_device = vec![serde_json::value::to_raw_value(&damaged).unwrap()];
    let asked = world.fake.log().len();
    world
        .machines
        .receive_and_respond(sam(), incoming)
        .await
        .unwrap();
    let log = world.fake.log();
    assert!(
        log[asked].ends_with("/keys/claim"),
        "a new session is begun: {log:?}"
    );
    assert!(
        log[asked + 1].contains("/sendToDevice/m.room.encrypted/"),
        "and Alice is told"
    );
    world.encrypt(&[alice.user()], "after").await.unwrap();

    alice.receives().await;
    let event = alice.says(other_room(), &[sam()], "found").await;
    world
        .machines
        .expect_room(sam(), other_room())
        .await
        .unwrap();
    assert_eq!(world.deliver(sam()).await.len(), 1);
    world
        .machines
        .decrypt(sam(), other_room(), &event)
        .await
        .unwrap();
}

fn other_room() -> &'static RoomId {
    room_id!("!other:hs.test")
}

#[tokio::test]
async fn what_strangers_ask_of_a_device_is_not_even_looked_at() {
    let world = World::with_sam().await.restart().await;
    let asked = world.fake.log().len();
    let odd = [
        r#"{"type":"m.key.verification.request","sender":"@x:y","content":{}}"#,
        r#"{"type":"m.room_key_request","sender":"@x:y","content":{}}"#,
        r#"{"type":"m.secret.request","sender":"@x:y","content":{}}"#,
        r#"{"type":"m.forwarded_room_key","sender":"@x:y","content":{}}"#,
        r#"{"type":7}"#,
        r#"[]"#,
    ];
    let incoming = IncomingCrypto {
        to_device: odd
            .iter()
            .map(|m| RawValue::from_string((*m).to_owned()).unwrap())
            .collect(),
        ..Default::default()
    };
    assert!(
        world
            .machines
            .receive_and_respond(sam(), incoming)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(world.machines.live_count(), 0);
    assert_eq!(world.fake.log().len(), asked);
}

#[tokio::test]
async fn an_unknown_ghost_receives_nothing() {
    let world = World::new().await;
    assert!(
        world
            .machines
            .receive_and_respond(sam(), count(uint!(0)))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn half_an_emoji_is_read_with_a_replacement() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says_half_an_emoji(room(), &[sam()]).await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "half \u{fffd}");
    let mut replayed: Value = serde_json::from_str(event.get()).unwrap();
    replayed["event_id"] = "$another".into();
    let replayed = serde_json::value::to_raw_value(&replayed).unwrap();
    let read = world.decrypt(&replayed).await;
    assert!(
        matches!(read, Err(DecryptError::Replayed { .. })),
        "{read:?}"
    );
}

#[tokio::test]
async fn half_an_emoji_from_an_unsigned_device_is_refused_all_the_same() {
    let world = World::with_sam().await;
    let eve = Person::unsigned(&world.fake, "@eve:hs.test", "PHONE").await;
    let event = eve.says_half_an_emoji(room(), &[sam()]).await;
    world.deliver(sam()).await;
    let read = world.decrypt(&event).await;
    assert!(matches!(read, Err(DecryptError::Untrusted(_))), "{read:?}");
}

#[tokio::test]
async fn a_payload_beyond_us_is_told_from_a_forged_one() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for content in [&*deep, r#"{"n":1e400}"#] {
        let event = alice.says_content(room(), &[sam()], content).await;
        world.deliver(sam()).await;
        let read = world.decrypt(&event).await;
        assert!(matches!(read, Err(DecryptError::NotUnderstood)), "{read:?}");
    }
}

#[tokio::test]
async fn keys_that_the_homeserver_refuses_are_made_anew() {
    let world = World::with_sam().await;
    let device = world.device(sam());
    // The homeserver knows the id of the next key with another content.
    let taken = serde_json::json!({
        "one_time_keys": {"signed_curve25519:AAAAAAAAADI": {"key": "of another time"}},
    });
    world.fake.with(|server| {
        let account = server.accounts.get_mut(sam().as_str()).unwrap();
        let own = account.devices.get_mut(device.as_str()).unwrap();
        own.keys.upload(device.as_str(), &taken);
    });
    world.fake.claim_all(sam(), &device);
    world.deliver(sam()).await;
    let refused = world.fake.uploaded(sam(), &device);
    assert!(refused < 100, "{refused}");
    world.clock.advance(Duration::from_secs(601));
    world.deliver(sam()).await;
    let uploaded = world.fake.uploaded(sam(), &device);
    assert!(uploaded > refused + 40, "{uploaded} after {refused}");
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says(room(), &[sam()], "hello").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
}
