//! What the service does after a restore from a backup, before it says that it is ready.
//!
//! 1. Everything that was waiting is dropped: it arrived before the restore and counts as handled
//!    (`prepare`, before anything new is accepted).
//! 2. Every machine gets a new device, signed by the same identity, and the old one is deleted
//!    ([`crate::crypto::Machines::rotate_device`]).
//! 3. Every ghost checks where it is (`resync`): introductions under way are continued, pending
//!    invites are accepted, rooms that it has left are noted; the bot finds its control rooms.
//! 4. Handles that changed since the backup, as far as can be seen, are frozen.
//! 5. The keys of the database that the restore replaced are destroyed.
//!
//! Each step can be repeated, so after a crash the next start goes on. Afterwards the bot visits
//! its control rooms at a set rate and tells their people.

use std::{collections::HashSet, path::Path, time::Duration};

use futures_util::StreamExt as _;
use ruma::OwnedUserId;

use crate::{
    bot,
    clock::{self, Timestamp},
    crypto::{CryptoError, DeviceRotation, store::GhostStores},
    directory::HandleState,
    engine::{
        Engine, EngineError,
        control_room::ControlEffect,
        records::{
            ActiveRoomsByGhost, ControlRooms, Inbox, InboxItem, Outbox, QueuedEffect, QuotedEvents,
            RestoreProgress, RestoreRecord, RetainedEvents, RoomsToNotify, Stamps, SyncTokens,
            ToDevice,
        },
    },
    handle::{Handle, ghost_id},
    ids::{Ghost, Person},
    matrix::KEYS_ASKED_MAX,
    store::{Batch, Store, StoreError, Table},
};

/// Tables that a backup leaves out: they track the progress of an earlier restore, or belong to one
/// state of the store.
pub const NOT_IN_BACKUPS: [u8; 3] = [RestoreProgress::ID, RoomsToNotify::ID, Stamps::ID];

/// Maximum number of records that are deleted in one write.
const DELETE_BATCH_RECORDS: usize = 500;
/// Maximum number of ghosts that get their new devices at the same time.
const ROTATIONS_AT_ONCE_MAX: usize = 4;

/// Drops everything that was waiting before the restore. Does nothing for a store that was not
/// restored, or if this was done before.
pub(in crate::engine) fn prepare(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    if !store.is_restored()? || store.contains::<RestoreProgress>(&0)? {
        return Ok(());
    }
    clear::<Inbox>(store)?;
    clear::<ToDevice>(store)?;
    clear::<RetainedEvents>(store)?;
    clear::<QuotedEvents>(store)?;
    clear::<SyncTokens>(store)?;
    clear::<ActiveRoomsByGhost>(store)?;
    // Ghosts still have to be made or removed. Every other effect was carried out, or follows from
    // what is found in its room now.
    clear_if::<Outbox>(store, |due| {
        !matches!(due.what, QueuedEffect::Control(ControlEffect::Bot(_)))
    })?;
    let record = RestoreRecord {
        begun_at: now,
        backup: store.backup_info()?,
        ..RestoreRecord::default()
    };
    let mut batch = Batch::new();
    batch.put::<RestoreProgress>(&0, &record)?;
    store.apply(batch)?;
    store.flush_blocking()
}

/// Deletes all records of a table.
pub(in crate::engine) fn clear<T: Table>(store: &Store) -> Result<(), StoreError> {
    clear_if::<T>(store, |_| true)
}

fn clear_if<T: Table>(store: &Store, which: impl Fn(&T::Value) -> bool) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let rows = store.scan::<T>(&[], after.as_ref(), DELETE_BATCH_RECORDS)?;
        let mut batch = Batch::new();
        let full = rows.len() == DELETE_BATCH_RECORDS;
        for (key, value) in rows {
            if which(&value) {
                batch.delete::<T>(&key);
            }
            after = Some(key);
        }
        store.apply(batch)?;
        if !full {
            return Ok(());
        }
    }
}

impl Engine {
    /// Carries out the steps after a restore, before anything else is done. After a transient error
    /// it continues where it stopped.
    pub(in crate::engine) async fn restore(&self) -> Result<(), EngineError> {
        if self.store().is_restored()? {
            self.take_up_after_restore().await?;
        }
        self.destroy_replaced_keys().await;
        Ok(())
    }

