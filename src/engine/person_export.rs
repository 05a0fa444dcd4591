//! What is kept about a person, for that person.
//!
//! Of other people it holds only what this person has seen of them. What is left out, because it
//! names nobody or only by digests and HMACs, is in the page for data protection.

use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::{
    Engine, EngineError,
    records::{ControlRooms, Conversations, OwedNotices, PendingNotices, Rooms},
};
use crate::{
    clock::Timestamp,
    conversation::{Conversation, Home},
    directory::DirectoryExport,
    ids::Person,
    introduction::Introduction,
    store::prefix,
};

/// What is kept about a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonExport {
    /// Their Matrix ID.
    pub person: OwnedUserId,
    /// When this was read, in milliseconds since 1970.
    pub made_at: Timestamp,
    /// What the directory keeps.
    #[serde(flatten)]
    pub directory: DirectoryExport,
    /// The room in which they talk with the bot.
    pub control_room: Option<OwnedRoomId>,
    /// What the bot has still to tell them.
    pub notices: Vec<String>,
    /// Their conversations with masked people, or as one.
    pub conversations: Vec<ExportedConversation>,
    /// Introductions of theirs that are under way.
    pub introductions_under_way: Vec<ExportedIntroduction>,
}

/// A conversation, as one of its people knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedConversation {
    /// The room in which they are.
    pub room: Option<OwnedRoomId>,
    /// The name under which the others see them.
    pub shown_as: String,
    /// The names that they had in their own room when another room was named after it.
    pub names: Vec<String>,
    /// When the conversation began, in milliseconds since 1970.
    pub since: Timestamp,
}

/// An introduction, as one of its two people knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedIntroduction {
    /// The handle.
    pub handle: String,
    /// The room, for the asker, or for an owner who was invited to it.
    pub room: Option<OwnedRoomId>,
    /// When the ghost was invited, in milliseconds since 1970.
    pub since: Timestamp,
}

impl Engine {
    /// Returns what is kept about a person. Reads all rooms and conversations.
    pub fn export_person(&self, person: &Person) -> Result<PersonExport, EngineError> {
        let (store, now) = (self.store(), self.now());
        let mut notices = Vec::new();
        for page in store.pages::<PendingNotices>(&prefix(person)) {
            notices.extend(page?.into_iter().map(|(_, (plain, _))| plain));
        }
        for page in store.pages::<OwedNotices>(&[]) {
            let owed = page?.into_iter().map(|(_, owed)| owed);
            let theirs = owed.filter(|owed| owed.person == *person);
            notices.extend(theirs.map(|owed| owed.notice.plain));
        }
        let mut conversations = Vec::new();
        for page in store.pages::<Conversations>(&[]) {
            for (_, conversation) in page? {
                conversations.extend(parts_in(&conversation, person));
            }
        }
        let mut introductions_under_way = Vec::new();
        for page in store.pages::<Rooms>(&[]) {
            for (_, room) in page? {
                let open = room.introductions.iter().filter(|it| it.is_open());
                introductions_under_way.extend(open.filter_map(|it| part_in(it, person)));
            }
        }
        Ok(PersonExport {
            person: person.clone().into(),
            made_at: now,
            directory: self.directory().export_person(person, now)?,
            control_room: store.get::<ControlRooms>(person)?,
            notices,
            conversations,
            introductions_under_way,
        })
    }
}

/// Returns a person's parts in a conversation: one, or several if they came again.
fn parts_in<'a>(
    conversation: &'a Conversation,
    person: &'a Person,
) -> impl Iterator<Item = ExportedConversation> + 'a {
    let theirs = conversation.people.iter();
    let theirs = theirs.filter(move |participant| participant.user == *person);
    theirs.map(|participant| ExportedConversation {
        room: match &participant.home {
            Home::Origin { .. } => conversation.origin.clone(),
            Home::Portal { room, .. } => room.clone(),
        },
        shown_as: participant.name.clone(),
        names: participant.former_names.clone(),
        since: conversation.started_at,
    })
}

/// Returns a person's part in an introduction, if they have one.
fn part_in(introduction: &Introduction, person: &Person) -> Option<ExportedIntroduction> {
    let is_asker = introduction.asker().as_ref() == Some(person);
    let is_owner = introduction.owner() == Some(person);
    let is_invited = introduction.owner_invited_at.is_some();
    (is_asker || is_owner).then(|| ExportedIntroduction {
        handle: introduction.handle().to_owned(),
        room: (is_asker || is_invited).then(|| introduction.room.clone()),
        since: introduction.invited_at,
    })
}
