//! Receipts that show that a message has reached the others.

use std::time::Duration;

use ruma::OwnedEventId;

use crate::{
    clock,
    conversation::{Conversation, RoomRole},
    engine::room::Room,
    matrix::Receipt,
};

/// How long to wait for the next message: a receipt for the last one stands for all before it.
const GATHER: Duration = Duration::from_millis(200);
/// Minimum time between two receipts in a room. A homeserver stores each one and sends it to everybody
/// in the room; a person who saw the message before arrive does not wait for a sign.
const BETWEEN: Duration = Duration::from_secs(2);

/// How often one is tried.
const TRIES: u32 = 3;

impl Room {
    /// Shows by a read receipt that a message has reached the others. Nothing depends on it.
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
                clock::sleep(pause).await;
                pause = BETWEEN;
                let Some((ghost, event)) = deliveries.take() else {
                    return;
                };
                let Ok(acting) = engine.as_user(&ghost) else {
                    continue;
                };
                let homeserver = engine.homeserver();
                let shown =
                    homeserver.send_receipt(acting.actor(), &room, &event, Receipt::Unthreaded);
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
