//! Portals: the rooms in which masked people see a conversation.

use std::time::Duration;

use ruma::{OwnedRoomId, OwnedUserId, api::client::room::create_room, serde::Raw};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    conversation::{Conversation, Input, Participant, RoomRole},
    engine::{
        Engine, EngineError,
        conversations::portal_info::notice,
        records::{ActiveRoomsByGhost, Conversations, InboxItem},
        room::Room,
    },
    ids::Ghost,
    introduction::Refusal,
    matrix::{Fate, MEGOLM},
    store::Batch,
};

/// Marks a portal, so that one made before a crash is found again.
const MARK: &str = "chat.stonechat.portal";

/// How long an invite takes at least whose failure shows that the other server is silent.
const LONG: Duration = Duration::from_secs(2);

impl Room {
    /// Makes or finds a portal, joins everybody's ghosts to it, and invites its owner.
    pub(in crate::engine) async fn ensure_portal(
        &mut self,
        conversation: &Conversation,
        person: usize,
    ) -> Result<Vec<Input>, EngineError> {
        let store = self.engine.store().clone();
        let who = || -> Result<_, EngineError> {
            let known = store.get_cached::<Conversations>(&conversation.id)?;
            let people = known.iter().flat_map(|known| &known.people);
            Ok(people.map(Participant::takes_part).collect::<Vec<_>>())
        };
        let before = who()?;
        match self.ensure_current_portal(conversation, person).await {
            // A person left in the meantime, and their ghost with them: this error says nothing
            // about the others.
            Err(error) if !error.is_transient() && who()? != before => {
                tracing::info!(room = %self.id, %error, "a person left while their portal was set up");
                Err(EngineError::NotThereYet)
            }
            furnished => furnished,
        }
    }

    async fn ensure_current_portal(
        &mut self,
        conversation: &Conversation,
        person: usize,
    ) -> Result<Vec<Input>, EngineError> {
        let engine = self.engine.clone();
        let role = RoomRole::Portal(person);
        let impossible = || EngineError::Refused(Refusal::Impossible);
        let portal = (conversation.id.clone(), person);
        let _one_at_a_time = engine.0.portal_locks.lock(portal).await;
        // Another task may have made the portal, or replaced one that was lost.
        let known = engine.store().get::<Conversations>(&conversation.id)?;
        // Nobody is invited to a conversation that has ended.
        let known = known.filter(|known| !known.ended);
        let conversation = &known.ok_or_else(impossible)?;
        let owner = conversation.people.get(person).ok_or_else(impossible)?;
        // Nor is a person who has left in the meantime.
        if !owner.takes_part() {
            return Ok(Vec::new());
        }
        let ghosts: Vec<Participant> = conversation.ghosts_at(role).cloned().collect();
        let first = ghosts.first().ok_or_else(impossible)?;
        for ghost in &ghosts {
            engine
                .machines()
                .provision(&ghost.ghost, &ghost.name)
                .await?;
        }
        let known: Vec<Ghost> = ghosts.iter().map(|ghost| ghost.ghost.clone()).collect();
        let mut now = None;
        let mut host = None;
        if let Some(room) = conversation.room(role) {
            host = engine.host_of(&known, room).await?;
            if host.is_none() {
                now = engine.mark_portal_lost(&conversation.id, person).await?;
            }
        }
        let conversation = now.as_ref().unwrap_or(conversation);
        let host = ghosts
            .iter()
            .find(|ghost| Some(&ghost.ghost) == host.as_ref());
        let host = host.unwrap_or(first);
        let room = match conversation.room(role) {
            Some(room) => room.clone(),
            None => engine.make_portal(conversation, person, host).await?,
        };
        engine
            .join_ghosts(conversation, person, &room, host, &ghosts)
            .await?;
        // Before the owner is invited, because the invite shows the room's name.
        let (_, mut inputs) = engine
            .sync_info_of_portal(conversation, person, &room)
            .await?;
        let view = engine.fetch_room_state(&host.ghost, &room).await?;
        if !matches!(view.membership(&owner.user), "join" | "invite") {
            // Written before: they may decline before the answer is here.
            let inviting = Input::InvitingOwner { person };
            engine
                .apply(&conversation.id, &[inviting], Batch::new())
                .await?;
            self.invite_unless_silent(conversation, &host.ghost, owner, &room)
                .await?;
        }
        engine.0.room_states.mark_outdated(&room);
        inputs.push(Input::PortalReady { person });
        Ok(inputs)
    }
}

