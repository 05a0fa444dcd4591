use ruma::{OwnedUserId, user_id};

use super::*;
use crate::testing::When;

const ALICE: &str = "@alice:hs.test";

#[tokio::test]
async fn what_alice_says_the_ghost_reads() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says(room(), &[sam()], "hello").await;
    assert!(matches!(
        world.decrypt(&event).await,
        Err(DecryptError::NoKey { .. })
    ));
    let keys = world.deliver(sam()).await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].room_id, room());
    assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
    let decrypted = world.machines.decrypt(sam(), room(), &event).await.unwrap();
    assert_eq!(decrypted.sender, ALICE);
    assert_eq!(decrypted.session_id, keys[0].session_id);
    assert_eq!(decrypted.message_index, 0);
}

#[tokio::test]
async fn what_the_ghost_says_a_client_that_hears_only_signed_devices_reads() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    let event = world
        .encrypt(&[alice.user(), bob.user()], "hello both")
        .await
        .unwrap();
    for person in [&alice, &bob] {
        person.query(&[sam()]).await;
        assert_eq!(person.receives().await, 1);
        assert_eq!(person.reads(room(), &event).await.unwrap(), "hello both");
    }
    let asked = world.fake.log().len();
    let event = world
        .encrypt(&[alice.user(), bob.user()], "once more")
        .await
        .unwrap();
    assert_eq!(
        world.fake.log().len(),
        asked,
        "nobody is asked anything for the next message"
    );
    assert_eq!(alice.reads(room(), &event).await.unwrap(), "once more");
}

/// A copy of our own session would open all that the ghost ever said in the room.
#[tokio::test]
async fn what_the_ghost_says_leaves_no_key_to_read_it() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let event = world.encrypt(&[alice.user()], "hello").await.unwrap();
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &event).await.unwrap(), "hello");
    let store = world.machines.0.stores.ghost(sam()).unwrap();
    assert!(!store.holds_keys_of(room()).unwrap());
    alice.says(room(), &[sam()], "hello yourself").await;
    world.deliver(sam()).await;
    assert!(store.holds_keys_of(room()).unwrap());
}

#[tokio::test]
async fn a_message_from_an_unsigned_device_is_refused_until_its_owner_signs_it() {
    let world = World::with_sam().await;
    let alice = Person::unsigned(&world.fake, ALICE, "PHONE").await;
    let event = alice.says(room(), &[sam()], "am I who I say?").await;
    world.deliver(sam()).await;
    assert!(matches!(
        world.decrypt(&event).await,
        Err(DecryptError::Untrusted(Distrust::UnsignedDevice))
    ));
    alice.sign().await;
    world.clock.advance(std::time::Duration::from_secs(6));
    assert_eq!(world.decrypt(&event).await.unwrap(), "am I who I say?");
}

#[tokio::test]
async fn many_messages_from_an_unsigned_device_do_not_make_us_ask_for_each() {
    let world = World::with_sam().await;
    let alice = Person::unsigned(&world.fake, ALICE, "PHONE").await;
    let mut events = Vec::new();
    for n in 0..20 {
        events.push(alice.says(room(), &[sam()], &n.to_string()).await);
    }
    world.deliver(sam()).await;
    let asked = world.fake.log().len();
    for event in &events {
        assert!(matches!(
            world.decrypt(event).await,
            Err(DecryptError::Untrusted(_))
        ));
    }
    assert_eq!(world.fake.log().len() - asked, 1);
}

#[tokio::test]
async fn somebody_without_a_signed_device_is_named_and_nobody_gets_anything() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let bob = Person::unsigned(&world.fake, "@bob:hs.test", "OLD").await;
    let carol = user_id!("@carol:hs.test");
    match world
        .encrypt(&[alice.user(), bob.user(), carol], "secret")
        .await
    {
        Err(EncryptError::NoSignedDevice { users }) => assert_eq!(users, [bob.user(), carol]),
        other => panic!("{other:?}"),
    }
    for person in [&alice, &bob] {
        assert_eq!(world.fake.waiting(person.user(), person.device()), 0);
    }
}

#[tokio::test]
async fn an_unsigned_device_beside_a_signed_one_gets_no_key_and_is_told_so() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let other = Person::unsigned(&world.fake, ALICE, "LAPTOP").await;
    let event = world
        .encrypt(&[alice.user()], "for signed devices")
        .await
        .unwrap();
    alice.query(&[sam()]).await;
    assert_eq!(alice.receives().await, 1);
    assert_eq!(
        alice.reads(room(), &event).await.unwrap(),
        "for signed devices"
    );
    assert_eq!(other.receives().await, 0);
    match other.reads(room(), &event).await {
        Err(matrix_sdk_crypto::MegolmError::MissingRoomKey(Some(code))) => {
            assert_eq!(code.as_str(), "m.unverified");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_device_that_only_a_message_tells_of_gets_the_next_key() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    world.encrypt(&[alice.user()], "hello").await.unwrap();
    // Nobody tells the ghost that her devices have changed.
    let tablet = Person::unsigned(&world.fake, ALICE, "TABLET").await;
    tablet.sign_device_as(&alice).await.unwrap();
    let event = tablet.says(room(), &[sam()], "from my tablet").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "from my tablet");
    let event = world.encrypt(&[alice.user()], "I see").await.unwrap();
    assert_eq!(tablet.receives().await, 1);
    assert_eq!(tablet.reads(room(), &event).await.unwrap(), "I see");
}