    /// Destroys the keys of replaced stores. Their devices are deleted by now, so nobody can go back
    /// to them, and their keys still open what was forgotten since.
    async fn destroy_replaced_keys(&self) {
        let Some(folder) = self.store().folder().map(Path::to_owned) else {
            return;
        };
        let work = move || GhostStores::destroy_replaced_keys(&folder);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "the keys of a replaced database cannot be destroyed");
        }
    }

    async fn take_up_after_restore(&self) -> Result<(), EngineError> {
        tracing::info!("restored from a backup: making new devices, which may take a while");
        self.rotate_all_devices().await?;
        self.resync_all().await?;
        self.look_for_strangers().await?;
        // As long as the store counts as restored, it may have an older stamp than the homeserver.
        self.renew_stamp_at_start().await?;
        let mut record = self.restoration()?;
        record.done = true;
        let mut batch = Batch::new();
        batch.put::<RestoreProgress>(&0, &record)?;
        Store::restore_done(&mut batch);
        self.store().commit(batch).await?;
        for line in report(&record) {
            tracing::warn!("restore: {line}");
        }
        Ok(())
    }

    async fn rotate_all_devices(&self) -> Result<(), EngineError> {
        let bot = self.settings().bot.clone();
        match self.machines().rotate_device(&bot).await? {
            DeviceRotation::Changed(what) => {
                return Err(CryptoError::Foreign { user: bot, what }.into());
            }
            DeviceRotation::Rotated => self.count_rotated()?,
            DeviceRotation::Unchanged => {}
        }
        let ghosts = self.machines().known_users()?;
        let others = ghosts.into_iter().filter(|user| *user != bot);
        let others = others.map(Ghost::new);
        let machines = self.machines().clone();
        let mut rotations = futures_util::stream::iter(others)
            .map(move |ghost| {
                let machines = machines.clone();
                async move {
                    let rotation = machines.rotate_device(&ghost).await;
                    (ghost, rotation)
                }
            })
            .buffer_unordered(ROTATIONS_AT_ONCE_MAX);
        while let Some((ghost, rotation)) = rotations.next().await {
            if self.stopping() {
                return Err(EngineError::Stopping);
            }
            match rotation {
                Ok(DeviceRotation::Rotated) => {
                    tracing::info!(%ghost, "a ghost has a new device");
                    self.count_rotated()?;
                }
                Ok(DeviceRotation::Unchanged) => {}
                Ok(DeviceRotation::Changed(what)) => self.freeze_changed(&ghost, what).await?,
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%ghost, %error, "a ghost has no new device");
                    self.freeze_changed(&ghost, "it could not be given a new device")
                        .await?;
                }
            }
        }
        Ok(())
    }

    fn count_rotated(&self) -> Result<(), StoreError> {
        let mut record = self.restoration()?;
        record.new_devices = record.new_devices.saturating_add(1);
        let mut batch = Batch::new();
        batch.put::<RestoreProgress>(&0, &record)?;
        self.store().apply(batch)
    }

    /// Looks on the homeserver for ghosts that the backup does not know. The homeserver cannot list
    /// a namespace, so likely names are tried: those of handles without a ghost, and people's own.
    async fn look_for_strangers(&self) -> Result<(), EngineError> {
        let server = self.settings().server_name.clone();
        let mut names: Vec<String> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.directory().page(after.as_deref(), KEYS_ASKED_MAX)?;
            let Some(last) = page.last() else { break };
            after = Some(last.handle.key().to_owned());
            let gone = page.iter();
            let gone = gone.filter(|record| !matches!(record.state, HandleState::Frozen { .. }));
            names.extend(gone.map(|record| record.handle.ghost_localpart()));
        }
        for person in self.people().await? {
            let name = person.localpart().to_ascii_lowercase();
            let rules = &self.directory().settings().rules;
            if let Ok(handle) = Handle::parse(&name, rules) {
                names.push(handle.ghost_localpart());
            }
        }
        names.sort();
        names.dedup();
        // Ghosts that the backup knows have been checked.
        let known: HashSet<OwnedUserId> = self.machines().known_users()?.into_iter().collect();
        let mut strangers: Vec<Ghost> = Vec::new();
        for name in names {
            if let Some(ghost) = ghost_id(&name, &server)
                && !known.contains(&*ghost)
            {
                strangers.push(ghost);
            }
        }
        let bot = self.settings().bot.clone();
        let Some(acting) = self.find_user(&bot)? else {
            return Ok(());
        };
        for some in strangers.chunks(KEYS_ASKED_MAX) {
            let users = some.iter().cloned().map(OwnedUserId::from);
            let shown = self.homeserver().query_keys(acting.actor(), users).await?;
            for ghost in some {
                let devices = shown.device_keys.get(&**ghost);
                if shown.master_keys.contains_key(&**ghost)
                    || devices.is_some_and(|devices| !devices.is_empty())
                {
                    let what = "it is on the homeserver and not in the backup";
                    self.freeze_changed(ghost, what).await?;
                }
            }
        }
        Ok(())
    }

    /// Returns everybody who has a control room.
    async fn people(&self) -> Result<Vec<Person>, EngineError> {
        let mut people = Vec::new();
        let mut after = None;
        loop {
            let page =
                self.store()
                    .scan::<ControlRooms>(&[], after.as_ref(), DELETE_BATCH_RECORDS)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            people.extend(page.into_iter().map(|(person, _)| person));
        }
        let mut after = None;
        loop {
            let page =
                self.store()
                    .scan::<RoomsToNotify>(&[], after.as_ref(), DELETE_BATCH_RECORDS)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            people.extend(page.into_iter().map(|(_, person)| person));
        }
        Ok(people)
    }

    /// Visits the control rooms one after the other: checks whether each still is one, and tells
    /// its person that recent changes may be undone.
    pub(in crate::engine) async fn revisit(&self) {
        let pause = Duration::from_secs(1) / self.0.settings.reconcile_per_second.max(1);
        loop {
            if self.stopping() {
                return;
            }
            match self.revisit_one().await {
                Ok(true) => clock::sleep(pause).await,
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "people cannot be told of the restore");
                    return;
                }
            }
        }
    }

    async fn revisit_one(&self) -> Result<bool, EngineError> {
        let next = self.store().scan::<RoomsToNotify>(&[], None, 1)?;
        let Some((room, person)) = next.into_iter().next() else {
            return Ok(false);
        };
        let record = self.restoration()?;
        let mut batch = Batch::new();
        batch.delete::<RoomsToNotify>(&room);
        let made = InboxItem::ControlRoomCreated {
            person: person.clone(),
        };
        self.stage(&room, &made, &mut batch)?;
        let at = record.backup.as_ref().map(|backup| backup.at);
        let notice = bot::texts::restored(at);
        let told = InboxItem::Notify {
            person: person.clone(),
            plain: notice.plain,
            html: notice.html,
            source: format!("restored {}", record.begun_at.0),
        };
        self.post(&room, &told, batch).await?;
        Ok(true)
    }
}

/// Logs what an admin has to know.
fn report(record: &RestoreRecord) -> Vec<String> {
    let mut lines = Vec::new();
    let when = match &record.backup {
        Some(made) => format!("of {}", made.at),
        None => "of an unknown time".to_owned(),
    };
    lines.push(format!(
        "done, from a backup {when}; {} ghosts have new devices, signed by the identities they had",
        record.new_devices
    ));
    if record.changed.is_empty() {
        lines.push("no handle was seen to have changed since the backup".to_owned());
    }
    for (ghost, what) in &record.changed {
        let handle = Handle::of_ghost(ghost.localpart());
        let name = handle.map_or_else(|| ghost.to_string(), |handle| handle.to_string());
        lines.push(format!(
            "{name} changed since the backup and is frozen: {what}"
        ));
    }
    lines.push(
        "what cannot be known: handles claimed since the backup, until somebody asks for one \
         (then it is frozen, too); releases, blocks, policies and modes that were changed since: \
         they are as the backup has them, and their people are told so"
            .to_owned(),
    );
    lines
}
