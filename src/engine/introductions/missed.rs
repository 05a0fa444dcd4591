//! Messages between a ghost's last look and its leaving.

use crate::{
    crypto::DecryptError,
    engine::{EngineError, event::RoomEvent, room::Room},
    introduction::{Introduction, MessageKind},
};

/// Maximum number of events that are checked, back from the leaving.
const LAST: u32 = 30;

impl Room {
    /// Returns whether the asker sent anything between the ghost's last look and its leaving that
    /// would have been passed on. Messages for which the owner has the key count too: that cannot
    /// be seen from here.
    pub(in crate::engine) async fn was_missed(
        &self,
        introduction: &Introduction,
    ) -> Result<bool, EngineError> {
        let acting = self.engine.as_user(&introduction.ghost)?;
        let history = self.engine.history(acting.actor(), &self.id);
        let page = history.limit(1, LAST).next_page().await?;
        let mut before_leaving = false;
        for json in page.unwrap_or_default() {
            let Some(event) = RoomEvent::parse(json.get(), Some(&self.id)) else {
                continue;
            };
            if let Some((user, membership)) = event.membership() {
                before_leaving |= user == introduction.ghost && membership == "leave";
                continue;
            }
            if !before_leaving
                || event.sender != introduction.invite.asker
                || event.kind != "m.room.encrypted"
            {
                continue;
            }
            let seen = self.engine.seen(&event.id)?;
            if seen.is_some_and(|seen| seen.handled) {
                return Ok(false);
            }
            let ghost = &introduction.ghost;
            let kind = match self.classify_encrypted(ghost, json.get()).await {
                // Whatever it is, it is no longer passed on.
                Err(EngineError::Decrypt(DecryptError::SenderUnknown { .. })) => return Ok(true),
                kind => kind?,
            };
            if matches!(
                kind,
                Some(
                    MessageKind::Line
                        | MessageKind::Edit { .. }
                        | MessageKind::Unreadable
                        | MessageKind::PlainFile
                        | MessageKind::Other
                )
            ) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
