//! What is special while a machine receives to-device messages.
//!
//! **New Olm sessions are deferred**: they are saved only with the messages that began them. The
//! machine saves a new session at once, but the contents of its first message, usually a room key,
//! only after the last message. After a crash in between, the session would have read the message,
//! but its contents would be lost: when the message comes again, nothing can decrypt it. So the
//! session is deferred, and saved in one write with the contents.
//!
//! **Stored group sessions are hidden.** The machine takes the first key of a session for the true
//! one, whichever device it came from, and drops those of other devices. So it is not shown what is
//! kept, and saves every key that it receives; `rival_sessions.rs` compares it with those of the same
//! device.

use std::cell::RefCell;

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, Session},
    store::types::{Changes, RoomKeyInfo},
    vodozemac::Curve25519PublicKey,
};
use ruma::OwnedRoomId;

tokio::task_local! {
    static RECEPTION: RefCell<Reception>;
}

/// What is left when a machine has received messages.
#[derive(Default)]
pub(in crate::crypto) struct Reception {
    /// The sessions still deferred, which the caller must save now.
    pub(in crate::crypto) sessions: Vec<Session>,
    /// The room, the session and the device of each key that brought nothing new.
    known_keys: Vec<(OwnedRoomId, String, Curve25519PublicKey)>,
}

impl Reception {
    /// Returns whether a received key brought nothing new.
    pub(in crate::crypto) fn is_known(&self, key: &RoomKeyInfo) -> bool {
        let mut known = self.known_keys.iter();
        known.any(|(room, session_id, sender)| {
            *room == key.room_id && *session_id == key.session_id && *sender == key.sender_key
        })
    }
}

/// Runs `work`, in which a machine receives messages.
pub(in crate::crypto) async fn while_receiving<T>(work: impl Future<Output = T>) -> (T, Reception) {
    let within = async {
        let outcome = work.await;
        (outcome, RECEPTION.with(RefCell::take))
    };
    RECEPTION.scope(RefCell::default(), within).await
}

/// Returns whether a machine receives messages in this task.
pub(super) fn is_under_way() -> bool {
    RECEPTION.try_with(|_| ()).is_ok()
}

/// Notes that a received key brought nothing new.
pub(super) fn note_known_key(session: &InboundGroupSession) {
    let key = (
        session.room_id().to_owned(),
        session.session_id().to_owned(),
        session.sender_key(),
    );
    let _not_receiving = RECEPTION.try_with(|it| it.borrow_mut().known_keys.push(key));
}

/// Defers the sessions of these changes if the contents of their message are not part of them;
/// otherwise adds the deferred ones.
pub(super) fn defer_or_merge(changes: &mut Changes) {
    let unfinished = changes.message_hashes.is_empty() && changes.inbound_group_sessions.is_empty();
    let _not_receiving = RECEPTION.try_with(|reception| {
        let deferred = &mut reception.borrow_mut().sessions;
        if unfinished && !changes.sessions.is_empty() {
            deferred.append(&mut changes.sessions);
        } else {
            // The newest session comes last, and is the one that is kept.
            changes.sessions.splice(0..0, deferred.drain(..));
        }
    });
}

/// Returns the deferred sessions with this device.
pub(super) fn deferred_with(sender_key: &str) -> Vec<Session> {
    let found = RECEPTION.try_with(|reception| {
        let reception = reception.borrow();
        let with = reception
            .sessions
            .iter()
            .filter(|session| session.sender_key().to_base64() == sender_key);
        with.cloned().collect()
    });
    found.unwrap_or_default()
}
