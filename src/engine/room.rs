//! A room of the engine: its record, what is written together with it, and what its effects need.

use std::{ops::Range, sync::Arc};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    clock::Timestamp,
    engine::{
        Engine, EngineError,
        conversations::delivery_receipts::Deliveries,
        messaging::media::Uploaded,
        places::Place,
        records::{Conversations, Due, OpenWork, Outbox, RoomRecord, Rooms, What},
    },
    introduction::{Effect, Phase},
    relay::Conversation,
    store::Batch,
};

/// Effects that follow again, the same, from what is in the inbox.
#[derive(Default)]
pub(super) struct Repeatable {
    /// Their numbers.
    pub numbers: Range<u64>,
    /// The conversation that they were decided on. Should somebody change it before they are
    /// carried out, a crash could have them decided on the changed one.
    pub decided_on: Option<Arc<Conversation>>,
}

/// A room, what is known of it, and what is being done in it. Only its actor has one.
pub(super) struct Room {
    pub engine: Engine,
    pub id: OwnedRoomId,
    pub record: RoomRecord,
    pub failures: u32,
    /// The number of the item that fails at the moment, and when it failed first.
    pub failing: Option<(u64, Timestamp)>,
    /// When the current effect was queued.
    pub due_since: Timestamp,
    /// The number of the current effect.
    pub carrying: u64,
    /// The effect that waits for other rooms' outboxes, and the highest of their numbers that it waits
    /// for.
    pub behind: Option<(u64, u64)>,
    /// A place among the introductions that go on at the same time.
    pub place: Option<Place>,
    /// The record as it is in the store, if this actor has written it.
    pub written: Option<RoomRecord>,
    /// The effects that a crash could not make us forget, flushed or not.
    pub repeatable: Repeatable,
    /// What was uploaded anew for the event that is being carried.
    pub uploaded: Uploaded,
    /// What is to be shown of what has reached the others.
    pub deliveries: Deliveries,
}

pub(in crate::engine) fn is_at_work(phase: &Phase) -> bool {
    !matches!(
        phase,
        Phase::Waiting { .. }
            | Phase::Asking { .. }
            | Phase::Declining { .. }
            | Phase::Declined
            | Phase::Over
    )
}

impl Room {
    pub(in crate::engine) fn load(engine: Engine, id: OwnedRoomId) -> Result<Self, EngineError> {
        let record = engine.store().get::<Rooms>(&id)?.unwrap_or_default();
        Ok(Self {
            engine,
            id,
            record,
            failures: 0,
            failing: None,
            due_since: Timestamp(u64::MAX),
            place: None,
            carrying: 0,
            behind: None,
            written: None,
            repeatable: Repeatable::default(),
            uploaded: Default::default(),
            deliveries: Deliveries::default(),
        })
    }

    /// Whether the same would be decided again after a crash: the conversation is as it was then.
    pub(super) fn is_repeatable(&self, number: u64, what: &What) -> Result<bool, EngineError> {
        let What::Relay {
            conversation,
            effect,
        } = what
        else {
            return Ok(false);
        };
        let decided_on = &self.repeatable.decided_on;
        if !effect.is_carry() || !self.repeatable.numbers.contains(&number) {
            return Ok(false);
        }
        Ok(self
            .engine
            .store()
            .get_cached::<Conversations>(conversation)?
            == *decided_on)
    }

    /// Writes the record, the effects and whatever else the batch holds.
    pub(super) fn settle(
        &mut self,
        mut batch: Batch,
        effects: impl IntoIterator<Item = What>,
    ) -> Result<(), EngineError> {
        for what in effects {
            let due = Due {
                since: self.engine.now(),
                what,
            };
            batch.put::<Outbox>(&(self.id.clone(), self.engine.next()), &due)?;
        }
        if self.written.as_ref() != Some(&self.record) {
            self.write_record(&mut batch)?;
        }
        if !self
            .record
            .introductions
            .iter()
            .any(|is| is_at_work(&is.phase))
        {
            self.place = None;
        }
        self.engine.store().apply(batch)?;
        self.written = Some(self.record.clone());
        Ok(())
    }

    fn write_record(&self, batch: &mut Batch) -> Result<(), EngineError> {
        for introduction in &self.record.introductions {
            let key = (introduction.ghost.clone(), self.id.clone());
            if introduction.is_open() {
                batch.put::<OpenWork>(&key, &())?;
            } else {
                batch.delete::<OpenWork>(&key);
            }
        }
        for ghost in self.record.seat.iter().flat_map(|seat| &seat.ghosts) {
            batch.put::<OpenWork>(&(ghost.clone(), self.id.clone()), &())?;
        }
        if let Some(control) = &self.record.control {
            let key = (self.engine.settings().bot.clone(), self.id.clone());
            if control.waiting.is_empty() {
                batch.delete::<OpenWork>(&key);
            } else {
                batch.put::<OpenWork>(&key, &())?;
            }
        }
        let nothing = self.record.control.is_none() && self.record.seat.is_none();
        if self.record.introductions.is_empty() && nothing {
            batch.delete::<Rooms>(&self.id);
        } else {
            batch.put::<Rooms>(&self.id, &self.record)?;
        }
        Ok(())
    }

    pub(super) fn finish(&self, number: u64) -> Batch {
        let mut batch = Batch::new();
        batch.delete::<Outbox>(&(self.id.clone(), number));
        batch
    }

    /// The transaction id of what `kind` sends because of `cause`: the same after a crash, and
    /// unique over all ghosts, since Synapse keeps one list for the whole application service.
    pub(super) fn transaction_id(
        &self,
        user: &OwnedUserId,
        kind: &str,
        cause: &str,
    ) -> ruma::OwnedTransactionId {
        transaction_id(user, &self.id, kind, cause)
    }
}

/// The same for another room.
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

/// What an effect was caused by, for its transaction id.
pub(super) fn cause(effect: &Effect) -> String {
    let id = |event: &OwnedEventId| event.to_string();
    match effect {
        Effect::PassOn { event, .. } | Effect::PassOnEdit { event, .. } => id(event),
        Effect::TakeBack { of } => id(of),
        Effect::Say { saying } => saying.id(),
        _ => String::new(),
    }
}
