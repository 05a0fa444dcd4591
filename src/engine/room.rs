//! A room's actor: takes what arrives in order, lets it be decided, carries out what follows.

use std::{ops::Range, sync::Arc, time::Duration};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::sync::Notify;

use super::{
    Engine, EngineError,
    conversations::delivery_receipts::Deliveries,
    messaging::media::Uploaded,
    places::Place,
    records::{Arrived, Conversations, Due, Inbox, OpenWork, Outbox, RoomRecord, Rooms, What},
    retry::INSIST,
};
use crate::{
    clock::Timestamp,
    introduction::{Effect, Phase},
    relay::Conversation,
    store::{Batch, prefix},
};
/// For how long an empty actor stays, so that a lively room does not load it again and again.
const IDLE: Duration = Duration::from_secs(30);
/// How much is looked at, and made sure of, at a time.
const AT_ONCE: usize = 32;

/// Effects that follow again, the same, from what is in the inbox.
#[derive(Default)]
pub(super) struct Repeatable {
    /// Their numbers.
    pub numbers: Range<u64>,
    /// The conversation that they were decided on. Should somebody change it before they are
    /// carried out, a crash could have them decided on the changed one.
    pub decided_on: Option<Arc<Conversation>>,
}

pub(super) struct RoomActor {
    pub engine: Engine,
    pub room: OwnedRoomId,
    pub record: RoomRecord,
    notify: Arc<Notify>,
    pub failures: u32,
    /// The item that cannot be dealt with at the moment, and since when.
    pub failing: Option<(u64, Timestamp)>,
    /// Since when the effect at hand is due.
    pub due_since: Timestamp,
    /// The effect at hand.
    pub carrying: u64,
    /// For which effect others are waited for, and up to which of theirs.
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

impl RoomActor {
    pub(super) fn load(
        engine: Engine,
        room: OwnedRoomId,
        notify: Arc<Notify>,
    ) -> Result<Self, EngineError> {
        let record = engine.store().get::<Rooms>(&room)?.unwrap_or_default();
        let mut actor = Self {
            engine,
            room,
            record,
            notify,
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
        };
        actor.take_up()?;
        Ok(actor)
    }

    /// An introduction in the middle of something has an effect in the outbox; should that ever be
    /// missing, nobody is left waiting for it.
    fn take_up(&mut self) -> Result<(), EngineError> {
        let store = self.engine.store();
        if !store
            .scan::<Outbox>(&prefix(&self.room), None, 1)?
            .is_empty()
        {
            return Ok(());
        }
        let mut effects = Vec::new();
        for is in &self.record.introductions {
            let ghost = &is.ghost;
            effects.extend(is.under_way().into_iter().map(|effect| What::Introduction {
                ghost: ghost.clone(),
                effect,
            }));
        }
        if effects.is_empty() {
            return Ok(());
        }
        self.settle(Batch::new(), effects)
    }

    pub(super) async fn run(mut self) -> Result<(), EngineError> {
        let mut stop = self.engine.0.stop.subscribe();
        loop {
            if *stop.borrow() {
                return Err(EngineError::Stopping);
            }
            match self.step().await {
                Ok(true) => {
                    self.failures = 0;
                    self.failing = None;
                }
                Ok(false) => {
                    let pause = self.until_wake();
                    let idle = pause.is_none();
                    tokio::select! {
                        () = self.notify.notified() => {}
                        () = tokio::time::sleep(pause.unwrap_or(IDLE)) => {
                            if idle && self.engine.retire_actor(&self.room)? {
                                return Ok(());
                            }
                        }
                        _ = stop.changed() => {}
                    }
                }
                Err(error) => {
                    let pause = self.pause_after(&error);
                    // What was decided and not written has not happened; and whoever waits for a
                    // slow server keeps nobody else from being introduced.
                    self.record = self
                        .engine
                        .store()
                        .get::<Rooms>(&self.room)?
                        .unwrap_or_default();
                    self.written = None;
                    self.place = None;
                    tracing::warn!(room = %self.room, %error, ?pause, "trying again");
                    // A key may come any moment, and so may a conversation; nothing else makes
                    // waiting shorter.
                    let key = matches!(error, EngineError::KeyOnItsWay | EngineError::NotThereYet);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.notify.notified(), if key => {}
                        _ = stop.changed() => {}
                    }
                }
            }
        }
    }

