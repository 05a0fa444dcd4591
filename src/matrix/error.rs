//! Errors of requests to the homeserver, and whether a retry may succeed.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

/// What an error says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody answered, or the answer was to wait: the time that is given to an item does not run.
    Away,
    /// It may succeed later. The time that is given to an item runs.
    Failing,
    /// The answer says nothing about the request: a proxy without a homeserver behind it has no
    /// errcode, and a token is refused until the admin has put it right. Work that is under way
    /// takes it for [`Fate::Failing`].
    Unclear,
    /// The next try would fail as well.
    Final,
}

impl Fate {
    /// Returns what this means for work that is under way.
    pub fn of_work(self) -> Self {
        match self {
            Self::Unclear => Self::Failing,
            other => other,
        }
    }
}

/// Why a request to the homeserver failed.
///
/// As text it names only the status and the errcode. The homeserver's own message may quote
/// anybody: see [`MatrixError::message`].
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// No answer: refused connection, broken connection, name not found, TLS.
    #[error("the homeserver cannot be reached: {0}")]
    Unreachable(#[source] reqwest::Error),
    /// No answer in time. The homeserver may still have processed the request.
    #[error("the homeserver did not answer in time")]
    TimedOut,
    /// The homeserver, or a proxy in front of it, failed.
    #[error("the homeserver is failing (HTTP {status}, {})", code(errcode))]
    Failing {
        /// The HTTP status, 408 or 5xx.
        status: StatusCode,
        /// The errcode of the answer, if it had one.
        errcode: Option<String>,
        /// The homeserver's message, shortened.
        message: String,
        /// How long the homeserver asked us to wait.
        retry_after: Option<Duration>,
    },
    /// Too many requests.
    #[error("the homeserver limits our rate; set `rate_limited: false` in the registration")]
    RateLimited {
        /// How long the homeserver asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The homeserver understood the request and refused it.
    #[error("the homeserver refused (HTTP {status}, {})", code(errcode))]
    Refused {
        /// The HTTP status, below 500.
        status: StatusCode,
        /// The errcode of the answer, such as `M_FORBIDDEN`.
        errcode: Option<String>,
        /// The homeserver's message, shortened.
        message: String,
    },
    /// The homeserver does not have one of our users, as after its database was set back.
    #[error("the homeserver has no user {user}")]
    NoSuchUser {
        /// The user.
        user: OwnedUserId,
    },
    /// The homeserver does not have the device on which one of our users acts.
    #[error("the homeserver has no such device of {user}")]
    NoSuchDevice {
        /// The user.
        user: OwnedUserId,
    },
    /// The answer was longer than the limit.
    #[error("the homeserver's answer is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A file is larger than what we transfer, or than what the homeserver takes.
    #[error("the file is too large")]
    MediaTooLarge {
        /// The limit in bytes, if it is known.
        limit: Option<u64>,
    },
    /// The homeserver, or the server that had a file, does not have it.
    #[error("there is no such file")]
    MediaMissing,
    /// A file could not be had, although the homeserver answers: the server that has it is away or
    /// slow.
    #[error("the file cannot be fetched")]
    MediaUnavailable {
        /// How long the homeserver asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The answer does not follow the specification.
    #[error("the homeserver's answer cannot be understood: {0}")]
    Unexpected(String),
    /// The request could not be built from its arguments.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

/// The error body of the client-server API.
#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errcode: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

impl MatrixError {
    /// Returns what this error says about sending the same request again.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Unreachable(_) | Self::RateLimited { .. } => Fate::Away,
            // The user or the device is made again.
            Self::NoSuchUser { .. } | Self::NoSuchDevice { .. } => Fate::Failing,
            Self::TimedOut
            | Self::Failing { .. }
            | Self::MediaMissing
            | Self::MediaUnavailable { .. } => Fate::Failing,
            Self::Unexpected(_) => Fate::Unclear,
            Self::Refused {
                status, errcode, ..
            } if errcode.is_none() || *status == StatusCode::UNAUTHORIZED => Fate::Unclear,
            Self::Refused { .. }
            | Self::TooLong { .. }
            | Self::MediaTooLarge { .. }
            | Self::Request(_) => Fate::Final,
        }
    }

    /// Returns the error of a request for which the homeserver asked another server. Synapse passes
    /// that server's errors on, so "wait" may be the other server's word, which counts as failing:
    /// it must not make us try without end.
    pub fn of_other_server(self) -> Self {
        match self {
            Self::RateLimited { retry_after } => Self::Failing {
                status: StatusCode::TOO_MANY_REQUESTS,
                errcode: Some("M_LIMIT_EXCEEDED".to_owned()),
                message: "too many requests".to_owned(),
                retry_after,
            },
            other => other,
        }
    }

    /// Returns `true` if the same request may succeed later without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self.fate(), Fate::Away | Fate::Failing)
    }

    /// Returns `true` if the homeserver itself understood the request and refused it. A proxy in
    /// front of it may refuse anything while the homeserver is away.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. }) && self.fate() == Fate::Final
    }

    /// Returns `true` if the homeserver itself says that what the request names does not exist.
    pub fn is_missing(&self) -> bool {
        let not_found = StatusCode::NOT_FOUND.as_u16();
        self.is_refusal() && self.status() == Some(not_found) && !self.has_errcode("M_UNRECOGNIZED")
    }

    /// Returns `true` if a proxy answered that no homeserver is behind it. Every answer of a
    /// homeserver has an errcode.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Failing { errcode: None, .. })
    }

    /// Returns `true` if our own homeserver failed, and no server on whose behalf it answers: for
    /// those it says 502 or 504, or nothing in time.
    pub fn is_of_own_homeserver(&self) -> bool {
        let own = [
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        matches!(self, Self::Failing { status, errcode: Some(_), .. } if own.contains(status))
    }

    /// Returns `true` if the homeserver may be failing as a whole, and not at this request alone.
    pub fn may_be_outage(&self) -> bool {
        let limited = Some(StatusCode::TOO_MANY_REQUESTS.as_u16());
        match self {
            Self::Failing { .. } => self.status() != limited,
            Self::TimedOut | Self::MediaUnavailable { .. } => true,
            _ => self.fate() == Fate::Unclear,
        }
    }

    /// Returns how long the homeserver asked us to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after }
            | Self::MediaUnavailable { retry_after }
            | Self::Failing { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the errcode of the answer, such as `M_FORBIDDEN`.
    pub fn errcode(&self) -> Option<&str> {
        match self {
            Self::Refused { errcode, .. } | Self::Failing { errcode, .. } => errcode.as_deref(),
            Self::RateLimited { .. } => Some("M_LIMIT_EXCEEDED"),
            _ => None,
        }
    }

    /// Returns the homeserver's own message, for the admin and for the log at `debug`.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Refused { message, .. } | Self::Failing { message, .. } => Some(message),
            _ => None,
        }
    }

    /// Returns the HTTP status of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Failing { status, .. } => Some(status.as_u16()),
            Self::RateLimited { .. } => Some(429),
            _ => None,
        }
    }

    /// Returns whether this is a refusal with this errcode.
    pub fn has_errcode(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { errcode: Some(code), .. } if code == wanted)
    }

    /// Returns the user of ours that the homeserver does not have, or whose device it does not have.
    pub fn missing_user(&self) -> Option<&UserId> {
        match self {
            Self::NoSuchUser { user } | Self::NoSuchDevice { user } => Some(user),
            _ => None,
        }
    }

    /// Returns whether a user who asked to leave a room is not in it. Synapse answers 403 if it
    /// knows the room, and 404 with `M_UNKNOWN` if the room was purged or never was.
    pub fn says_user_is_gone(&self) -> bool {
        match self {
            Self::Refused {
                status, errcode, ..
            } => match errcode.as_deref() {
                Some("M_FORBIDDEN" | "M_NOT_FOUND") => true,
                Some("M_UNKNOWN") => *status == StatusCode::NOT_FOUND,
                _ => false,
            },
            Self::NoSuchUser { .. } => true,
            _ => false,
        }
    }

    /// Returns the error of a client that could not be made, which only TLS can be the reason of.
    pub(super) fn from_builder(error: reqwest::Error) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let cause = cause.unwrap_or_else(|| error.to_string());
        Self::Request(format!(
            "TLS cannot be used ({cause}); if this machine has no certificate authorities, install \
             them, on Debian with the package ca-certificates"
        ))
    }

    /// Classifies an error of the HTTP client.
    pub(super) fn from_transport(error: reqwest::Error) -> Self {
        // The address contains user ids and sync tokens, which do not belong in a log.
        let error = error.without_url();
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_builder() {
            Self::Request(error.to_string())
        } else {
            Self::Unreachable(error)
        }
    }

    /// Classifies an answer whose status is not a success.
    pub(super) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let errcode = body.errcode.map(|code| clean(&code, 64));
        let message = clean(body.error.as_deref().unwrap_or("no explanation"), 300);
        tracing::debug!(%status, errcode, message, "the homeserver answers with an error");
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs)
            .or(body.retry_after_ms.map(Duration::from_millis));
        if status == StatusCode::TOO_MANY_REQUESTS || errcode.as_deref() == Some("M_LIMIT_EXCEEDED")
        {
            Self::RateLimited { retry_after }
        } else if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            Self::Failing {
                status,
                errcode,
                message,
                retry_after,
            }
        } else {
            Self::Refused {
                status,
                errcode,
                message,
            }
        }
    }
}

