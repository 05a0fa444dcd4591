//! Out of a backup: a new device under the same identity, whatever interrupts it.

use super::*;
use crate::{
    clock::Timestamp,
    crypto::{record::GhostRecords, store::GhostStores},
    store::{BackupInfo, Batch, StoreKey, StoreOptions},
    testing::When,
};

/// A world that was restored from a backup of this one. `keep` holds its folder.
async fn restored(world: &World, key: &StoreKey) -> (World, tempfile::TempDir) {
    let mut file = Vec::new();
    let made = BackupInfo {
        at: Timestamp(1),
        version: "0.0.0".to_owned(),
    };
    world
        .machines
        .0
        .stores
        .export(&mut file, &[], &made)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    Store::import(&mut &*file, &path, key, &StoreOptions::default()).unwrap();
    let store = Store::open(&path, key, &StoreOptions::default()).unwrap();
    let settings = world.machines.0.settings.clone();
    let machines = Machines::new(store.clone(), world.fake.connect().await, settings).unwrap();
    let world = World {
        fake: world.fake.clone(),
        store,
        clock: world.clock.clone(),
        machines,
    };
    (world, folder)
}

/// A world on disk, with a key that is known.
async fn on_disk() -> (World, StoreKey, tempfile::TempDir) {
    let world = World::new().await;
    let key = StoreKey::random().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &key, &StoreOptions::default()).unwrap();
    let settings = world.machines.0.settings.clone();
    let machines = Machines::new(store.clone(), world.fake.connect().await, settings).unwrap();
    let world = World {
        store,
        machines,
        ..world
    };
    (world, key, folder)
}

#[tokio::test]
async fn a_ghost_gets_a_new_device_that_its_old_identity_has_signed() {
    let (world, key, _folder) = on_disk().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    world.machines.expect_room(sam(), room()).await.unwrap();
    let alice = Person::new(&world.fake, "@alice:hs.test").await;
    let old = alice.says(room(), &[sam()], "before the backup").await;
    world.deliver(sam()).await;
    assert_eq!(world.decrypt(&old).await.unwrap(), "before the backup");
    let first = world.device(sam());

    let (after, _keep) = restored(&world, &key).await;
    assert_eq!(
        after.machines.rotate_device(sam()).await.unwrap(),
        DeviceRotation::Rotated
    );
    let second = after.device(sam());
    assert_ne!(first, second);
    assert_eq!(after.fake.devices(sam()), [second.as_str()]);
    assert_eq!(after.fake.ever_published(sam()), (1, 1), "one identity");
    assert_eq!(
        after.machines.rotate_device(sam()).await.unwrap(),
        DeviceRotation::Unchanged
    );

    // It reads nothing of before, and all that is said now; Alice's client sees no new identity.
    after.machines.expect_room(sam(), room()).await.unwrap();
    assert!(matches!(
        after.decrypt(&old).await,
        Err(DecryptError::NoKey { .. })
    ));
    let new = alice.says(room(), &[sam()], "after the restore").await;
    after.deliver(sam()).await;
    assert_eq!(after.decrypt(&new).await.unwrap(), "after the restore");
    let answer = after
        .encrypt(&[alice.user()], "welcome back")
        .await
        .unwrap();
    alice.query(&[sam()]).await;
    alice.receives().await;
    assert_eq!(alice.reads(room(), &answer).await.unwrap(), "welcome back");
    let identity = alice.machine.get_identity(sam(), None).await.unwrap();
    assert!(
        !identity
            .unwrap()
            .other()
            .unwrap()
            .identity_needs_user_approval()
    );
}

#[tokio::test]
async fn a_new_device_is_made_once_wherever_a_crash_comes() {
    let (world, key, _folder) = on_disk().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    for when in [When::Before, When::After] {
        for request in 0.. {
            let (mut after, _keep) = restored(&world, &key).await;
            after.fake.fail(request, when);
            let failed = after.machines.rotate_device(sam()).await;
            if after.fake.failure_pending() {
                assert!(failed.is_ok() && request > 3, "{request}: {failed:?}");
                // The number of the failure counts from now on.
                after.fake.no_failure();
                break;
            }
            assert!(failed.unwrap_err().is_transient(), "{request}");
            assert_eq!(after.machines.device_of(sam()).unwrap(), None);
            after = after.restart().await;
            assert_eq!(
                after.machines.rotate_device(sam()).await.unwrap(),
                DeviceRotation::Rotated
            );
            let device = after.device(sam());
            assert_eq!(after.fake.devices(sam()), [device.as_str()], "{request}");
            assert_eq!(after.fake.ever_published(sam()), (1, 1));
            assert!(after.fake.uploaded(sam(), &device) >= 50);
        }
    }
}

