//! Files that are transferred: what is in memory of them, and what breaks off.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use ruma::user_id;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpSocket, sync::Notify, time::timeout};

use super::*;

const MIB: u64 = 1 << 20;
const PIECE: u64 = 64 << 10;

/// A homeserver with one file.
#[derive(Default)]
struct FileServer {
    pieces: u64,
    /// The length that the answer says it has.
    declared: Option<u64>,
    /// The homeserver's own limit; without one it does not say.
    limit: Option<u64>,
    /// It refuses to fetch the file.
    refuses: bool,
    /// It sends a byte now and then, without end.
    trickles: bool,
    /// How far the download has been ahead of the upload, at most.
    ahead: AtomicU64,
    produced: AtomicU64,
    progress: Notify,
    /// Type and digest of what was uploaded.
    uploads: Mutex<Vec<(String, Vec<u8>)>>,
}

fn piece(n: u64) -> Vec<u8> {
    vec![(n % 251) as u8; PIECE as usize]
}

impl FileServer {
    fn download(self: Arc<Self>) -> Response {
        if self.trickles {
            let byte = || async {
                crate::clock::sleep(Duration::from_millis(20)).await;
                Ok::<_, io::Error>(Bytes::from_static(b"x"))
            };
            let bytes = stream::repeat_with(byte).then(|byte| byte);
            return Response::new(Body::from_stream(bytes));
        }
        let server = self.clone();
        let pieces = stream::iter(0..self.pieces).map(move |n| {
            server.produced.fetch_add(PIECE, Ordering::Relaxed);
            server.progress.notify_one();
            Ok::<_, io::Error>(Bytes::from(piece(n)))
        });
        let mut answer = Response::new(Body::from_stream(pieces));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, "image/webp".parse().unwrap());
        if let Some(declared) = self.declared {
            headers.insert(header::CONTENT_LENGTH, declared.into());
        }
        answer
    }

    /// Takes in a file, and now and then waits until no more of it is on the way.
    async fn take(&self, request: Request) -> Response {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let kind = kind.unwrap().to_str().unwrap().to_owned();
        let length = request.headers().get(header::CONTENT_LENGTH).cloned();
        let Some(length) = length else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let mut body = request.into_body().into_data_stream();
        let (mut digest, mut taken, mut looked) = (Sha256::new(), 0_u64, 0);
        loop {
            if looked <= taken && looked < 8 * MIB {
                let still = Duration::from_millis(100);
                while timeout(still, self.progress.notified()).await.is_ok() {}
                let produced = self.produced.load(Ordering::Relaxed);
                let ahead = produced.saturating_sub(taken);
                self.ahead.fetch_max(ahead, Ordering::Relaxed);
                looked += MIB;
            }
            let chunk = match body.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(_)) => return StatusCode::BAD_REQUEST.into_response(),
                None => break,
            };
            digest.update(&chunk);
            taken += chunk.len() as u64;
        }
        assert_eq!(length.to_str().unwrap(), taken.to_string());
        let upload = (kind, digest.finalize().to_vec());
        self.uploads.lock().unwrap().push(upload);
        Json(json!({"content_uri": "mxc://hs.test/new"})).into_response()
    }

    fn digest(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        (0..self.pieces).for_each(|n| digest.update(piece(n)));
        digest.finalize().to_vec()
    }
}

