//! Whether the other end of a connection has shown a valid token.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::Notify;

const STRANGER: u8 = 0;
const KNOWN: u8 = 1;
const EVICTED: u8 = 2;
const GONE: u8 = 3;

/// The other end of a connection: a stranger until it shows a valid token. Cheap to clone; every
/// request carries it as an extension.
#[derive(Clone, Debug)]
pub(super) struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: AtomicU8,
    evicted: Notify,
}

impl Peer {
    /// A peer that has shown nothing yet.
    pub(super) fn stranger() -> Self {
        Self::with(STRANGER)
    }

    /// A peer that needs no token.
    pub(super) fn known() -> Self {
        Self::with(KNOWN)
    }

    fn with(state: u8) -> Self {
        Self(Arc::new(Inner {
            state: AtomicU8::new(state),
            evicted: Notify::new(),
        }))
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let changed = self
            .0
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }

    /// Notes that a valid token was shown.
    pub(super) fn recognise(&self) {
        self.change(STRANGER, KNOWN);
    }

    /// Returns `true` while no valid token was shown on a connection that is open.
    pub(super) fn is_stranger(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == STRANGER
    }

    /// Tells the connection of a stranger to end. Returns `false` if it is none.
    pub(super) fn evict(&self) -> bool {
        let evicted = self.change(STRANGER, EVICTED);
        if evicted {
            self.0.evicted.notify_one();
        }
        evicted
    }

    /// Waits until the connection is told to end.
    pub(super) async fn evicted(&self) {
        self.0.evicted.notified().await;
    }

    /// Notes that the connection has ended.
    pub(super) fn leave(&self) {
        self.0.state.store(GONE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_stranger_is_evicted() {
        let peer = Peer::stranger();
        assert!(peer.is_stranger() && peer.evict() && !peer.evict());
        peer.evicted().await;
        peer.recognise();
        assert!(!peer.is_stranger());

        let peer = Peer::stranger();
        peer.recognise();
        assert!(!peer.is_stranger() && !peer.evict());
        assert!(!Peer::known().evict());

        let peer = Peer::stranger();
        peer.leave();
        assert!(!peer.is_stranger() && !peer.evict());
    }
}
