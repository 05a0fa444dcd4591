//! Transactions and pings, which the homeserver pushes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Path, Request, State, rejection::PathRejection},
};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::{ApiError, App, Appservice, transaction_order::Connection};
use crate::matrix::transaction::{Transaction, TransactionError, TransactionReader};

/// How long a body may take to arrive. Synapse gives up after 60 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(45);

/// Size of the pieces in which a body is read, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Maximum length of a transaction id, in bytes.
const TXN_ID_BYTES_MAX: usize = 255;

/// Maximum number of times that an unreadable transaction is refused. Then it is acknowledged,
/// since the homeserver would send it again for good; the ghosts' syncs fetch what it held.
const TRANSACTION_REFUSALS_MAX: u32 = 3;

/// The last transaction that was refused as unreadable, and the number of refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<(String, u32)>);

impl Refusals {
    /// Notes one more refusal. Returns whether to acknowledge the transaction instead.
    fn note_refusal(&self, txn: &str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != txn {
            *last = (txn.to_owned(), 0);
        }
        last.1 += 1;
        last.1 > TRANSACTION_REFUSALS_MAX
    }
}

/// `PUT /_matrix/app/v1/transactions/{txnId}`
///
/// The body is read as it arrives and accepted in parts, so that its size costs no memory.
pub(super) async fn push<A: Appservice>(
    State(app): State<App<A>>,
    txn: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let Path(txn) = txn.map_err(|_| ApiError::BadPath)?;
    if txn.len() > TXN_ID_BYTES_MAX {
        return Err(ApiError::BadPath);
    }
    let Ok(_permit) = app.transaction_reads.acquire().await else {
        return Err(ApiError::NotNow);
    };
    let connection = request.extensions().get::<Connection>().cloned();
    let mut delivery = Delivery {
        app: &app,
        txn: &txn,
        connection,
        has_accepted_part: false,
    };
    let last = match delivery.read_parts(request.into_body()).await {
        Ok(last) => last,
        Err(ApiError::NotNow) => return Err(ApiError::NotNow),
        Err(error) if app.refusals.note_refusal(&txn) => {
            warn!(%error, "the body was unreadable four times; it is acknowledged, and its content will come by /sync");
            Transaction {
                after_gap: true,
                ..Transaction::default()
            }
        }
        Err(error) => return Err(error),
    };
    delivery.accept(last).await?;
    Ok(Json(json!({})))
}

/// A transaction that is being read and accepted.
struct Delivery<'a, A> {
    app: &'a App<A>,
    txn: &'a str,
    connection: Option<Connection>,
    /// Whether a part of the transaction was accepted.
    has_accepted_part: bool,
}

impl<A: Appservice> Delivery<'_, A> {
    /// Reads the body, accepts all parts but the last, and returns the last.
    async fn read_parts(&mut self, mut body: Body) -> Result<Transaction, ApiError> {
        let deadline = Instant::now() + BODY_TIMEOUT;
        let mut reader = TransactionReader::default();
        let mut bytes = 0;
        loop {
            let frame = match timeout_at(deadline, body.frame()).await {
                Err(_) => return Err(ApiError::TooSlow),
                Ok(None) => break,
                // The connection broke: nobody reads the answer.
                Ok(Some(Err(_))) => return Err(ApiError::NotJson),
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            bytes += data.len();
            // In small pieces, so that a part is handed on before the next one is read.
            for piece in data.chunks(PIECE_BYTES) {
                reader.feed(piece);
                if let Some(part) = reader.take_part() {
                    self.accept(part).await?;
                }
            }
        }
        match reader.finish() {
            Ok(last) => Ok(last),
            // JSON of another form is accepted as an empty transaction.
            Err(error @ TransactionError::NotAnObject) => {
                warn!(%error, bytes, "a transaction holds nothing that can be read");
                Ok(Transaction::default())
            }
            // A body that is not JSON was cut short on its way.
            Err(error) => {
                warn!(%error, bytes, "a transaction is not JSON");
                Err(ApiError::NotJson)
            }
        }
    }

    /// Hands a part on to the engine. Returns once it is durable.
    async fn accept(&mut self, mut part: Transaction) -> Result<(), ApiError> {
        if !self.has_accepted_part {
            self.has_accepted_part = true;
            part.after_gap |= !self
                .app
                .transaction_order
                .follows(self.connection.as_ref(), self.txn);
        }
        self.app.options.self_test.extract_marks(&mut part);
        if part.dropped > 0 {
            warn!(
                dropped = part.dropped,
                "parts of a transaction could not be read"
            );
        }
        // If the homeserver gives up and closes the connection, this future is dropped. The part is
        // stored by a separate task all the same.
        let (app, txn) = (Arc::clone(self.app), self.txn.to_owned());
        let accepted =
            tokio::spawn(async move { app.appservice.accept_transaction(&txn, part).await }).await;
        match accepted {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                warn!(%error, "a transaction was not accepted");
                Err(ApiError::NotNow)
            }
            Err(error) => {
                warn!(%error, "a transaction was not accepted");
                Err(ApiError::NotNow)
            }
        }
    }
}

#[derive(Deserialize)]
struct Ping {
    transaction_id: Option<String>,
}

/// `POST /_matrix/app/v1/ping`
pub(super) async fn ping<A: Appservice>(
    State(app): State<App<A>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let body = read_body(request).await?;
    let value: Value = serde_json::from_slice(&body).map_err(|_| ApiError::NotJson)?;
    let ping = Ping::deserialize(value).map_err(|_| ApiError::BadJson)?;
    if ping
        .transaction_id
        .as_ref()
        .is_some_and(|txn| txn.len() > TXN_ID_BYTES_MAX)
    {
        return Err(ApiError::BadJson);
    }
    debug!("the homeserver answered a ping");
    if let Some(txn) = &ping.transaction_id {
        app.options.self_test.record_mark(txn);
    }
    app.appservice
        .note_ping(ping.transaction_id.as_deref())
        .await;
    Ok(Json(json!({})))
}

/// Reads a whole body, within the limits of size and time.
pub(super) async fn read_body(request: Request<Body>) -> Result<Bytes, ApiError> {
    // Refused without waiting, because it is announced as too large.
    if request.body().size_hint().lower() > super::BODY_BYTES_MAX as u64 {
        return Err(ApiError::TooLarge);
    }
    let read = Bytes::from_request(request, &());
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Err(_) => Err(ApiError::TooSlow),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::TooLarge)
        }
        // The connection broke: nobody reads the answer.
        Ok(Err(_)) => Err(ApiError::NotJson),
    }
}
