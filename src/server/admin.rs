//! The admin socket: HTTP on a Unix socket in the data folder, for the admin's commands.
//!
//! There is no token: only the user that runs the service can open the socket, which has mode 0600.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `POST /v1/backup` | the stream of a backup, which breaks off if it fails; 409 while another is written |
//! | `GET /v1/backup` | [`LastBackup`], for a client whose stream broke off |
//! | `GET /v1/devices` | users of ours and their devices, as a list of pairs |
//! | `GET /v1/owed` | the ghosts that are still to be made or removed |
//! | `GET /v1/sizes` | a list of [`StorePart`](crate::engine::StorePart): what the store consists of; 409 while another is made |
//! | `GET /v1/stamps` | [`StampHistory`] |
//! | `GET /v1/pushed/{mark}` | [`MarkStatus`]: whether the homeserver pushed a mark of `doctor` |
//! | `GET /v1/handles` | [`HandlePage`](crate::directory::HandlePage): a page of the handles, with the parameters of [`HandleQuery`](super::HandleQuery) |
//! | `GET /v1/handles/{handle}` | [`HandleDetails`](super::HandleDetails); 404 with words if nobody holds it |
//! | `POST /v1/handles/{handle}/acts` | [`ActDone`](super::ActDone), to an [`ActRequest`](super::ActRequest); 404 with words if nobody holds the handle, 409 if the act is refused, 503 before the start |
//! | `GET /v1/audit` | [`AuditPage`](crate::directory::AuditPage): a page of the audit log, with the parameters of [`AuditQuery`](super::AuditQuery) |
//! | `GET /v1/person` | [`PersonSummary`](crate::directory::PersonSummary), with the parameter of [`PersonQuery`](super::PersonQuery) |
//! | `GET /v1/person/export` | [`PersonExport`](crate::engine::PersonExport): what is kept about a person, with the parameter of [`PersonQuery`](super::PersonQuery) |
//! | `POST /v1/person/erase` | [`ActDone`](super::ActDone), to an [`ErasureRequest`](super::ErasureRequest) |
//! | `GET /v1/limits` | [`LimitsUsed`](super::LimitsUsed), with the parameter of [`LimitsQuery`](super::LimitsQuery) |
//! | `GET /v1/bans` | [`BanPage`](crate::directory::BanPage): a page of the bans, with the parameter of [`BanQuery`](super::BanQuery) |
//! | `POST /v1/grantees/acts` | [`ActDone`](super::ActDone), to a [`GranteeActRequest`](super::GranteeActRequest) |
//! | `POST /v1/reload` | [`Reloaded`]; 422 with words if the configuration is refused |
//! | `GET /v1/reports/{after}` | [`ModuleStatus`]: what the module in the homeserver reported |
//!
//! A new command gets a new route in [`admin_router`].

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
    routing::{get, post},
};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
};
use tracing::{info, warn};

use super::{
    Health, Limits, MarkStatus, ModuleStatus, SelfTest, ServerError,
    admin_answer::answer,
    admin_handles::{HandleAdmin, StartedEngine, handle_routes},
    admin_people::people_routes,
    connections::Connections,
};
use crate::{
    clock::Clock,
    crypto::{ready_devices, store::GhostStores},
    engine::{
        NOT_IN_BACKUPS, QueueContents, StampHistory, WaitingWork, count_dead_letters, owed_ghosts,
        read_queues, store_parts,
    },
    shutdown::Shutdown,
    store::{BackupInfo, Store, StoreError},
};

