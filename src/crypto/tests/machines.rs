use matrix_sdk_crypto::store::CryptoStore as _;

use super::*;

/// Many ghosts, few machines in memory, everything at once: two machines of one ghost would fork
/// its ratchets, and a message would be unreadable or two would have the same place.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn machines_are_loaded_used_and_unloaded_at_the_same_time() {
    let world = Arc::new(World::with(|settings| settings.max_live = 2).await);
    let alice = Arc::new(Person::new(&world.fake, "@alice:hs.test").await);
    let ghosts: Vec<OwnedUserId> = (0..6)
        .map(|n| OwnedUserId::try_from(format!("@_dm_g{n}:hs.test")).unwrap())
        .collect();
    for ghost in &ghosts {
        world.machines.provision(ghost, "g").await.unwrap();
        world.machines.expect_room(ghost, room()).await.unwrap();
    }
    let mut tasks = Vec::new();
    for ghost in &ghosts {
        for n in 0..8 {
            let (world, ghost, to) = (world.clone(), ghost.clone(), alice.user().to_owned());
            tasks.push(tokio::spawn(async move {
                let to = EncryptTo {
                    room_id: room().to_owned(),
                    recipients: vec![to],
                    rotation_ms: None,
                    rotation_msgs: None,
                };
                let text = format!("{ghost} {n}");
                let content = message(&text);
                let content = world
                    .machines
                    .encrypt(&ghost, &to, "m.room.message", &content)
                    .await
                    .unwrap();
                (text, encrypted_event(&ghost, room(), &content), ghost)
            }));
        }
    }
    let mut events = Vec::new();
    for task in tasks {
        events.push(task.await.unwrap());
    }
    let users: Vec<&UserId> = ghosts.iter().map(|ghost| &**ghost).collect();
    alice.query(&users).await;
    assert_eq!(
        alice.receives().await,
        ghosts.len(),
        "one session per ghost, shared once"
    );
    let mut places = std::collections::BTreeSet::new();
    for (text, event, ghost) in &events {
        assert_eq!(&alice.reads(room(), event).await.unwrap(), text);
        let value: Value = serde_json::from_str(event.get()).unwrap();
        let text = value["content"]["ciphertext"].as_str().unwrap();
        let message = matrix_sdk_crypto::vodozemac::megolm::MegolmMessage::from_base64(text);
        assert!(places.insert((ghost.clone(), message.unwrap().message_index())));
    }
    // Those in use may go beyond the limit; once they are idle the next load brings it down.
    world
        .machines
        .receive_and_respond(&ghosts[0], IncomingCrypto::default())
        .await
        .unwrap();
    world.machines.ready(&ghosts[1]).await.unwrap();
    assert!(
        world.machines.live_count() <= 2,
        "{}",
        world.machines.live_count()
    );
}

#[tokio::test]
async fn a_machine_in_use_is_not_unloaded() {
    let world = World::with(|settings| settings.max_live = 0).await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    let in_use = world.machines.ready(sam()).await.unwrap();
    let again = world.machines.ready(sam()).await.unwrap();
    assert!(
        in_use.machine.same_as(&again.machine),
        "it is one and the same"
    );
    drop((in_use, again));
    let other = user_id!("@_dm_kim:hs.test");
    world.machines.provision(other, "Kim").await.unwrap();
    drop(world.machines.ready(other).await.unwrap());
    assert_eq!(world.machines.live_count(), 1, "only the last one used");
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let world = World::with_sam().await;
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    let event = alice.says(room(), &[sam()], "one").await;
    world.deliver(sam()).await;
    world.decrypt(&event).await.unwrap();
    let first = world.encrypt(&[alice.user()], "two").await.unwrap();
    let world = world.restart().await;
    assert_eq!(world.decrypt(&event).await.unwrap(), "one");
    let second = world.encrypt(&[alice.user()], "three").await.unwrap();
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &first).await.unwrap(), "two");
    assert_eq!(alice.reads(room(), &second).await.unwrap(), "three");
}

/// What a ghost's identity signs is signed while the ghost is made. A machine that could sign would
/// keep those keys in memory for nothing.
#[tokio::test]
async fn no_machine_has_the_private_half_of_its_identity_once_it_is_made() {
    let world = World::with_sam().await;
    let mut world = Some(world);
    for restarted in [false, true] {
        if restarted {
            world = Some(world.take().unwrap().restart().await);
        }
        let world = world.as_ref().unwrap();
        let ready = world.machines.ready(sam()).await.unwrap();
        let status = ready.machine.cross_signing_status().await;
        assert!(!status.has_master && !status.has_self_signing && !status.has_user_signing);
        // It still knows that the identity is its own, and that its device is signed.
        let own = ready.machine.get_identity(sam(), None).await.unwrap();
        assert!(own.unwrap().own().unwrap().is_verified());
        let device = ready.machine.get_device(sam(), &ready.device, None);
        assert!(device.await.unwrap().unwrap().is_cross_signed_by_owner());
        // Another identity would be one that nobody knows.
        let another = ready.machine.bootstrap_cross_signing(true).await;
        assert!(another.is_err());
        drop(ready);
        let whole = world.machines.signing_machine(sam()).await.unwrap();
        let status = whole.machine.cross_signing_status().await;
        assert!(status.is_complete());
        let kept = whole.store.load_identity().await.unwrap().unwrap();
        let master = kept.master_public_key().await.unwrap();
        let known = world.machines.record(sam()).unwrap().unwrap().master;
        assert_eq!(
            master.get_first_key().map(|key| key.to_base64()),
            known,
            "it is the published one"
        );
    }
}