#[tokio::test]
async fn people_whose_server_does_not_answer_are_told_apart_from_people_without_devices() {
    let world = World::with_sam().await;
    let far = Person::new(&world.fake, "@far:elsewhere.test").await;
    world.fake.set_unreachable("elsewhere.test", true);
    let error = world.encrypt(&[far.user()], "x").await.unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(&error, EncryptError::KeysUnknown { users } if users == &[far.user()]));
    world.fake.set_unreachable("elsewhere.test", false);
    world.encrypts_soon(&[far.user()]).await;
}

#[tokio::test]
async fn somebody_whose_device_left_no_key_is_named() {
    let world = World::with_sam().await;
    // A client that never uploaded a fallback key, and whose keys somebody claimed.
    let alice = Person::new(&world.fake, ALICE).await;
    world.fake.claim_all(alice.user(), alice.device());
    let error = world.encrypt(&[alice.user()], "x").await.unwrap_err();
    assert!(matches!(&error, EncryptError::NoSession { users } if users == &[alice.user()]));
}

#[tokio::test]
async fn the_same_words_in_another_event_are_a_replay() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says(room(), &[sam()], "release sam").await;
    world.deliver(sam()).await;
    world.decrypt(&event).await.unwrap();
    world
        .decrypt(&event)
        .await
        .expect("the same event may be read again, as after a crash");
    let value: Value = serde_json::from_str(event.get()).unwrap();
    let content = serde_json::value::to_raw_value(&value["content"]).unwrap();
    let again = encrypted_event(alice.user(), room(), &content);
    let world = world.restart().await;
    match world.decrypt(&again).await {
        Err(DecryptError::Replayed { first: Some(first) }) => {
            assert_eq!(first.as_str(), value["event_id"]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_in_the_name_of_somebody_else_is_refused() {
    let world = World::with_sam().await;
    let mallory = Person::new(&world.fake, "@mallory:hs.test").await;
    let _alice = Person::new(&world.fake, ALICE).await;
    let event = mallory.says(room(), &[sam()], "I am Alice").await;
    world.deliver(sam()).await;
    let value: Value = serde_json::from_str(event.get()).unwrap();
    let content = serde_json::value::to_raw_value(&value["content"]).unwrap();
    let forged = encrypted_event(&OwnedUserId::try_from(ALICE).unwrap(), room(), &content);
    // As if Alice's key were still to come.
    let read = world.decrypt(&forged).await;
    assert!(matches!(read, Err(DecryptError::NoKey { .. })), "{read:?}");
    assert_eq!(world.decrypt(&event).await.unwrap(), "I am Alice");
}

#[tokio::test]
async fn what_is_no_message_has_an_error_of_its_own() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice.says(room(), &[sam()], "hello").await;
    world.deliver(sam()).await;
    for broken in [
        r#"{}"#.to_owned(),
        r#"[]"#.to_owned(),
        event.get().replace("ciphertext\":\"A", "ciphertext\":\"!"),
        event.get().replace("m.megolm.v1.aes-sha2", "m.unknown"),
        event
            .get()
            .replace("\"ciphertext\":\"", "\"ciphertext\":7,\"x\":\""),
    ] {
        let broken = RawValue::from_string(broken).unwrap();
        match world.decrypt(&broken).await {
            Err(DecryptError::Malformed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    // One changed letter in the middle of the ciphertext.
    let mut value: Value = serde_json::from_str(event.get()).unwrap();
    let mut text = value["content"]["ciphertext"]
        .as_str()
        .unwrap()
        .to_owned()
        .into_bytes();
    text[60] = if text[60] == b'A' { b'B' } else { b'A' };
    value["content"]["ciphertext"] = String::from_utf8(text).unwrap().into();
    let broken = serde_json::value::to_raw_value(&value).unwrap();
    assert!(matches!(
        world.decrypt(&broken).await,
        Err(DecryptError::Malformed(_))
    ));
}

#[tokio::test]
async fn who_has_left_cannot_read_what_is_said_after() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    world
        .encrypt(&[alice.user(), bob.user()], "with bob")
        .await
        .unwrap();
    bob.query(&[sam()]).await;
    bob.receives().await;
    let event = world.encrypt(&[alice.user()], "without bob").await.unwrap();
    assert_eq!(bob.receives().await, 0);
    assert!(bob.reads(room(), &event).await.is_err());
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &event).await.unwrap(), "without bob");
}

#[tokio::test]
async fn a_new_device_gets_the_key_once_we_hear_of_it() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    world.encrypt(&[alice.user()], "one").await.unwrap();
    let asked = world.fake.log().len();
    world.encrypt(&[alice.user()], "two").await.unwrap();
    assert_eq!(world.fake.log().len(), asked);
    world
        .machines
        .mark_device_lists_outdated(sam(), &[alice.user().to_owned()])
        .await;
    world.encrypt(&[alice.user()], "three").await.unwrap();
    assert_eq!(world.fake.log().len(), asked + 1, "asked once after a join");
    let incoming = IncomingCrypto {
        device_lists_changed: vec![alice.user().to_owned()],
        ..Default::default()
    };
    world
        .machines
        .receive_and_respond(sam(), incoming)
        .await
        .unwrap();
    world.encrypt(&[alice.user()], "four").await.unwrap();
    assert_eq!(
        world.fake.log().len(),
        asked + 2,
        "asked once after a change"
    );
    world.clock.advance(std::time::Duration::from_secs(16 * 60));
    world.encrypt(&[alice.user()], "five").await.unwrap();
    assert_eq!(world.fake.log().len(), asked + 3, "and now and then");
}

#[tokio::test]
async fn the_next_message_waits_for_no_disk() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let first = world.encrypt(&[alice.user()], "one").await.unwrap();
    world.store.flush().await.unwrap();
    let flushes = world.store.flushes();
    let mut events = vec![first];
    for text in ["two", "three"] {
        events.push(world.encrypt(&[alice.user()], text).await.unwrap());
    }
    world.store.flush().await.unwrap();
    assert_eq!(
        world.store.flushes(),
        flushes,
        "and leaves it nothing to do"
    );
    alice.query(&[sam()]).await;
    alice.receives().await;
    for (event, text) in events.iter().zip(["one", "two", "three"]) {
        assert_eq!(alice.reads(room(), event).await.unwrap(), text);
    }
}

