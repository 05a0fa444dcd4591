//! Notices from the bot to a person, in their control room or in one that is made for that.

use std::time::Duration;

use ruma::{OwnedRoomId, OwnedUserId, api::client::room::create_room};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    bot::NoticeText,
    engine::{
        Engine, EngineError,
        records::{ControlRooms, InboxItem, OwedNotice, OwedNotices, PendingNotices},
        room::Room,
    },
    ids::Person,
    store::{Batch, StoreError, prefix},
};

/// Maximum number of notices that are kept for a person who has not joined their control room.
pub(in crate::engine) const PENDING_NOTICES_MAX: usize = 20;

/// How long the bot tries to tell a person something that cannot be told at once.
const TELL_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Marks a control room that the bot made: a digest of the person's Matrix ID.
pub(in crate::engine) const MARK: &str = "chat.stonechat.for";

impl Engine {
    /// Sends a person a notice in their control room, or invites them to one.
    pub(in crate::engine) async fn notify(
        &self,
        person: &Person,
        notice: NoticeText,
        source: String,
    ) -> Result<(), EngineError> {
        let room = self.control_room_of(person).await?;
        let arrived = InboxItem::Notify {
            person: person.clone(),
            plain: notice.plain,
            html: notice.html,
            source,
        };
        let batch = Batch::new();
        self.post(&room, &arrived, batch).await?;
        Ok(())
    }

    /// Stages that the bot has to tell a person something; their control room need not be reachable
    /// now. They are told within five minutes, or when that is possible.
    pub(in crate::engine) fn stage_owed_notice(
        &self,
        person: Person,
        notice: NoticeText,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let owed = OwedNotice {
            since: self.now(),
            person,
            notice,
        };
        batch.put::<OwedNotices>(&self.next(), &owed)
    }

    /// Tells people what the bot still has to tell them.
    pub(in crate::engine) async fn tell_owed(&self) -> Result<(), StoreError> {
        for page in self.store().pages::<OwedNotices>(&[]) {
            for (number, owed) in page? {
                if self.stopping() {
                    return Ok(());
                }
                let OwedNotice {
                    since,
                    person,
                    notice,
                } = owed;
                match self.notify(&person, notice, format!("owed {number}")).await {
                    Ok(()) => {}
                    Err(EngineError::Stopping) => return Ok(()),
                    Err(error) if self.now().since(since) < TELL_FOR => {
                        tracing::warn!(%error, "somebody could not be told something; they are told later");
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(%error, "somebody could not be told something within a week");
                    }
                }
                let mut batch = Batch::new();
                batch.delete::<OwedNotices>(&number);
                self.store().commit(batch).await?;
            }
        }
        Ok(())
    }

    /// Keeps what the bot has to tell a person until they have joined their control room.
    pub(in crate::engine) fn keep_notice(
        &self,
        person: &Person,
        plain: &str,
        html: &str,
        batch: &mut Batch,
    ) -> Result<(), EngineError> {
        let store = self.store();
        let pending = store.scan::<PendingNotices>(&prefix(person), None, PENDING_NOTICES_MAX)?;
        if pending.len() < PENDING_NOTICES_MAX {
            let notice = (plain.to_owned(), html.to_owned());
            batch.put::<PendingNotices>(&(person.clone(), self.next()), &notice)?;
        }
        Ok(())
    }

    /// Returns a person's control room. If there is none, makes one and invites the person. They
    /// may leave at any time, so an item in its inbox may find nobody.
    pub(in crate::engine) async fn control_room_of(
        &self,
        person: &Person,
    ) -> Result<OwnedRoomId, EngineError> {
        if let Some(room) = self.store().get::<ControlRooms>(person)? {
            return Ok(room);
        }
        let _one_at_a_time = self.0.control_rooms.lock(person.clone()).await;
        match self.store().get::<ControlRooms>(person)? {
            Some(room) => Ok(room),
            None => self.make_control_room(person).await,
        }
    }

    /// Makes a control room and records it. Its own actor then invites the person, which may take
    /// as long as their server takes.
    pub(in crate::engine) async fn make_control_room(
        &self,
        person: &Person,
    ) -> Result<OwnedRoomId, EngineError> {
        let bot = self.settings().bot.clone();
        let acting = self.as_user(&bot)?;
        // Creating a room has no transaction id: the mark finds a room that was made for the same
        // person before a crash, or whose answer was lost.
        let mark = hex::encode(Sha256::digest(person.as_bytes()));
        if let Some(room) = self.room_with_mark(acting.actor(), MARK, &mark).await? {
            return self.take_as_control_room(&bot, person, room).await;
        }
        let mut request = create_room::v3::Request::new();
        let creation = json!({ MARK: mark });
        request.creation_content = Some(ruma::serde::Raw::from_json(
            serde_json::value::to_raw_value(&creation)?,
        ));
        request.is_direct = true;
        request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
        let encryption = json!({
            "type": "m.room.encryption",
            "state_key": "",
            "content": { "algorithm": "m.megolm.v1.aes-sha2" },
        });
        request.initial_state = vec![ruma::serde::Raw::from_json(
            serde_json::value::to_raw_value(&encryption)?,
        )];
        let room = self
            .homeserver()
            .create_room(acting.actor(), request)
            .await?;
        self.take_as_control_room(&bot, person, room).await
    }

    pub(in crate::engine) async fn take_as_control_room(
        &self,
        bot: &OwnedUserId,
        person: &Person,
        room: OwnedRoomId,
    ) -> Result<OwnedRoomId, EngineError> {
        self.machines().expect_room(bot, &room).await?;
        // Through the inbox, because the room's actor may be running already.
        let made = InboxItem::ControlRoomCreated {
            person: person.clone(),
        };
        let mut batch = Batch::new();
        self.stage(&room, &made, &mut batch)?;
        batch.put::<ControlRooms>(person, &room)?;
        self.store().commit(batch).await?;
        Ok(room)
    }
}

impl Room {
    /// Lets the bot say what can no longer be said in a room.
    pub(in crate::engine) async fn notify_by_bot(
        &self,
        person: &Person,
        words: &str,
        cause: &str,
    ) -> Result<(), EngineError> {
        let room = &self.id;
        let text = NoticeText::new("About ")
            .link(&room.matrix_to_uri().to_string())
            .and(&format!(": {words}"));
        self.engine
            .notify(person, text, format!("{room}{cause}"))
            .await
    }
}
