//! The context of a translation.

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, ServerName, UserId};

use serde_json::Value;

use crate::text::clean;

/// A participant of a conversation, as two of its rooms show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Their user in the source room: themselves or their ghost.
    pub source: OwnedUserId,
    /// Their user in the target room.
    pub target: OwnedUserId,
    /// Their name in the target room: a handle or the name that they chose, with or without `@`.
    pub name: String,
}

impl Alias {
    /// Returns how a text in the target room mentions them.
    pub(super) fn mention(&self) -> String {
        match clean(&self.name) {
            name if name.is_empty() => "@Someone".to_owned(),
            name => format!("@{name}"),
        }
    }
}

/// The mapping between the events of the source room and those of the target room.
pub trait EventMapping: Sync {
    /// Returns the event in the target room that corresponds to `source`, unless it was never known
    /// or its mapping has expired.
    fn target_of(&self, source: &EventId) -> Option<OwnedEventId>;
}

/// The route of an event, and the people of its conversation.
#[derive(Clone)]
pub struct Context<'a> {
    /// The sender, as the source room shows them.
    pub sender: &'a UserId,
    /// All participants of the conversation, the sender included.
    pub aliases: &'a [Alias],
    /// The room that the event comes from.
    pub source: &'a RoomId,
    /// The room that the event goes to.
    pub target: &'a RoomId,
    /// The events of the two rooms.
    pub events: &'a dyn EventMapping,
    /// Further strings that must not come out, such as [`device_secrets`]. Those of fewer than 8
    /// characters are found as whole words only, those of fewer than 3 not at all.
    pub secrets: &'a [String],
    /// The service's own homeserver. Media of another one has to be uploaded again: its address
    /// would name the sender's homeserver, or show that server who looks at it.
    pub homeserver: &'a ServerName,
    /// Whether calls show addresses of relays only.
    pub hide_addresses: bool,
    /// The key of the pseudonyms for the ids that clients give themselves in calls. One key per
    /// conversation, in all directions, so that an id is recognised when it comes back.
    pub pseudonym_key: &'a [u8; 32],
}

/// The parts of a context that say what is hidden, and how.
#[derive(Clone, Copy)]
pub struct Masking<'a> {
    /// The service's own homeserver.
    pub homeserver: &'a ServerName,
    /// Whether calls show addresses of relays only.
    pub hide_addresses: bool,
    /// The key of the pseudonyms in calls.
    pub pseudonym_key: &'a [u8; 32],
    /// What else must not come out: [`device_secrets`] of the event.
    pub secrets: &'a [String],
}

/// Minimum length of the id of a device that identifies it, in characters.
const DEVICE_ID_CHARS_MIN: usize = 8;

/// Returns what the clear part of an encrypted event tells of the sender's device: its id and its
/// key. The homeserver hands out both to those who guess who the sender is.
///
/// An id that a client has made from words is left out: it identifies nobody, and would be taken out
/// of what people write.
pub fn device_secrets(encrypted: &Value) -> Vec<String> {
    let is_generated = |id: &&str| {
        let capitals = id.chars().filter(|c| c.is_uppercase()).count();
        let is_random = capitals >= 2 || id.chars().any(|c| c.is_ascii_digit());
        id.chars().count() >= DEVICE_ID_CHARS_MIN && is_random
    };
    let ids = ["device_id", "sender_key"];
    let ids = ids.iter().filter_map(|name| encrypted[name].as_str());
    ids.filter(is_generated).map(str::to_owned).collect()
}

/// The mapping of a text that refers to no events.
struct NoEvents;

impl EventMapping for NoEvents {
    fn target_of(&self, _: &EventId) -> Option<OwnedEventId> {
        None
    }
}

impl<'a> Context<'a> {
    /// Returns the context of an event that `sender` sent in one room of a conversation, for
    /// another one.
    pub fn between(
        (source, target): (&'a RoomId, &'a RoomId),
        sender: &'a UserId,
        aliases: &'a [Alias],
        events: &'a dyn EventMapping,
        masking: Masking<'a>,
    ) -> Self {
        Self {
            sender,
            aliases,
            source,
            target,
            events,
            secrets: masking.secrets,
            homeserver: masking.homeserver,
            hide_addresses: masking.hide_addresses,
            pseudonym_key: masking.pseudonym_key,
        }
    }

    /// Returns the context of a plain text that is quoted before there is a conversation. It has no
    /// calls, so no pseudonym is made with its key.
    pub fn for_quote(room: &'a RoomId, sender: &'a UserId, homeserver: &'a ServerName) -> Self {
        let masking = Masking {
            homeserver,
            hide_addresses: true,
            pseudonym_key: &[0; 32],
            secrets: &[],
        };
        Self::between((room, room), sender, &[], &NoEvents, masking)
    }
}

impl Context<'_> {
    /// Returns whether the source room shows a participant as `user`.
    pub(super) fn is_participant(&self, user: &UserId) -> bool {
        self.aliases.iter().any(|alias| alias.source == user)
    }

    /// Returns the participant whom the source room shows as `user`, if a message in the target
    /// room may name them. In the source room a ghost can stand for a person of the target room and
    /// for a masked person, and nobody there knows for which: naming one would tell the target room who
    /// the other is.
    pub(super) fn alias_to_mention(&self, user: &str) -> Option<&Alias> {
        let mut shown = self.aliases.iter().filter(|alias| alias.source == user);
        let first = shown.next()?;
        shown
            .all(|alias| alias.target == first.target)
            .then_some(first)
    }

    /// Returns whether the sender's homeserver is the service's own, and so no secret.
    pub(super) fn is_sender_local(&self) -> bool {
        self.sender.server_name() == self.homeserver
    }

    /// Returns whether a piece of media has its address on the service's own homeserver.
    pub(super) fn is_local_media(&self, uri: &str) -> bool {
        let server = uri.strip_prefix("mxc://").and_then(|it| it.split_once('/'));
        server.is_some_and(|(server, _)| server == self.homeserver)
    }

    /// Returns the event in the target room that corresponds to an event named by a string.
    pub(super) fn mapped_event(&self, event: &str) -> Option<OwnedEventId> {
        let event = <&EventId>::try_from(event).ok()?;
        self.events.target_of(event)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_device_that_sent_an_event_is_a_secret() {
        let key = "nDWpvDkGNbHQGZXDDK1xhBgNfdiSOVNFjhGAvsAtA0A";
        let event = json!({ "device_id": "JLAFKJWSCS", "sender_key": key, "session_id": "x" });
        assert_eq!(device_secrets(&event), ["JLAFKJWSCS", key]);
        for id in ["hydrogen", "Hydrogen", "web", "X1", ""] {
            assert!(
                device_secrets(&json!({ "device_id": id })).is_empty(),
                "{id}"
            );
        }
        assert!(device_secrets(&json!({ "device_id": 7 })).is_empty());
        assert!(device_secrets(&json!([])).is_empty());
    }
}
