//! Deletes expired records of the directory, the bot, the machines and the conversations, and gives
//! up rooms to which nobody comes.

use ruma::{OwnedRoomId, UserId};
use serde::Deserialize;

use crate::{
    bot,
    engine::{
        Engine, EngineError,
        control_room::ControlPhase,
        records::{ActiveRoomsByGhost, ControlRooms, Inbox, InboxItem, RetainedEvents, Rooms},
    },
    store::{Batch, StoreError, prefix},
};

/// Maximum length of the id of a group session. Real ones have 43 bytes.
const SESSION_ID_BYTES_MAX: usize = 64;

/// Maximum number of records that are deleted in one write.
pub(in crate::engine) const SWEPT_AT_ONCE: usize = 500;

impl Engine {
    /// Deletes expired records.
    pub(in crate::engine) async fn sweep(&self) -> Result<(), EngineError> {
        let needed = |ghost: &UserId| self.sessions_of_waiting_events(ghost);
        self.machines().sweep(needed).await?;
        self.forget_lost_sessions()?;
        loop {
            let mut tx = self.directory().begin().await;
            let looked_at = tx.sweep(self.now(), SWEPT_AT_ONCE)?
                + bot::sweep_confirmations(&mut tx, self.now(), SWEPT_AT_ONCE)?;
            tx.commit().await?;
            if looked_at < SWEPT_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Returns the group sessions that events were encrypted with which wait in a ghost's rooms.
    fn sessions_of_waiting_events(
        &self,
        ghost: &UserId,
    ) -> Result<Vec<(OwnedRoomId, String)>, StoreError> {
        let mut sessions = Vec::new();
        for rooms in self
            .store()
            .pages::<ActiveRoomsByGhost>(&prefix(&ghost.to_owned()))
        {
            for ((_, room), ()) in rooms? {
                let of_room = prefix(&room);
                for page in self.store().pages::<RetainedEvents>(&of_room) {
                    let used = page?.into_iter().filter_map(|(_, json)| session_of(&json));
                    sessions.extend(used.map(|session| (room.clone(), session)));
                }
                for page in self.store().pages::<Inbox>(&of_room) {
                    let used = page?.into_iter().filter_map(|(_, item)| match item {
                        InboxItem::Event(json) | InboxItem::AfterGap(json) => session_of(&json),
                        _ => None,
                    });
                    sessions.extend(used.map(|session| (room.clone(), session)));
                }
            }
        }
        Ok(sessions)
    }

    /// Gives up the control rooms to which their people have not come. In the others, lets the bot
    /// show the requests that it could not show when they came.
    pub(in crate::engine) async fn sweep_control_rooms(&self) -> Result<(), EngineError> {
        for page in self.store().pages::<ControlRooms>(&[]) {
            for (owner, room) in page? {
                let record = self.store().get::<Rooms>(&room)?;
                let Some(control) = record.and_then(|record| record.control) else {
                    continue;
                };
                let to_do = if control.has_expired(self.now()) {
                    Some(InboxItem::ControlRoomExpired)
                } else {
                    let requests = self.directory().requests_of(&owner)?;
                    let mut unseen = requests.into_iter().filter(|(_, it)| it.shown.is_none());
                    let is_ready = control.phase == ControlPhase::Ready;
                    let unseen = unseen.next().filter(|_| is_ready);
                    unseen.map(|(number, _)| InboxItem::ShowRequest { owner, number })
                };
                if let Some(item) = to_do {
                    self.post(&room, &item, Batch::new()).await?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the group session that an event was encrypted with.
fn session_of(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Encrypted {
        content: EncryptedContent,
    }
    #[derive(Deserialize)]
    struct EncryptedContent {
        session_id: String,
    }
    let event: Encrypted = serde_json::from_str(json).ok()?;
    let session = event.content.session_id;
    (session.len() <= SESSION_ID_BYTES_MAX).then_some(session)
}
