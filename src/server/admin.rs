//! What the admin's commands ask of a running service: HTTP on a Unix socket in the data folder.
//!
//! Whoever may write to the folder is the admin, so there is no token: the socket has mode 0600.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `POST /v1/backup` | the stream of a backup; it breaks off if that fails; 409 while another is written |
//! | `GET /v1/backup` | [`LastBackup`], for those who saw a stream break off |
//! | `GET /v1/pushed/{mark}` | [`Pushed`]: whether the homeserver pushed a mark of `doctor`'s |
//! | `GET /v1/reports/{after}` | [`Seen`]: what the module in the homeserver reported |
//!
//! A further command is a further route of [`admin_router`].

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path as PathPart, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tracing::{info, warn};

use super::{Health, Limits, Pushed, Seen, SelfTest, ServerError, listen::connection, peer::Peer};
use crate::{
    clock::Clock,
    crypto::store::GhostStores,
    engine::{NOT_IN_BACKUPS, count_dead_letters},
    shutdown::Shutdown,
    store::{Made, Store, StoreError},
};

/// The name of the socket in the data folder.
pub const SOCKET: &str = "admin.sock";
/// How many commands may be connected at the same time.
const CONNECTIONS: usize = 8;
/// How large a request may be. None has a body yet.
const MAX_REQUEST: usize = 64 << 10;
/// How much of a backup is sent at once.
const CHUNK: usize = 64 << 10;
/// How long whoever takes a backup may take for one chunk. What is written to the store meanwhile
/// is kept in memory.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket that listens, and nobody served yet.
#[derive(Debug)]
pub struct AdminSocket {
    socket: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Makes the socket in a folder. One that a dead process left is replaced.
    pub async fn bind(folder: &Path) -> Result<Self, ServerError> {
        let path = folder.join(SOCKET);
        let failed = |reason| ServerError::Admin {
            path: path.clone(),
            reason,
        };
        match UnixStream::connect(&path).await {
            Ok(_) => return Err(ServerError::AdminInUse(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Nobody listens there any more. What is no socket is not ours to remove.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                use std::os::unix::fs::FileTypeExt as _;
                let kind = fs::symlink_metadata(&path).map_err(failed)?.file_type();
                if !kind.is_socket() {
                    return Err(failed(io::Error::other("it is a file, not a socket")));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        // Under its name only when nobody else can open it.
        let draft = folder.join(format!(".admin.{:08x}", rand::random::<u32>()));
        let socket = UnixListener::bind(&draft).map_err(failed)?;
        let named = fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&draft, &path));
        if let Err(error) = named {
            let _ = fs::remove_file(&draft);
            return Err(failed(error));
        }
        Ok(Self { socket, path })
    }

    /// Serves until `stop` asks to end, and removes the socket.
    pub async fn serve(self, router: Router, stop: Shutdown) {
        let limits = Limits {
            connections: CONNECTIONS,
            idle: Duration::from_secs(30),
            farewell: Duration::from_secs(5),
            ..Limits::default()
        };
        let room = Arc::new(Semaphore::new(limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.asked() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.socket, &room) => accepted,
            };
            if let Some((stream, permit)) = accepted {
                // Only the admin can open the socket.
                let peer = Peer::known();
                let serving = connection(stream, router.clone(), limits, peer, stop.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
        }
        let _ = fs::remove_file(&self.path);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.farewell, all).await.is_err() {
            warn!("an admin's command did not end in time");
        }
    }
}

async fn accept(
    socket: &UnixListener,
    room: &Arc<Semaphore>,
) -> Option<(UnixStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            warn!(%error, "an admin's command could not be accepted");
            crate::clock::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// What the admin's commands work on.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The store.
    pub store: Store,
    /// The crypto stores in it.
    pub stores: GhostStores,
    /// Whether all is up.
    pub health: Health,
    /// What the homeserver has pushed lately.
    pub self_test: SelfTest,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// How the service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Whether all is up.
    pub ready: bool,
    /// Whether what follows from a restore is not done yet.
    pub restoring: bool,
    /// How many things from the homeserver were set aside, by reason, since the database was made.
    pub dead_letters: BTreeMap<String, u64>,
}

/// What became of the last backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

struct Shared {
    admin: Admin,
    one: Arc<Semaphore>,
    last: Mutex<LastBackup>,
}

type App = Arc<Shared>;

/// What is served on the admin socket.
pub fn admin_router(admin: Admin) -> Router {
    let app = Arc::new(Shared {
        admin,
        one: Arc::new(Semaphore::new(1)),
        last: Mutex::default(),
    });
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/backup", get(last_backup).post(backup))
        .route("/v1/pushed/{mark}", get(pushed))
        .route("/v1/reports/{after}", get(reports))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(app)
}

async fn status(State(app): State<App>) -> Response {
    match read_status(&app.admin) {
        Ok(status) => Json(status).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn read_status(admin: &Admin) -> Result<Status, StoreError> {
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: admin.health.is_ready(),
        restoring: admin.store.restored()?,
        dead_letters: count_dead_letters(&admin.store)?,
    })
}

async fn pushed(State(app): State<App>, PathPart(mark): PathPart<String>) -> Json<Pushed> {
    Json(app.admin.self_test.pushed(&mark).await)
}

async fn reports(State(app): State<App>, PathPart(after): PathPart<u64>) -> Json<Seen> {
    Json(app.admin.self_test.module().wait_for_next(after).await)
}

async fn last_backup(State(app): State<App>) -> Json<LastBackup> {
    let last = app.last.lock().unwrap_or_else(PoisonError::into_inner);
    Json(last.clone())
}

async fn backup(State(app): State<App>) -> Response {
    let Ok(permit) = Arc::clone(&app.one).try_acquire_owned() else {
        let words = "another backup is being written; wait for it";
        return (StatusCode::CONFLICT, words).into_response();
    };
    let (sender, mut receiver) = mpsc::channel(4);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut chunks = Chunks {
            sender,
            runtime,
            chunk: Vec::with_capacity(CHUNK),
        };
        let made = Made {
            at: app.admin.clock.now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let exported = app.admin.stores.export(&mut chunks, &NOT_IN_BACKUPS, &made);
        let failed = exported.err().map(|error| error.to_string());
        match &failed {
            None => info!("a backup was written"),
            Some(error) => warn!(%error, "a backup failed"),
        }
        *app.last.lock().unwrap_or_else(PoisonError::into_inner) = LastBackup {
            failed: failed.clone(),
        };
        if let Some(error) = failed {
            // Breaks the stream off, so that nobody takes it for whole.
            let error = Err(io::Error::other(error));
            let _ = chunks.runtime.block_on(chunks.sender.send(error));
        }
    });
    let body = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    Body::from_stream(body).into_response()
}

/// Hands what is written to whoever reads the answer.
struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: tokio::runtime::Handle,
    chunk: Vec<u8>,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let sending = self.sender.send(Ok(chunk.into()));
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, sending).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
