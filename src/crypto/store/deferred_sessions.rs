//! New Olm sessions, held back until the messages that began them are taken in.
//!
//! While it reads to-device messages the machine saves a session that a message begins at once,
//! and what the message brought, a room key as a rule, only when it has read them all. A crash in
//! between would keep a session that has read the message and nothing of what it said: when the
//! message comes again, nothing can read it any more. So that session waits for the rest, and both
//! are one write.

use std::cell::RefCell;

use matrix_sdk_crypto::{olm::Session, store::types::Changes};

tokio::task_local! {
    static DEFERRED: RefCell<Vec<Session>>;
}

/// Does `work`, in which new sessions are held back. Returns those that nothing followed, which
/// have to be saved now.
pub(in crate::crypto) async fn defer_session_saves<T>(
    work: impl Future<Output = T>,
) -> (T, Vec<Session>) {
    let within = async {
        let outcome = work.await;
        (outcome, DEFERRED.with(RefCell::take))
    };
    DEFERRED.scope(RefCell::default(), within).await
}

/// Keeps the sessions of these changes back if they are all there is to a message so far, or adds
/// those that were kept back.
pub(super) fn defer_or_merge(changes: &mut Changes) {
    let unfinished = changes.message_hashes.is_empty() && changes.inbound_group_sessions.is_empty();
    let _not_receiving = DEFERRED.try_with(|deferred| {
        let mut deferred = deferred.borrow_mut();
        if unfinished && !changes.sessions.is_empty() {
            deferred.append(&mut changes.sessions);
        } else {
            // The newest comes last, and stays.
            changes.sessions.splice(0..0, deferred.drain(..));
        }
    });
}

/// What is held back of the sessions with this device.
pub(super) fn deferred_with(sender_key: &str) -> Vec<Session> {
    let found = DEFERRED.try_with(|deferred| {
        let deferred = deferred.borrow();
        let with = deferred
            .iter()
            .filter(|session| session.sender_key().to_base64() == sender_key);
        with.cloned().collect()
    });
    found.unwrap_or_default()
}
