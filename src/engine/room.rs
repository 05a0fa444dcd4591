//! A room of the engine: its record, the writes of its decisions, and what its effects need.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    clock::Timestamp,
    conversation::Conversation,
    directory::DirectoryTransaction,
    engine::{
        Engine, EngineError,
        control_room::ControlPhase,
        failing::Failing,
        lanes::Lanes,
        outcomes::count_outcomes,
        places::Place,
        records::{
            ActiveRoomsByGhost, Conversations, InboxItem, Outbox, OutboxItem, QueuedEffect,
            RoomRecord, Rooms,
        },
        waiting_redactions::WaitingRedactions,
    },
    ids::Ghost,
    introduction::{Introduction, Phase},
    matrix::{MEDIA_BEGINS_WITHIN, MatrixError},
    store::Batch,
};

/// Maximum number of requests to verify a key of ours that are declined in a room within a minute.
const VERIFICATIONS_A_MINUTE: usize = 5;

/// Effects that a crash would only make be decided again from the inbox, with the same result.
#[derive(Default)]
pub(super) struct ReplayableEffects {
    /// The numbers of these effects.
    pub numbers: Range<u64>,
    /// The conversation that they were decided on. If it changes before they are carried out, a
    /// crash could have them decided on the changed one.
    pub based_on: Option<Arc<Conversation>>,
}

/// A room: its record, and the state of the work in it. Only its actor has one.
pub(super) struct Room {
    pub engine: Engine,
    pub id: OwnedRoomId,
    pub record: RoomRecord,
    pub failures: u32,
    /// The item that is failing.
    pub failing: Option<Failing>,
    /// The people whose effects are overtaken.
    pub lanes: Lanes,
    /// How much longer the item that has just failed is tried, if that has a limit.
    pub time_left: Option<Duration>,
    /// When the current effect was queued.
    pub due_since: Timestamp,
    /// The number of the current effect.
    pub current_effect: u64,
    /// The number up to which effects may have been sent already, without it being known: those from
    /// before a restart or decided again after it, and one whose answer did not come.
    pub maybe_sent_until: u64,
    /// The effect whose request to send an event had no answer: the homeserver may still be busy
    /// with it.
    pub unanswered: Option<u64>,
    /// The effect that waits for other rooms' outboxes, and the highest number that it waits for.
    pub behind: Option<(u64, u64)>,
    /// Upper bound of the numbers of inbox items that arrived before the history was last read up
    /// to the newest event.
    pub read_until: u64,
    /// Upper bound of the numbers of inbox items that a reading of the history has left there; 0 if
    /// none of them waits.
    pub left_until: u64,
    /// The deletions among what waits here.
    pub waiting_redactions: WaitingRedactions,
    /// When requests to verify a key of ours were lately declined here.
    pub verifications: Vec<Timestamp>,
    /// The room's place among the introductions that go on at the same time.
    pub place: Option<Place>,
    /// The record as it is in the store, if this actor has written it.
    pub written: Option<RoomRecord>,
    /// The effects that may be seen by others before they are durable.
    pub replayable: ReplayableEffects,
    /// The files that were uploaded for the event that is being forwarded.
    pub uploaded: UploadedMedia,
    /// The delivery receipts to be sent.
    pub deliveries: DeliveryReceipts,
}

/// The files of the event that is being forwarded. A message may be retried for days, and goes to
/// several portals: each of its files is fetched once, or given up once.
#[derive(Default)]
pub(super) struct UploadedMedia {
    /// The event.
    pub event: Option<OwnedEventId>,
    /// The new addresses by the old ones; `None` for what the event goes without.
    pub addresses: HashMap<String, Option<String>>,
    /// How much longer what is behind the event waits for its files to begin.
    pub wait_left: Duration,
    /// Whether the file that was tried last was asked for: there may have been no place for it.
    pub was_asked: bool,
    /// Since when one of the files cannot be had.
    pub failing_since: Option<Timestamp>,
    /// The file that the homeserver did not find.
    pub not_found: Option<String>,
    /// Why the event goes nowhere.
    pub failure: Option<FileFailure>,
}

