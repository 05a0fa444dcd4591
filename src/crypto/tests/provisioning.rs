use super::*;
use crate::matrix::Actor;
use crate::testing::When;

#[tokio::test]
async fn a_ghost_is_made_in_six_requests_and_everybody_sees_it_signed() {
    let world = World::new().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    let device = world.device(sam());
    assert_eq!(
        world.fake.log(),
        [
            "POST /_matrix/client/v3/register".to_owned(),
            format!("PUT /_matrix/client/v3/devices/{device}"),
            "POST /_matrix/client/v3/keys/device_signing/upload".to_owned(),
            "POST /_matrix/client/v3/keys/upload".to_owned(),
            "POST /_matrix/client/v3/keys/query".to_owned(),
            "PUT /_matrix/client/v3/profile/@_dm_sam:hs.test/displayname".to_owned(),
        ]
    );
    assert_eq!(world.fake.name(sam()).as_deref(), Some("Sam"));
    assert_eq!(world.fake.uploaded(sam(), &device), 50);
    assert!(world.fake.fallback(sam(), &device).is_some());

    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    alice.query(&[sam()]).await;
    let seen = alice
        .machine
        .get_device(sam(), &device, None)
        .await
        .unwrap()
        .unwrap();
    assert!(seen.is_cross_signed_by_owner());

    let asked = world.fake.log().len();
    world.machines.provision(sam(), "Sam").await.unwrap();
    assert_eq!(
        world.fake.log().len(),
        asked,
        "a ghost that is made is not made again"
    );
}

#[tokio::test]
async fn making_a_ghost_goes_on_where_a_crash_stopped_it() {
    for when in [When::Before, When::After] {
        for n in 0..6 {
            let mut world = World::new().await;
            world.fake.fail(n, when);
            let error = world.machines.provision(sam(), "Sam").await.unwrap_err();
            assert!(error.is_transient(), "request {n}, {when:?}: {error}");
            world = world.restart().await;
            world.machines.provision(sam(), "Sam").await.unwrap();
            assert_eq!(
                world.fake.ever_published(sam()),
                (1, 1),
                "request {n}, {when:?}: one identity, one set of keys"
            );
            assert_eq!(world.fake.devices(sam()).len(), 1);
            assert_eq!(world.fake.name(sam()).as_deref(), Some("Sam"));
            world.machines.expect_room(sam(), room()).await.unwrap();
            let alice = Person::new(&world.fake, "@alice:hs.test").await;
            let event = alice.says(room(), &[sam()], "hello").await;
            world.deliver(sam()).await;
            assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
        }
    }
}

#[tokio::test]
async fn a_name_that_somebody_else_took_is_foreign_each_time_we_ask() {
    let world = World::new().await;
    world.fake.add_device(sam(), "THEIRS".into());
    for _ in 0..2 {
        let error = world.machines.provision(sam(), "Sam").await.unwrap_err();
        assert!(matches!(error, CryptoError::Foreign { .. }), "{error}");
    }
    assert_eq!(world.machines.device_of(sam()).unwrap(), None);
    assert_eq!(world.fake.devices(sam()), ["THEIRS"], "nothing was made");
}

#[tokio::test]
async fn a_device_or_identity_that_is_not_ours_is_foreign() {
    let world = World::new().await;
    world.fake.fail(1, When::Before);
    world.machines.provision(sam(), "Sam").await.unwrap_err();
    // Between our two attempts somebody signs in as the ghost.
    let intruder = Person::new(&world.fake, sam().as_str()).await;
    let error = world.machines.provision(sam(), "Sam").await.unwrap_err();
    assert!(matches!(error, CryptoError::Foreign { .. }), "{error}");
    let published = world.fake.ever_published(sam());
    assert_eq!(published, (1, 1), "only the intruder's");
    assert!(intruder.machine.cross_signing_status().await.is_complete());
}

#[tokio::test]
async fn a_ghost_that_only_declines_has_no_keys_and_may_get_some_later() {
    let world = World::new().await;
    world.machines.provision_bare(sam()).await.unwrap();
    world.machines.provision_bare(sam()).await.unwrap();
    assert_eq!(world.fake.log().len(), 1);
    assert_eq!(
        world.machines.kind_of(sam()).unwrap(),
        Some(GhostKind::Bare)
    );
    assert_eq!(world.machines.device_of(sam()).unwrap(), None);
    world.machines.provision(sam(), "Sam").await.unwrap();
    assert_eq!(
        world.machines.kind_of(sam()).unwrap(),
        Some(GhostKind::Machine)
    );
}

