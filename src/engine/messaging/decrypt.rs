//! Decrypts events with the machine of one of our users.

use ruma::OwnedUserId;
use serde_json::{Value, value::RawValue};

use crate::{
    crypto::DecryptError,
    engine::{EngineError, room::Room},
    matrix::bounds::{PARTS_MAX, parts_of},
    metrics::catalogue::UNDECRYPTABLE,
    store::Batch,
};

impl Room {
    /// Decrypts an event. If its key is missing, syncs this ghost and tries once more.
    pub(in crate::engine) async fn decrypt(
        &self,
        user: &OwnedUserId,
        json: &str,
    ) -> Result<(String, Value), EngineError> {
        let mut batch = Batch::new();
        let decrypted = self.decrypt_with(user, json, &mut batch).await?;
        self.engine.store().apply(batch)?;
        Ok(decrypted)
    }

    /// Decrypts an event and stages the replay record in `batch`.
    pub(in crate::engine) async fn decrypt_with(
        &self,
        user: &OwnedUserId,
        json: &str,
        batch: &mut Batch,
    ) -> Result<(String, Value), EngineError> {
        let raw = RawValue::from_string(json.to_owned())?;
        let (machines, room) = (self.engine.machines(), &self.id);
        let mut decrypted = machines.decrypt_with(user, room, &raw, batch).await;
        if let Err(DecryptError::NoKey { .. }) = decrypted {
            // The key may have arrived together with the event, and still be on its way to the
            // machine.
            self.engine.process_to_device_of(user).await;
            decrypted = machines.decrypt_with(user, room, &raw, batch).await;
        }
        if let Err(DecryptError::NoKey { .. }) = decrypted
            && self.engine.fetch_missing_keys(user).await?
        {
            decrypted = machines.decrypt_with(user, room, &raw, batch).await;
        }
        // Once, not with each retry.
        if self.failing.is_none()
            && let Some(reason) = decrypted.as_ref().err().and_then(DecryptError::reason)
        {
            UNDECRYPTABLE.count([reason]);
        }
        let decrypted = decrypted?;
        if parts_of(decrypted.content.get()) > PARTS_MAX {
            return Err(DecryptError::NotUnderstood.into());
        }
        Ok((
            decrypted.event_type,
            serde_json::from_str(decrypted.content.get())?,
        ))
    }
}