impl UploadedMedia {
    pub(super) fn of(event: OwnedEventId) -> Self {
        Self {
            event: Some(event),
            wait_left: MEDIA_BEGINS_WITHIN,
            ..Self::default()
        }
    }
}

/// Why a file is not passed on, nor the event that is nothing without it.
#[derive(Clone, Copy, Debug)]
pub(super) enum FileFailure {
    /// It could not be had.
    Unavailable,
    /// It is larger than the limit in bytes, if that is known.
    TooLarge { limit: Option<u64> },
}

impl From<FileFailure> for EngineError {
    fn from(failure: FileFailure) -> Self {
        match failure {
            FileFailure::Unavailable => Self::FileUnavailable,
            FileFailure::TooLarge { limit } => MatrixError::MediaTooLarge { limit }.into(),
        }
    }
}

/// The newest message of a room that has reached the others, for a delivery receipt.
#[derive(Clone, Default)]
pub(super) struct DeliveryReceipts(Arc<Mutex<Newest>>);

#[derive(Default)]
struct Newest {
    /// The last message that arrived, and the ghost that sends its receipt.
    event: Option<(Ghost, OwnedEventId)>,
    /// Whether a task is about to send it.
    showing: bool,
}

impl DeliveryReceipts {
    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the message whose receipt is sent next. Returns `true` if no task is about to send
    /// one.
    pub(super) fn note(&self, ghost: Ghost, event: OwnedEventId) -> bool {
        let mut newest = self.newest();
        newest.event = Some((ghost, event));
        !std::mem::replace(&mut newest.showing, true)
    }

    /// Puts back a message whose receipt failed, unless there is a newer one, whose receipt covers
    /// it.
    pub(super) fn put_back(&self, ghost: Ghost, event: OwnedEventId) {
        self.newest().event.get_or_insert((ghost, event));
    }

    /// Forgets the message, because the ghost leaves the room.
    pub(super) fn forget(&self) {
        self.newest().event = None;
    }

    /// Takes the message whose receipt is sent now. `None` ends the task.
    pub(super) fn take(&self) -> Option<(Ghost, OwnedEventId)> {
        let mut newest = self.newest();
        newest.showing = newest.event.is_some();
        newest.event.take()
    }
}

/// Returns whether an introduction needs a place among those that go on at the same time.
fn is_at_work(introduction: &Introduction) -> bool {
    let waits = matches!(
        introduction.phase,
        Phase::Waiting { .. }
            | Phase::Asking { .. }
            | Phase::Declining { .. }
            | Phase::Declined
            | Phase::Over
    );
    !waits && !introduction.waits_to_invite()
}

impl Room {
    pub(in crate::engine) fn load(engine: Engine, id: OwnedRoomId) -> Result<Self, EngineError> {
        let record = engine.store().get::<Rooms>(&id)?.unwrap_or_default();
        let maybe_sent_until = engine.next();
        Ok(Self {
            engine,
            id,
            record,
            maybe_sent_until,
            unanswered: None,
            failures: 0,
            failing: None,
            lanes: Lanes::default(),
            time_left: None,
            due_since: Timestamp(u64::MAX),
            verifications: Vec::new(),
            place: None,
            current_effect: 0,
            behind: None,
            read_until: 0,
            left_until: 0,
            waiting_redactions: WaitingRedactions::default(),
            written: None,
            replayable: ReplayableEffects::default(),
            uploaded: Default::default(),
            deliveries: DeliveryReceipts::default(),
        })
    }

