use super::*;
use crate::{store::raw, testing::When};

#[tokio::test]
async fn a_keyless_ghost_looks_like_any_other_and_nobody_has_its_keys() {
    let world = World::new().await;
    world
        .machines
        .provision_keyless(sam(), "Sam")
        .await
        .unwrap();
    let device = world.device(sam());
    assert_eq!(
        world.machines.kind_of(sam()).unwrap(),
        Some(GhostKind::Keyless)
    );
    assert_eq!(
        world.fake.uploaded(sam(), &device),
        0,
        "one-time keys would only run out"
    );

    // Element encrypts for it without a warning: every signature holds.
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    alice.query(&[sam()]).await;
    let seen = alice
        .machine
        .get_device(sam(), &device, None)
        .await
        .unwrap()
        .unwrap();
    assert!(seen.is_cross_signed_by_owner());
    let strategy = matrix_sdk_crypto::CollectStrategy::IdentityBasedStrategy;
    let event = alice
        .says_with(room(), &[sam()], "nobody reads this", strategy)
        .await;
    let waiting = world.fake.waiting(sam(), &device);
    assert_eq!(waiting, 1, "the room key went to the device");

    world.machines.expect_room(sam(), room()).await.unwrap();
    assert!(world.deliver(sam()).await.is_empty());
    assert!(world.decrypt(&event).await.is_err());
    assert!(world.encrypt(&[], "nor does it speak").await.is_err());
}

#[tokio::test]
async fn no_private_half_of_a_keyless_ghost_is_anywhere_in_the_store() {
    let world = World::new().await;
    world
        .machines
        .provision_keyless(sam(), "Sam")
        .await
        .unwrap();
    assert!(
        world.machines.0.stores.existing(sam()).unwrap().is_none(),
        "it has no crypto store"
    );
    let tables: std::collections::BTreeSet<u8> = raw::scan(&world.store, &[], None, usize::MAX)
        .unwrap()
        .into_iter()
        .map(|(key, _)| key[0])
        .collect();
    assert_eq!(
        tables,
        [1, 7].into(),
        "nothing but the store's own records and its public one"
    );
    let record = world.machines.record(sam()).unwrap().unwrap();
    let record = serde_json::to_value(record).unwrap();
    // All that is written about it: 43 letters are a key, and these two are on the homeserver.
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    alice.query(&[sam()]).await;
    let device = alice
        .machine
        .get_device(sam(), &world.device(sam()), None)
        .await
        .unwrap()
        .unwrap();
    let identity = alice
        .machine
        .get_identity(sam(), None)
        .await
        .unwrap()
        .unwrap()
        .other()
        .unwrap();
    let public = [
        device.ed25519_key().unwrap().to_base64(),
        identity.master_key().get_first_key().unwrap().to_base64(),
    ];
    let mut keys = 0;
    for (name, value) in record.as_object().unwrap() {
        if let Some(text) = value.as_str().filter(|text| text.len() >= 32) {
            assert!(public.iter().any(|key| key == text), "{name} is not public");
            keys += 1;
        }
    }
    assert_eq!(keys, 2);
    assert_eq!(record["former"], json!([]));
}

#[tokio::test]
async fn a_keyless_ghost_cut_short_begins_again_and_leaves_nothing_behind() {
    for when in [When::Before, When::After] {
        for n in 0..6 {
            let mut world = World::new().await;
            world.fake.fail(n, when);
            let error = world
                .machines
                .provision_keyless(sam(), "Sam")
                .await
                .unwrap_err();
            assert!(error.is_transient(), "request {n}, {when:?}: {error}");
            world = world.restart().await;
            world
                .machines
                .provision_keyless(sam(), "Sam")
                .await
                .unwrap();
            assert_eq!(world.fake.devices(sam()), [world.device(sam()).as_str()]);
            assert_eq!(
                world.fake.ever_published(sam()).1,
                1,
                "one set of keys per device"
            );
            let alice = Person::new(&world.fake, "@alice:hs.test").await;
            alice.query(&[sam()]).await;
            let seen = alice
                .machine
                .get_device(sam(), &world.device(sam()), None)
                .await
                .unwrap();
            assert!(seen.unwrap().is_cross_signed_by_owner());
        }
    }
}

#[tokio::test]
async fn changing_between_keyless_and_machine_replaces_the_identity() {
    let world = World::new().await;
    world
        .machines
        .provision_keyless(sam(), "Sam")
        .await
        .unwrap();
    let error = world.machines.provision(sam(), "Sam").await.unwrap_err();
    assert!(matches!(error, CryptoError::OtherKind { .. }), "{error}");

    world.machines.retire(sam()).await.unwrap();
    world.machines.provision(sam(), "Sam").await.unwrap();
    let with_machine = world.device(sam());
    let error = world
        .machines
        .provision_keyless(sam(), "Sam")
        .await
        .unwrap_err();
    assert!(matches!(error, CryptoError::OtherKind { .. }), "{error}");

    world.machines.retire(sam()).await.unwrap();
    world
        .machines
        .provision_keyless(sam(), "Sam")
        .await
        .unwrap();
    assert_ne!(world.device(sam()), with_machine);
    assert_eq!(world.fake.ever_published(sam()).0, 3);
    assert_eq!(world.fake.devices(sam()).len(), 1);
}
