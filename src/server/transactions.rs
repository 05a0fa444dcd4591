//! What the homeserver pushes.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Path, Request, State, rejection::PathRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{ApiError, App, Intake, continuity::Connection};
use crate::matrix::transaction::Transaction;

/// How long a body may take to come. Synapse gives up after 60 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(45);

/// A transaction id is opaque; nobody needs a long one.
const MAX_TXN: usize = 255;

/// `PUT /_matrix/app/v1/transactions/{txnId}`
pub(super) async fn push<I: Intake>(
    State(app): State<App<I>>,
    txn: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let Path(txn) = txn.map_err(|_| ApiError::BadPath)?;
    if txn.len() > MAX_TXN {
        return Err(ApiError::BadPath);
    }
    let connection = request.extensions().get::<Connection>().copied();
    let body = read(request).await?;
    let mut transaction = match Transaction::parse(&body) {
        Ok(transaction) => transaction,
        // JSON of another form is taken, and there is nothing in it: what is refused comes again
        // for ever and holds up all that is behind it. What is not JSON at all was cut short on
        // its way.
        Err(error) if is_json(&body) => {
            warn!(%error, bytes = body.len(), "a transaction holds nothing that can be read");
            Transaction::default()
        }
        Err(error) => {
            warn!(%error, bytes = body.len(), "a transaction is not JSON");
            return Err(ApiError::NotJson);
        }
    };
    transaction.after_gap = !app.continuity.follows(connection, &txn);
    app.options.self_test.take_out(&mut transaction);
    if transaction.dropped > 0 {
        warn!(
            dropped = transaction.dropped,
            "parts of a transaction could not be read"
        );
    }
    // The homeserver may give up waiting and close the connection, which drops this future. What
    // has begun to be stored is stored all the same, on a task of its own.
    let taken = tokio::spawn(async move { app.intake.transaction(&txn, transaction).await }).await;
    match taken {
        Ok(Ok(())) => Ok(Json(json!({}))),
        Ok(Err(error)) => {
            warn!(%error, "a transaction was not taken");
            Err(ApiError::NotNow)
        }
        Err(error) => {
            warn!(%error, "a transaction was not taken");
            Err(ApiError::NotNow)
        }
    }
}

#[derive(Deserialize)]
struct Ping {
    transaction_id: Option<String>,
}

/// `POST /_matrix/app/v1/ping`
pub(super) async fn ping<I: Intake>(
    State(app): State<App<I>>,
    request: Request<Body>,
) -> Result<Json<Value>, ApiError> {
    let body = read(request).await?;
    let value: Value = serde_json::from_slice(&body).map_err(|_| ApiError::NotJson)?;
    let ping = Ping::deserialize(value).map_err(|_| ApiError::BadJson)?;
    if ping
        .transaction_id
        .as_ref()
        .is_some_and(|txn| txn.len() > MAX_TXN)
    {
        return Err(ApiError::BadJson);
    }
    debug!("the homeserver answered a ping");
    if let Some(txn) = &ping.transaction_id {
        app.options.self_test.saw(txn);
    }
    app.intake.ping(ping.transaction_id.as_deref()).await;
    Ok(Json(json!({})))
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// The whole body, within the limits of size and time.
pub(super) async fn read(request: Request<Body>) -> Result<Bytes, ApiError> {
    // What is announced as too large need not come.
    if request.body().size_hint().lower() > super::MAX_BODY as u64 {
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
