//! Changes to a ghost's Olm account that its machine offers no way to make.
//!
//! They change the stored account, so the machine must be unloaded: it holds a copy.

use matrix_sdk_crypto::{
    Account,
    olm::PickledAccount,
    store::{CryptoStore, types::PendingChanges},
    vodozemac::olm,
};
use serde_json::Value;

use super::{
    CryptoError,
    store::{GhostStore, GhostStoreError},
};

/// Number of the newest one-time keys that are kept: those on the homeserver, and the same number
/// again that may have been claimed a moment ago.
const ONE_TIME_KEYS_MAX: usize = 100;

/// Makes a new fallback key, to be uploaded next. The former one still decrypts what was sent to
/// it.
///
/// Does nothing if an interrupted attempt left a key that is not published yet: an account holds
/// two keys, so another one would replace the published one.
pub(super) async fn replace_fallback_key(store: &GhostStore) -> Result<(), CryptoError> {
    edit(store, |account| {
        if account.fallback_key().is_empty() {
            account.generate_fallback_key();
        }
        Ok(account.pickle())
    })
    .await
}

/// Forgets the former fallback key; messages sent to it can no longer be decrypted.
pub(super) async fn forget_former_fallback_key(store: &GhostStore) -> Result<(), CryptoError> {
    edit(store, |account| {
        account.forget_fallback_key();
        Ok(account.pickle())
    })
    .await
}

/// Discards all private one-time keys but the newest.
pub(super) async fn drop_old_one_time_keys(store: &GhostStore) -> Result<(), CryptoError> {
    edit(store, |account| {
        // The library has a bound of its own, fifty times ours, and no way to remove a key; its
        // pickle is a documented format.
        let failed = |error: serde_json::Error| CryptoError::Olm(error.classify_text().to_owned());
        let mut pickle = serde_json::to_value(account.pickle()).map_err(failed)?;
        drop_oldest(&mut pickle["one_time_keys"]);
        serde_json::from_value(pickle).map_err(failed)
    })
    .await
}

fn drop_oldest(keys: &mut Value) {
    let mut ids: Vec<u64> = keys["private_keys"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(id, _)| id.parse().ok())
        .collect();
    ids.sort_unstable();
    let surplus = ids.len().saturating_sub(ONE_TIME_KEYS_MAX);
    for id in &ids[..surplus] {
        for kind in ["private_keys", "public_keys"] {
            if let Some(keys) = keys[kind].as_object_mut() {
                keys.remove(&id.to_string());
            }
        }
    }
}

/// Lets everything that is published be uploaded again: the device's keys, and a new fallback key.
/// One-time keys are to be made afterwards. The private halves of older ones are kept, because a
/// message for one of them may be on its way.
pub(super) async fn mark_as_not_uploaded(store: &GhostStore) -> Result<(), CryptoError> {
    edit_pickle(store, |mut pickle| {
        let mut account = olm::Account::from_pickle(pickle.pickle);
        account.mark_keys_as_published();
        account.generate_fallback_key();
        pickle.pickle = account.pickle();
        pickle.shared = false;
        pickle.uploaded_signed_key_count = 0;
        Ok(pickle)
    })
    .await
}

/// Lets keys that the homeserver refuses not be uploaded again. The next ones have other ids.
pub(super) async fn give_up_unpublished_keys(store: &GhostStore) -> Result<(), CryptoError> {
    edit(store, |account| {
        account.mark_keys_as_published();
        Ok(account.pickle())
    })
    .await
}

async fn edit(
    store: &GhostStore,
    change: impl FnOnce(&mut olm::Account) -> Result<olm::AccountPickle, CryptoError>,
) -> Result<(), CryptoError> {
    edit_pickle(store, |mut pickle| {
        let mut account = olm::Account::from_pickle(pickle.pickle);
        pickle.pickle = change(&mut account)?;
        Ok(pickle)
    })
    .await
}

async fn edit_pickle(
    store: &GhostStore,
    change: impl FnOnce(PickledAccount) -> Result<PickledAccount, CryptoError>,
) -> Result<(), CryptoError> {
    let account = store
        .load_account()
        .await?
        .ok_or(GhostStoreError::NoAccount)?;
    let pickle = change(account.pickle())?;
    let account =
        Account::from_pickle(pickle).map_err(|error| CryptoError::Olm(error.to_string()))?;
    store
        .save_pending_changes(PendingChanges {
            account: Some(account),
        })
        .await?;
    Ok(())
}

/// Names a kind of error without quoting the data.
trait ClassifyText {
    fn classify_text(&self) -> &'static str;
}

impl ClassifyText for serde_json::Error {
    fn classify_text(&self) -> &'static str {
        match self.classify() {
            serde_json::error::Category::Data => "an account pickle has an unknown form",
            _ => "an account pickle cannot be read",
        }
    }
}
