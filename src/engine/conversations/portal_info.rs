//! Names and topics of portals and origins, and the names of ghosts.

use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::json;

use crate::{
    conversation::{Conversation, Input, Participant, RoomRole, names_at, names_to_remember},
    engine::{
        Engine, EngineError,
        conversations::{aliases::aliases, event_map::EventMap},
        room::Room,
    },
    ids::{Ghost, Person},
    matrix::{RoomState, RoomText},
    relay::{Context, Masking, NAME_CHARS_MAX, TOPIC_CHARS_MAX, translate_room_text},
    store::Batch,
};

/// The notice to a person whose new room name or topic would name people.
const NAMES_SOMEBODY: &str = "The new name or topic of this chat wasn't passed on: it is too \
                              long, or would show who somebody is. Please choose another one.";
/// The notice to the owner of a portal who may not rename the others' room.
const MAY_NOT: &str = "The name of this chat wasn't changed: in the room of the others your \
                       handle may not do that. Please ask somebody there to change it, or to give \
                       your handle the permission; until then the chat is called as before.";

impl Room {
    /// Gives a portal the origin's name and topic. The person who changed them is told if they
    /// cannot be passed on.
    pub(in crate::engine) async fn sync_portal_info(
        &self,
        conversation: &Conversation,
        person: usize,
        cause: Option<&OwnedEventId>,
    ) -> Result<Vec<Input>, EngineError> {
        let Some(room) = conversation.room(RoomRole::Portal(person)) else {
            return Ok(Vec::new());
        };
        let (all, mut inputs) = self
            .engine
            .sync_info_of_portal(conversation, person, room)
            .await?;
        if let (false, Some(event)) = (all, cause) {
            inputs.push(Input::NotForwarded {
                role: RoomRole::Origin,
                event: event.clone(),
                text: NAMES_SOMEBODY.to_owned(),
            });
        }
        Ok(inputs)
    }

    /// Renames the origin to the name that the owner of this portal has chosen, if their ghost may
    /// do that there. Otherwise the owner is told, and the portal gets its former name back.
    pub(in crate::engine) async fn rename_origin_by(
        &self,
        conversation: &Conversation,
        event: &OwnedEventId,
        role: RoomRole,
    ) -> Result<Vec<Input>, EngineError> {
        let engine = &self.engine;
        let RoomRole::Portal(person) = role else {
            return Ok(Vec::new());
        };
        let Some(owner) = conversation.people.get(person) else {
            return Ok(Vec::new());
        };
        let Some(reader) = conversation.ghosts_at(role).next() else {
            return Ok(Vec::new());
        };
        let here = engine.fetch_room_state(&reader.ghost, &self.id).await?;
        // Only while the present name is the owner's: a ghost may have set the origin's name since.
        let Some(name) = here.name.as_deref().filter(|name| name.by == owner.user) else {
            return Ok(Vec::new());
        };
        let mut inputs = names_to_remember(conversation, role, &here.names);
        let renamed = engine.rename_origin(conversation, owner, role, name, &here, &self.id);
        let text = match renamed.await {
            Ok(None) => {
                inputs.push(Input::OriginRenamed { person });
                return Ok(inputs);
            }
            Ok(Some(text)) => text,
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => MAY_NOT,
        };
        let dressed = engine.sync_info_of_portal(conversation, person, &self.id);
        inputs.extend(dressed.await?.1);
        inputs.push(Input::NotForwarded {
            role,
            event: event.clone(),
            text: text.to_owned(),
        });
        Ok(inputs)
    }
}

impl Engine {
    /// Changes a person's name in the conversation of two that they have with a ghost. Changing it
    /// in others too, at the same moment, would show that they belong to one person.
    pub(in crate::engine) async fn rename_in_direct(
        &self,
        person: &Person,
        ghost: &Ghost,
        name: &str,
    ) -> Result<(), EngineError> {
        let Some(conversation) = self.conversation_with(person, ghost)? else {
            return Ok(());
        };
        let Some(person) = conversation.person_at(RoomRole::Origin, person) else {
            return Ok(());
        };
        let called = Input::Renamed {
            person,
            name: name.to_owned(),
        };
        self.apply(&conversation.id, &[called], Batch::new())
            .await?;
        Ok(self.store().flush().await?)
    }

    /// Sets the display name of a ghost that was made for this conversation.
    pub(in crate::engine) async fn set_ghost_name(
        &self,
        person: &Participant,
    ) -> Result<(), EngineError> {
        if !person.is_alias {
            return Ok(());
        }
        // A ghost without a device is yet to be made, and gets the name then.
        let Some(acting) = self.find_user(&person.ghost)? else {
            return Ok(());
        };
        Ok(self
            .homeserver()
            .set_display_name(acting.actor(), &person.name)
            .await?)
    }

