//! What a person does outside of a chat: start one, answer an invite, change a setting.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use matrix_sdk::ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::{
        config::set_global_account_data,
        keys::get_keys,
        membership::get_member_events,
        room::create_room::v3::{Request as CreateRoom, RoomPreset},
    },
    events::{AnyInitialStateEvent, GlobalAccountDataEventType},
    serde::Raw,
};
use serde_json::{Value, json};

use super::{Chat, Invite, Person};
use crate::PATIENCE;

/// How a chat is started. The default is what Element's "Start chat" does.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// The room version; the server's default if `None`.
    pub room_version: Option<RoomVersionId>,
    /// `m.room.encryption` from the beginning.
    pub encrypted: bool,
    /// The history visibility (`invited` in Element's chats with people).
    pub history_visibility: String,
    /// Whether the invites say that it is a chat with people.
    pub is_direct: bool,
    /// Everybody invited gets the rights of the creator.
    pub trusted: bool,
    /// Further initial state.
    pub state: Vec<Value>,
    /// Power levels that differ from the preset's.
    pub power_levels: Option<Value>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self {
            room_version: None,
            encrypted: true,
            history_visibility: "invited".into(),
            is_direct: true,
            trusted: true,
            state: Vec::new(),
            power_levels: None,
        }
    }
}

impl ChatOptions {
    /// A group as Element makes it: encrypted, private, nobody marked as direct.
    pub fn group() -> Self {
        Self {
            is_direct: false,
            trusted: false,
            ..Self::default()
        }
    }

    /// The request for such a chat.
    pub fn request(&self, with: &[&UserId]) -> Result<CreateRoom> {
        let mut state = self.state.clone();
        state.push(json!({
            "type": "m.room.history_visibility",
            "state_key": "",
            "content": { "history_visibility": self.history_visibility },
        }));
        state.push(json!({
            "type": "m.room.guest_access",
            "state_key": "",
            "content": { "guest_access": "can_join" },
        }));
        if self.encrypted {
            state.push(json!({
                "type": "m.room.encryption",
                "state_key": "",
                "content": { "algorithm": "m.megolm.v1.aes-sha2" },
            }));
        }
        let mut request = CreateRoom::new();
        request.invite = with.iter().map(|&user| user.to_owned()).collect();
        request.is_direct = self.is_direct;
        request.preset = Some(if self.trusted {
            RoomPreset::TrustedPrivateChat
        } else {
            RoomPreset::PrivateChat
        });
        request.room_version = self.room_version.clone();
        request.initial_state = state
            .iter()
            .map(|event| Ok(Raw::<AnyInitialStateEvent>::from_json(raw(event)?)))
            .collect::<Result<_>>()?;
        if let Some(levels) = &self.power_levels {
            request.power_level_content_override = Some(Raw::from_json(raw(levels)?));
        }
        Ok(request)
    }

    /// The same with a room version (`10`, `11`, `12`).
    pub fn version(mut self, version: &str) -> Result<Self> {
        self.room_version = Some(RoomVersionId::try_from(version)?);
        Ok(self)
    }
}

impl Person {
    /// Starts a chat as Element's "Start chat" does, and returns at once: nobody has joined yet.
    pub async fn starts_chat(&self, with: &[&UserId]) -> Result<Chat> {
        self.starts_chat_with(with, ChatOptions::default()).await
    }

    /// The same with options.
    pub async fn starts_chat_with(&self, with: &[&UserId], options: ChatOptions) -> Result<Chat> {
        let request = options.request(with)?;
        // Sets `m.direct` as well, after the room is made, as Element does.
        let room = self.client.create_room(request).await?;
        Ok(self.chat(room.room_id()))
    }

    /// A room that this person is in, or will be.
    pub fn chat(&self, room: &RoomId) -> Chat {
        Chat {
            client: self.client.clone(),
            id: room.to_owned(),
            me: self.user_id.clone(),
            log: self.log.clone(),
        }
    }

    /// Waits for an invite that `wanted` says yes to.
    pub async fn invited(&self, mut wanted: impl FnMut(&Invite) -> bool) -> Result<Invite> {
        self.until("an invite", |log| {
            log.invites().into_iter().find(&mut wanted)
        })
        .await
    }

    /// Waits for an invite by `sender`.
    pub async fn invited_by(&self, sender: &UserId) -> Result<Invite> {
        let what = format!("an invite by {sender}");
        let by = |invite: &Invite| invite.sender == sender;
        self.until(&what, |log| log.invites().into_iter().find(by))
            .await
    }

