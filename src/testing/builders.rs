//! What tests of several folders begin with: a conversation, an introduction.
//!
//! A test that needs another field writes it before `..`, as in
//! `Conversation { direct: false, ..conversation(&origin) }`.

use ruma::{OwnedUserId, RoomId, owned_user_id};

use super::NOW;
use crate::{
    conversation::{Conversation, Home, Participant, Secret},
    directory::DirectorySettings,
    ids::{ConversationId, Ghost, Person},
    introduction::{Admission, Introduction, Invite},
    permissions::{Grantee, Permission, Permissions},
};

/// The person who writes first, in most tests.
pub(crate) fn alice() -> OwnedUserId {
    owned_user_id!("@alice:hs.test")
}

/// A person with this Matrix ID. It is never freed, as little as a constant.
pub(crate) fn person(id: &str) -> &'static Person {
    Box::leak(Box::new(Person::new(id.try_into().unwrap())))
}

/// A conversation of two that has begun just now, with nobody in it.
pub(crate) fn conversation(origin: &RoomId) -> Conversation {
    Conversation {
        id: ConversationId::new("talk"),
        origin: Some(origin.to_owned()),
        direct: true,
        secret: Secret([7; 32]),
        people: Vec::new(),
        started_at: NOW,
        last_return_at: None,
        notices_sent_in: Vec::new(),
        removals: 0,
        ended: false,
    }
}

/// Somebody who is shown by the ghost `@_dm_GHOST`, under their own localpart.
pub(crate) fn participant(localpart: &str, ghost: &str, home: Home) -> Participant {
    Participant {
        user: Person::new(format!("@{localpart}:hs.test").try_into().unwrap()),
        ghost: Ghost::new(format!("@_dm_{ghost}:hs.test").try_into().unwrap()),
        name: localpart.to_owned(),
        is_alias: false,
        home,
        former_names: Vec::new(),
    }
}

/// An introduction of Alice to the owner of a handle. She has invited its ghost just now.
pub(crate) fn introduction(
    room: &RoomId,
    ghost: &Ghost,
    owner: Person,
    handle: &str,
) -> Introduction {
    let invite = Invite {
        asker: alice(),
        admission: Admission::Introduce {
            owner,
            handle: handle.to_owned(),
            strict: false,
            back_to: None,
            asks_first: false,
            masked: false,
        },
    };
    Introduction::found(room, ghost, invite, NOW)
}

/// Lets people of other servers claim handles, which they may not by default.
pub(crate) fn let_everybody_claim(settings: &mut DirectorySettings) {
    let written = (Grantee::Everybody, Permission::Claim);
    let permissions = Permissions::new(&settings.server_name, [written]);
    settings.permissions.replace(permissions);
}