/// The name of the socket in the data folder.
pub const SOCKET: &str = "admin.sock";
/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 8;
/// Maximum size of a request's body, in bytes. Only acts have one.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Maximum number of devices that are listed.
const DEVICES_MAX: usize = 1000;
/// Size of the chunks in which a backup is sent, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// How long the client of a backup may take for one chunk. Until the backup ends, what is written
/// to the store stays in memory.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// An admin socket that is bound and not served yet.
#[derive(Debug)]
pub struct AdminSocket {
    socket: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Binds the socket in a folder, and replaces one that a dead process left.
    pub async fn bind(folder: &Path) -> Result<Self, ServerError> {
        let path = folder.join(SOCKET);
        let failed = |reason| ServerError::Admin {
            path: path.clone(),
            reason,
        };
        match UnixStream::connect(&path).await {
            Ok(_) => return Err(ServerError::AdminInUse(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // No process listens there. A file that is not a socket is not ours to remove.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                use std::os::unix::fs::FileTypeExt as _;
                let kind = fs::symlink_metadata(&path).map_err(failed)?.file_type();
                if !kind.is_socket() {
                    return Err(failed(io::Error::other("it is a file, not a socket")));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        // The socket gets its final name once no other user can open it.
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
        let mut connections = Connections::new(Limits {
            connections_max: CONNECTIONS_MAX,
            idle_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(5),
            ..Limits::default()
        });
        connections.accept_from(&self.socket, &router, &stop).await;
        // Before the last requests end: afterwards another process may own the path.
        let _ = fs::remove_file(&self.path);
        drop(self.socket);
        connections.finish().await;
    }
}

/// The parts of the service that the admin's commands work on.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The store.
    pub store: Store,
    /// The crypto stores in it.
    pub stores: GhostStores,
    /// The state of the service's parts.
    pub health: Health,
    /// The marks that the homeserver pushed.
    pub self_test: SelfTest,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What reads the configuration again.
    pub reload: Arc<dyn Reload>,
    /// The engine, for acts on handles.
    pub engine: StartedEngine,
}

/// Something that reads the configuration again and lets what may change take effect.
pub trait Reload: std::fmt::Debug + Send + Sync {
    /// Reads it. The error says in words why it is refused; then nothing has changed.
    fn reload(&self) -> Result<Reloaded, String>;
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether other permissions hold than before.
    pub permissions_changed: bool,
    /// The options that have changed since the start and take effect at the next one.
    pub need_restart: Vec<String>,
}

impl Admin {
    /// Returns users of ours that are ready, and their devices: the first thousand.
    pub fn devices(&self) -> Result<Vec<(OwnedUserId, OwnedDeviceId)>, StoreError> {
        ready_devices(&self.store, DEVICES_MAX)
    }

    /// Returns the ghosts that are still to be made or removed: the first thousand.
    pub fn owed_ghosts(&self) -> Result<Vec<OwnedUserId>, StoreError> {
        owed_ghosts(&self.store, DEVICES_MAX)
    }

    /// Returns what waits to be done.
    pub fn waiting(&self) -> Result<WaitingWork, StoreError> {
        let now = self.clock.now();
        let QueueContents {
            waiting,
            oldest_item,
        } = read_queues(&self.store, now)?;
        let engine = self.engine.get();
        let arrived_at = oldest_item.and_then(|number| Some(engine?.arrived_at(number)));
        Ok(WaitingWork {
            owed_ghosts: self.owed_ghosts()?.len(),
            oldest_item_seconds: arrived_at.map(|at| now.since(at).as_secs()),
            ..waiting
        })
    }

    /// Returns what the store knows about its stamps.
    pub fn stamp_history(&self) -> Result<StampHistory, StoreError> {
        StampHistory::load(&self.store)
    }
}

/// The state of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of Stonechat.
    pub version: String,
    /// Whether all parts work.
    pub ready: bool,
    /// The state in a few words.
    pub state: String,
    /// The parts of readiness: `ok`, or why a part does not work.
    pub parts: BTreeMap<String, String>,
    /// Whether the work after a restore is unfinished.
    pub restoring: bool,
    /// What waits.
    pub waiting: WaitingWork,
    /// The number of items from the homeserver that were set aside since the database was created,
    /// by reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// Size of the database on disk, in bytes.
    pub size_on_disk: u64,
}

/// The result of the last backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

struct AdminState {
    admin: Admin,
    backup_slot: Arc<Semaphore>,
    /// Held while all records are read for their sizes.
    sizes_slot: Semaphore,
    last_backup: Mutex<LastBackup>,
}

/// Returns the API of the admin socket.
pub fn admin_router(admin: Admin) -> Router {
    let handles = HandleAdmin {
        store: admin.store.clone(),
        engine: admin.engine.clone(),
        clock: admin.clock.clone(),
    };
    let state = Arc::new(AdminState {
        admin,
        backup_slot: Arc::new(Semaphore::new(1)),
        sizes_slot: Semaphore::new(1),
        last_backup: Mutex::default(),
    });
    Router::new()
        .route("/v1/status", get(get_status))
        .route("/v1/backup", get(get_last_backup).post(post_backup))
        .route("/v1/devices", get(get_devices))
        .route("/v1/owed", get(get_owed))
        .route("/v1/sizes", get(get_sizes))
        .route("/v1/stamps", get(get_stamps))
        .route("/v1/pushed/{mark}", get(get_mark_status))
        .route("/v1/reports/{after}", get(get_module_status))
        .route("/v1/reload", post(post_reload))
        .with_state(state)
        .merge(handle_routes(handles.clone()))
        .merge(people_routes(handles))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
}

async fn get_status(State(state): State<Arc<AdminState>>) -> Response {
    answer(read_status(&state.admin))
}

fn read_status(admin: &Admin) -> Result<Status, StoreError> {
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: admin.health.is_ready(),
        state: admin.health.in_words(),
        parts: admin
            .health
            .parts()
            .map(|(part, state)| (part.to_owned(), state.to_owned()))
            .into(),
        waiting: admin.waiting()?,
        restoring: admin.store.is_restored()?,
        dead_letters: count_dead_letters(&admin.store)?,
        size_on_disk: admin.store.size_on_disk()?,
    })
}