impl Room {
    /// Invites the owner of a portal, unless their server did not answer a moment ago.
    async fn invite_unless_silent(
        &mut self,
        conversation: &Conversation,
        host: &Ghost,
        owner: &Participant,
        room: &OwnedRoomId,
    ) -> Result<(), EngineError> {
        let (engine, server) = (self.engine.clone(), owner.user.server_name());
        if self.lanes.is_silent(server, engine.now()) {
            return Err(EngineError::Unanswered(Box::new(EngineError::NotThereYet)));
        }
        let asked = Instant::now();
        let invited = engine.invite_owner_of_portal(conversation, host, owner, room);
        let invited = invited.await;
        // What fails at once holds up nobody, and says nothing of the server's other people.
        if matches!(invited, Err(EngineError::Unanswered(_))) && asked.elapsed() >= LONG {
            self.lanes.note_silent(server, engine.now());
        }
        invited
    }
}

impl Engine {
    /// Makes a portal. It is recorded before anybody is invited; after a crash in between, its mark
    /// finds it.
    async fn make_portal(
        &self,
        conversation: &Conversation,
        person: usize,
        host: &Participant,
    ) -> Result<OwnedRoomId, EngineError> {
        let _nothing_is_left = self.0.creating.lock(host.ghost.clone()).await;
        let role = RoomRole::Portal(person);
        // Another room's actor may have been faster.
        let known = self.store().get::<Conversations>(&conversation.id)?;
        if let Some(room) = known.as_ref().and_then(|known| known.room(role)) {
            return Ok(room.clone());
        }
        let acting = self.as_user(&host.ghost)?;
        let mark = format!("{}.{person}", conversation.id);
        let room = match self.room_with_mark(acting.actor(), MARK, &mark).await? {
            Some(room) => room,
            None => {
                let bot = &self.settings().bot;
                let request = portal(conversation, &mark, host, bot)?;
                self.homeserver()
                    .create_room(acting.actor(), request)
                    .await?
            }
        };
        self.machines().expect_room(&host.ghost, &room).await?;
        let mut batch = Batch::new();
        let made = Input::PortalCreated {
            person,
            room: room.clone(),
        };
        batch.put::<ActiveRoomsByGhost>(&(host.ghost.clone().into(), room.clone()), &())?;
        self.apply(&conversation.id, &[made], batch).await?;
        self.store().flush().await?;
        Ok(room)
    }

    /// Joins the ghosts of the people who take part to a portal, and tells its actor.
    async fn join_ghosts(
        &self,
        conversation: &Conversation,
        person: usize,
        room: &OwnedRoomId,
        host: &Participant,
        ghosts: &[Participant],
    ) -> Result<(), EngineError> {
        // First, so that a ghost's invite is not taken for somebody's wish to reach it.
        let joined = InboxItem::ConversationJoined {
            conversation: conversation.id.clone(),
            ghosts: ghosts.iter().map(|ghost| ghost.ghost.clone()).collect(),
        };
        let mut batch = Batch::new();
        for ghost in ghosts {
            batch.put::<ActiveRoomsByGhost>(&(ghost.ghost.clone().into(), room.clone()), &())?;
        }
        self.post(room, &joined, batch).await?;
        let acting = self.as_user(&host.ghost)?;
        let view = self.fetch_room_state(&host.ghost, room).await?;
        for ghost in ghosts.iter().filter(|ghost| ghost.ghost != host.ghost) {
            self.machines().expect_room(&ghost.ghost, room).await?;
            if view.membership(&ghost.ghost) == "join" {
                continue;
            }
            let content = json!({ "membership": "invite" });
            let key = ghost.ghost.as_str();
            self.homeserver()
                .send_state(acting.actor(), room, "m.room.member", key, &content)
                .await?;
            let own = self.as_user(&ghost.ghost)?;
            self.homeserver().join(own.actor(), room).await?;
        }
        if !conversation.direct {
            self.share_power(host, room, ghosts).await?;
        }
        // A person who no longer takes part must be neither seen nor read.
        let role = RoomRole::Portal(person);
        let others = conversation.people.iter().enumerate();
        let gone = others.filter(|(index, p)| p.room_role(*index) != role && !p.takes_part());
        for (_, gone) in gone.filter(|(_, gone)| !conversation.needs(&gone.ghost)) {
            if view.membership(&gone.ghost) == "join" {
                self.leave_portal(&gone.ghost, room).await?;
            }
        }
        Ok(())
    }

