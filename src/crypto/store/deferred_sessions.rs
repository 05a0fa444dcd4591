//! Deferred sessions: new Olm sessions are saved only with the messages that began them.
//!
//! While it receives to-device messages, the machine saves a new session at once, but the contents
//! of its first message, usually a room key, only after the last message. After a crash in between,
//! the session would have read the message, but its contents would be lost: when the message comes
//! again, nothing can decrypt it. So the session is deferred, and saved in one write with the
//! contents.

use std::cell::RefCell;

use matrix_sdk_crypto::{olm::Session, store::types::Changes};

tokio::task_local! {
    static DEFERRED: RefCell<Vec<Session>>;
}

/// Runs `work` with deferred session saves. Returns the sessions still deferred, which the caller
/// must save now.
pub(in crate::crypto) async fn defer_session_saves<T>(
    work: impl Future<Output = T>,
) -> (T, Vec<Session>) {
    let within = async {
        let outcome = work.await;
        (outcome, DEFERRED.with(RefCell::take))
    };
    DEFERRED.scope(RefCell::default(), within).await
}

/// Defers the sessions of these changes if the contents of their message are not part of them;
/// otherwise adds the deferred ones.
pub(super) fn defer_or_merge(changes: &mut Changes) {
    let unfinished = changes.message_hashes.is_empty() && changes.inbound_group_sessions.is_empty();
    let _not_receiving = DEFERRED.try_with(|deferred| {
        let mut deferred = deferred.borrow_mut();
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
    let found = DEFERRED.try_with(|deferred| {
        let deferred = deferred.borrow();
        let with = deferred
            .iter()
            .filter(|session| session.sender_key().to_base64() == sender_key);
        with.cloned().collect()
    });
    found.unwrap_or_default()
}