/// The identities are listed first, and the records are written to the backup at its end.
#[tokio::test]
async fn a_handle_released_while_the_backup_was_written_stays_free() {
    let (world, key, _folder) = on_disk().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    let (after, _keep) = restored(&world, &key).await;
    world.machines.retire(sam()).await.unwrap();
    let record = world.machines.record(sam()).unwrap().unwrap();
    let mut batch = Batch::new();
    batch
        .put::<GhostRecords>(&sam().to_owned(), &record)
        .unwrap();
    after.store.commit(batch).await.unwrap();
    assert!(
        after
            .machines
            .0
            .stores
            .saved_identity(sam())
            .unwrap()
            .is_some()
    );

    let rotated = after.machines.rotate_device(sam()).await.unwrap();
    assert_eq!(rotated, DeviceRotation::Unchanged);
    let saved = after.machines.0.stores.saved_identity(sam()).unwrap();
    assert!(saved.is_none());
    let left = after.machines.record(sam()).unwrap().unwrap();
    assert_eq!((left.device, left.step), (None, record.step));
}

#[tokio::test]
async fn a_ghost_that_changed_since_the_backup_is_left_alone() {
    let (world, key, _folder) = on_disk().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    let strict = user_id!("@_dm_kim:hs.test");
    world
        .machines
        .provision_keyless(strict, "Kim")
        .await
        .unwrap();
    let free = user_id!("@_dm_lou:hs.test");
    world.machines.provision_bare(free).await.unwrap();
    let steady = user_id!("@_dm_max:hs.test");
    world
        .machines
        .provision_keyless(steady, "Max")
        .await
        .unwrap();
    let (after, _keep) = restored(&world, &key).await;

    // After the backup all but one of them change hands.
    for ghost in [sam(), strict] {
        world.machines.retire(ghost).await.unwrap();
        world.machines.provision(ghost, "New").await.unwrap();
    }
    world.machines.provision(free, "Lou").await.unwrap();
    for ghost in [sam(), strict, free] {
        let devices = after.fake.devices(ghost);
        let rotation = after.machines.rotate_device(ghost).await.unwrap();
        assert!(matches!(rotation, DeviceRotation::Changed(_)), "{ghost}");
        assert_eq!(after.fake.devices(ghost), devices, "{ghost}");
        assert_eq!(after.machines.device_of(ghost).unwrap(), None);
        // Asked again, as after a crash, it says the same.
        let again = after.machines.rotate_device(ghost).await.unwrap();
        assert!(matches!(again, DeviceRotation::Changed(_)), "{ghost}");
    }
    let before = world.device(steady);
    assert_eq!(
        after.machines.rotate_device(steady).await.unwrap(),
        DeviceRotation::Unchanged
    );
    assert_eq!(after.device(steady), before);
    let mut batch = crate::store::Batch::new();
    GhostStores::forget_saved_identity(&mut batch, sam());
    assert!(
        after
            .machines
            .0
            .stores
            .saved_identity(sam())
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_second_restore_of_the_same_backup_takes_the_place_of_the_first() {
    let (world, key, _folder) = on_disk().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    let (first, _keep) = restored(&world, &key).await;
    first.machines.rotate_device(sam()).await.unwrap();
    let (second, _keep_too) = restored(&world, &key).await;
    assert_eq!(
        second.machines.rotate_device(sam()).await.unwrap(),
        DeviceRotation::Rotated
    );
    assert_ne!(first.device(sam()), second.device(sam()));
    assert_eq!(second.fake.devices(sam()), [second.device(sam()).as_str()]);
    assert_eq!(second.fake.ever_published(sam()), (1, 1));
}

#[tokio::test]
async fn a_device_that_the_identity_has_not_signed_freezes_the_ghost() {
    let (world, key, _folder) = on_disk().await;
    world.machines.provision(sam(), "Sam").await.unwrap();
    let (after, _keep) = restored(&world, &key).await;
    Person::unsigned(&after.fake, sam().as_str(), "THEIRS").await;
    let rotation = after.machines.rotate_device(sam()).await.unwrap();
    assert!(
        matches!(rotation, DeviceRotation::Changed(_)),
        "{rotation:?}"
    );
    assert_eq!(after.machines.device_of(sam()).unwrap(), None);
}