async fn answer(State(server): State<Arc<FileServer>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    match path.rsplit('/').next() {
        Some("versions") => Json(json!({"versions": ["v1.11"]})).into_response(),
        Some("config") => match server.limit {
            Some(limit) => Json(json!({"m.upload.size": limit})).into_response(),
            None => refusal(StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
        },
        Some("upload") => server.take(request).await,
        // As Synapse does it.
        _ if server.refuses => refusal(StatusCode::BAD_GATEWAY, "M_TOO_LARGE"),
        _ => server.download(),
    }
}

fn refusal(status: StatusCode, errcode: &str) -> Response {
    (status, Json(json!({"errcode": errcode, "error": ""}))).into_response()
}

/// Starts a homeserver whose own buffers are small.
async fn homeserver(server: FileServer) -> (Homeserver, Arc<FileServer>) {
    homeserver_with(server, Duration::from_secs(5)).await
}

/// Starts a homeserver, and a client whose requests have this timeout.
async fn homeserver_with(
    server: FileServer,
    request_timeout: Duration,
) -> (Homeserver, Arc<FileServer>) {
    let server = Arc::new(server);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 << 10).unwrap();
    socket.set_send_buffer_size(128 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let url = url.parse().unwrap();
    let app = Router::new().fallback(answer).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let options = HomeserverOptions {
        request_timeout,
        ..HomeserverOptions::default()
    };
    let connecting = Homeserver::connect(&url, "token".into(), options);
    (connecting.await.unwrap(), server)
}

async fn transfer(homeserver: &Homeserver, kind: Option<&str>) -> Result<String, MatrixError> {
    let who = Actor::user(user_id!("@_dm_sam:hs.test"));
    let uri = "mxc://far.example/file".into();
    let mut limits = FileLimits {
        begins_within: MEDIA_BEGINS_WITHIN,
        bytes_max: 100 * MIB,
    };
    let transferred = homeserver.transfer_media(who, uri, kind, &mut limits).await;
    transferred.map(|uri| uri.to_string())
}

#[tokio::test]
async fn a_file_of_fifty_mebibytes_passes_through_little_memory() {
    let pieces = 50 * MIB / PIECE;
    let (homeserver, server) = homeserver(FileServer {
        pieces,
        declared: Some(50 * MIB),
        ..FileServer::default()
    })
    .await;
    let new = transfer(&homeserver, Some("image/png")).await.unwrap();
    assert_eq!(new, "mxc://hs.test/new");
    let uploads = server.uploads.lock().unwrap().clone();
    assert_eq!(uploads, [("image/png".to_owned(), server.digest())]);
    // The buffers of both connections in the system, and two chunks in between.
    let ahead = server.ahead.load(Ordering::Relaxed);
    assert!(
        ahead > 0 && ahead < 16 * MIB,
        "{ahead} bytes were on their way"
    );
}

#[tokio::test]
async fn a_file_whose_length_is_not_said_is_transferred_all_the_same() {
    let (homeserver, server) = homeserver(FileServer {
        pieces: 40,
        ..FileServer::default()
    })
    .await;
    transfer(&homeserver, None).await.unwrap();
    let uploads = server.uploads.lock().unwrap().clone();
    assert_eq!(uploads, [("image/webp".to_owned(), server.digest())]);
    let twice = 2 * 40 * PIECE;
    assert_eq!(server.produced.load(Ordering::Relaxed), twice);
}

#[tokio::test]
async fn a_file_over_the_limit_is_not_read() {
    for declared in [Some(61 * MIB), None] {
        let (homeserver, server) = homeserver(FileServer {
            pieces: 61 * MIB / PIECE,
            declared,
            limit: Some(60 * MIB),
            ..FileServer::default()
        })
        .await;
        let error = transfer(&homeserver, None).await.unwrap_err();
        // The homeserver's own limit is below ours.
        assert!(
            matches!(error, MatrixError::MediaTooLarge { limit: Some(limit) } if limit == 60 * MIB),
            "{error:?}"
        );
        assert!(server.uploads.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_file_that_the_homeserver_finds_too_large_to_fetch_is_not_tried_again() {
    for limit in [Some(60 * MIB), None] {
        let (homeserver, _) = homeserver(FileServer {
            limit,
            refuses: true,
            ..FileServer::default()
        })
        .await;
        let error = transfer(&homeserver, None).await.unwrap_err();
        assert!(
            matches!(error, MatrixError::MediaTooLarge { limit: told } if told == limit),
            "{error:?}"
        );
        assert_eq!(error.fate(), Fate::Final);
    }
}

#[tokio::test]
async fn a_file_that_breaks_off_is_not_taken_for_a_homeserver_that_is_away() {
    let (homeserver, server) = homeserver(FileServer {
        pieces: 20,
        declared: Some(30 * PIECE),
        ..FileServer::default()
    })
    .await;
    let error = transfer(&homeserver, None).await.unwrap_err();
    assert!(
        matches!(error, MatrixError::MediaUnavailable { .. }),
        "{error:?}"
    );
    assert_eq!(error.fate(), Fate::Failing);
    assert!(server.uploads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_trickles_in_is_given_up() {
    let server = FileServer {
        trickles: true,
        declared: Some(MIB),
        ..FileServer::default()
    };
    let (homeserver, _) = homeserver_with(server, Duration::from_secs(1)).await;
    let transferring = transfer(&homeserver, None);
    let transferred = timeout(Duration::from_secs(10), transferring).await;
    let error = transferred.expect("it is given up").unwrap_err();
    assert!(
        matches!(error, MatrixError::MediaUnavailable { .. }),
        "{error:?}"
    );
}
