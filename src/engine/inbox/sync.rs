//! Syncs our users, because transactions may be incomplete.
//!
//! Synapse loses to-device messages of a failed transaction, and room events queued behind one when
//! it restarts. Both are still there for the ghost's own `/sync`, which also acknowledges to-device
//! messages. What a sync brings goes through the same inbox as what is pushed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;

use crate::{
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        history::PAGE_EVENTS,
        inbox::{
            accept::{InboxWrites, go_on_unless_down},
            gap,
            sync_gaps::{SYNC_PAGES_MAX, Synced},
        },
        records::{InboxItem, Rooms, SyncTokens},
    },
    matrix::{
        Actor, SyncPage,
        bounds::{DeadLetter, DeadLetterReason},
    },
    store::Batch,
};

/// The filter of a ghost's sync: to-device messages, invites and rooms, without presence, receipts
/// and typing.
const FILTER: &str = r#"{"presence":{"types":[]},"account_data":{"types":[]},"room":{"ephemeral":{"types":[]},"account_data":{"types":[]},"include_leave":false,"state":{"lazy_load_members":true},"timeline":{"limit":50}}}"#;
/// Maximum size of a gap that is read at a time, in bytes of JSON. Events before that are set
/// aside: people wait for the newest.
pub(in crate::engine) const GAP_BYTES: usize = 32 << 20;
/// Maximum number of pages that are read back for a gap in a room without a conversation.
const GAP_PAGES: usize = 20;
/// Minimum time between two requests for missing keys of one ghost.
pub(in crate::engine) const CATCH_UP_PAUSE: Duration = Duration::from_secs(2);

/// When each of our users last began a sync that brought everything: the number that was next then.
#[derive(Default)]
pub(in crate::engine) struct LastSyncs(Mutex<HashMap<OwnedUserId, u64>>);

impl LastSyncs {
    pub(super) fn note(&self, user: &OwnedUserId, began: u64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.entry(user.clone()).or_default();
        *last = began.max(*last);
    }

    /// Returns whether a user has been synced since a moment, given by the number that was next
    /// then.
    pub(in crate::engine) fn are_after(&self, user: &OwnedUserId, moment: u64) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(user).is_some_and(|began| *began > moment)
    }
}

