//! How much the database grows on disk by a long conversation.

use super::*;
use crate::store::{StoreKey, StoreOptions};

/// Maximum growth in bytes by any number of messages up to a hundred thousand. Most of it is there
/// after the first thousands: parts of the log that are used again and again.
const GROWTH_MAX: u64 = 20_000_000;
/// How many messages share a flush.
const AT_ONCE: usize = 100;

/// An id as rooms of version 4 and newer have.
fn random_id(sigil: char) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let hash = rand::random::<[u8; 32]>();
    format!("{sigil}{}", URL_SAFE_NO_PAD.encode(hash))
}

/// A message of 300 bytes, as it arrives.
fn arriving(room: &OwnedRoomId, sender: &str) -> Value {
    json!({
        "type": "m.room.encrypted", "room_id": room, "sender": sender,
        "event_id": random_id('$'), "origin_server_ts": NOW,
        "content": {
            "algorithm": "m.megolm.v1.aes-sha2", "device_id": "DEVICE",
            "sender_key": random_id('k'), "session_id": random_id('s'),
            "ciphertext": "A".repeat(560),
        },
    })
}

impl Talk {
    /// Does with what has arrived what the actor of a room does, apart from talking to the
    /// homeserver.
    fn handle_all(&self, room: &OwnedRoomId, other: &OwnedRoomId, by: usize) {
        let items = self.store.scan::<Inbox>(&prefix(room), None, 1000).unwrap();
        let mut batch = Batch::new();
        let mut effects = Vec::new();
        for (key, item) in items {
            let (InboxItem::Event(json) | InboxItem::AfterGap(json)) = item else {
                panic!("{item:?}");
            };
            let event: Value = serde_json::from_str(&json).unwrap();
            let event: OwnedEventId = event["event_id"].as_str().unwrap().try_into().unwrap();
            batch.delete::<Inbox>(&key);
            self.engine.mark_seen(&event, true, &mut batch).unwrap();
            let kept = (room.clone(), event.clone());
            batch.put::<RetainedEvents>(&kept, &json).unwrap();
            let effect = (room.clone(), self.engine.next());
            let item = OutboxItem {
                since: self.engine.now(),
                what: QueuedEffect::Conversation {
                    conversation: id(),
                    effect: Effect::ForwardEvent {
                        sender: by,
                        event,
                        target: RoomRole::Origin,
                        is_last: true,
                    },
                },
            };
            batch.put::<Outbox>(&effect, &item).unwrap();
            effects.push((effect, kept));
        }
        self.store.apply(batch).unwrap();
        for (effect, kept) in effects {
            let mut batch = Batch::new();
            let copy = NewCopy {
                source: room,
                event: &kept.1,
                target: other,
                copy: &random_id('$').try_into().unwrap(),
                by,
            };
            self.engine.note_copy(&copy, &mut batch).unwrap();
            batch.delete::<Outbox>(&effect);
            batch.delete::<RetainedEvents>(&kept);
            self.store.apply(batch).unwrap();
        }
    }
}

/// `STONECHAT_MESSAGES` says how many: up to a hundred thousand stay below the limit, which takes some
/// minutes.
#[tokio::test]
async fn a_long_conversation_takes_less_than_20_mb_on_disk() {
    let messages = std::env::var("STONECHAT_MESSAGES").ok();
    let messages: usize = messages.map_or(20_000, |messages| messages.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let key = StoreKey::random().unwrap();
    let store = Store::open(folder.path(), &key, &StoreOptions::default()).unwrap();
    let it = Talk::on(store, origin(), &talk()).await;
    let before = it.store.size_on_disk().unwrap();
    let (here, there) = (origin(), portal());
    for _ in 0..messages / AT_ONCE {
        let events = (0..AT_ONCE).map(|n| match n % 2 {
            0 => arriving(&here, "@alice:hs.test"),
            _ => arriving(&there, "@samuel:hs.test"),
        });
        let body = json!({"events": events.collect::<Vec<_>>()});
        let body = Transaction::parse(body.to_string().as_bytes()).unwrap();
        it.engine.accept_transaction(body).await.unwrap();
        it.handle_all(&here, &there, 0);
        it.handle_all(&there, &here, 1);
    }
    it.store.flush().await.unwrap();
    let grown = it.store.size_on_disk().unwrap().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes by {messages} messages");
}
