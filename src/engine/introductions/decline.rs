//! Declines invites, also as users that are made for that alone.

use crate::{
    crypto::CryptoError,
    engine::{EngineError, room::Room},
    introduction::{Admission, Introduction, Phase},
};

impl Room {
    /// Declines an invite as its ghost.
    pub(in crate::engine) async fn decline(
        &self,
        introduction: &Introduction,
        reason: Option<&str>,
    ) -> Result<(), EngineError> {
        let machines = self.engine.machines();
        let known = machines.device_of(&introduction.ghost)?;
        if known.is_none() && !self.may_make_decliner(introduction)? {
            return Ok(machines.turn_away(&introduction.ghost, &self.id).await?);
        }
        if known.is_none() {
            // Nobody holds this handle: a user without keys is made, only to decline. If the user
            // is not ours, we act as it all the same, because the name is in our namespace.
            match machines.provision_bare(&introduction.ghost).await {
                Ok(()) => {}
                Err(CryptoError::Foreign { .. }) => {
                    self.engine
                        .freeze_if_changed_in_restore(&introduction.ghost)
                        .await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.leave_introduction(introduction, reason).await?;
        Ok(machines.turn_away(&introduction.ghost, &self.id).await?)
    }

    /// Returns whether a user without a device may decline an invite, and may be made for that alone:
    /// the directory has counted it, or somebody holds the handle, or the ghost was here or in a
    /// conversation before.
    fn may_make_decliner(&self, introduction: &Introduction) -> Result<bool, EngineError> {
        let counted = introduction.invite.admission == Admission::Unclaimed;
        let was_here = introduction.phase == Phase::Over;
        let was_ours = self.engine.machines().is_known(&introduction.ghost)?;
        let record = self.engine.directory().by_ghost(&introduction.ghost)?;
        Ok(counted
            || was_here
            || was_ours
            || record.is_some_and(|record| record.holder().is_some()))
    }
}
