//! Servers that do not say which devices their people have, and people who do not wait for them.

use std::time::Duration;

use super::*;

/// How long a request may take that waits for nobody.
const WAITS: Duration = Duration::from_secs(10);

const NEAR: &str = "@near:hs.test";
const FAR: &str = "@far:silent.test";

impl World {
    /// Encrypts for these people as soon as their servers have answered in the background.
    pub(super) async fn encrypts_soon(&self, to: &[&UserId]) -> Box<RawValue> {
        let trying = async {
            loop {
                if let Ok(event) = self.encrypt(to, "soon").await {
                    return event;
                }
            }
        };
        tokio::time::timeout(WAITS, trying).await.unwrap()
    }

    /// Encrypts for these people, and waits for no server.
    async fn encrypts_at_once(&self, to: &[&UserId]) -> Result<Box<RawValue>, EncryptError> {
        let encrypting = self.encrypt(to, "at once");
        let encrypted = tokio::time::timeout(WAITS, encrypting).await;
        encrypted.expect("nobody waits")
    }

    fn queries(&self) -> usize {
        let log = self.fake.log();
        log.iter().filter(|it| it.contains("/keys/query")).count()
    }
}

fn unknown(outcome: Result<Box<RawValue>, EncryptError>) -> Vec<OwnedUserId> {
    match outcome {
        Err(EncryptError::KeysUnknown { users }) => users,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_was_asked_in_vain_a_short_while_ago() {
    let world = World::with_sam().await;
    let near = Person::new(&world.fake, NEAR).await;
    let far = Person::new(&world.fake, FAR).await;
    world.fake.set_unreachable("silent.test", true);
    let both = [near.user(), far.user()];
    assert_eq!(unknown(world.encrypt(&both, "first").await), [far.user()]);

    let held = world.fake.hold("/keys/query", FAR);
    for _ in 0..3 {
        let encrypted = world.encrypts_at_once(&both).await;
        assert_eq!(unknown(encrypted), [far.user()]);
        world.encrypts_at_once(&[near.user()]).await.unwrap();
    }
    let event = far.says(room(), &[sam()], "hello").await;
    world.deliver(sam()).await;
    let reading = tokio::time::timeout(WAITS, world.decrypt(&event));
    match reading.await.expect("nobody waits") {
        Err(DecryptError::SenderUnknown { server, .. }) => assert_eq!(server, "silent.test"),
        other => panic!("{other:?}"),
    }
    let asked = world.queries();
    held.comes().await;
    world.fake.set_unreachable("silent.test", false);
    drop(held);
    world.encrypts_soon(&both).await;
    assert_eq!(world.queries(), asked + 1, "one question at a time");
    assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
}

#[tokio::test]
async fn people_whose_devices_are_known_are_written_to_while_their_server_is_silent() {
    let world = World::with_sam().await;
    let far = Person::new(&world.fake, FAR).await;
    world.encrypt(&[far.user()], "known").await.unwrap();
    world.fake.set_unreachable("silent.test", true);
    for _ in 0..2 {
        let changed = [far.user().to_owned()];
        world.machines.mark_device_lists_outdated_for_all(&changed);
        world.encrypt(&[far.user()], "as before").await.unwrap();
    }
    let held = world.fake.hold("/keys/query", FAR);
    let event = world.encrypts_at_once(&[far.user()]).await.unwrap();
    drop(held);
    far.query(&[sam()]).await;
    far.receives().await;
    assert_eq!(far.reads(room(), &event).await.unwrap(), "at once");
}

#[tokio::test]
async fn a_server_that_answers_only_when_nobody_waits_is_not_waited_for_again() {
    let world = World::with_sam().await;
    let fern = "@fern:silent.test";
    for name in [FAR, fern] {
        let person = Person::new(&world.fake, name).await;
        world.fake.set_unreachable("silent.test", true);
        let asked = world.queries();
        unknown(world.encrypt(&[person.user()], "x").await);
        assert_eq!(world.queries(), asked + 1);
        world.fake.set_unreachable("silent.test", false);
        world.encrypts_soon(&[person.user()]).await;
        world.clock.advance(Duration::from_secs(1));
    }
    let third = Person::new(&world.fake, "@third:silent.test").await;
    let held = world.fake.hold("/keys/query", third.user().as_str());
    unknown(world.encrypts_at_once(&[third.user()]).await);
    drop(held);
    world.encrypts_soon(&[third.user()]).await;
}

#[tokio::test]
async fn a_question_that_waits_does_not_keep_the_store_open() {
    let world = World::with_sam().await;
    let far = Person::new(&world.fake, FAR).await;
    world.fake.set_unreachable("silent.test", true);
    unknown(world.encrypt(&[far.user()], "first").await);
    let held = world.fake.hold("/keys/query", FAR);
    unknown(world.encrypts_at_once(&[far.user()]).await);
    held.comes().await;
    world.restart().await;
}
