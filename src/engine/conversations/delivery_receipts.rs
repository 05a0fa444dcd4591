//! Read receipts that show the sender that a message has reached the others.

use std::time::Duration;

use ruma::OwnedEventId;

use crate::{
    clock,
    conversation::{Conversation, RoomRole},
    engine::room::Room,
    matrix::Receipt,
};

/// How long to wait for the next message: one receipt covers all messages before it.
const GATHER: Duration = Duration::from_millis(200);
/// Minimum time between two receipts in a room. A homeserver stores each of them and sends it to
/// everybody in the room; a person who just saw a message delivered does not wait for the next
/// receipt.
const BETWEEN: Duration = Duration::from_secs(2);

/// Maximum number of attempts to send one receipt.
const TRIES: u32 = 3;

impl Room {
    /// Shows by a read receipt that a message has reached the others. Best effort: nothing depends
    /// on it.
    pub(in crate::engine) fn show_delivery(
        &self,
        conversation: &Conversation,
        role: RoomRole,
        event: &OwnedEventId,
    ) {
        if !self.engine.settings().conversations.delivery_receipts {
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
                        tracing::debug!(%room, %error, "a delivery receipt could not be sent");
                        failed += 1;
                        if error.is_temporary() && failed < TRIES {
                            deliveries.put_back(ghost, event);
                        }
                    }
                }
            }
        };
        self.engine.spawn(async move {
            tokio::select! {
                () = showing => {}
                // The next message's receipt covers this one, and a stop waits for no receipt.
                _ = stop.wait_for(|stopping| *stopping) => {}
            }
        });
    }
}