    /// Accepts an invite.
    pub async fn accepts(&self, invite: &Invite) -> Result<Chat> {
        // Synapse shows a remote invite to the invited before the inviting server has written it
        // down, and refuses who is faster than that: then a person clicks again.
        let remote = invite.sender.server_name() != self.user_id.server_name();
        for _ in 0..if remote { 20 } else { 0 } {
            match self.client.join_room_by_id(&invite.room).await {
                Ok(_) => break,
                Err(error) if error.to_string().contains("not invited") => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.joins(&invite.room).await
    }

    /// Joins a room.
    pub async fn joins(&self, room: &RoomId) -> Result<Chat> {
        self.client.join_room_by_id(room).await?;
        // As a chat of a client begins when the room is there, not when the request is done.
        self.until("the room it joined", |log| {
            (log.membership_of(room, &self.user_id).as_deref() == Some("join")).then_some(())
        })
        .await?;
        Ok(self.chat(room))
    }

    /// Declines an invite, or leaves a room.
    pub async fn leaves(&self, room: &RoomId) -> Result<()> {
        self.client
            .get_room(room)
            .context("the client does not know the room")?
            .leave()
            .await?;
        Ok(())
    }

    /// Refuses all invites from now on, at the server (`m.invite_permission_config`). A Synapse
    /// before 1.149 heeds only the form that the setting had before it had that name.
    pub async fn blocks_all_invites(&self) -> Result<()> {
        let settings = [
            (
                "org.matrix.msc4155.invite_permission_config",
                json!({ "blocked_users": ["*"] }),
            ),
            (
                "m.invite_permission_config",
                json!({ "default_action": "block" }),
            ),
        ];
        for (kind, setting) in settings {
            self.sets_account_data(kind, &setting).await?;
        }
        Ok(())
    }

    /// Ignores people, as Element's "Ignore" does.
    pub async fn ignores(&self, others: &[&UserId]) -> Result<()> {
        let ignored: BTreeMap<_, _> = others.iter().map(|&other| (other, json!({}))).collect();
        self.sets_account_data("m.ignored_user_list", &json!({ "ignored_users": ignored }))
            .await
    }

    /// Writes to the account data.
    pub async fn sets_account_data(&self, kind: &str, content: &Value) -> Result<()> {
        let request = set_global_account_data::v3::Request::new_raw(
            self.user_id.clone(),
            GlobalAccountDataEventType::from(kind),
            Raw::from_json(raw(content)?),
        );
        self.client.send(request).await?;
        Ok(())
    }

    /// Changes the display name.
    pub async fn is_called(&self, name: &str) -> Result<()> {
        self.client.account().set_display_name(Some(name)).await?;
        Ok(())
    }

    /// The device that this client is.
    pub fn device(&self) -> Result<String> {
        Ok(self
            .client
            .device_id()
            .context("not signed in")?
            .to_string())
    }

    /// Signs a further device of one's own, as "Verify with another device" ends. Waits until the
    /// device has published its keys.
    pub async fn signs_own_device(&self, device: &str) -> Result<()> {
        let encryption = self.client.encryption();
        let mut changes = self.changes();
        let published = async {
            loop {
                encryption.request_user_identity(&self.user_id).await?;
                let found = encryption.get_device(&self.user_id, device.into()).await?;
                if let Some(found) = found {
                    return anyhow::Ok(found);
                }
                // A sync brings the news.
                changes.changed().await?;
            }
        };
        let found = tokio::time::timeout(PATIENCE, published).await;
        let found = found.with_context(|| format!("{device} has no keys after {PATIENCE:?}"))??;
        Ok(found.verify().await?)
    }

    /// The devices of somebody that are published with keys: device → signed by its owner.
    pub async fn devices_of(&self, user: &UserId) -> Result<BTreeMap<String, bool>> {
        // A fresh query, so that the answer is the server's and not our memory.
        self.client.encryption().request_user_identity(user).await?;
        let devices = self.client.encryption().get_user_devices(user).await?;
        Ok(devices
            .devices()
            .map(|device| {
                (
                    device.device_id().to_string(),
                    device.is_cross_signed_by_owner(),
                )
            })
            .collect())
    }

    /// What `/keys/query` says about somebody, as it is.
    pub async fn keys_of(&self, user: &UserId) -> Result<Value> {
        let mut request = get_keys::v3::Request::new();
        request.device_keys = BTreeMap::from([(user.to_owned(), Vec::new())]);
        let keys = self.client.send(request).await?;
        Ok(json!({
            "device_keys": keys.device_keys,
            "master_keys": keys.master_keys,
            "self_signing_keys": keys.self_signing_keys,
        }))
    }

    /// Who is in a room and how, from the server: user → membership.
    pub async fn members(&self, room: &RoomId) -> Result<BTreeMap<OwnedUserId, String>> {
        let request = get_member_events::v3::Request::new(room.to_owned());
        let answer = self.client.send(request).await?;
        let mut members = BTreeMap::new();
        for event in answer.chunk {
            let user = event.get_field::<OwnedUserId>("state_key")?;
            let content = event.get_field::<Value>("content")?.unwrap_or_default();
            if let (Some(user), Some(membership)) = (user, content["membership"].as_str()) {
                members.insert(user, membership.to_owned());
            }
        }
        Ok(members)
    }

    /// The rooms that the client counts as chats with `user` (`m.direct`), from the server.
    pub async fn direct_chats_with(&self, user: &UserId) -> Result<Vec<OwnedRoomId>> {
        use matrix_sdk::ruma::api::client::config::get_global_account_data;
        let request = get_global_account_data::v3::Request::new(
            self.user_id.clone(),
            GlobalAccountDataEventType::Direct,
        );
        let Ok(answer) = self.client.send(request).await else {
            return Ok(Vec::new());
        };
        let direct: BTreeMap<OwnedUserId, Vec<OwnedRoomId>> =
            answer.account_data.deserialize_as_unchecked()?;
        Ok(direct.get(user).cloned().unwrap_or_default())
    }
}

fn raw(value: &Value) -> Result<Box<serde_json::value::RawValue>> {
    Ok(serde_json::value::to_raw_value(value)?)
}
