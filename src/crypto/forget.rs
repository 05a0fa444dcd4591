//! Forgetting of keys: those of a room when a ghost has left it, and those of a ghost when its
//! handle gets a new owner or mode.

use ruma::{RoomId, UserId};

use super::{
    CryptoError, Machines, account,
    locks::lock,
    machines::lock_provisioning,
    record::{ExpectedRooms, ForgottenRooms, GhostKind, GhostRecord, Step},
    replay_guard::ReplayGuard,
    slot::RoomShares,
};
use crate::store::{Batch, Table, prefix};

impl Machines {
    /// Forgets every key of a room that the ghost has left, so that nothing on disk or in memory
    /// can decrypt its events. Keys that come later are refused.
    ///
    /// Can be called again after an error, and then does the rest.
    pub async fn forget_room(&self, user: &UserId, room: &RoomId) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        {
            // Waits for an event that is being encrypted there. No other task waits for that,
            // because the machine is not locked yet.
            let room_lock = slot.room_lock(room);
            let mut shares = room_lock.lock().await;
            *shares = RoomShares::default();
            // From here on no task uses the machine, and its memory is gone.
            let unloaded = self.unload(&slot).await;
            let mut batch = Batch::new();
            let place = (user.to_owned(), room.to_owned());
            batch.delete::<ExpectedRooms>(&place);
            batch.put::<ForgottenRooms>(&place, &self.0.settings.clock.now())?;
            let prefix_of_room = [prefix(&user.to_owned()), prefix(&room.to_owned())].concat();
            self.delete_all::<ReplayGuard>(&mut batch, &prefix_of_room)?;
            self.0.store.apply(batch)?;
            self.reload_expected_rooms(&slot, &unloaded);
            let Some(store) = self.0.stores.existing(user)? else {
                drop(unloaded);
                return Ok(self.0.store.flush().await?);
            };
            store.forget_room(room).await?;
        }
        // Nothing that was sent to a used fallback key may be decrypted once more.
        self.replace_fallback(user, |record| record.fallback_used_at.is_some())
            .await?;
        self.forget_former_fallback(user, |record| record.former_fallback_since.is_some())
            .await
    }

    /// Lets the ghost expect no keys of a room that it does not join after all, and forgets those
    /// that came. If none came, this costs next to nothing.
    pub async fn turn_away(&self, user: &UserId, room: &RoomId) -> Result<(), CryptoError> {
        let place = (user.to_owned(), room.to_owned());
        if self.0.store.contains::<ExpectedRooms>(&place)? {
            let mut batch = Batch::new();
            batch.delete::<ExpectedRooms>(&place);
            self.0.store.apply(batch)?;
        }
        let store = {
            let slot = self.existing_slot(user);
            // Messages being received are filtered by the rooms expected so far; their keys are
            // found below.
            let _nothing_is_taken_in = match &slot {
                Some(slot) => Some(slot.olm.lock().await),
                None => None,
            };
            if let Some(slot) = &slot
                && let Some(expected) = &mut *lock(&slot.expected)
            {
                expected.remove(room);
            }
            self.0.stores.existing(user)?
        };
        match store {
            Some(store) if store.holds_keys_of(room)? => {
                drop(store);
                self.forget_room(user, room).await
            }
            _ => Ok(()),
        }
    }

    /// Replaces the fallback key an hour after it was used, and forgets the former one an hour after
    /// that: everything that was sent to it in between has arrived.
    pub(super) async fn renew_fallback(&self, user: &UserId) -> Result<(), CryptoError> {
        let now = self.0.settings.clock.now();
        self.forget_former_fallback(user, |record| record.is_former_fallback_due(now))
            .await?;
        self.replace_fallback(user, |record| record.is_fallback_due(now))
            .await
    }

    /// Publishes a new fallback key if this is `due`. The former one still decrypts what is on its
    /// way.
    ///
    /// The machine is unloaded while its account changes, and free while the key is uploaded.
    async fn replace_fallback(
        &self,
        user: &UserId,
        due: impl Fn(&GhostRecord) -> bool,
    ) -> Result<(), CryptoError> {
        if !self.has_machine_and(user, &due)? {
            return Ok(());
        }
        let ghost = self.pin(user)?;
        let _one_at_a_time = ghost.slot.sending.lock().await;
        // Another call may have replaced it while this one waited.
        if !self.has_machine_and(user, &due)? {
            return Ok(());
        }
        let store = self.0.stores.ghost(user)?;
        {
            let _unloaded = self.unload(&ghost.slot).await;
            account::replace_fallback_key(&store).await?;
        }
        self.send_outgoing_requests(&ghost).await?;
        let now = self.0.settings.clock.now();
        self.update_record(user, |record| {
            record.fallback_used_at = None;
            record.former_fallback_since = Some(now);
            true
        })
    }

    /// Forgets the fallback key before the published one if this is `due`: it could decrypt the
    /// messages that were sent to it, room keys among them, once more.
    async fn forget_former_fallback(
        &self,
        user: &UserId,
        due: impl Fn(&GhostRecord) -> bool,
    ) -> Result<(), CryptoError> {
        if !self.has_machine_and(user, &due)? {
            return Ok(());
        }
        let ghost = self.pin(user)?;
        let _one_at_a_time = ghost.slot.sending.lock().await;
        if !self.has_machine_and(user, &due)? {
            return Ok(());
        }
        let store = self.0.stores.ghost(user)?;
        {
            let _unloaded = self.unload(&ghost.slot).await;
            account::forget_former_fallback_key(&store).await?;
            store.rotate_epoch().await?;
        }
        self.update_record(user, |record| {
            record.former_fallback_since = None;
            true
        })?;
        Ok(self.0.store.flush().await?)
    }

    fn has_machine_and(
        &self,
        user: &UserId,
        holds: impl Fn(&GhostRecord) -> bool,
    ) -> Result<bool, CryptoError> {
        let record = self.record(user)?;
        Ok(record.is_some_and(|record| record.is_ready(GhostKind::Machine) && holds(&record)))
    }

    /// Removes a ghost's device and keys, on the homeserver and here. The next provisioning makes a
    /// new device and a new identity, and other people's clients show that.
    ///
    /// Can be called again after an error.
    pub async fn retire(&self, user: &UserId) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let _one_at_a_time = lock_provisioning(&slot).await;
        let Some(mut record) = self.record(user)? else {
            return Ok(());
        };
        if record.device.is_none() && record.step != Step::Retiring {
            return Ok(());
        }
        self.finish_retiring(user, &mut record).await
    }

    pub(super) async fn finish_retiring(
        &self,
        user: &UserId,
        record: &mut GhostRecord,
    ) -> Result<(), CryptoError> {
        record.archive_device();
        record.step = Step::Retiring;
        self.commit_record(user, record).await?;
        self.forget_all_rooms(user, Batch::new()).await?;
        // From here on the record says that there is no machine.
        self.delete_former_devices(user, record).await?;
        record.kind = GhostKind::Bare;
        record.step = Step::Registered;
        self.commit_record(user, record).await
    }

    /// Deletes a ghost's crypto store and its records about rooms, and applies `batch` with them.
    /// Afterwards nothing of them is in memory.
    pub(super) async fn forget_all_rooms(
        &self,
        user: &UserId,
        mut batch: Batch,
    ) -> Result<(), CryptoError> {
        let slot = self.slot(user);
        let unloaded = self.unload(&slot).await;
        slot.device_lists.clear();
        if let Some(store) = self.0.stores.existing(user)? {
            store.wipe().await?;
        }
        let prefix_of_user = prefix(&user.to_owned());
        self.delete_all::<ExpectedRooms>(&mut batch, &prefix_of_user)?;
        self.delete_all::<ForgottenRooms>(&mut batch, &prefix_of_user)?;
        self.delete_all::<ReplayGuard>(&mut batch, &prefix_of_user)?;
        self.0.store.apply(batch)?;
        self.reload_expected_rooms(&slot, &unloaded);
        Ok(())
    }

    /// Deletes a ghost's former devices that are still on the homeserver.
    pub(super) async fn delete_former_devices(
        &self,
        user: &UserId,
        record: &mut GhostRecord,
    ) -> Result<(), CryptoError> {
        for former in record.former.iter_mut().filter(|former| !former.deleted) {
            self.0.hs.delete_device(user, &former.device).await?;
            former.deleted = true;
        }
        Ok(())
    }

    pub(super) fn delete_all<T: Table>(
        &self,
        batch: &mut Batch,
        first: &[u8],
    ) -> Result<(), CryptoError>
    where
        T::Key: Clone,
    {
        for page in self.0.store.pages::<T>(first) {
            for (key, _) in page? {
                batch.delete::<T>(&key);
            }
        }
        Ok(())
    }
}
