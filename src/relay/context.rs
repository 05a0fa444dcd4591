//! What has to be known to carry an event.

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, ServerName, UserId};

use crate::text::clean;

/// One person of a conversation, as two of its rooms show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their user in the room that the event comes from: themself, or their ghost.
    pub here: OwnedUserId,
    /// Their user in the room that it goes to.
    pub there: OwnedUserId,
    /// What they are called there: a handle, or the name that they chose. With or without `@`.
    pub name_there: String,
}

impl Person {
    /// What a text that names them says there.
    pub(super) fn mention(&self) -> String {
        match clean(&self.name_there) {
            name if name.is_empty() => "@Someone".to_owned(),
            name => format!("@{name}"),
        }
    }
}

/// Which event of the room it goes to says what an event of the room it comes from said.
pub trait Counterparts: Sync {
    /// The counterpart of `here`, unless it is not known, or not known any more.
    fn event(&self, here: &EventId) -> Option<OwnedEventId>;
}

/// Where an event comes from, where it goes to, and who is who.
#[derive(Clone)]
pub struct Passage<'a> {
    /// Who sent it, as in the room it comes from.
    pub sender: &'a UserId,
    /// Everybody in the conversation, the sender too.
    pub people: &'a [Person],
    /// The room it comes from.
    pub here: &'a RoomId,
    /// The room it goes to.
    pub there: &'a RoomId,
    /// The events of the two rooms.
    pub events: &'a dyn Counterparts,
    /// Further strings that must not come out: device ids, aliases of the room it comes from.
    /// Those of fewer than 8 characters are found as whole words only, those of fewer than 3 not
    /// at all.
    pub secrets: &'a [String],
    /// The service's own homeserver. What has an address on another one has to be uploaded anew:
    /// it would name the sender's, or a third one would see who of the people there looks at it.
    pub homeserver: &'a ServerName,
    /// Whether calls show addresses of relays only.
    pub hide_addresses: bool,
    /// Makes pseudonyms of the ids that clients give themselves in calls. One key per conversation,
    /// the same in all directions: an answer that comes back is recognised by it.
    pub pseudonym_key: &'a [u8; 32],
}

impl Passage<'_> {
    /// The person whose user here `user` is.
    pub(super) fn person(&self, user: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.here == user)
    }

    /// Whether the sender's homeserver may be known to the people there.
    pub(super) fn same_homeserver(&self) -> bool {
        self.sender.server_name() == self.homeserver
    }

    /// Whether content has its address on the service's own homeserver.
    pub(super) fn is_at_home(&self, uri: &str) -> bool {
        let server = uri.strip_prefix("mxc://").and_then(|it| it.split_once('/'));
        server.is_some_and(|(server, _)| server == self.homeserver)
    }

    /// The counterpart of an event that was named by a string.
    pub(super) fn counterpart(&self, event: &str) -> Option<OwnedEventId> {
        let event = <&EventId>::try_from(event).ok()?;
        self.events.event(event)
    }
}