    /// Gives the origin a portal's name. Returns a text that says why not, if it cannot.
    async fn rename_origin(
        &self,
        conversation: &Conversation,
        owner: &Participant,
        role: RoomRole,
        name: &RoomText,
        here: &RoomState,
        portal: &OwnedRoomId,
    ) -> Result<Option<&'static str>, EngineError> {
        let Some(origin) = &conversation.origin else {
            return Ok(Some(MAY_NOT));
        };
        let there = self.fetch_room_state(&owner.ghost, origin).await?;
        let route = TextRoute {
            conversation,
            source: role,
            target: RoomRole::Origin,
            rooms: (portal, origin),
        };
        let Some(text) = self.translated(&route, name, here, NAME_CHARS_MAX)? else {
            return Ok(Some(NAMES_SOMEBODY));
        };
        let called = there.name.as_ref().map_or("", |name| &name.text);
        if called == text {
            return Ok(None);
        }
        let (kind, ghost) = ("m.room.name", &owner.ghost);
        if there.membership(ghost) != "join" || !there.may_send_state(ghost, kind) {
            return Ok(Some(MAY_NOT));
        }
        let acting = self.as_user(ghost)?;
        let content = json!({ "name": text });
        self.homeserver()
            .send_state(acting.actor(), origin, kind, "", &content)
            .await?;
        self.0.room_states.mark_outdated(origin);
        Ok(None)
    }

    /// Gives a portal the origin's name and topic. Returns `false` if something had to be left out,
    /// and the inputs that note which names were used.
    pub(in crate::engine) async fn sync_info_of_portal(
        &self,
        conversation: &Conversation,
        person: usize,
        room: &OwnedRoomId,
    ) -> Result<(bool, Vec<Input>), EngineError> {
        let role = RoomRole::Portal(person);
        let readers: Vec<&Participant> = conversation.ghosts_at(RoomRole::Origin).collect();
        let (Some(origin), Some(reader)) = (&conversation.origin, readers.first()) else {
            return Ok((true, Vec::new()));
        };
        let from = match self.cached_room_state(&reader.ghost, origin).await {
            Ok(view) if view.membership(&reader.ghost) == "join" => view,
            // The portal keeps its name.
            Ok(_) => return Ok((true, Vec::new())),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => return Ok((true, Vec::new())),
        };
        let ghosts: Vec<&Ghost> = conversation.ghosts_at(role).map(|p| &p.ghost).collect();
        let Some(host) = ghosts.first() else {
            return Ok((true, Vec::new()));
        };
        let there = self.fetch_room_state(host, room).await?;
        let may = |ghost: &&&Ghost| {
            there.membership(ghost) == "join" && there.may_send_state(ghost, "m.room.topic")
        };
        let Some(ghost) = ghosts.iter().find(may) else {
            return Ok((true, Vec::new()));
        };
        let route = TextRoute {
            conversation,
            source: RoomRole::Origin,
            target: role,
            rooms: (origin, room),
        };
        let name = self.worded(&route, from.name.as_deref(), &from, NAME_CHARS_MAX)?;
        let topic = self.worded(&route, from.topic.as_deref(), &from, TOPIC_CHARS_MAX)?;
        let all = name.is_some() && topic.is_some();
        let (name, topic) = (name.unwrap_or_default(), topic.unwrap_or_default());
        let topic = notice(conversation.direct, &topic);
        let is_current = |worded: &Option<Box<RoomText>>, text: &str| {
            worded.as_ref().map_or("", |worded| &worded.text) == text
        };
        let acting = self.as_user(ghost)?;
        if !is_current(&there.name, &name) {
            let (kind, content) = ("m.room.name", json!({ "name": name }));
            self.homeserver()
                .send_state(acting.actor(), room, kind, "", &content)
                .await?;
        }
        if !is_current(&there.topic, &topic) {
            let (kind, content) = ("m.room.topic", json!({ "topic": topic }));
            self.homeserver()
                .send_state(acting.actor(), room, kind, "", &content)
                .await?;
        }
        self.0.room_states.mark_outdated(room);
        Ok((
            all,
            names_to_remember(conversation, RoomRole::Origin, &from.names),
        ))
    }

    fn worded(
        &self,
        route: &TextRoute<'_>,
        worded: Option<&RoomText>,
        from: &RoomState,
        at_most: usize,
    ) -> Result<Option<String>, EngineError> {
        match worded {
            Some(worded) => self.translated(route, worded, from, at_most),
            None => Ok(Some(String::new())),
        }
    }

    /// Returns a name or topic as the other room may show it.
    fn translated(
        &self,
        route: &TextRoute<'_>,
        worded: &RoomText,
        from: &RoomState,
        at_most: usize,
    ) -> Result<Option<String>, EngineError> {
        let TextRoute {
            conversation,
            source,
            target,
            rooms: (here, there),
        } = *route;
        let others = from.readers().filter(|user| !self.is_ours(user));
        let names = names_at(conversation, source, &from.names, others);
        let aliases = aliases(conversation, source, target, None);
        let map = EventMap {
            engine: self,
            source: here,
            target: there,
        };
        let masking = Masking {
            homeserver: &self.settings().server_name,
            hide_addresses: self.hides_addresses(conversation)?,
            pseudonym_key: &conversation.secret.0,
            // No device shows in the state of a room.
            secrets: &[],
        };
        let context = Context::between((here, there), &worded.by, &aliases, &map, masking);
        Ok(translate_room_text(&worded.text, &context, &names, at_most))
    }
}

/// The route of a name or topic.
struct TextRoute<'a> {
    conversation: &'a Conversation,
    source: RoomRole,
    target: RoomRole,
    rooms: (&'a OwnedRoomId, &'a OwnedRoomId),
}

/// Returns the topic of a portal: what its owner has to know, then the topic of the origin. It names
/// nobody: a new topic stands in the timeline, whole, and a person's new name needs none.
pub(in crate::engine) fn notice(is_direct: bool, topic: &str) -> String {
    let notice = format!(
        "You are masked here: {} see your Matrix ID, and you don't see theirs. The service carries \
         what is written and can read it on the way; it keeps none of it.",
        if is_direct {
            "the other person doesn't"
        } else {
            "the others don't"
        }
    );
    if topic.is_empty() {
        notice
    } else {
        format!("{notice}\n\n{topic}")
    }
}
