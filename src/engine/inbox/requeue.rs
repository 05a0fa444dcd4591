//! Leaves events of a history to the inbox, in the order in which they were sent.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedEventId, OwnedRoomId, UserId};

use crate::{
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        history::HistoryEvent,
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
    /// Leaves events of a room's history to its inbox, in order. Items of the same senders that
    /// already wait there go behind them: they were sent later, or are among these events. The
    /// caller is the room's actor.
    pub(in crate::engine) async fn leave_to_inbox(
        &self,
        room: &OwnedRoomId,
        events: &[HistoryEvent],
    ) -> Result<(), EngineError> {
        if events.is_empty() {
            return Ok(());
        }
        let senders = events.iter().map(|event| &*event.sender).collect();
        // Most of it without the lock: nobody but the caller takes anything out.
        let (mut waiting, last) = self.waiting_of_senders(room, &senders, None, WAITING_MAX)?;
        let taken = {
            let _one_at_a_time = self.0.inbox_lock.lock().await;
            let rest = WAITING_MAX.saturating_sub(waiting.len());
            let (newer, _) = self.waiting_of_senders(room, &senders, last.as_ref(), rest)?;
            waiting.extend(newer);
            let mut among: HashMap<OwnedEventId, usize> = HashMap::new();
            for (at, item) in waiting.iter().enumerate() {
                among.entry(item.event.clone()).or_insert(at);
            }
            let mut waiting: Vec<Option<Waiting>> = waiting.into_iter().map(Some).collect();
            let mut taken = InboxWrites::default();
            for event in events {
                let at = among.remove(&event.id);
                match at.and_then(|at| waiting.get_mut(at)?.take()) {
                    Some(item) => self.requeue(item, &mut taken)?,
                    None => self.accept_event(&event.json, Some(room), &mut taken)?,
                }
            }
            for later in waiting.into_iter().flatten() {
                self.requeue(later, &mut taken)?;
            }
            self.write_inbox(taken)?
        };
        self.flush_and_wake(taken).await
    }

    /// Returns the events of some senders that wait in a room, among at most `limit` items that
    /// come after one, and the last of these items.
    fn waiting_of_senders(
        &self,
        room: &OwnedRoomId,
        senders: &HashSet<&UserId>,
        after: Option<&(OwnedRoomId, u64)>,
        limit: usize,
    ) -> Result<(Vec<Waiting>, Option<(OwnedRoomId, u64)>), StoreError> {
        let waiting = self.store().scan::<Inbox>(&prefix(room), after, limit)?;
        let last = waiting.last().map(|(key, _)| key.clone());
        let by_them = waiting.into_iter().filter_map(|(key, item)| {
            let (InboxItem::Event(json) | InboxItem::AfterGap(json)) = &item else {
                return None;
            };
            let waiting = RoomEvent::parse(json, Some(room))?;
            senders.contains(&*waiting.sender).then_some(Waiting {
                key,
                event: waiting.id,
                item,
            })
        });
        Ok((by_them.collect(), last))
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