fn code(errcode: &Option<String>) -> &str {
    errcode.as_deref().unwrap_or("no errcode")
}

/// Returns the first `limit` characters without control characters: the text goes into our logs.
fn clean(text: &str, limit: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_how_long_to_wait_before_the_body_does() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, http::HeaderValue::from_static("7"));
        let body = br#"{"errcode":"M_LIMIT_EXCEEDED","error":"slow down","retry_after_ms":1500}"#;
        let error = MatrixError::from_answer(StatusCode::TOO_MANY_REQUESTS, &headers, body);
        assert!(error.is_temporary());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        let error =
            MatrixError::from_answer(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_refusal_is_final_and_names_its_errcode() {
        let body = br#"{"errcode":"M_FORBIDDEN","error":"no\nentry"}"#;
        let error = MatrixError::from_answer(StatusCode::FORBIDDEN, &HeaderMap::new(), body);
        assert!(!error.is_temporary());
        assert!(error.has_errcode("M_FORBIDDEN"));
        assert_eq!(
            error.to_string(),
            "the homeserver refused (HTTP 403 Forbidden, M_FORBIDDEN)"
        );
        assert_eq!(error.message(), Some("noentry"));
    }

    #[test]
    fn only_an_answer_about_the_room_says_that_the_user_is_not_in_it() {
        let refused = |status: u16, errcode: Option<&str>| MatrixError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            errcode: errcode.map(str::to_owned),
            message: String::new(),
        };
        assert!(refused(403, Some("M_FORBIDDEN")).says_user_is_gone());
        assert!(refused(404, Some("M_NOT_FOUND")).says_user_is_gone());
        // A room that was purged.
        assert!(refused(404, Some("M_UNKNOWN")).says_user_is_gone());
        // A proxy, a token that is wrong, a request that is wrong, a homeserver that fails.
        assert!(!refused(404, None).says_user_is_gone());
        assert!(!refused(404, Some("M_UNRECOGNIZED")).says_user_is_gone());
        assert!(!refused(401, Some("M_UNKNOWN_TOKEN")).says_user_is_gone());
        assert!(!refused(400, Some("M_UNKNOWN")).says_user_is_gone());
        assert!(!MatrixError::TimedOut.says_user_is_gone());
    }

    #[test]
    fn only_a_homeserver_can_say_that_something_is_missing() {
        let missing = |status: StatusCode, body: &[u8]| {
            MatrixError::from_answer(status, &HeaderMap::new(), body).is_missing()
        };
        let not_found = br#"{"errcode":"M_NOT_FOUND","error":"no"}"#;
        let unknown = br#"{"errcode":"M_UNKNOWN","error":"no"}"#;
        assert!(missing(StatusCode::NOT_FOUND, not_found));
        assert!(missing(StatusCode::NOT_FOUND, unknown));
        assert!(!missing(StatusCode::BAD_REQUEST, unknown));
        assert!(!missing(StatusCode::NOT_FOUND, b"<html>"));
        let unrecognized = br#"{"errcode":"M_UNRECOGNIZED","error":"no"}"#;
        assert!(!missing(StatusCode::NOT_FOUND, unrecognized));
    }

    #[test]
    fn a_proxy_without_a_homeserver_behind_it_is_temporary() {
        let error =
            MatrixError::from_answer(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>oops");
        assert!(error.is_temporary() && error.is_outage());
        assert_eq!(error.errcode(), None);
        assert_eq!(error.status(), Some(502));
        let body = br#"{"errcode":"M_UNKNOWN","error":"cannot reach the other server"}"#;
        let error = MatrixError::from_answer(StatusCode::BAD_GATEWAY, &HeaderMap::new(), body);
        assert!(error.is_temporary() && !error.is_outage());
        assert!(!MatrixError::TimedOut.is_outage());
    }

    #[test]
    fn only_a_homeserver_can_refuse() {
        let refused = |status: StatusCode, body: &[u8]| {
            MatrixError::from_answer(status, &HeaderMap::new(), body).is_refusal()
        };
        let forbidden = br#"{"errcode":"M_FORBIDDEN","error":"no"}"#;
        assert!(refused(StatusCode::FORBIDDEN, forbidden));
        assert!(!refused(StatusCode::FORBIDDEN, b"<html>"));
        assert!(!refused(StatusCode::NOT_FOUND, b""));
        let token = br#"{"errcode":"M_UNKNOWN_TOKEN","error":"no"}"#;
        assert!(!refused(StatusCode::UNAUTHORIZED, token));
        assert!(!refused(StatusCode::BAD_GATEWAY, forbidden));
    }
}
