//! The router on a socket, with the limits that a port needs which anybody may reach.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tracing::{debug, warn};

use super::{ServerError, continuity::Connection, peer::Peer};
use crate::shutdown::Shutdown;

/// What those who can reach the port may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of connections. The homeserver uses a handful. Above it the oldest one that
    /// has shown no valid token is closed; where all have, a further one waits.
    pub connections: usize,
    /// How long a connection may last that has shown no valid token.
    pub stranger: Duration,
    /// How long the head of a request may take, and so how long a connection may be idle. Synapse
    /// keeps one for two minutes: if we closed it just when it is used again, the to-device
    /// messages of that transaction would not be pushed a second time.
    pub idle: Duration,
    /// How large the head of a request may be, in bytes.
    pub head_size: usize,
    /// How long requests under way may take to end when the server is stopped.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            stranger: Duration::from_secs(10),
            idle: Duration::from_secs(180),
            head_size: 64 << 10,
            farewell: Duration::from_secs(20),
        }
    }
}

/// A socket that listens, and nobody served yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Listener {
    /// Takes the address.
    pub async fn bind(address: SocketAddr, limits: Limits) -> Result<Self, ServerError> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|reason| match reason.kind() {
                std::io::ErrorKind::AddrInUse => ServerError::InUse(address),
                _ => ServerError::Listen { address, reason },
            })?;
        let address = socket.local_addr().unwrap_or(address);
        Ok(Self {
            socket,
            address,
            limits,
        })
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` asks to end. Then nobody new is let in, connections at rest are closed,
    /// and requests under way are answered, as long as [`Limits::farewell`] allows.
    pub async fn serve(self, router: Router, stop: Shutdown) {
        let room = Arc::new(Semaphore::new(self.limits.connections));
        let mut strangers = VecDeque::new();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.asked() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.socket) => accepted,
            };
            let Some(stream) = accepted else {
                continue;
            };
            // Without this, answers wait for the acknowledgement of what went before: 40 ms in the
            // homeserver's single slot for us.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "a connection is gone");
                continue;
            }
            let Some(permit) = stop.or(place(&room, &mut strangers)).await.flatten() else {
                continue;
            };
            let peer = Peer::stranger();
            strangers.retain(Peer::is_stranger);
            strangers.push_back(peer.clone());
            let serving = connection(stream, router.clone(), self.limits, peer, stop.clone());
            connections.spawn(async move {
                serving.await;
                drop(permit);
            });
        }
        drop(self.socket);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.farewell, all)
            .await
            .is_err()
        {
            warn!("requests under way did not end in time");
        }
    }
}

/// Accepts the next connection.
async fn accept(socket: &TcpListener) -> Option<TcpStream> {
    match socket.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            // Out of file descriptors, most often: it passes, and asking at once would spin.
            warn!(%error, "a connection could not be accepted");
            crate::clock::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Takes a place for a connection, if need be the one of the stranger who came first.
async fn place(
    room: &Arc<Semaphore>,
    strangers: &mut VecDeque<Peer>,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
        return Some(permit);
    }
    while let Some(oldest) = strangers.pop_front() {
        if oldest.evict() {
            debug!("a connection without a valid token makes room for another");
            break;
        }
    }
    Arc::clone(room).acquire_owned().await.ok()
}

/// Serves one connection, of whatever kind.
pub(super) async fn connection<S>(
    stream: S,
    router: Router,
    limits: Limits,
    peer: Peer,
    going_down: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let this = Connection(CONNECTIONS.fetch_add(1, Ordering::Relaxed));
    let service = service_fn({
        let (peer, router) = (peer.clone(), TowerToHyperService::new(router));
        move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(this);
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let unknown_for_too_long = async {
        crate::clock::sleep(limits.stranger).await;
        if !peer.is_stranger() {
            std::future::pending().await
        }
    };
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = going_down.asked() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = unknown_for_too_long => {
            debug!("a connection has shown no valid token in time");
            Ok(())
        }
        () = peer.evicted() => Ok(()),
    };
    peer.leave();
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}
