//! A backup brings back who a ghost is, and nothing that it knew.

use matrix_sdk_crypto::OlmMachine;
use ruma::device_id;

use super::*;
use crate::{
    clock::Timestamp,
    store::{BackupInfo, Batch},
};

fn made() -> BackupInfo {
    BackupInfo {
        at: Timestamp(7),
        version: "0.0.0".to_owned(),
    }
}

#[tokio::test]
async fn a_backup_holds_identities_and_no_session() {
    let house = House::new();
    let (store, all) = house.open();
    let ghost = all.ghost(sam()).unwrap();
    let device = device_id!("DOORBELL");
    let machine = OlmMachine::with_store(sam(), device, ghost.clone(), None)
        .await
        .unwrap();
    machine.bootstrap_cross_signing(false).await.unwrap();
    let before = machine.export_cross_signing_keys().await.unwrap().unwrap();
    let account = ghost.load_account().await.unwrap().unwrap();
    converse(&ghost, &account, room()).await;

    let mut file = Vec::new();
    all.export(&mut file, &[], &made()).unwrap();
    let path = house.folder.path().join("restored");
    Store::import(
        &mut file.as_slice(),
        &path,
        &house.key,
        &StoreOptions::default(),
    )
    .unwrap();

    let (restored, all) = house.open_at(&path);
    assert_eq!(restored.backup_info().unwrap(), Some(made()));
    assert!(restored.crashed_before() && restored.is_restored().unwrap());
    assert!(restored.run().number > store.run().number);
    assert!(all.existing(sam()).unwrap().is_none());
    let saved = all.saved_identity(sam()).unwrap().unwrap();
    assert_eq!(saved.device_id.as_deref(), Some(device));
    let identity = saved.into_identity().unwrap();
    let new = all.ghost(sam()).unwrap();
    let changes = Changes {
        private_identity: Some(identity),
        ..Default::default()
    };
    new.save_changes(changes).await.unwrap();
    let device = device_id!("AFTERWARDS");
    let machine = OlmMachine::with_store(sam(), device, new.clone(), None)
        .await
        .unwrap();
    let after = machine.export_cross_signing_keys().await.unwrap().unwrap();
    assert_eq!(before.master_key, after.master_key);
    assert_eq!(before.self_signing_key, after.self_signing_key);
    assert!(new.get_inbound_group_sessions().await.unwrap().is_empty());

    // A backup made before the new device stands still holds what came from the first.
    let mut again = Vec::new();
    all.export(&mut again, &[], &made()).unwrap();
    let mut batch = Batch::new();
    GhostStores::forget_saved_identity(&mut batch, sam());
    Store::restore_done(&mut batch);
    restored.apply(batch).unwrap();
    assert!(all.saved_identity(sam()).unwrap().is_none());
    assert!(!restored.is_restored().unwrap());
}
