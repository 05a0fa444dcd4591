//! For how long a room tries again what fails, and what becomes of an arrival then.

use std::time::Duration;

use ruma::OwnedUserId;

use super::{
    EngineError,
    conversations::failures::NOT_DELIVERED,
    event::RoomEvent,
    records::{Arrived, Conversations, Inbox, Rooms},
    room::RoomActor,
};
use crate::{
    introduction::{HeardKind, Input},
    relay,
    store::Batch,
};

/// The first pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause where a key is missing.
const KEY_PAUSE: Duration = Duration::from_secs(2);
/// For how long an event is tried that cannot be handled.
pub(super) const INSIST: Duration = Duration::from_secs(2 * 60);

impl RoomActor {
    /// Whether an item has failed for so long, with an answer, that it will not succeed. A
    /// homeserver that was away, or that we were away from, is given its time again.
    pub(super) fn has_insisted(
        &mut self,
        number: u64,
        at_most: Duration,
        error: &EngineError,
    ) -> bool {
        if !error.exhausts_patience() {
            self.failing = None;
            return false;
        }
        let now = self.engine.now();
        match self.failing {
            Some((failing, since)) if failing == number => now.since(since) > at_most,
            _ => {
                self.failing = Some((number, now));
                false
            }
        }
    }

    pub(super) fn pause_after(&mut self, error: &EngineError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10).saturating_sub(1));
        let longest = match error {
            EngineError::KeyOnItsWay
            | EngineError::CounterpartOnItsWay
            | EngineError::NotThereYet => KEY_PAUSE,
            _ => LONGEST_PAUSE,
        };
        error
            .retry_after()
            .unwrap_or(doubled)
            .clamp(FIRST_PAUSE, longest)
    }

    /// Puts an arrival away that cannot be dealt with. A message counts as unreadable, which its
    /// sender is told; nothing else may hold up the room for ever.
    pub(super) fn give_up(&mut self, number: u64, arrived: Arrived) -> Result<(), EngineError> {
        let store = self.engine.store();
        self.record = store.get::<Rooms>(&self.room)?.unwrap_or_default();
        self.written = None;
        let mut batch = Batch::new();
        batch.delete::<Inbox>(&(self.room.clone(), number));
        let mut effects = Vec::new();
        if let Arrived::Event(json) | Arrived::AfterGap(json) = arrived
            && let Some(event) = RoomEvent::parse(&json, Some(&self.room))
            && event.kind == "m.room.encrypted"
        {
            self.engine.mark_seen(&event.id, true, &mut batch)?;
            if let Some(seat) = self.record.seat.clone() {
                return self.give_up_carrying(&seat.conversation, &event, batch);
            }
            let open = self.record.introductions.iter().filter(|is| is.is_open());
            let ghosts: Vec<OwnedUserId> = open.map(|is| is.ghost.clone()).collect();
            for ghost in ghosts {
                let input = Input::Heard {
                    event: event.id.clone(),
                    sender: event.sender.clone(),
                    kind: HeardKind::Unreadable,
                };
                effects.extend(self.feed(&ghost, &input));
            }
        }
        self.settle(batch, effects)
    }

    /// The same in a conversation: its sender is told.
    fn give_up_carrying(
        &mut self,
        id: &str,
        event: &RoomEvent,
        mut batch: Batch,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let known = engine.store().known::<Conversations>(&id.to_owned())?;
        let place = known.and_then(|known| {
            let place = known.place_of(&self.room)?;
            known.person_at(place, &event.sender).map(|_| place)
        });
        let inputs: Vec<relay::Input> = place
            .map(|place| relay::Input::NotCarried {
                place,
                event: event.id.clone(),
                words: NOT_DELIVERED.to_owned(),
            })
            .into_iter()
            .collect();
        let lock = engine.converse(id, &inputs, &mut batch)?;
        self.settle(batch, [])?;
        drop(lock);
        Ok(())
    }
}