async fn get_sizes(State(state): State<Arc<AdminState>>) -> Response {
    let Ok(_permit) = state.sizes_slot.try_acquire() else {
        let words = "the records are being counted already; wait for it";
        return (StatusCode::CONFLICT, words).into_response();
    };
    let store = state.admin.store.clone();
    match tokio::task::spawn_blocking(move || store_parts(&store)).await {
        Ok(parts) => answer(parts),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn get_devices(State(state): State<Arc<AdminState>>) -> Response {
    answer(state.admin.devices())
}

async fn get_owed(State(state): State<Arc<AdminState>>) -> Response {
    answer(state.admin.owed_ghosts())
}

async fn get_stamps(State(state): State<Arc<AdminState>>) -> Response {
    answer(state.admin.stamp_history())
}

async fn get_mark_status(
    State(state): State<Arc<AdminState>>,
    PathPart(mark): PathPart<String>,
) -> Json<MarkStatus> {
    Json(state.admin.self_test.mark_status(&mark).await)
}

async fn get_module_status(
    State(state): State<Arc<AdminState>>,
    PathPart(after): PathPart<u64>,
) -> Json<ModuleStatus> {
    Json(state.admin.self_test.module().next_status(after).await)
}

async fn post_reload(State(state): State<Arc<AdminState>>) -> Response {
    match state.admin.reload.reload() {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(problem) => (StatusCode::UNPROCESSABLE_ENTITY, problem).into_response(),
    }
}

async fn get_last_backup(State(state): State<Arc<AdminState>>) -> Json<LastBackup> {
    let last = state
        .last_backup
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    Json(last.clone())
}

async fn post_backup(State(state): State<Arc<AdminState>>) -> Response {
    let Ok(permit) = Arc::clone(&state.backup_slot).try_acquire_owned() else {
        let words = "another backup is being written; wait for it";
        return (StatusCode::CONFLICT, words).into_response();
    };
    let (sender, mut receiver) = mpsc::channel(4);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut chunks = ChunkSender {
            sender,
            runtime,
            chunk: Vec::with_capacity(CHUNK_BYTES),
        };
        let made = BackupInfo {
            at: state.admin.clock.now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let exported = state
            .admin
            .stores
            .export(&mut chunks, &NOT_IN_BACKUPS, &made);
        let failed = exported.err().map(|error| error.to_string());
        match &failed {
            None => info!("a backup was written"),
            Some(error) => warn!(%error, "a backup failed"),
        }
        *state
            .last_backup
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = LastBackup {
            failed: failed.clone(),
        };
        if let Some(error) = failed {
            // Breaks the stream off, so that nobody takes it for complete.
            let error = Err(io::Error::other(error));
            let _ = chunks.runtime.block_on(chunks.sender.send(error));
        }
    });
    let body = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    Body::from_stream(body).into_response()
}

/// A writer that sends what is written to it as chunks of a response.
struct ChunkSender {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: tokio::runtime::Handle,
    chunk: Vec<u8>,
}

impl ChunkSender {
    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let sending = self.sender.send(Ok(chunk.into()));
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(CHUNK_TIMEOUT, sending).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for ChunkSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
