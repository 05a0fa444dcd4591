//! Tells the refusal of one request from a homeserver that does not have one of our users.
//!
//! Synapse answers both with 403 and `M_FORBIDDEN`. So after a refusal it is asked whether it has the
//! user at all. If the user was made again after the request began, the refusal may be from before
//! that, and the request is made again. Synapse also passes on errors of other servers, so a missing device is believed only after a request that no
//! other server takes part in.

use http::StatusCode;
use ruma::UserId;
use tokio::time::Instant;

use super::{Actor, Fate, Homeserver, MatrixError};

impl Homeserver {
    /// Notes that the homeserver did not have this user until now: the refusals of requests that have
    /// begun may be about that.
    pub fn note_missing(&self, user: &UserId) {
        self.lately_missing().insert(user, Instant::now());
    }

    /// Returns the error of a request made as `who`, which began at a time, or that `who` is missing.
    pub(super) async fn explain(
        &self,
        who: Actor<'_>,
        error: MatrixError,
        began: Instant,
    ) -> MatrixError {
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
            Ok(_) if self.lately_missing().was_missing_since(&user, began) => {
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
