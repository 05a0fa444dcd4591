//! What the machines delete from time to time, and the fallback keys that are due.

use std::time::Duration;

use ruma::{OwnedRoomId, OwnedUserId, UserId};

use super::{
    CryptoError, Machines,
    locks::lock,
    record::{ForgottenRooms, GhostRecords},
    replay_guard::ReplayGuard,
    store::{GhostStore, STRANGER_FOR},
};
use crate::store::{Batch, StoreError, prefix};

/// How long the rooms that a ghost has left are remembered.
const FORGOTTEN_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A room and one of its sessions.
type RoomSession = (OwnedRoomId, String);

impl Machines {
    /// Deletes what is needed no longer, and renews the fallback keys that are due. `needed` returns
    /// the sessions of a ghost that waiting events were encrypted with.
    pub async fn sweep(
        &self,
        needed: impl Fn(&UserId) -> Result<Vec<RoomSession>, StoreError> + Send + Sync,
    ) -> Result<(), CryptoError> {
        let now = self.0.settings.clock.now();
        self.0.stores.delete_expired_parked_keys(now).await?;
        self.delete_old_forgotten_rooms()?;
        for user in self.0.stores.users_with_group_sessions()? {
            let Some(store) = self.0.stores.existing(&user)? else {
                continue;
            };
            let deleting = store.delete_superseded_sessions(now, || needed(&user));
            if deleting.await? {
                store.rotate_epoch().await?;
            }
        }
        self.delete_replay_parts_without_session().await?;
        self.delete_strangers().await?;
        self.renew_due_fallbacks().await
    }

    fn delete_old_forgotten_rooms(&self) -> Result<(), CryptoError> {
        let now = self.0.settings.clock.now();
        for page in self.0.store.pages::<ForgottenRooms>(&[]) {
            let mut batch = Batch::new();
            for (place, at) in page? {
                if now.since(at) > FORGOTTEN_FOR {
                    batch.delete::<ForgottenRooms>(&place);
                }
            }
            self.0.store.apply(batch)?;
        }
        Ok(())
    }

    /// Deletes the replay records of sessions that are not kept, whatever deleted them. Their keys
    /// are refused from then on.
    async fn delete_replay_parts_without_session(&self) -> Result<(), CryptoError> {
        let mut after = None;
        let mut open: Option<(OwnedUserId, Option<GhostStore>)> = None;
        loop {
            let page = self.0.store.scan::<ReplayGuard>(&[], after.as_ref(), 1)?;
            let Some(((user, room, session, _), _)) = page.into_iter().next() else {
                return Ok(());
            };
            if open.as_ref().is_none_or(|(last, _)| *last != user) {
                open = Some((user.clone(), self.0.stores.existing(&user)?));
            }
            let store = open.as_ref().and_then(|(_, store)| store.as_ref());
            if let Some(store) = store
                && !store.holds_session(&room, &session)?
            {
                store.mark_session_done(&room, &session)?;
                let of_session = [prefix(&user), prefix(&room), prefix(&session)].concat();
                let mut batch = Batch::new();
                self.delete_all::<ReplayGuard>(&mut batch, &of_session)?;
                self.0.store.apply(batch)?;
            }
            // There may be many.
            tokio::task::yield_now().await;
            // A record that a message adds meanwhile is found by the next sweep.
            after = Some((user, room, session, u32::MAX));
        }
    }

    /// Deletes the records of people with whom a ghost shares no room, once a day.
    async fn delete_strangers(&self) -> Result<(), CryptoError> {
        let now = self.0.settings.clock.now();
        {
            let mut last = lock(&self.0.strangers_deleted_at);
            if last.is_some_and(|last| now.since(last) < STRANGER_FOR) {
                return Ok(());
            }
            *last = Some(now);
        }
        for user in self.0.stores.users_with_devices()? {
            let Some(store) = self.0.stores.existing(&user)? else {
                continue;
            };
            let slot = self.existing_slot(&user);
            let is_known = |person: &UserId| {
                let lists = slot.as_ref().map(|slot| &slot.device_lists);
                lists.is_some_and(|lists| lists.was_queried(person, now, STRANGER_FOR))
            };
            if !store.has_strangers(now, is_known)? {
                continue;
            }
            let slot = self.slot(&user);
            let _unloaded = self.unload(&slot).await;
            let is_known =
                |person: &UserId| slot.device_lists.was_queried(person, now, STRANGER_FOR);
            let gone = store.delete_strangers(now, is_known).await?;
            slot.device_lists.forget(&gone);
        }
        Ok(())
    }

    /// Renews and forgets the fallback keys that are due. Otherwise that happens when something comes
    /// for a ghost, and to a quiet one nothing does.
    async fn renew_due_fallbacks(&self) -> Result<(), CryptoError> {
        let now = self.0.settings.clock.now();
        let mut due = Vec::new();
        for page in self.0.store.pages::<GhostRecords>(&[]) {
            let page = page?.into_iter();
            let page = page.filter(|(_, record)| {
                record.is_fallback_due(now) || record.is_former_fallback_due(now)
            });
            due.extend(page.map(|(user, _)| user));
        }
        for user in due {
            if let Err(error) = self.renew_fallback(&user).await {
                tracing::warn!(%user, %error, "a ghost's fallback key could not be renewed");
            }
        }
        Ok(())
    }
}