#[tokio::test]
async fn keys_that_are_gone_from_the_store_are_not_silently_made_anew() {
    let world = World::with_sam().await;
    world
        .machines
        .0
        .stores
        .existing(sam())
        .unwrap()
        .unwrap()
        .wipe()
        .await
        .unwrap();
    let world = world.restart().await;
    let error = world.encrypt(&[], "x").await.unwrap_err();
    assert!(
        matches!(error, EncryptError::Crypto(CryptoError::KeysLost { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_new_owner_gets_a_new_identity() {
    let world = World::with_sam().await;
    let first = world.device(sam());
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    let event = alice.says(room(), &[sam()], "for the former owner").await;
    world.deliver(sam()).await;
    world.decrypt(&event).await.unwrap();

    world.machines.retire(sam()).await.unwrap();
    assert!(world.fake.devices(sam()).is_empty());
    assert_eq!(world.machines.device_of(sam()).unwrap(), None);
    assert!(matches!(
        world.decrypt(&event).await,
        Err(DecryptError::Crypto(CryptoError::NotProvisioned { .. }))
    ));

    world.machines.provision(sam(), "Sam").await.unwrap();
    let second = world.device(sam());
    assert_ne!(first, second);
    assert_eq!(world.fake.ever_published(sam()).0, 2);
    world.machines.expect_room(sam(), room()).await.unwrap();
    assert!(matches!(
        world.decrypt(&event).await,
        Err(DecryptError::NoKey { .. })
    ));
    let event = alice.says(room(), &[sam()], "for the new one").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "for the new one");
}

#[tokio::test]
async fn taking_keys_away_goes_on_where_a_crash_stopped_it() {
    for when in [When::Before, When::After] {
        let world = World::with_sam().await;
        world.fake.fail(0, when);
        assert!(
            world
                .machines
                .retire(sam())
                .await
                .unwrap_err()
                .is_transient()
        );
        let world = world.restart().await;
        assert_eq!(
            world.machines.device_of(sam()).unwrap(),
            None,
            "it is no longer a ghost"
        );
        // The next owner does not wait for somebody to finish it.
        world.machines.provision(sam(), "Sam").await.unwrap();
        assert_eq!(world.fake.devices(sam()), [world.device(sam()).as_str()]);
    }
}

/// Somebody deletes the ghost's device, or the homeserver's database is set back.
fn lose(world: &World, user: &UserId, whole_user: bool) {
    world.fake.with(|server| {
        if whole_user {
            server.accounts.remove(user.as_str());
        } else if let Some(account) = server.accounts.get_mut(user.as_str()) {
            account.devices.clear();
        }
    });
}

#[tokio::test]
async fn a_ghost_that_the_homeserver_lost_is_made_again_with_the_same_keys() {
    for whole_user in [false, true] {
        let world = World::with_sam().await;
        let device = world.device(sam());
        let alice = Person::new(&world.fake, "@alice:hs.test").await;
        let before = alice.says(room(), &[sam()], "before").await;
        world.deliver(sam()).await;
        let known = world.machines.record(sam()).unwrap().unwrap();

        lose(&world, sam(), whole_user);
        let error = world.encrypt(&[alice.user()], "lost").await.unwrap_err();
        let EncryptError::Crypto(CryptoError::Matrix(error)) = error else {
            panic!("{error}");
        };
        assert_eq!(error.missing_user(), Some(sam()), "{error}");
        let restored = world.machines.restore_on_homeserver(sam(), Some("Sam"));
        restored.await.unwrap();

        assert_eq!(world.fake.devices(sam()), [device.as_str()]);
        assert_eq!(world.fake.uploaded(sam(), &device), 50);
        assert!(world.fake.fallback(sam(), &device).is_some());
        assert_eq!(world.fake.name(sam()).as_deref(), Some("Sam"));
        let now = world.machines.record(sam()).unwrap().unwrap();
        assert_eq!((now.ed25519, now.master), (known.ed25519, known.master));
        assert_eq!(world.decrypt(&before).await.unwrap(), "before");
        // Somebody who meets the ghost for the first time, and somebody who knows it.
        let bob = Person::new(&world.fake, "@bob:hs.test").await;
        for person in [&bob, &alice] {
            person.query(&[sam()]).await;
            let seen = person.machine.get_device(sam(), &device, None).await;
            assert!(seen.unwrap().unwrap().is_cross_signed_by_owner());
            let event = person.says(room(), &[sam()], "after").await;
            world.deliver(sam()).await;
            assert_eq!(world.decrypt(&event).await.unwrap(), "after");
        }
        world.encrypt(&[alice.user()], "back").await.unwrap();
    }
}

#[tokio::test]
async fn keys_that_the_homeserver_lost_are_found_and_published_again() {
    let world = World::with_sam().await;
    let device = world.device(sam());
    let users = world.machines.known_users().unwrap();
    let asker = Actor::user(sam());
    let lost = world.machines.users_with_lost_keys(asker, &users).await;
    assert!(lost.unwrap().is_empty());
    world.fake.with(|server| server.lose_keys(sam().as_str()));
    let lost = world.machines.users_with_lost_keys(asker, &users).await;
    assert_eq!(lost.unwrap(), [sam()]);

    let restored = world.machines.restore_on_homeserver(sam(), Some("Sam"));
    restored.await.unwrap();
    let lost = world.machines.users_with_lost_keys(asker, &users).await;
    assert!(lost.unwrap().is_empty());
    assert_eq!(world.fake.devices(sam()), [device.as_str()]);
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    let event = alice.says(room(), &[sam()], "hello").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
    // A ghost that is no longer ours needs no keys.
    world.machines.retire(sam()).await.unwrap();
    let lost = world.machines.users_with_lost_keys(asker, &users).await;
    assert!(lost.unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_ghost_whose_name_somebody_took_is_foreign() {
    let world = World::with_sam().await;
    lose(&world, sam(), true);
    Person::new(&world.fake, sam().as_str()).await;
    let restored = world.machines.restore_on_homeserver(sam(), Some("Sam"));
    let error = restored.await.unwrap_err();
    assert!(matches!(error, CryptoError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn making_a_lost_ghost_again_goes_on_after_a_crash() {
    for n in 0..6 {
        let mut world = World::with_sam().await;
        let device = world.device(sam());
        lose(&world, sam(), true);
        world.fake.fail(n, When::After);
        let restored = world.machines.restore_on_homeserver(sam(), None);
        restored.await.unwrap_err();
        world = world.restart().await;
        let unfinished = world.machines.unfinished_restores().unwrap();
        assert_eq!(unfinished, [sam()], "request {n}");
        let restored = world.machines.restore_on_homeserver(sam(), None);
        restored.await.unwrap();
        assert!(world.machines.unfinished_restores().unwrap().is_empty());
        assert_eq!(world.fake.devices(sam()), [device.as_str()], "request {n}");
        let alice = Person::new(&world.fake, "@alice:hs.test").await;
        let event = alice.says(room(), &[sam()], "hello").await;
        world.deliver(sam()).await;
        assert_eq!(world.decrypt(&event).await.unwrap(), "hello");
    }
}

#[tokio::test]
async fn a_lost_ghost_without_private_keys_gets_others() {
    for crash in [None, Some(0), Some(2), Some(4), Some(5)] {
        let mut world = World::new().await;
        let made = world.machines.provision_keyless(sam(), "Sam");
        made.await.unwrap();
        let first = world.device(sam());
        lose(&world, sam(), false);
        if let Some(n) = crash {
            world.fake.fail(n, When::After);
            let restored = world.machines.restore_on_homeserver(sam(), Some("Sam"));
            restored.await.unwrap_err();
            world = world.restart().await;
            let unfinished = world.machines.unfinished_restores().unwrap();
            assert_eq!(unfinished, [sam()], "request {n}");
        }
        let restored = world.machines.restore_on_homeserver(sam(), Some("Sam"));
        restored.await.unwrap();
        assert!(world.machines.unfinished_restores().unwrap().is_empty());
        let second = world.device(sam());
        assert_ne!(second, first);
        assert_eq!(world.fake.devices(sam()), [second.as_str()]);
    }
}
