//! Somebody who passes off another person's session as their own.

use matrix_sdk_crypto::CollectStrategy;

use super::*;

async fn receive(world: &World, to_device: Vec<Box<RawValue>>) -> usize {
    let incoming = IncomingCrypto {
        to_device,
        ..Default::default()
    };
    let received = world.machines.receive_and_respond(sam(), incoming).await;
    received.unwrap().len()
}

/// Takes what has been sent to the ghost, before it gets there.
fn intercept(world: &World) -> Vec<Box<RawValue>> {
    let incoming = world.fake.take_incoming(sam(), &world.device(sam()));
    incoming.to_device
}

/// The key of the owner's session in the room, from now on, as the thief sends it to the ghost.
async fn passed_off(world: &World, thief: &Person, owner: &Person) -> Vec<Box<RawValue>> {
    let session = owner.machine.store().get_outbound_group_session(room());
    let session = session.await.unwrap().unwrap();
    let key = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "room_id": room(),
        "session_id": session.session_id(),
        "session_key": session.session_key().await.to_base64(),
    });
    thief.query(&[sam()]).await;
    thief.claim(&[sam()]).await;
    let device = world.device(sam());
    let ghost = thief.machine.get_device(sam(), &device, None);
    let ghost = ghost.await.unwrap().unwrap();
    let content = ghost.encrypt_event_raw("m.room_key", &key, CollectStrategy::AllDevices);
    let content = content.await.unwrap();
    let message = json!({
        "type": "m.room.encrypted", "sender": thief.user(), "content": content,
    });
    vec![serde_json::value::to_raw_value(&message).unwrap()]
}

async fn thief(world: &World, is_signed: bool) -> Person {
    let thief = Person::unsigned(&world.fake, "@bob:hs.test", "LAPTOP").await;
    if is_signed {
        thief.sign().await;
    }
    thief
}

fn is_unreadable(read: &Result<String, DecryptError>) -> bool {
    matches!(read, Err(DecryptError::NoKey { .. }))
}

#[tokio::test]
async fn a_session_that_others_passed_off_as_theirs_is_read_with_the_key_of_its_owner() {
    for (is_signed, first) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        let world = World::with_sam().await;
        let alice = Person::new(&world.fake, "@alice:hs.test").await;
        let bob = thief(&world, is_signed).await;
        let mut events = vec![alice.says(room(), &[sam()], "0").await];
        let alices_key = intercept(&world);
        let bobs_key = passed_off(&world, &bob, &alice).await;
        events.push(alice.says(room(), &[sam()], "1").await);

        assert_eq!(receive(&world, bobs_key.clone()).await, 1);
        let read = world.decrypt(&events[1]).await;
        assert!(is_unreadable(&read), "her key is on its way: {read:?}");
        assert_eq!(receive(&world, alices_key).await, 1);
        for n in [first, 1 - first] {
            assert_eq!(world.decrypt(&events[n]).await.unwrap(), n.to_string());
        }

        let mut copied: Value = serde_json::from_str(events[1].get()).unwrap();
        copied["sender"] = bob.user().as_str().into();
        copied["event_id"] = "$copied".into();
        let copied = serde_json::value::to_raw_value(&copied).unwrap();
        let read = world.decrypt(&copied).await;
        assert!(read.is_err(), "{read:?}");
        let next = alice.says(room(), &[sam()], "2").await;
        assert_eq!(world.decrypt(&next).await.unwrap(), "2");

        let store = world.machines.0.stores.existing(sam()).unwrap().unwrap();
        world.machines.forget_room(sam(), room()).await.unwrap();
        assert!(!store.holds_keys_of(room()).unwrap());
    }
}

#[tokio::test]
async fn nobody_makes_a_session_unreadable_by_claiming_it_later() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    let bob = thief(&world, true).await;
    let mut event = alice.says(room(), &[sam()], "0").await;
    world.deliver(sam()).await;
    let bobs_key = passed_off(&world, &bob, &alice).await;
    receive(&world, bobs_key).await;
    for n in 1..4 {
        assert_eq!(world.decrypt(&event).await.unwrap(), (n - 1).to_string());
        event = alice.says(room(), &[sam()], &n.to_string()).await;
        // Bob was not sent this one: he copies it from the room.
        let mut copied: Value = serde_json::from_str(event.get()).unwrap();
        copied["sender"] = "@eve:hs.test".into();
        let copied = serde_json::value::to_raw_value(&copied).unwrap();
        let read = world.decrypt(&copied).await;
        assert!(is_unreadable(&read), "{read:?}");
    }
}

#[tokio::test]
async fn a_key_that_others_passed_off_before_the_room_was_expected_is_not_the_only_one() {
    let world = World::new().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    let bob = thief(&world, true).await;
    let event = alice.says(room(), &[sam()], "hello").await;
    let alices_key = intercept(&world);
    let bobs_key = passed_off(&world, &bob, &alice).await;
    for key in [bobs_key, alices_key] {
        assert_eq!(receive(&world, key).await, 0);
    }
    world.machines.expect_room(sam(), room()).await.unwrap();
    let next = alice.says(room(), &[sam()], "again").await;
    assert_eq!(world.decrypt(&next).await.unwrap(), "again");
    assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
}
