//! Many messages of one room at a time: while one is on its way others arrive, and taking them in
//! together costs hardly more than taking in one.

use ruma::OwnedRoomId;

use crate::{
    conversation::{EventKind, Input},
    engine::{
        EngineError,
        conversations::inputs::heard,
        event::RoomEvent,
        records::{Arrived, Conversations, Inbox, Kept, Seen},
        room::{Repeatable, Room},
    },
    introduction::Introduction,
    store::Batch,
};

impl Room {
    /// Whether what is said in this room concerns a conversation and nobody else.
    pub(in crate::engine) fn takes_together(&self) -> bool {
        let seat = self.record.seat.as_ref();
        seat.is_some_and(|seat| !seat.awaited)
            && !self.bot_is_here()
            && !self.record.introductions.iter().any(Introduction::is_open)
    }

    /// Takes what people have said, up to the first arrival that is something else, in one batch.
    /// False if that is nothing.
    pub(in crate::engine) async fn take_messages(
        &mut self,
        arrived: &[((OwnedRoomId, u64), Arrived)],
    ) -> Result<bool, EngineError> {
        let engine = self.engine.clone();
        let Some(seat) = self.record.seat.clone() else {
            return Ok(false);
        };
        let conversation = engine
            .store()
            .get_cached::<Conversations>(&seat.conversation)?;
        let role = conversation
            .as_ref()
            .and_then(|known| known.role_of(&self.id));
        let (Some(conversation), Some(role)) = (conversation, role) else {
            return Ok(false);
        };
        let mut batch = Batch::new();
        let mut inputs = Vec::new();
        let mut taken = 0;
        let mut since = engine.now();
        for (key, arrived) in arrived {
            let Arrived::Event(json) = arrived else { break };
            let Some(event) = RoomEvent::parse(json, Some(&self.id)) else {
                break;
            };
            if event.state_key.is_some() || heard(&event) != Some(EventKind::Forwardable) {
                break;
            }
            taken += 1;
            batch.delete::<Inbox>(key);
            let seen = engine.store().get::<Seen>(&event.id)?;
            if seen.as_ref().is_some_and(|seen| seen.handled) {
                continue;
            }
            // If it is found out anew after a crash, it may have been sent as long ago.
            since = seen.as_ref().map_or(since, |seen| since.min(seen.at));
            engine.mark_seen_as(&event.id, seen, true, &mut batch)?;
            if engine.is_ours(&event.sender) {
                continue;
            }
            // What is for nobody is not kept.
            if conversation.person_at(role, &event.sender).is_some()
                && !conversation.targets_of(role).is_empty()
            {
                batch.put::<Kept>(&(self.id.clone(), event.id.clone()), json)?;
            }
            inputs.push(Input::Event {
                role,
                sender: event.sender,
                event: event.id,
                kind: EventKind::Forwardable,
            });
        }
        if taken == 0 {
            return Ok(false);
        }
        let lock = engine.deciding();
        // As it is now: other deciders have released the lock.
        let Some(before) = engine
            .store()
            .get_cached::<Conversations>(&seat.conversation)?
        else {
            return Ok(false);
        };
        // Should a crash take what somebody else has just decided, this would be decided without it.
        let (applied, durable) = (engine.store().applied(), engine.store().durable());
        let settled = engine.0.changes.are_durable(applied, durable);
        let from = engine.next();
        let rooms = engine.decide_on(&before, &inputs, since, &mut batch)?;
        let numbers = from..engine.next();
        self.settle(batch, [])?;
        let after = engine
            .store()
            .get_cached::<Conversations>(&seat.conversation)?;
        // After a crash these items are taken from the inbox again, with the same result as long as
        // nothing else is decided on this conversation in between.
        let repeatable = settled && after.as_ref() == Some(&before);
        if repeatable {
            engine.0.changes.is_seen(engine.store().applied());
        }
        drop(lock);
        self.repeatable = match repeatable {
            true => Repeatable {
                numbers,
                decided_on: after,
            },
            false => Repeatable::default(),
        };
        self.wake_others(rooms);
        Ok(true)
    }
}