#[tokio::test]
async fn somebody_who_is_left_out_of_a_group_costs_its_next_messages_nothing() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let bob = Person::unsigned(&world.fake, "@bob:hs.test", "OLD").await;
    // As the engine does: for everybody first, then without those who cannot read it.
    let say = async |text: &str| {
        match world.encrypt(&[alice.user(), bob.user()], text).await {
            Err(EncryptError::NoSignedDevice { users }) => assert_eq!(users, [bob.user()]),
            other => panic!("{other:?}"),
        }
        world.encrypt(&[alice.user()], text).await.unwrap()
    };
    let first = say("one").await;
    world.store.flush().await.unwrap();
    let before = (world.store.flushes(), world.fake.log().len());
    let events = [first, say("two").await, say("three").await];
    world.store.flush().await.unwrap();
    assert_eq!(
        (world.store.flushes(), world.fake.log().len()),
        before,
        "no key is shared again"
    );
    alice.query(&[sam()]).await;
    alice.receives().await;
    for (event, text) in events.iter().zip(["one", "two", "three"]) {
        assert_eq!(alice.reads(room(), event).await.unwrap(), text);
    }
    // Once we hear that he has a signed device, he is left out no longer.
    let signed = Person::new(&world.fake, "@bob:hs.test").await;
    let bobs = [signed.user().to_owned()];
    world
        .machines
        .mark_device_lists_outdated(sam(), &bobs)
        .await;
    let both = [alice.user(), signed.user()];
    let event = world.encrypt(&both, "four").await.unwrap();
    signed.query(&[sam()]).await;
    signed.receives().await;
    assert_eq!(signed.reads(room(), &event).await.unwrap(), "four");
}

/// Encrypts as the engine does: for everybody first, then without those who cannot read it. Returns
/// how many flushes and requests, and how many values sealed, three messages cost after the first.
async fn cost_without(world: &World, all: &[&UserId], readers: &[&UserId]) -> (u64, usize, usize) {
    let store = world.machines.0.stores.ghost(sam()).unwrap();
    let cost = || {
        (
            world.store.flushes(),
            world.fake.log().len(),
            store.sealed_count(),
        )
    };
    let say = async |text: &str| {
        let left_out = world.encrypt(all, text).await.unwrap_err();
        assert!(!matches!(left_out, EncryptError::Crypto(_)), "{left_out:?}");
        world.encrypt(readers, text).await.unwrap();
    };
    say("one").await;
    world.store.flush().await.unwrap();
    let before = cost();
    for text in ["two", "three", "four"] {
        say(text).await;
    }
    world.store.flush().await.unwrap();
    let after = cost();
    (after.0 - before.0, after.1 - before.1, after.2 - before.2)
}