    /// Gives every ghost in a group's portal the power to administer it: the one that made it may
    /// leave the conversation before the others.
    async fn share_power(
        &self,
        host: &Participant,
        room: &OwnedRoomId,
        ghosts: &[Participant],
    ) -> Result<(), EngineError> {
        let kind = "m.room.power_levels";
        let view = self.fetch_room_state(&host.ghost, room).await?;
        let mut levels = view.power_levels.clone().unwrap_or_default();
        if !levels.is_object() || !view.may_send_state(&host.ghost, kind) {
            return Ok(());
        }
        if !levels["users"].is_object() {
            levels["users"] = json!({});
        }
        for ghost in ghosts.iter().map(|ghost| &ghost.ghost) {
            // A creator always has this power, and must not be listed.
            if !view.creators.contains(ghost) {
                levels["users"][ghost.as_str()] = json!(100);
            }
        }
        if Some(&levels) != view.power_levels.as_ref() {
            let acting = self.as_user(&host.ghost)?;
            self.homeserver()
                .send_state(acting.actor(), room, kind, "", &levels)
                .await?;
        }
        Ok(())
    }

    async fn leave_portal(&self, ghost: &Ghost, room: &OwnedRoomId) -> Result<(), EngineError> {
        self.leave(ghost, room, None, None).await?;
        self.forget_room(ghost, room).await?;
        let mut batch = Batch::new();
        batch.delete::<ActiveRoomsByGhost>(&(ghost.clone().into(), room.clone()));
        Ok(self.store().apply(batch)?)
    }

    async fn invite_owner_of_portal(
        &self,
        conversation: &Conversation,
        host: &Ghost,
        owner: &Participant,
        room: &OwnedRoomId,
    ) -> Result<(), EngineError> {
        match self
            .invite(host, room, &owner.user, conversation.direct)
            .await
        {
            // The room allows the invite: the owner's account or server refuses it.
            Err(EngineError::Matrix(error)) if error.is_refusal() => {
                Err(EngineError::Refused(Refusal::Impossible))
            }
            Err(error) => {
                let error = self.unless_outage(error).await;
                let is_ours = owner.user.server_name() == self.settings().server_name
                    || error.is_outage()
                    || error.is_of_own_homeserver();
                if is_ours || error.fate() != Fate::Failing {
                    return Err(error);
                }
                Err(EngineError::Unanswered(Box::new(error)))
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Returns the request that creates a portal: its host is the admin, and the owner is a guest who
/// can write and leave.
fn portal(
    conversation: &Conversation,
    mark: &str,
    host: &Participant,
    bot: &OwnedUserId,
) -> Result<create_room::v3::Request, EngineError> {
    let topic = notice(conversation.direct, "");
    // MSC2346: clients show whom to ask about it.
    let bridge = json!({
        "bridgebot": bot,
        "protocol": { "id": "stonechat", "displayname": "Stonechat" },
        "channel": { "id": conversation.id, "displayname": host.name },
    });
    let state = [
        ("m.room.encryption", "", json!({ "algorithm": MEGOLM })),
        (
            "m.room.history_visibility",
            "",
            json!({ "history_visibility": "invited" }),
        ),
        (
            "m.room.guest_access",
            "",
            json!({ "guest_access": "forbidden" }),
        ),
        ("m.room.topic", "", json!({ "topic": topic })),
        ("m.bridge", "chat.stonechat", bridge.clone()),
        ("uk.half-shot.bridge", "chat.stonechat", bridge),
    ];
    let raw = |value: &Value| -> Result<Box<serde_json::value::RawValue>, EngineError> {
        Ok(serde_json::value::to_raw_value(value)?)
    };
    let mut request = create_room::v3::Request::new();
    request.creation_content = Some(Raw::from_json(raw(&json!({ MARK: mark }))?));
    request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
    request.is_direct = conversation.direct;
    for (kind, key, content) in state {
        let event = json!({ "type": kind, "state_key": key, "content": content });
        request.initial_state.push(Raw::from_json(raw(&event)?));
    }
    // Nobody else would see what the owner changes, except for the name, which is forwarded. And a
    // person whom the owner invited could read what the others believe to be private.
    let levels = json!({
        "users_default": 0, "events_default": 0, "state_default": 100,
        "events": { "m.room.name": 0 },
        "invite": 100, "kick": 100, "ban": 100, "redact": 50,
    });
    request.power_level_content_override = Some(Raw::from_json(raw(&levels)?));
    Ok(request)
}
