//! The router on a socket, with the limits that a port needs which anybody may reach.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
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

use super::{ServerError, continuity::Connection};
use crate::shutdown::Shutdown;

/// How much one who can reach the port may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time. The homeserver uses a handful; more have to wait.
    pub connections: usize,
    /// How long the first request on a connection may take to begin.
    pub first: Duration,
    /// How long the head of a further one may take, and so how long a connection may rest.
    /// Synapse keeps one for two minutes: were we to close it just when it is used again, the
    /// to-device messages of that transaction would not be pushed a second time.
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
            first: Duration::from_secs(15),
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
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.asked() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.socket, &room) => accepted,
            };
            let Some((stream, permit)) = accepted else {
                continue;
            };
            // Without this, answers wait for the acknowledgement of what went before: 40 ms in the
            // homeserver's single slot for us.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "a connection is gone");
                continue;
            }
            let serving = connection(stream, router.clone(), self.limits, stop.clone());
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

/// The next connection, when there is room for it. Those who wait do so in the system's queue.
async fn accept(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            // Out of file descriptors, most often: it passes, and asking at once would spin.
            warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Serves one connection, of whatever kind.
pub(super) async fn connection<S>(stream: S, router: Router, limits: Limits, going_down: Shutdown)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let this = Connection(CONNECTIONS.fetch_add(1, Ordering::Relaxed));
    let seen = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let (seen, router) = (Arc::clone(&seen), TowerToHyperService::new(router));
        move |mut request: http::Request<hyper::body::Incoming>| {
            seen.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(this);
            router.call(request)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let silent = async {
        tokio::time::sleep(limits.first).await;
        if seen.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = going_down.asked() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = silent => {
            debug!("a connection asked for nothing");
            return;
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}
