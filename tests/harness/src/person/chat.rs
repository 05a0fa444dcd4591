//! One room, through the eyes and with the hands of one person.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, bail};
use matrix_sdk::{
    Client, Room,
    attachment::{AttachmentConfig, AttachmentInfo, BaseAudioInfo},
    media::{MediaFormat, MediaRequestParameters},
    room::{
        edit::EditedContent,
        reply::{EnforceThread, Reply},
    },
    ruma::{
        EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
        api::client::{
            membership::invite_user, receipt::create_receipt::v3::ReceiptType,
            state::get_state_event_for_key,
        },
        events::{
            StateEventType,
            reaction::ReactionEventContent,
            receipt::ReceiptThread,
            relation::Annotation,
            room::message::{
                AddMentions, RoomMessageEventContent, RoomMessageEventContentWithoutRelation,
            },
            room::{EncryptedFile, MediaSource},
        },
    },
};
use serde_json::Value;

use super::{Log, Person, Seen, Sign};
use crate::PATIENCE;

/// A room of one person. Cheap to clone.
#[derive(Clone)]
pub struct Chat {
    pub(super) client: Client,
    pub(super) id: OwnedRoomId,
    pub(super) me: OwnedUserId,
    pub(super) log: Arc<Log>,
}

impl Chat {
    /// The room.
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// The SDK's room, for whatever this page has no word for.
    pub fn room(&self) -> Result<Room> {
        self.client
            .get_room(&self.id)
            .context("the client does not know the room")
    }

    /// The same, but only if what is sent there is encrypted.
    async fn encrypted_room(&self) -> Result<Room> {
        let room = self.room()?;
        if !room.latest_encryption_state().await?.is_encrypted() {
            bail!(
                "{} is not encrypted: {} will not speak there",
                self.id,
                self.me
            );
        }
        Ok(room)
    }

    /// Says something, encrypted for everybody who is in the room or invited at this moment. Does
    /// not wait for anybody to join, as Element does not.
    pub async fn says(&self, text: &str) -> Result<OwnedEventId> {
        let room = self.encrypted_room().await?;
        let content = RoomMessageEventContent::text_plain(text);
        Ok(Box::pin(async { room.send(content).await })
            .await?
            .response
            .event_id)
    }

    /// Says something under a transaction id, so that trying again does not say it twice.
    pub async fn says_as(&self, text: &str, id: &ruma::TransactionId) -> Result<OwnedEventId> {
        let room = self.encrypted_room().await?;
        let content = RoomMessageEventContent::text_plain(text);
        let said = async { room.send(content).with_transaction_id(id.to_owned()).await };
        Ok(Box::pin(said).await?.response.event_id)
    }

    /// Says something in a room that is not encrypted.
    pub async fn says_in_clear(&self, text: &str) -> Result<OwnedEventId> {
        let room = self.room()?;
        if room.latest_encryption_state().await?.is_encrypted() {
            bail!("{} is encrypted", self.id);
        }
        let content = RoomMessageEventContent::text_plain(text);
        Ok(Box::pin(async { room.send(content).await })
            .await?
            .response
            .event_id)
    }

    /// Answers a message.
    pub async fn replies(&self, to: &EventId, text: &str) -> Result<OwnedEventId> {
        let room = self.encrypted_room().await?;
        let reply = Reply {
            event_id: to.to_owned(),
            enforce_thread: EnforceThread::Unthreaded,
            add_mentions: AddMentions::No,
        };
        let content = RoomMessageEventContentWithoutRelation::text_plain(text);
        let content = Box::pin(room.make_reply_event(content, reply)).await?;
        Ok(Box::pin(async { room.send(content).await })
            .await?
            .response
            .event_id)
    }

    /// Reacts to a message.
    pub async fn reacts(&self, to: &EventId, emoji: &str) -> Result<OwnedEventId> {
        let content = ReactionEventContent::new(Annotation::new(to.to_owned(), emoji.to_owned()));
        let room = self.room()?;
        Ok(Box::pin(async { room.send(content).await })
            .await?
            .response
            .event_id)
    }