    /// Returns whether a request to verify a key of ours is declined now: of many, most are left
    /// alone.
    pub(in crate::engine) fn may_decline_verification(&mut self) -> bool {
        let now = self.engine.now();
        let is_recent = |at: &Timestamp| *at <= now && now.since(*at) < Duration::from_secs(60);
        self.verifications.retain(is_recent);
        let may = self.verifications.len() < VERIFICATIONS_A_MINUTE;
        if may {
            self.verifications.push(now);
        }
        may
    }

    /// Returns `true` if the bot is in this room, or on its way in.
    pub(in crate::engine) fn bot_is_here(&self) -> bool {
        self.record
            .control
            .as_ref()
            .is_some_and(|control| control.phase != ControlPhase::Left)
    }

    /// Returns `true` if the bot can answer here.
    pub(in crate::engine) fn is_ready(&self) -> bool {
        self.record
            .control
            .as_ref()
            .is_some_and(|c| c.phase == ControlPhase::Ready)
    }

    /// Returns whether a crash would lead to the same effect again: the conversation is still the
    /// one that it was decided on.
    pub(super) fn is_replayable(
        &self,
        number: u64,
        what: &QueuedEffect,
    ) -> Result<bool, EngineError> {
        let QueuedEffect::Conversation {
            conversation,
            effect,
        } = what
        else {
            return Ok(false);
        };
        let decided_on = &self.replayable.based_on;
        if !effect.is_forward() || !self.replayable.numbers.contains(&number) {
            return Ok(false);
        }
        Ok(self
            .engine
            .store()
            .get_cached::<Conversations>(conversation)?
            == *decided_on)
    }

    /// Drops changes that were decided and not written.
    pub(super) fn reload(&mut self) -> Result<(), EngineError> {
        let record = self.engine.store().get::<Rooms>(&self.id)?;
        self.record = record.unwrap_or_default();
        self.written = None;
        Ok(())
    }

    /// Writes the record, the effects, and the rest of the batch.
    pub(super) fn commit(
        &mut self,
        mut batch: Batch,
        effects: impl IntoIterator<Item = QueuedEffect>,
    ) -> Result<(), EngineError> {
        for what in effects {
            let due = OutboxItem {
                since: self.engine.now(),
                what,
            };
            batch.put::<Outbox>(&(self.id.clone(), self.engine.next()), &due)?;
        }
        let before = match self.written.take() {
            Some(written) => Some(written),
            None => self.engine.store().get::<Rooms>(&self.id)?,
        };
        if before.as_ref() != Some(&self.record) {
            self.write_record(before.as_ref(), &mut batch)?;
        }
        if !self.record.introductions.iter().any(is_at_work) {
            self.place = None;
        }
        self.engine.store().apply(batch)?;
        self.written = Some(self.record.clone());
        let before = before.map_or_else(Vec::new, |before| before.introductions);
        let has_conversation = self.record.conversation.is_some();
        count_outcomes(&before, &self.record.introductions, has_conversation);
        Ok(())
    }

    /// Commits together with a transaction of the directory.
    pub(super) fn commit_with(
        &mut self,
        tx: DirectoryTransaction<'_>,
        mut batch: Batch,
        effects: impl IntoIterator<Item = QueuedEffect>,
    ) -> Result<(), EngineError> {
        let _until_applied = tx.stage(&mut batch);
        self.commit(batch, effects)
    }

    /// Commits together with an item for another room's inbox, and wakes that room.
    pub(super) fn commit_and_post(
        &mut self,
        to: &OwnedRoomId,
        item: &InboxItem,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        self.engine.stage(to, item, &mut batch)?;
        self.commit(batch, [])?;
        self.engine.wake(to);
        Ok(())
    }

