//! Errors in the form of the Matrix specification, and those of the server itself.

use std::{io, net::SocketAddr, path::PathBuf};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use thiserror::Error;

use super::ExpositionError;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ApiError {
    /// The request has no token.
    #[error("missing access token")]
    MissingToken,
    /// The token is not the expected one.
    #[error("wrong access token")]
    WrongToken,
    /// The path does not exist.
    #[error("unknown path")]
    UnknownPath,
    /// The path is not for this method.
    #[error("wrong method")]
    WrongMethod,
    /// The user, room or protocol does not exist.
    #[error("not found")]
    NotFound,
    /// The body is not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// The body is JSON of another form.
    #[error("the body has the wrong form")]
    BadJson,
    /// The path is not UTF-8, or a part of it is too long.
    #[error("a part of the path cannot be read")]
    BadPath,
    /// The body is too large.
    #[error("the body is too large")]
    TooLarge,
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The request cannot be processed now and should be sent again.
    #[error("cannot be processed now, send it again")]
    NotNow,
}

impl ApiError {
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN"),
            Self::WrongToken => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"),
            Self::NotFound => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            Self::NotJson => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
            Self::BadJson => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            Self::BadPath => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN"),
            Self::NotNow => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.parts();
        let body = Json(json!({"errcode": code, "error": self.to_string()}));
        match self {
            // The rest of such a body is not read, so the connection cannot be used again.
            Self::TooLarge | Self::TooSlow => {
                (status, [(header::CONNECTION, "close")], body).into_response()
            }
            _ => (status, body).into_response(),
        }
    }
}

pub(super) async fn wrong_method() -> ApiError {
    ApiError::WrongMethod
}

pub(super) async fn unknown_path() -> ApiError {
    ApiError::UnknownPath
}

/// Why the server does not run.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Another process serves the admin socket.
    #[error("{} is served by another process; stop that one first", .0.display())]
    AdminInUse(PathBuf),
    /// The admin socket cannot be created.
    #[error(
        "the admin socket {} cannot be created: {reason}; check what is there, that the folder is \
         writable, and that its path has less than 90 characters", path.display()
    )]
    Admin {
        /// The path of the socket.
        path: PathBuf,
        /// The system's message.
        reason: io::Error,
    },
    /// The port is in use.
    #[error(
        "{option}: {address} is in use; stop what listens there (another Stonechat?) or choose \
         another port"
    )]
    InUse {
        /// The option of the configuration.
        option: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be bound.
    #[error(
        "{option}: {address} cannot be listened on: {reason}; choose an address of this machine"
    )]
    Listen {
        /// The option of the configuration.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's message.
        reason: io::Error,
    },
    /// The metrics cannot be recorded.
    #[error(transparent)]
    Metrics(#[from] ExpositionError),
}
