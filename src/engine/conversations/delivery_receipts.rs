//! Receipts that show that a message has reached the others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ruma::{OwnedEventId, OwnedUserId};

use crate::{
    conversation::{Conversation, RoomRole},
    engine::room::Room,
    matrix::{Actor, Receipt},
};

/// How long the next message is waited for: a receipt for the last one says the same of all.
const GATHER: Duration = Duration::from_millis(200);
/// From one receipt to the next in a room. A homeserver writes each down and tells everybody in the
/// room of it, and whoever sees their last message but one arrive does not wait for a sign.
const BETWEEN: Duration = Duration::from_secs(2);

/// How often one is tried.
const TRIES: u32 = 3;

/// What is to be shown in a room.
#[derive(Clone, Default)]
pub(in crate::engine) struct Deliveries(Arc<Mutex<Newest>>);

#[derive(Default)]
struct Newest {
    /// The last message that arrived, and who says so.
    event: Option<(OwnedUserId, OwnedEventId)>,
    /// Whether somebody is about to show it.
    showing: bool,
}

impl Deliveries {
    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is to be shown next. True if nobody is about to do so.
    pub(in crate::engine) fn note(&self, ghost: OwnedUserId, event: OwnedEventId) -> bool {
        let mut newest = self.newest();
        newest.event = Some((ghost, event));
        !std::mem::replace(&mut newest.showing, true)
    }

    /// It could not be shown. The next one says the same, if there is one.
    fn put_back(&self, ghost: OwnedUserId, event: OwnedEventId) {
        self.newest().event.get_or_insert((ghost, event));
    }

    /// Whoever would show it leaves the room.
    pub(in crate::engine) fn forget(&self) {
        self.newest().event = None;
    }

    /// What is to be shown now; `None` ends the showing.
    pub(in crate::engine) fn take(&self) -> Option<(OwnedUserId, OwnedEventId)> {
        let mut newest = self.newest();
        newest.showing = newest.event.is_some();
        newest.event.take()
    }
}

impl Room {
    /// A read receipt shows that a message has reached the others. Nothing depends on it.
    pub(in crate::engine) fn show_delivery(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        event: &OwnedEventId,
    ) {
        if !self.engine.settings().relay.delivery_receipts {
            return;
        }
        let Some(ghost) = conversation.ghosts_at(role).next() else {
            return;
        };
        if !self.deliveries.note(ghost.ghost.clone(), event.clone()) {
            return;
        }
        let (engine, room) = (self.engine.clone(), self.id.clone());
        let deliveries = self.deliveries.clone();
        let mut stop = self.engine.0.stop.subscribe();
        let showing = async move {
            let mut pause = GATHER;
            let mut failed = 0;
            loop {
                tokio::time::sleep(pause).await;
                pause = BETWEEN;
                let Some((ghost, event)) = deliveries.take() else {
                    return;
                };
                let Ok(device) = engine.device_of(&ghost) else {
                    continue;
                };
                let actor = Actor::device(&ghost, &device);
                let homeserver = engine.homeserver();
                let shown = homeserver.receipt(actor, &room, &event, Receipt::Unthreaded);
                match shown.await {
                    Ok(()) => failed = 0,
                    Err(error) => {
                        tracing::debug!(%room, %error, "a delivery is not shown");
                        failed += 1;
                        if error.is_transient() && failed < TRIES {
                            deliveries.put_back(ghost, event);
                        }
                    }
                }
            }
        };
        self.engine.spawn(async move {
            tokio::select! {
                () = showing => {}
                // The receipt for the next message says the same, and a stop waits for nobody.
                _ = stop.wait_for(|stopping| *stopping) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_shows_the_newest_and_nothing_is_left() {
        let deliveries = Deliveries::default();
        let ghost = || OwnedUserId::try_from("@_dm_sam:hs.test").unwrap();
        let event = |n: u32| OwnedEventId::try_from(format!("${n}")).unwrap();
        assert!(deliveries.note(ghost(), event(1)), "somebody has to");
        assert!(!deliveries.note(ghost(), event(2)), "somebody does");
        assert_eq!(deliveries.take(), Some((ghost(), event(2))));
        // While that is on its way.
        assert!(!deliveries.note(ghost(), event(3)));
        assert_eq!(deliveries.take(), Some((ghost(), event(3))));
        assert_eq!(deliveries.take(), None);
        assert!(deliveries.note(ghost(), event(4)), "somebody has to again");
        // It failed, and meanwhile nothing newer has arrived, or something has.
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
