use super::*;
use crate::testing::When;

const ALICE: &str = "@alice:hs.test";

#[tokio::test]
async fn after_forgetting_a_room_nothing_said_there_can_be_read() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let device = world.device(sam());
    let before = alice.says(room(), &[sam()], "before").await;
    let mut key = world.fake.take_incoming(sam(), &device);
    let copies: Vec<_> = key.to_device.clone();
    world
        .machines
        .receive_and_respond(sam(), std::mem::take(&mut key))
        .await
        .unwrap();
    world.decrypt(&before).await.unwrap();
    world
        .encrypt(&[alice.user()], "from the ghost")
        .await
        .unwrap();

    world.machines.forget_room(sam(), room()).await.unwrap();
    assert_eq!(world.machines.live_count(), 0, "nothing of it is in memory");
    let after = alice.says(room(), &[sam()], "after").await;
    // Not even when the very same key comes again, or a new one.
    let again = IncomingCrypto {
        to_device: copies,
        ..Default::default()
    };
    assert!(
        world
            .machines
            .receive_and_respond(sam(), again)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(world.deliver(sam()).await.is_empty());
    let world = world.restart().await;
    for event in [&before, &after] {
        assert!(matches!(
            world.decrypt(event).await,
            Err(DecryptError::NoKey { .. })
        ));
    }
}

#[tokio::test]
async fn a_key_that_was_on_its_way_when_the_ghost_left_is_turned_away_when_it_comes() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let device = world.device(sam());
    let heard = alice.says(room(), &[sam()], "heard").await;
    world.deliver(sam()).await;
    world.decrypt(&heard).await.unwrap();
    // Said while the ghost is there, with a key of its own that takes its time.
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    let late = bob.says(room(), &[sam()], "late").await;
    let key = world.fake.take_incoming(sam(), &device);
    assert_eq!(key.to_device.len(), 1);
    world.machines.forget_room(sam(), room()).await.unwrap();

    let keys = world
        .machines
        .receive_and_respond(sam(), key)
        .await
        .unwrap();
    assert!(keys.is_empty(), "{keys:?}");
    let read = world.decrypt(&late).await;
    assert!(matches!(read, Err(DecryptError::NoKey { .. })), "{read:?}");
    // Nor has it been put aside for a time at which the room is expected once more.
    let world = world.restart().await;
    world.machines.expect_room(sam(), room()).await.unwrap();
    let read = world.decrypt(&late).await;
    assert!(matches!(read, Err(DecryptError::NoKey { .. })), "{read:?}");
}

#[tokio::test]
async fn forgetting_one_room_leaves_the_others() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let other = room_id!("!other:hs.test");
    world.machines.expect_room(sam(), other).await.unwrap();
    let here = alice.says(room(), &[sam()], "here").await;
    let there = alice.says(other, &[sam()], "there").await;
    assert_eq!(world.deliver(sam()).await.len(), 2);
    world.machines.forget_room(sam(), other).await.unwrap();
    assert_eq!(world.decrypt(&here).await.unwrap(), "here");
    assert!(world.machines.decrypt(sam(), other, &there).await.is_err());
    let next = alice.says(room(), &[sam()], "still").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&next).await.unwrap(), "still");
}

#[tokio::test]
async fn a_fallback_key_that_was_used_opens_nothing_once_the_room_is_forgotten() {
    for fault in [None, Some(When::Before), Some(When::After)] {
        let world = World::with_sam().await;
        let device = world.device(sam());
        world.fake.claim_all(sam(), &device);
        let first = world.fake.fallback(sam(), &device);
        let alice = Person::new(&world.fake, ALICE).await;
        let event = alice
            .says(room(), &[sam()], "through the fallback key")
            .await;
        let incoming = world.fake.take_incoming(sam(), &device);
        let recorded = incoming.to_device.clone();
        // Only the counts arrive in time: the message itself is what a thief recorded.
        let counts = IncomingCrypto {
            to_device: Vec::new(),
            ..incoming
        };
        world
            .machines
            .receive_and_respond(sam(), counts)
            .await
            .unwrap();
        let mut world = world;
        if let Some(when) = fault {
            world.fake.fail(0, when);
            world.machines.forget_room(sam(), room()).await.unwrap_err();
            world = world.restart().await;
        }
        world.machines.forget_room(sam(), room()).await.unwrap();
        assert_ne!(
            world.fake.fallback(sam(), &device),
            first,
            "a new one is published"
        );

        world.machines.expect_room(sam(), room()).await.unwrap();
        let recorded = IncomingCrypto {
            to_device: recorded,
            ..Default::default()
        };
        assert!(
            world
                .machines
                .receive_and_respond(sam(), recorded)
                .await
                .unwrap()
                .is_empty()
        );
        assert!(world.decrypt(&event).await.is_err());
        // The new one works.
        world.fake.claim_all(sam(), &device);
        let bob = Person::new(&world.fake, "@bob:hs.test").await;
        let event = bob.says(room(), &[sam()], "hello").await;
        world.deliver(sam()).await;
        assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
        let asked = world.fake.log().len();
        world
            .machines
            .forget_room(sam(), room_id!("!x:hs.test"))
            .await
            .unwrap();
        let uploads = world.fake.log()[asked..].len();
        assert_eq!(uploads, 1, "used again, replaced again");
    }
}

