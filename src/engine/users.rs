//! Our users, as whom requests are made.

use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    engine::{Engine, EngineError},
    introduction::Refusal,
    matrix::Actor,
};

/// The bot or a ghost, with its device.
#[derive(Debug)]
pub(in crate::engine) struct ActingUser {
    user: OwnedUserId,
    device: OwnedDeviceId,
}

impl ActingUser {
    /// Returns the user and the device in the form that the homeserver's client takes.
    pub(in crate::engine) fn actor(&self) -> Actor<'_> {
        Actor::device(&self.user, &self.device)
    }
}

impl Engine {
    /// Returns one of our users with its device. Fails if it has none.
    pub(in crate::engine) fn as_user(&self, user: &UserId) -> Result<ActingUser, EngineError> {
        let device = self.machines().device_of(user)?;
        Ok(ActingUser {
            user: user.to_owned(),
            device: device.ok_or(EngineError::Refused(Refusal::Impossible))?,
        })
    }
}
