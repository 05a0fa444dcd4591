//! Ids that say what they are of: ghosts, people and conversations.
//!
//! A Matrix ID alone does not say whose it is, and much depends on that: a ghost that is taken for
//! the person behind it, or a person for their ghost, tells somebody who that is. So what takes a
//! [`Ghost`] cannot be given a [`Person`], nor the other way round. A user who may be anybody, or
//! also the bot, is a plain [`OwnedUserId`], into which both turn by themselves.

use std::fmt;

use ruma::{OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};

/// Defines the Matrix ID of one kind of user.
macro_rules! kind_of_user {
    ($(#[$doc:meta])* $name:ident, $(#[$new_doc:meta])*) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(OwnedUserId);

        impl $name {
            $(#[$new_doc])*
            pub fn new(id: OwnedUserId) -> Self {
                Self(id)
            }
        }

        impl std::ops::Deref for $name {
            type Target = OwnedUserId;

            fn deref(&self) -> &OwnedUserId {
                &self.0
            }
        }

        impl AsRef<UserId> for $name {
            fn as_ref(&self) -> &UserId {
                &self.0
            }
        }

        impl From<$name> for OwnedUserId {
            fn from(id: $name) -> OwnedUserId {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        kind_of_user!(compares $name with UserId, OwnedUserId, &UserId);
    };
    (compares $name:ident with $($user:ty),*) => {$(
        impl PartialEq<$user> for $name {
            fn eq(&self, user: &$user) -> bool {
                self.0 == *user
            }
        }

        impl PartialEq<$name> for $user {
            fn eq(&self, id: &$name) -> bool {
                id.0 == *self
            }
        }
    )*};
}

kind_of_user! {
    /// The Matrix ID of a ghost: of one of our own users that stands for somebody, never of the bot.
    Ghost,
    /// Takes a Matrix ID for a ghost's. Only for where that is known: from the name of a handle,
    /// or because nobody but a ghost can be meant.
}

kind_of_user! {
    /// The Matrix ID of somebody real, as opposed to a ghost or the bot.
    Person,
    /// Takes a Matrix ID for a person's. Only for where that is known: for who sent an event and
    /// is none of our own users, or who has signed in to a homeserver.
}

/// The id of a conversation: 16 random bytes in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConversationId(String);

impl ConversationId {
    /// Takes a text for the id of a conversation.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Returns the name under which a server is counted: its host name in lower case. One machine can
/// answer on every port, and under every spelling of its name.
pub fn host_of(server: &ServerName) -> String {
    server.host().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;

    #[test]
    fn ids_are_written_and_shown_as_what_they_hold() {
        let id = owned_user_id!("@_dm_sam:hs.test");
        let (ghost, person) = (Ghost::new(id.clone()), Person::new(id.clone()));
        let talk = ConversationId::new("c0ffee");
        for (json, plain) in [
            (serde_json::to_string(&ghost).unwrap(), "@_dm_sam:hs.test"),
            (serde_json::to_string(&person).unwrap(), "@_dm_sam:hs.test"),
            (serde_json::to_string(&talk).unwrap(), "c0ffee"),
        ] {
            assert_eq!(json, format!("{plain:?}"));
        }
        assert_eq!(format!("{ghost} {ghost:?}"), format!("{id} {id:?}"));
        assert_eq!(format!("{talk} {talk:?}"), "c0ffee \"c0ffee\"");
        assert_eq!(
            serde_json::from_str::<Ghost>("\"@_dm_sam:hs.test\"").unwrap(),
            id
        );
        assert!(serde_json::from_str::<Person>("\"sam\"").is_err());
    }

    #[test]
    fn ids_are_compared_with_those_of_any_user() {
        let (sam, kim) = (
            owned_user_id!("@sam:hs.test"),
            owned_user_id!("@kim:hs.test"),
        );
        let person = Person::new(sam.clone());
        assert_eq!(person, sam);
        assert_eq!(sam, person);
        assert_ne!(person, kim);
        assert_ne!(kim, person);
        let (sam, kim): (&UserId, &UserId) = (&sam, &kim);
        assert_eq!(person, sam);
        assert_eq!(sam, person);
        assert_ne!(person, *kim);
        assert_ne!(*kim, person);
    }

    #[test]
    fn a_server_is_one_whatever_its_port_and_spelling() {
        for name in ["evil.org", "evil.org:8448", "Evil.ORG:1", "evil.org.:443"] {
            let server = <&ServerName>::try_from(name).unwrap();
            assert_eq!(host_of(server), "evil.org");
        }
        let v6 = <&ServerName>::try_from("[2001:DB8::1]:8448").unwrap();
        assert_eq!(host_of(v6), "[2001:db8::1]");
    }
}