    /// Changes an own message.
    pub async fn edits(&self, message: &EventId, text: &str) -> Result<OwnedEventId> {
        let room = self.encrypted_room().await?;
        let content = RoomMessageEventContentWithoutRelation::text_plain(text);
        let edit = EditedContent::RoomMessage(content);
        let content = Box::pin(room.make_edit_event(message, edit)).await?;
        Ok(Box::pin(async { room.send(content).await })
            .await?
            .response
            .event_id)
    }

    /// Shows that they are typing, or that they have stopped.
    pub async fn types(&self, typing: bool) -> Result<()> {
        Ok(self.room()?.typing_notice(typing).await?)
    }

    /// Shows that they have read up to a message.
    pub async fn reads(&self, message: &EventId, thread: ReceiptThread) -> Result<()> {
        let room = self.room()?;
        room.send_single_receipt(ReceiptType::Read, thread, message.to_owned())
            .await?;
        Ok(())
    }

    /// Waits for a receipt or typing.
    pub async fn shows(&self, what: &str, mut wanted: impl FnMut(&Sign) -> bool) -> Result<()> {
        let find = |log: &Log| log.signs_in(&self.id).iter().any(&mut wanted).then_some(());
        self.log.until(PATIENCE, what, find).await
    }

    /// Deletes a message.
    pub async fn redacts(&self, message: &EventId) -> Result<()> {
        self.room()?.redact(message, None, None).await?;
        Ok(())
    }

    /// Sends a file, encrypted.
    pub async fn sends_file(&self, name: &str, bytes: &[u8]) -> Result<OwnedEventId> {
        self.attaches(name, &mime::APPLICATION_OCTET_STREAM, bytes, None)
            .await
    }

    /// Sends a voice message, encrypted.
    pub async fn sends_voice(&self, bytes: &[u8]) -> Result<OwnedEventId> {
        let kind: mime::Mime = "audio/ogg".parse()?;
        let info = BaseAudioInfo {
            duration: Some(std::time::Duration::from_secs(2)),
            waveform: Some(vec![0.1, 0.5, 0.9]),
            ..BaseAudioInfo::default()
        };
        self.attaches(
            "Voice message.ogg",
            &kind,
            bytes,
            Some(AttachmentInfo::Voice(info)),
        )
        .await
    }

    /// The bytes of a file that this client was shown, decrypted.
    pub async fn downloads(&self, file: &Seen) -> Result<Vec<u8>> {
        let file: EncryptedFile = serde_json::from_value(file.content["file"].clone())?;
        let request = MediaRequestParameters {
            source: MediaSource::Encrypted(Box::new(file)),
            format: MediaFormat::File,
        };
        let media = self.client.media();
        Ok(media.get_media_content(&request, false).await?)
    }

    async fn attaches(
        &self,
        name: &str,
        kind: &mime::Mime,
        bytes: &[u8],
        info: Option<AttachmentInfo>,
    ) -> Result<OwnedEventId> {
        let room = self.encrypted_room().await?;
        let config = AttachmentConfig {
            info,
            ..AttachmentConfig::default()
        };
        let sent = Box::pin(async {
            room.send_attachment(name, kind, bytes.to_vec(), config)
                .await
        });
        Ok(sent.await?.event_id)
    }

    /// Sends any event, encrypted if the room is.
    pub async fn sends(&self, kind: &str, content: Value) -> Result<OwnedEventId> {
        let room = self.room()?;
        Ok(Box::pin(async { room.send_raw(kind, content).await })
            .await?
            .response
            .event_id)
    }

    /// Sets state.
    pub async fn sets_state(&self, kind: &str, key: &str, content: Value) -> Result<OwnedEventId> {
        Ok(self
            .room()?
            .send_state_event_raw(kind, key, content)
            .await?
            .event_id)
    }

