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
    /// Returns one of our users on its device. Refused for one that has none.
    pub(in crate::engine) fn as_user(&self, user: &UserId) -> Result<ActingUser, EngineError> {
        let acting = self.find_user(user)?;
        acting.ok_or(EngineError::Refused(Refusal::Impossible))
    }

    /// Returns one of our users on its device; `None` for one that has none, and is yet to be made.
    pub(in crate::engine) fn find_user(
        &self,
        user: &UserId,
    ) -> Result<Option<ActingUser>, EngineError> {
        let device = self.machines().device_of(user)?;
        Ok(device.map(|device| ActingUser {
            user: user.to_owned(),
            device,
        }))
    }
}