#[tokio::test]
async fn somebody_without_keys_left_costs_the_next_messages_of_a_group_nothing() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    world.fake.claim_all(bob.user(), bob.device());
    let all = [alice.user(), bob.user()];
    let cost = cost_without(&world, &all, &[alice.user()]).await;
    assert_eq!(cost, (0, 0, 0), "no key is shared again");
}

#[tokio::test]
async fn somebody_of_a_silent_server_costs_the_next_messages_of_a_group_nothing() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let far = Person::new(&world.fake, "@far:silent.test").await;
    world.fake.set_unreachable("silent.test", true);
    let all = [alice.user(), far.user()];
    let (flushes, _, sealed) = cost_without(&world, &all, &[alice.user()]).await;
    assert_eq!((flushes, sealed), (0, 0), "no key is shared again");
}

/// What the ghost learns of somebody's devices on its way to something else counts as well.
#[tokio::test]
async fn a_new_device_is_dealt_with_however_we_heard_of_it() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    world.encrypt(&[alice.user()], "one").await.unwrap();
    world.encrypt(&[alice.user()], "two").await.unwrap();
    let laptop = Person::unsigned(&world.fake, ALICE, "LAPTOP").await;
    world
        .machines
        .mark_device_lists_outdated(sam(), &[alice.user().to_owned()])
        .await;
    let elsewhere = EncryptTo {
        room_id: room_id!("!other:hs.test").to_owned(),
        recipients: vec![alice.user().to_owned()],
        rotation_ms: None,
        rotation_msgs: None,
    };
    let text = message("elsewhere");
    let encrypting = world
        .machines
        .encrypt(sam(), &elsewhere, "m.room.message", &text);
    encrypting.await.unwrap();
    let event = world.encrypt(&[alice.user()], "three").await.unwrap();
    laptop.receives().await;
    match laptop.reads(room(), &event).await {
        Err(matrix_sdk_crypto::MegolmError::MissingRoomKey(Some(code))) => {
            assert_eq!(code.as_str(), "m.unverified");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_that_could_not_be_sent_is_sent_before_the_message_is() {
    for when in [When::Before, When::After] {
        for n in 0..3 {
            let mut world = World::with_sam().await;
            let alice = Person::new(&world.fake, ALICE).await;
            world.fake.fail(n, when);
            let error = world.encrypt(&[alice.user()], "hello").await.unwrap_err();
            assert!(error.is_transient(), "request {n}, {when:?}: {error}");
            assert!(!world.fake.failure_pending());
            world = world.restart().await;
            let event = world.encrypt(&[alice.user()], "hello").await.unwrap();
            alice.query(&[sam()]).await;
            alice.receives().await;
            let text = alice.reads(room(), &event).await;
            assert_eq!(text.unwrap(), "hello", "request {n}, {when:?}");
        }
    }
}

#[tokio::test]
async fn many_messages_rotate_the_session_and_none_is_lost() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    alice.query(&[sam()]).await;
    let mut sessions = std::collections::BTreeSet::new();
    for n in 0..120 {
        let text = format!("message {n}");
        let event = world.encrypt(&[alice.user()], &text).await.unwrap();
        alice.receives().await;
        assert_eq!(alice.reads(room(), &event).await.unwrap(), text);
        let event: Value = serde_json::from_str(event.get()).unwrap();
        sessions.insert(event["content"]["session_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(sessions.len(), 2);
}

#[tokio::test]
async fn messages_at_the_same_time_in_one_room_do_not_step_on_each_other() {
    let world = Arc::new(World::with_sam().await);
    let alice = Person::new(&world.fake, ALICE).await;
    alice.query(&[sam()]).await;
    let to = alice.user().to_owned();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let (world, to) = (world.clone(), to.clone());
            tokio::spawn(async move { world.encrypt(&[&to], &n.to_string()).await.unwrap() })
        })
        .collect();
    let mut events = Vec::new();
    for task in tasks {
        events.push(task.await.unwrap());
    }
    assert_eq!(alice.receives().await, 1, "one key for all");
    let mut heard = Vec::new();
    for event in &events {
        heard.push(
            alice
                .reads(room(), event)
                .await
                .unwrap()
                .parse::<u32>()
                .unwrap(),
        );
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_ghost_says_it_cannot_read_itself() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    let event = world.encrypt(&[alice.user()], "hello").await.unwrap();
    let store = world.machines.0.stores.existing(sam()).unwrap().unwrap();
    assert!(!store.holds_keys_of(room()).unwrap());
    let read = world.decrypt(&event).await;
    assert!(matches!(read, Err(DecryptError::NoKey { .. })), "{read:?}");
    world.encrypt(&[alice.user()], "again").await.unwrap();
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &event).await.unwrap(), "hello");
}
