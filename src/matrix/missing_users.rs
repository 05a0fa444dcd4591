//! Tells the refusal of one request from a homeserver that does not have one of our users.
//!
//! Synapse answers both with 403 and `M_FORBIDDEN`. So after a refusal it is asked whether it has the
//! user at all. If it was made again a moment ago, the refusal may be from before that. Synapse also
//! passes on errors of other servers, so a missing device is believed only after a request that no
//! other server takes part in.

use http::StatusCode;
use ruma::UserId;
use tokio::time::Instant;

use super::{Actor, Fate, Homeserver, MatrixError};

impl Homeserver {
    /// Notes that the homeserver did not have this user a moment ago: a refusal may be about that for
    /// as long as a request takes.
    pub fn note_missing(&self, user: &UserId) {
        self.lately_missing().insert(user, Instant::now());
    }

    /// Returns the error of a request made as `who`, or that `who` is missing.
    pub(super) async fn explain(&self, who: Actor<'_>, error: MatrixError) -> MatrixError {
        let user = who.user.to_owned();
        if who.device.is_some() && error.has_errcode("M_UNKNOWN_DEVICE") {
            // Another server can have answered so too, and making a device again costs keys.
            return match self.whoami(who).await {
                Err(answer) if answer.has_errcode("M_UNKNOWN_DEVICE") => {
                    MatrixError::NoSuchDevice { user }
                }
                _ => MatrixError::Failing {
                    status: StatusCode::BAD_REQUEST,
                    errcode: Some("M_UNKNOWN_DEVICE".to_owned()),
                    message: "no device of ours is missing".to_owned(),
                    retry_after: None,
                },
            };
        }
        let forbidden = error.has_errcode("M_FORBIDDEN")
            && error.status() == Some(StatusCode::FORBIDDEN.as_u16());
        if !forbidden {
            return error;
        }
        match self.whoami(Actor::user(&user)).await {
            Ok(_) if self.lately_missing().contains(&user, Instant::now()) => {
                MatrixError::Failing {
                    status: StatusCode::FORBIDDEN,
                    errcode: Some("M_FORBIDDEN".to_owned()),
                    message: "the user was missing a moment ago".to_owned(),
                    retry_after: None,
                }
            }
            Ok(_) => error,
            Err(answer) if answer.has_errcode("M_FORBIDDEN") => {
                self.note_missing(&user);
                MatrixError::NoSuchUser { user }
            }
            // What the refusal means is not known: the request is made again.
            Err(answer) if answer.fate() != Fate::Final => answer,
            Err(_) => error,
        }
    }
}
