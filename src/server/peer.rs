//! The other end of a connection, and whether it has shown a valid token.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::Notify;

const UNAUTHENTICATED: u8 = 0;
const AUTHENTICATED: u8 = 1;
const EVICTED: u8 = 2;
const CLOSED: u8 = 3;

/// The other end of a connection, unauthenticated until it shows a valid token. Cheap to clone;
/// every request carries it as an extension.
#[derive(Clone, Debug)]
pub(super) struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: AtomicU8,
    evicted: Notify,
}

impl Peer {
    /// Returns a peer that has shown no token yet.
    pub(super) fn unauthenticated() -> Self {
        Self::new(UNAUTHENTICATED)
    }

    /// Returns a peer that needs no token.
    pub(super) fn trusted() -> Self {
        Self::new(AUTHENTICATED)
    }

    fn new(state: u8) -> Self {
        Self(Arc::new(Inner {
            state: AtomicU8::new(state),
            evicted: Notify::new(),
        }))
    }

    fn transition(&self, from: u8, to: u8) -> bool {
        let changed = self
            .0
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }

    /// Notes that a valid token was shown.
    pub(super) fn authenticate(&self) {
        self.transition(UNAUTHENTICATED, AUTHENTICATED);
    }

    /// Returns `true` for an open connection on which no valid token was shown.
    pub(super) fn is_unauthenticated(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == UNAUTHENTICATED
    }

    /// Tells an unauthenticated connection to end. Returns `false` for any other.
    pub(super) fn evict(&self) -> bool {
        let evicted = self.transition(UNAUTHENTICATED, EVICTED);
        if evicted {
            self.0.evicted.notify_one();
        }
        evicted
    }

    /// Waits until the connection is told to end.
    pub(super) async fn wait_for_eviction(&self) {
        self.0.evicted.notified().await;
    }

    /// Notes that the connection has ended.
    pub(super) fn close(&self) {
        self.0.state.store(CLOSED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_unauthenticated_peer_is_evicted() {
        let peer = Peer::unauthenticated();
        assert!(peer.is_unauthenticated() && peer.evict() && !peer.evict());
        peer.wait_for_eviction().await;
        peer.authenticate();
        assert!(!peer.is_unauthenticated());

        let peer = Peer::unauthenticated();
        peer.authenticate();
        assert!(!peer.is_unauthenticated() && !peer.evict());
        assert!(!Peer::trusted().evict());

        let peer = Peer::unauthenticated();
        peer.close();
        assert!(!peer.is_unauthenticated() && !peer.evict());
    }
}