    /// Reads a state event from the server, if there is one.
    pub async fn state(&self, kind: &str, key: &str) -> Result<Option<Value>> {
        let request = get_state_event_for_key::v3::Request::new(
            self.id.clone(),
            StateEventType::from(kind),
            key.to_owned(),
        );
        match self.client.send(request).await {
            Ok(answer) => Ok(Some(serde_json::from_str(
                answer.into_content().json().get(),
            )?)),
            Err(error)
                if error
                    .as_client_api_error()
                    .is_some_and(|e| e.status_code == 404) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Invites somebody.
    pub async fn invites(&self, user: &UserId) -> Result<()> {
        let recipient = invite_user::v3::InvitationRecipient::UserId(
            invite_user::v3::InviteUserId::new(user.to_owned()),
        );
        self.client
            .send(invite_user::v3::Request::new(self.id.clone(), recipient))
            .await?;
        Ok(())
    }

    /// Leaves.
    pub async fn leaves(&self) -> Result<()> {
        self.room()?.leave().await?;
        Ok(())
    }

    /// Waits for a message with this text, by anybody; encrypted or not.
    pub async fn sees(&self, text: &str) -> Result<Seen> {
        self.sees_where(&format!("the text {text:?}"), |seen| {
            seen.text() == Some(text)
        })
        .await
    }

    /// Waits for a message whose text holds `part`.
    pub async fn sees_part(&self, part: &str) -> Result<Seen> {
        let holds = |seen: &Seen| seen.text().is_some_and(|text| text.contains(part));
        self.sees_where(&format!("a text with {part:?}"), holds)
            .await
    }

    /// Waits for an event in this room that `wanted` says yes to.
    pub async fn sees_where(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Seen) -> bool,
    ) -> Result<Seen> {
        let id = &self.id;
        let what = format!("{what} in {id}");
        self.log
            .until(PATIENCE, &what, |log| {
                log.find(|seen| seen.room == *id && wanted(seen))
            })
            .await
    }

    /// Waits until somebody's membership here is `membership`.
    pub async fn sees_member(&self, user: &UserId, membership: &str) -> Result<()> {
        let what = format!("{user} to be {membership:?} in {}", self.id);
        let is = |log: &Log| log.membership_of(&self.id, user).as_deref() == Some(membership);
        self.log
            .until(PATIENCE, &what, |log| is(log).then_some(()))
            .await
    }

    /// Waits until somebody has joined.
    pub async fn sees_join(&self, user: &UserId) -> Result<()> {
        self.sees_member(user, "join").await
    }

    /// Waits until somebody has left.
    pub async fn sees_leave(&self, user: &UserId) -> Result<()> {
        self.sees_member(user, "leave").await
    }

    /// Says something and waits for what `who` says next, encrypted.
    pub async fn asks(&self, who: &UserId, text: &str) -> Result<Seen> {
        let asked = self.says(text).await?;
        let mut after = false;
        let what = format!("an answer by {who} to {text:?}");
        self.log
            .until(PATIENCE, &what, |log| {
                after = false;
                log.events_in(&self.id).into_iter().find(|seen| {
                    after |= seen.event_id == asked;
                    after && seen.sender == who && seen.text().is_some()
                })
            })
            .await
    }

    /// Who said what, in order, as this client has shown it.
    pub fn texts(&self) -> Vec<(OwnedUserId, String)> {
        self.log.texts_in(&self.id)
    }

    /// Everything that this client has shown of the room.
    pub fn events(&self) -> Vec<Seen> {
        self.log.events_in(&self.id)
    }

    /// Who is joined or invited, from the server: user → membership.
    pub async fn present(&self, as_seen_by: &Person) -> Result<BTreeMap<OwnedUserId, String>> {
        let mut members = as_seen_by.members(&self.id).await?;
        members.retain(|_, membership| membership == "join" || membership == "invite");
        Ok(members)
    }
}