    /// What is due, what has arrived, or one deadline; false when there is nothing to do.
    pub(super) async fn step(&mut self) -> Result<bool, EngineError> {
        let engine = self.engine.clone();
        let store = engine.store();
        let due = store.scan::<Outbox>(&prefix(&self.room), None, AT_ONCE)?;
        if !due.is_empty() {
            self.carry_out_all(due).await?;
            return Ok(true);
        }
        let together = match self.takes_together() {
            true => AT_ONCE,
            false => 1,
        };
        let mut arrived = store.scan::<Inbox>(&prefix(&self.room), None, together)?;
        let is_sure = |((_, number), arrived): &((OwnedRoomId, u64), Arrived)| {
            let event = matches!(arrived, Arrived::Event(_) | Arrived::AfterGap(_));
            !event || engine.is_arrived(*number)
        };
        arrived.truncate(arrived.iter().take_while(|it| is_sure(it)).count());
        if together > 1 && self.take_messages(&arrived).await? {
            return Ok(true);
        }
        if let Some(((_, number), arrived)) = arrived.into_iter().next() {
            let given = arrived.clone();
            match self.take(number, arrived).await {
                Err(error) if error.is_transient() && self.has_insisted(number, INSIST, &error) => {
                    tracing::error!(room = %self.room, %error, "an event is given up");
                    self.give_up(number, given)?;
                }
                Err(error) if !error.is_transient() => {
                    tracing::error!(room = %self.room, %error, "an event cannot be handled");
                    self.give_up(number, given)?;
                }
                taken => taken?,
            }
            return Ok(true);
        }
        self.tick().await
    }

    /// Carries out what is due, in order. What is about to be shown to others must not be forgotten
    /// by us; but what becomes of a message would be found out anew from the inbox, and its
    /// transaction id with it.
    async fn carry_out_all(
        &mut self,
        due: Vec<((OwnedRoomId, u64), Due)>,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let store = engine.store();
        for (at, (key, due)) in due.into_iter().enumerate() {
            // What was carried out before may have taken back what was to follow.
            if at > 0 && (engine.stopping() || !store.contains::<Outbox>(&key)?) {
                continue;
            }
            if !self.is_repeatable(key.1, &due.what)? {
                store.flush().await?;
            }
            self.carry_out(key.1, due).await?;
            self.failures = 0;
            self.failing = None;
        }
        Ok(())
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
        Ok(self.engine.store().known::<Conversations>(conversation)? == *decided_on)
    }

    async fn carry_out(&mut self, number: u64, due: Due) -> Result<(), EngineError> {
        let kind = due.what.kind();
        tracing::debug!(room = %self.room, kind, "carrying out");
        self.due_since = due.since;
        match due.what {
            What::Introduction { ghost, effect } => {
                self.carry_out_introduction(number, &ghost, effect).await
            }
            What::Control(effect) => self.carry_out_control(number, effect).await,
            What::Relay {
                conversation,
                effect,
            } => self.carry_out_relay(number, conversation, effect).await,
        }
    }

    async fn tick(&mut self) -> Result<bool, EngineError> {
        let due = self.wake().is_some_and(|at| at <= self.engine.now());
        if due {
            self.tick_introductions()?;
            self.tick_control()?;
            self.tick_calls().await?;
        }
        Ok(due)
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
            batch.put::<Outbox>(&(self.room.clone(), self.engine.next()), &due)?;
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
            let key = (introduction.ghost.clone(), self.room.clone());
            if introduction.is_open() {
                batch.put::<OpenWork>(&key, &())?;
            } else {
                batch.delete::<OpenWork>(&key);
            }
        }
        for ghost in self.record.seat.iter().flat_map(|seat| &seat.ghosts) {
            batch.put::<OpenWork>(&(ghost.clone(), self.room.clone()), &())?;
        }
        if let Some(control) = &self.record.control {
            let key = (self.engine.settings().bot.clone(), self.room.clone());
            if control.waiting.is_empty() {
                batch.delete::<OpenWork>(&key);
            } else {
                batch.put::<OpenWork>(&key, &())?;
            }
        }
        let nothing = self.record.control.is_none() && self.record.seat.is_none();
        if self.record.introductions.is_empty() && nothing {
            batch.delete::<Rooms>(&self.room);
        } else {
            batch.put::<Rooms>(&self.room, &self.record)?;
        }
        Ok(())
    }

    pub(super) fn finish(&self, number: u64) -> Batch {
        let mut batch = Batch::new();
        batch.delete::<Outbox>(&(self.room.clone(), number));
        batch
    }

    fn wake(&self) -> Option<Timestamp> {
        let introductions = self.record.introductions.iter();
        let deadlines = introductions.filter_map(|is| is.deadline(&self.engine.0.settings.rules));
        deadlines
            .chain(
                self.record
                    .control
                    .as_ref()
                    .and_then(|control| control.wake()),
            )
            .chain(self.engine.calls().next(&self.room))
            .min()
    }

    fn until_wake(&self) -> Option<Duration> {
        self.wake()
            .map(|at| at.since(self.engine.now()).min(Duration::from_secs(3600)))
    }

    /// The transaction id of what `kind` sends because of `cause`: the same after a crash, and
    /// unique over all ghosts, since Synapse keeps one list for the whole application service.
    pub(super) fn transaction_id(
        &self,
        user: &OwnedUserId,
        kind: &str,
        cause: &str,
    ) -> ruma::OwnedTransactionId {
        transaction_id(user, &self.room, kind, cause)
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

fn is_at_work(phase: &Phase) -> bool {
    !matches!(
        phase,
        Phase::Waiting { .. }
            | Phase::Asking { .. }
            | Phase::Declining { .. }
            | Phase::Declined
            | Phase::Over
    )
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