#[tokio::test]
async fn a_fallback_key_that_was_used_is_replaced_after_an_hour_and_forgotten_an_hour_later() {
    const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
    let minute = HOUR / 60;
    let mut world = World::with_sam().await;
    let device = world.device(sam());
    world.fake.claim_all(sam(), &device);
    let first = world.fake.fallback(sam(), &device);
    // Both are begun with the first fallback key, and arrive later than the news of its use.
    let alice = Person::new(&world.fake, ALICE).await;
    let soon = alice.says(room(), &[sam()], "soon").await;
    let of_alice = world.fake.take_incoming(sam(), &device).to_device;
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    let late = bob.says(room(), &[sam()], "late").await;
    let of_bob = world.fake.take_incoming(sam(), &device).to_device;
    let receive = async |world: &World, to_device: Vec<Box<RawValue>>| {
        let incoming = IncomingCrypto {
            to_device,
            ..world.fake.take_incoming(sam(), &device)
        };
        let received = world.machines.receive_and_respond(sam(), incoming).await;
        received.unwrap().len()
    };
    receive(&world, Vec::new()).await;
    world.clock.advance(59 * minute);
    receive(&world, Vec::new()).await;
    assert_eq!(world.fake.fallback(sam(), &device), first);
    world.clock.advance(2 * minute);
    receive(&world, Vec::new()).await;
    assert_ne!(world.fake.fallback(sam(), &device), first);
    world.clock.advance(59 * minute);
    assert_eq!(receive(&world, of_alice).await, 1, "it was on its way");
    assert_eq!(world.decrypt(&soon).await.unwrap(), "soon");
    world.clock.advance(2 * minute);
    receive(&world, Vec::new()).await;
    world = world.restart().await;
    assert_eq!(receive(&world, of_bob).await, 0);
    world.decrypt(&late).await.unwrap_err();
    // The room was not forgotten, and the new key works.
    assert_eq!(world.decrypt(&soon).await.unwrap(), "soon");
    world.fake.claim_all(sam(), &device);
    let carol = Person::new(&world.fake, "@carol:hs.test").await;
    let event = carol.says(room(), &[sam()], "hello").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
}

/// An account has two fallback keys, and the published one has to be one of them.
#[tokio::test]
async fn a_fallback_key_that_cannot_be_replaced_goes_on_serving() {
    let world = World::with_sam().await;
    let device = world.device(sam());
    world.fake.claim_all(sam(), &device);
    let alice = Person::new(&world.fake, ALICE).await;
    let event = alice
        .says(room(), &[sam()], "through the fallback key")
        .await;
    let incoming = world.fake.take_incoming(sam(), &device);
    let key = incoming.to_device.clone();
    let counts = IncomingCrypto {
        to_device: Vec::new(),
        ..incoming
    };
    world
        .machines
        .receive_and_respond(sam(), counts)
        .await
        .unwrap();
    let other = room_id!("!other:hs.test");
    for _ in 0..3 {
        world.fake.fail(0, When::Before);
        world.machines.forget_room(sam(), other).await.unwrap_err();
    }
    let key = IncomingCrypto {
        to_device: key,
        ..Default::default()
    };
    assert_eq!(
        world
            .machines
            .receive_and_respond(sam(), key)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        world.decrypt(&event).await.unwrap(),
        "through the fallback key"
    );
}

#[tokio::test]
async fn forgetting_what_was_never_known_does_nothing() {
    let world = World::with_sam().await;
    let asked = world.fake.log().len();
    world
        .machines
        .forget_room(sam(), room_id!("!never:hs.test"))
        .await
        .unwrap();
    world
        .machines
        .forget_room(user_id!("@_dm_nobody:hs.test"), room())
        .await
        .unwrap();
    assert_eq!(world.fake.log().len(), asked);
}
