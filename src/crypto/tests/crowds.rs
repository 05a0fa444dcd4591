use ruma::{UserId, user_id};

use super::*;
use crate::testing::claimed_devices;

const ALICE: &str = "@alice:hs.test";

fn crowd() -> &'static UserId {
    user_id!("@crowd:elsewhere.test")
}

fn named(error: EncryptError) -> Vec<OwnedUserId> {
    match error {
        EncryptError::TooManyDevices { users } => users,
        other => panic!("{other:?}"),
    }
}

async fn stored_devices(world: &World, user: &UserId) -> usize {
    let machine = world.machines.ready(sam()).await.unwrap();
    let devices = machine.machine.get_user_devices(user, None).await.unwrap();
    devices.keys().count()
}

fn queries(world: &World) -> usize {
    let log = world.fake.log();
    log.iter().filter(|line| line.ends_with("/query")).count()
}

/// Everybody but the crowd gets the message, and the crowd costs one answer.
async fn others_are_written_to(world: &World) {
    let alice = Person::new(&world.fake, ALICE).await;
    let error = world.encrypt(&[alice.user(), crowd()], "all").await;
    let error = error.unwrap_err();
    assert!(!error.is_transient());
    assert_eq!(named(error), [crowd()]);
    let asked = queries(world);
    let event = world.encrypt(&[alice.user()], "alone").await.unwrap();
    let error = world.encrypt(&[alice.user(), crowd()], "all").await;
    assert_eq!(named(error.unwrap_err()), [crowd()]);
    assert_eq!(queries(world), asked, "nobody is asked for again");
    assert_eq!(stored_devices(world, crowd()).await, 0);
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &event).await.unwrap(), "alone");
}

#[tokio::test]
async fn a_hundred_signed_devices_are_written_to_and_one_more_is_too_many() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    alice.gather(0..99, 99).await;
    let event = world
        .encrypt(&[alice.user()], "to a hundred")
        .await
        .unwrap();
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &event).await.unwrap(), "to a hundred");
    assert_eq!(world.fake.claimed(alice.user()), SIGNED_DEVICES_MAX);

    alice.gather(99..100, 1).await;
    world
        .machines
        .mark_device_lists_outdated_for_all(&[alice.user().to_owned()]);
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    let error = world.encrypt(&[alice.user(), bob.user()], "x").await;
    assert_eq!(named(error.unwrap_err()), [alice.user()]);
    world.encrypt(&[bob.user()], "x").await.unwrap();
}

/// Only signed devices get room keys, so only they get sessions.
#[tokio::test]
async fn of_somebody_with_many_unsigned_devices_the_signed_ones_get_sessions() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    alice.gather(0..150, 10).await;
    let event = world.encrypt(&[alice.user()], "hello").await.unwrap();
    assert_eq!(world.fake.claimed(alice.user()), 11);
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &event).await.unwrap(), "hello");
}

#[tokio::test]
async fn ten_thousand_devices_are_counted_and_no_more() {
    let world = World::with_sam().await;
    let devices = claimed_devices(crowd(), 10_000);
    assert!(devices.to_string().len() < 8 * 1024 * 1024);
    world.fake.show_devices(crowd(), devices);
    others_are_written_to(&world).await;
}

#[tokio::test]
async fn keys_that_do_not_fit_into_an_answer_spoil_it_for_nobody() {
    let world = World::with_sam().await;
    let devices = claimed_devices(crowd(), 18_000);
    assert!(devices.to_string().len() > 8 * 1024 * 1024);
    world.fake.show_devices(crowd(), devices);
    others_are_written_to(&world).await;
}

#[tokio::test]
async fn keys_that_make_no_sense_spoil_the_answer_for_nobody() {
    let world = World::with_sam().await;
    world.fake.show_devices(crowd(), json!(["no", "devices"]));
    let alice = Person::new(&world.fake, ALICE).await;
    match world.encrypt(&[alice.user(), crowd()], "all").await {
        Err(EncryptError::KeysUnknown { users }) => assert_eq!(users, [crowd()]),
        other => panic!("{other:?}"),
    }
    world.encrypt(&[alice.user()], "alone").await.unwrap();
}

#[tokio::test]
async fn one_time_keys_that_do_not_fit_into_an_answer_spoil_it_for_nobody() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, ALICE).await;
    let bob = Person::new(&world.fake, "@bob:hs.test").await;
    world.fake.stuff_claims(bob.user(), 9 * 1024 * 1024);
    match world.encrypt(&[alice.user(), bob.user()], "all").await {
        Err(EncryptError::NoSession { users }) => assert_eq!(users, [bob.user()]),
        other => panic!("{other:?}"),
    }
    world.encrypt(&[alice.user()], "alone").await.unwrap();
}

#[tokio::test]
async fn somebody_with_too_many_devices_is_told_so_when_they_write() {
    let world = World::with_sam().await;
    let alice = Person::unsigned(&world.fake, ALICE, "PHONE").await;
    let event = alice.says(room(), &[sam()], "one of many").await;
    world.deliver(sam()).await;
    let many = claimed_devices(alice.user(), 2000);
    world.fake.show_devices(alice.user(), many);
    let asked = queries(&world);
    for _ in 0..3 {
        let read = world.decrypt(&event).await;
        let is_told = matches!(read, Err(DecryptError::Untrusted(Distrust::TooManyDevices)));
        assert!(is_told, "{read:?}");
        world.clock.advance(std::time::Duration::from_secs(60));
    }
    assert_eq!(queries(&world), asked + 1, "asked for once");
}