    /// Writes the record in place of a former one, and brings [`ActiveRoomsByGhost`] up to date with
    /// it.
    fn write_record(
        &self,
        former: Option<&RoomRecord>,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let before = former.map(ghosts_of).unwrap_or_default();
        let now = ghosts_of(&self.record);
        // Before what is put: a conversation may go on here with the same ghost.
        for gone in before.into_iter().filter(|ghost| !now.contains(ghost)) {
            batch.delete::<ActiveRoomsByGhost>(&(gone.into(), self.id.clone()));
        }
        for introduction in &self.record.introductions {
            let key = (introduction.ghost.clone().into(), self.id.clone());
            if introduction.is_open() {
                batch.put::<ActiveRoomsByGhost>(&key, &())?;
            } else {
                batch.delete::<ActiveRoomsByGhost>(&key);
            }
        }
        for ghost in self
            .record
            .conversation
            .iter()
            .flat_map(|here| &here.ghosts)
        {
            batch.put::<ActiveRoomsByGhost>(&(ghost.clone().into(), self.id.clone()), &())?;
        }
        if let Some(control) = &self.record.control {
            let key = (self.engine.settings().bot.clone(), self.id.clone());
            if control.waiting.is_empty() {
                batch.delete::<ActiveRoomsByGhost>(&key);
            } else {
                batch.put::<ActiveRoomsByGhost>(&key, &())?;
            }
        }
        Ok(self.record.stage(&self.id, batch)?)
    }

    pub(super) fn outbox_done(&self, number: u64) -> Batch {
        let mut batch = Batch::new();
        batch.delete::<Outbox>(&(self.id.clone(), number));
        batch
    }

    /// Returns the transaction id of the event that `kind` sends into this room because of `cause`.
    /// It is the same after a crash, and unique over all ghosts, because Synapse keeps one list for
    /// the whole application service.
    pub(super) fn transaction_id(
        &self,
        user: &OwnedUserId,
        kind: &str,
        cause: &str,
    ) -> ruma::OwnedTransactionId {
        transaction_id(user, &self.id, kind, cause)
    }
}

/// Returns the ghosts that have an introduction in a room.
fn ghosts_of(record: &RoomRecord) -> Vec<Ghost> {
    let introductions = record.introductions.iter();
    introductions
        .map(|introduction| introduction.ghost.clone())
        .collect()
}

/// Returns the transaction id of the event that `kind` sends into a room because of `cause`.
pub(super) fn transaction_id(
    user: &UserId,
    room: &RoomId,
    kind: &str,
    cause: &str,
) -> ruma::OwnedTransactionId {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    for part in [user.as_str(), room.as_str(), kind, cause] {
        hash.update(part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    format!("sc{}", hex::encode(&hash.finalize()[..20])).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_shows_the_newest_and_nothing_is_left() {
        let deliveries = DeliveryReceipts::default();
        let ghost = || Ghost::new("@_dm_sam:hs.test".try_into().unwrap());
        let event = |n: u32| OwnedEventId::try_from(format!("${n}")).unwrap();
        assert!(deliveries.note(ghost(), event(1)), "somebody has to");
        assert!(!deliveries.note(ghost(), event(2)), "somebody does");
        assert_eq!(deliveries.take(), Some((ghost(), event(2))));
        // While that is on its way.
        assert!(!deliveries.note(ghost(), event(3)));
        assert_eq!(deliveries.take(), Some((ghost(), event(3))));
        assert_eq!(deliveries.take(), None);
        assert!(deliveries.note(ghost(), event(4)), "somebody has to again");
        // The receipt failed: once without a newer message, once with one.
        let (ghost_4, event_4) = deliveries.take().unwrap();
        deliveries.put_back(ghost_4.clone(), event_4.clone());
        assert_eq!(deliveries.take(), Some((ghost_4.clone(), event_4.clone())));
        assert!(!deliveries.note(ghost(), event(5)), "somebody still does");
        deliveries.put_back(ghost_4, event_4);
        assert_eq!(deliveries.take(), Some((ghost(), event(5))));
        assert!(!deliveries.note(ghost(), event(6)));
        deliveries.forget();
        assert_eq!(deliveries.take(), None);
    }
}