impl Engine {
    /// Syncs a ghost whose keys are missing. Returns `false` if that was done a moment ago, so that
    /// nobody can make us sync by sending messages that we cannot read.
    pub(in crate::engine) async fn fetch_missing_keys(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<bool, EngineError> {
        let now = self.now();
        {
            let mut synced = self.0.synced.lock().await;
            synced.retain(|_, at| now.since(*at) < CATCH_UP_PAUSE);
            if synced.contains_key(ghost) {
                return Ok(false);
            }
            synced.insert(ghost.clone(), now);
        }
        self.fetch_keys(ghost).await?;
        Ok(true)
    }

    /// Syncs a ghost and hands its to-device messages over. Waits for no history: no key is in it,
    /// and another server may be slow to show it.
    pub(in crate::engine) async fn fetch_keys(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<(), EngineError> {
        if let Some(synced) = self.sync_up_to_gaps(ghost).await? {
            self.close_gaps_later(ghost, synced);
        }
        self.process_to_device_of(ghost).await;
        Ok(())
    }

    /// Accepts everything that the homeserver holds for a ghost, and acknowledges it.
    pub(in crate::engine) async fn sync_all_pending(
        &self,
        ghost: &OwnedUserId,
    ) -> Result<(), EngineError> {
        if let Some(synced) = self.sync_up_to_gaps(ghost).await? {
            let turn = self.0.gap_turns.lock(ghost.clone()).await;
            self.close_gaps_and_sync(ghost, synced, turn).await?;
        }
        Ok(())
    }

    /// Accepts what the homeserver holds for a ghost, until a sync leaves a gap in a room. Returns
    /// that sync; `None` if there is none, and so everything is accepted and acknowledged.
    async fn sync_up_to_gaps(&self, ghost: &OwnedUserId) -> Result<Option<Synced>, EngineError> {
        let Some(acting) = self.find_user(ghost)? else {
            return Ok(None);
        };
        for _ in 0..SYNC_PAGES_MAX {
            let synced = self.sync_once(ghost, acting.actor()).await;
            let synced = self.or_restore_user(synced).await?;
            if !synced.gaps.is_empty() {
                return Ok(Some(synced));
            }
            if synced.is_empty {
                self.0.last_syncs.note(ghost, synced.began);
                break;
            }
        }
        Ok(None)
    }

    pub(super) async fn or_restore_user<T>(
        &self,
        outcome: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if let Err(error) = &outcome {
            self.restore_missing_user(error).await;
        }
        outcome
    }

    /// Accepts the items of one sync, page by page, but not those behind a gap. After a crash between
    /// two pages the earlier pages come again, and are recognised.
    pub(super) async fn sync_once(
        &self,
        ghost: &OwnedUserId,
        actor: Actor<'_>,
    ) -> Result<Synced, EngineError> {
        let Ok(_few_at_a_time) = self.0.syncs.acquire().await else {
            return Err(EngineError::Stopping);
        };
        let began = self.next();
        let since = self.store().get::<SyncTokens>(ghost)?;
        let since = since.as_deref();
        let sync = self
            .homeserver()
            .sync(actor, since, Some(FILTER), Duration::ZERO);
        let mut sync = sync.await?;
        // The next request with the new token acknowledges the items; without items there is
        // nothing to acknowledge.
        let mut synced = Synced {
            began,
            is_empty: true,
            ..Synced::default()
        };
        while let Some(page) = sync.next_page().await? {
            // Items that were set aside wait to be acknowledged as well, and hide those behind
            // them.
            synced.is_empty &= page.to_device_count == 0;
            self.accept_page(ghost, page, &mut synced).await?;
        }
        Ok(synced)
    }

    async fn accept_page(
        &self,
        ghost: &OwnedUserId,
        mut page: SyncPage,
        synced: &mut Synced,
    ) -> Result<(), EngineError> {
        let mut skipped: HashMap<OwnedRoomId, usize> = HashMap::new();
        for (room, joined) in &mut page.joined {
            if !self.store().contains::<Rooms>(room)? {
                continue;
            }
            let mut timeline = joined.timeline.iter();
            let began = timeline.rposition(|json| gap::begins_for(ghost, json));
            match began {
                // Events from before the ghost joined are not meant for it.
                Some(began) => _ = skipped.insert(room.clone(), began),
                None if joined.limited => synced.wait_for_gap(room, std::mem::take(joined)),
                None => {}
            }
        }
        self.expect_invites(ghost, &page).await?;
        let taken = {
            let _one_at_a_time = self.0.inbox_lock.lock().await;
            let mut taken = InboxWrites::default();
            for json in &page.to_device {
                self.accept_to_device(json, Some(ghost), &mut taken)?;
            }
            for (room, joined) in page.joined.iter().chain(&page.left) {
                let skipped = skipped.get(room).copied().unwrap_or_default();
                for json in joined.timeline.iter().skip(skipped) {
                    if !self.was_forwarded_long_ago(room, json)? {
                        self.accept_event(json, Some(room), &mut taken)?;
                    }
                }
            }
            for (room, state) in &page.invited {
                self.accept_invite(ghost, room, state, &mut taken)?;
            }
            match page.next_batch {
                // Stored once the gaps are read.
                Some(token) if !synced.gaps.is_empty() => synced.token = Some(token),
                Some(token) => taken.batch.put::<SyncTokens>(ghost, &token)?,
                None => {}
            }
            taken
                .dead_letters
                .extend(self.homeserver().take_dead_letters());
            self.write_inbox(taken)?
        };
        self.machines()
            .mark_device_lists_outdated_for_all(&page.device_lists_changed);
        self.flush_and_wake(taken).await
    }

    /// Returns whether an event of a timeline was forwarded, and its arrival may be forgotten: in a
    /// quiet room a timeline goes back for months.
    pub(super) fn was_forwarded_long_ago(
        &self,
        room: &OwnedRoomId,
        json: &RawValue,
    ) -> Result<bool, EngineError> {
        match RoomEvent::parse(json.get(), Some(room)) {
            Some(event) if self.may_be_forgotten(&event) => Ok(self.has_copies(room, &event.id)?),
            _ => Ok(false),
        }
    }

    /// Accepts events of a room's history that have not arrived.
    pub(in crate::engine) async fn accept_read_back(
        &self,
        room: &OwnedRoomId,
        events: &[Box<RawValue>],
    ) -> Result<(), EngineError> {
        let taken = {
            let _one_at_a_time = self.0.inbox_lock.lock().await;
            let mut taken = InboxWrites::default();
            for json in events {
                self.accept_event(json, Some(room), &mut taken)?;
            }
            self.write_inbox(taken)?
        };
        self.flush_and_wake(taken).await
    }

    /// Writes accepted items; the caller holds the inbox lock.
    pub(in crate::engine) fn write_inbox(
        &self,
        mut taken: InboxWrites,
    ) -> Result<InboxWrites, EngineError> {
        self.stage_dead_letters(&taken.dead_letters, &mut taken.batch)?;
        self.store().apply(std::mem::take(&mut taken.batch))?;
        self.pack_arrivals()?;
        taken.until = self.next();
        Ok(taken)
    }

    /// Makes accepted items durable, and wakes their rooms.
    pub(in crate::engine) async fn flush_and_wake(
        &self,
        taken: InboxWrites,
    ) -> Result<(), EngineError> {
        self.store().flush().await?;
        self.mark_durable(taken.until);
        for room in taken.rooms {
            self.wake(&room);
        }
        Ok(())
    }

    /// Prepares a ghost's machine for the keys of rooms that it is invited to, and turns away those
    /// of rooms that it has left. Waits for the machine, so not with the inbox lock held.
    pub(in crate::engine) async fn expect_invites(
        &self,
        ghost: &OwnedUserId,
        page: &SyncPage,
    ) -> Result<(), EngineError> {
        for room in page.invited.keys() {
            let expected = async {
                if !self.expect_room(ghost, room).await? {
                    // The invite is still declined, but no key is expected.
                    self.machines().turn_away(ghost, room).await?;
                }
                Ok(())
            };
            go_on_unless_down(expected.await, room)?;
        }
        Ok(())
    }

    pub(in crate::engine) fn accept_invite(
        &self,
        ghost: &OwnedUserId,
        room: &OwnedRoomId,
        state: &[Box<RawValue>],
        taken: &mut InboxWrites,
    ) -> Result<(), EngineError> {
        let state = state.iter().map(|event| event.get().to_owned()).collect();
        let arrived = InboxItem::Invite {
            user: ghost.clone(),
            state,
        };
        self.stage(room, &arrived, &mut taken.batch)?;
        taken.rooms.push(room.clone());
        Ok(())
    }

    /// Returns the events between the last one that we know and the start of a limited timeline, in
    /// order.
    pub(super) async fn read_gap(
        &self,
        ghost: &OwnedUserId,
        actor: Actor<'_>,
        room: &OwnedRoomId,
        before: Option<String>,
    ) -> Result<Vec<Box<RawValue>>, EngineError> {
        let mut newest_first = Vec::new();
        let mut bytes = 0;
        // A conversation must not lose events, so its rooms are read back further.
        let record = self.store().get::<Rooms>(room).map_err(EngineError::from);
        let record = go_on_unless_down(record, room)?;
        let pages = if record.is_some_and(|record| record.conversation.is_some()) {
            gap::BACKFILL_PAGES_MAX
        } else {
            GAP_PAGES
        };
        let history = self.history(actor, room).at(before);
        let mut history = history.limit(pages, PAGE_EVENTS);
        'back: while let Some(page) = history.next_page().await? {
            bytes += page.iter().map(|it| it.get().len()).sum::<usize>();
            if bytes > GAP_BYTES {
                self.note_gap(DeadLetterReason::GapTooLarge, ghost, room, bytes)
                    .await?;
                break;
            }
            let (mut is_known, missed) = (false, newest_first.len());
            for json in page {
                let event = RoomEvent::parse(json.get(), Some(room));
                if gap::begins_for(ghost, &json) {
                    break 'back;
                }
                // Its sender may have given it a false time, which must not hide those of others.
                if event.as_ref().is_some_and(|it| self.may_be_forgotten(it)) {
                    is_known = true;
                    continue;
                }
                // Messages of our own users are not noted as seen.
                let said_by_us =
                    |event: &RoomEvent| event.state_key.is_none() && self.is_ours(&event.sender);
                if event.as_ref().is_some_and(said_by_us) {
                    continue;
                }
                let known = event.map(|event| self.has_arrived(&event.id));
                // Known events of one homeserver may stand among those that another one held back.
                if known.transpose()? == Some(true) {
                    is_known = true;
                } else {
                    newest_first.push(json);
                }
            }
            if is_known && missed == newest_first.len() {
                break;
            }
        }
        newest_first.reverse();
        Ok(newest_first)
    }

    /// Notes that a gap, or part of it, was not read: a conversation then backfills before its next
    /// event.
    pub(in crate::engine) async fn note_gap(
        &self,
        reason: DeadLetterReason,
        ghost: &OwnedUserId,
        room: &OwnedRoomId,
        bytes: usize,
    ) -> Result<(), EngineError> {
        let letter = DeadLetter {
            reason,
            room: Some(room.clone()),
            user: Some(ghost.clone()),
            event_type: None,
            size: bytes as u64,
        };
        if reason == DeadLetterReason::GapUnreadable {
            let checked = self.0.gap_checked_at.lock();
            checked.unwrap_or_else(PoisonError::into_inner).remove(room);
        }
        Ok(self.note_dead_letters(&[letter], Batch::new()).await?)
    }
}
