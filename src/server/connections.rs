//! Connections: how many a socket may have, how long each may last, and how they end.

use std::{collections::VecDeque, io, pin::pin, sync::Arc, time::Duration};

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
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use super::{peer::Peer, transaction_order::OpenConnection};
use crate::shutdown::Shutdown;

/// How long to wait after a connection could not be accepted. Most often the process is out of file
/// descriptors: that passes, and accepting again at once would spin.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the clients of a socket may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of connections. The homeserver uses a handful. Above the limit the oldest
    /// unauthenticated connection is closed; if all are authenticated, a further one waits.
    pub connections_max: usize,
    /// How long a connection may last without showing a valid token.
    pub authentication_timeout: Duration,
    /// How long the head of a request may take, and so how long a connection may be idle. Synapse
    /// keeps an idle connection for two minutes. If we closed it just as Synapse used it again, the
    /// to-device messages of that transaction would not be pushed a second time.
    pub idle_timeout: Duration,
    /// Maximum size of the head of a request, in bytes.
    pub head_bytes_max: usize,
    /// How long requests under way may take to end when the server is stopped.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            authentication_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(180),
            head_bytes_max: 64 << 10,
            shutdown_timeout: Duration::from_secs(20),
        }
    }
}

/// A socket that accepts connections.
pub(super) trait Socket: Sync {
    /// The stream of one connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Accepts the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Prepares a connection and returns its peer.
    fn prepare(stream: &Self::Stream) -> io::Result<Peer>;
}

impl Socket for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn prepare(stream: &TcpStream) -> io::Result<Peer> {
        // With Nagle's algorithm a response waits for the acknowledgement of the one before it:
        // 40 ms in the homeserver's single slot for us.
        stream.set_nodelay(true)?;
        Ok(Peer::unauthenticated())
    }
}

impl Socket for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn prepare(_: &UnixStream) -> io::Result<Peer> {
        // Only the admin can open the socket.
        Ok(Peer::trusted())
    }
}

/// The open connections of a socket.
pub(super) struct Connections {
    limits: Limits,
    tasks: JoinSet<()>,
    permits: Arc<Semaphore>,
    /// Connections that may be closed to make room for another, the oldest first.
    unauthenticated: VecDeque<Peer>,
}

impl Connections {
    /// Returns no connections yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            tasks: JoinSet::new(),
            permits: Arc::new(Semaphore::new(limits.connections_max)),
            unauthenticated: VecDeque::new(),
        }
    }

    /// Accepts connections and serves each on a task of its own, until `stop` asks to end.
    pub(super) async fn accept_from<S: Socket>(
        &mut self,
        socket: &S,
        router: &Router,
        stop: &Shutdown,
    ) {
        loop {
            let accepted = tokio::select! {
                () = stop.asked() => return,
                Some(_) = self.tasks.join_next() => continue,
                accepted = socket.accept() => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    crate::clock::sleep(ACCEPT_RETRY_PAUSE).await;
                    continue;
                }
            };
            let peer = match S::prepare(&stream) {
                Ok(peer) => peer,
                Err(error) => {
                    debug!(%error, "a connection was lost before it was served");
                    continue;
                }
            };
            let Some(permit) = stop.or(self.acquire_permit()).await.flatten() else {
                continue;
            };
            self.unauthenticated.retain(Peer::is_unauthenticated);
            if peer.is_unauthenticated() {
                self.unauthenticated.push_back(peer.clone());
            }
            let serving = serve_connection(stream, router.clone(), self.limits, peer, stop.clone());
            self.tasks.spawn(async move {
                serving.await;
                drop(permit);
            });
        }
    }

    /// Takes a permit for a connection. If none is left, closes the oldest unauthenticated
    /// connection, or waits until another ends.
    async fn acquire_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        while let Some(oldest) = self.unauthenticated.pop_front() {
            if oldest.evict() {
                debug!("a connection without a valid token was closed to make room for another");
                break;
            }
        }
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Waits until all connections have ended, at most [`Limits::shutdown_timeout`].
    pub(super) async fn finish(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.limits.shutdown_timeout, all).await.is_err() {
            warn!("requests under way did not end in time");
        }
    }
}

/// Serves one connection until it ends, breaks a limit or is evicted.
async fn serve_connection<S>(stream: S, router: Router, limits: Limits, peer: Peer, stop: Shutdown)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let open = OpenConnection::new();
    let service = service_fn({
        let (peer, router) = (peer.clone(), TowerToHyperService::new(router));
        let connection = open.connection();
        move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(connection.clone());
            request.extensions_mut().insert(peer.clone());
            router.call(request)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let authentication_timeout = async {
        crate::clock::sleep(limits.authentication_timeout).await;
        if !peer.is_unauthenticated() {
            std::future::pending().await
        }
    };
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = authentication_timeout => {
            debug!("a connection showed no valid token in time");
            Ok(())
        }
        () = peer.wait_for_eviction() => Ok(()),
    };
    peer.close();
    drop(open);
    if let Err(error) = result {
        debug!(%error, "a connection ended early");
    }
}
