//! Leaves events of a history to the inbox, in the order in which they were sent.

use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::value::RawValue;

use crate::{
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        inbox::accept::InboxWrites,
        records::{Inbox, InboxItem},
    },
    store::{StoreError, prefix},
};

/// Maximum number of waiting items that are looked through. An event that waits behind more of them
/// may be handled before one that was sent earlier.
const WAITING_MAX: usize = 1000;

/// An event that waits in an inbox.
struct Waiting {
    key: (OwnedRoomId, u64),
    event: OwnedEventId,
    item: InboxItem,
}

impl Engine {
    /// Leaves events of a room's history to its inbox, in order. What waits there of the same
    /// senders is put behind them: it came by itself and was sent later, or is one of them. The
    /// caller is the room's actor.
    pub(in crate::engine) async fn leave_to_inbox(
        &self,
        room: &OwnedRoomId,
        events: &[(RoomEvent, Box<RawValue>)],
    ) -> Result<(), EngineError> {
        if events.is_empty() {
            return Ok(());
        }
        let taken = {
            let _one_at_a_time = self.0.inbox_lock.lock().await;
            let mut waiting = self.waiting_of_senders(room, events)?;
            let mut taken = InboxWrites::default();
            for (event, json) in events {
                match waiting.iter().position(|it| it.event == event.id) {
                    Some(at) => self.requeue(waiting.remove(at), &mut taken)?,
                    None => self.accept_event(json, Some(room), &mut taken)?,
                }
            }
            for later in waiting {
                self.requeue(later, &mut taken)?;
            }
            self.write_inbox(taken)?
        };
        self.flush_and_wake(taken).await
    }

    /// Returns what waits in a room of the people who have sent these events.
    fn waiting_of_senders(
        &self,
        room: &OwnedRoomId,
        events: &[(RoomEvent, Box<RawValue>)],
    ) -> Result<Vec<Waiting>, StoreError> {
        let waiting = self
            .store()
            .scan::<Inbox>(&prefix(room), None, WAITING_MAX)?;
        let by_them = waiting.into_iter().filter_map(|(key, item)| {
            let (InboxItem::Event(json) | InboxItem::AfterGap(json)) = &item else {
                return None;
            };
            let waiting = RoomEvent::parse(json, Some(room))?;
            let mut events = events.iter();
            let is_theirs = events.any(|(event, _)| event.sender == waiting.sender);
            is_theirs.then_some(Waiting {
                key,
                event: waiting.id,
                item,
            })
        });
        Ok(by_them.collect())
    }

    /// Puts an item behind everything that waits in its room.
    fn requeue(&self, waiting: Waiting, taken: &mut InboxWrites) -> Result<(), StoreError> {
        let (room, _) = &waiting.key;
        taken.batch.delete::<Inbox>(&waiting.key);
        self.stage(room, &waiting.item, &mut taken.batch)?;
        if !taken.rooms.contains(room) {
            taken.rooms.push(room.clone());
        }
        Ok(())
    }
}
