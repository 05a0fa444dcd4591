//! The names by which the people of a conversation are known in one of its rooms.

use std::collections::BTreeMap;

use ruma::OwnedUserId;

use super::{Conversation, Input, RoomRole};
use crate::relay::Names;

/// Maximum size of a name that is remembered, in bytes.
const FORMER_NAME_BYTES_MAX: usize = 500;
/// Maximum number of people in a room, but not in its conversation, whose names are taken.
const OTHERS_MAX: usize = 200;

/// Returns the names that a text of this room must not show elsewhere: those of the participants
/// who are themselves in the room, and those of `others` who are there or invited. A person who
/// joins later is shown as a ghost, and must not have been named before. The other participants are
/// in this room as ghosts, and known by their ghosts' names.
pub fn names_at<'a>(
    conversation: &Conversation,
    role: RoomRole,
    called: &BTreeMap<OwnedUserId, String>,
    others: impl Iterator<Item = &'a OwnedUserId>,
) -> Names {
    let mut names = Names::default();
    let people = conversation.people.iter().enumerate();
    for (_, person) in people.filter(|(index, person)| person.room_role(*index) == role) {
        let now = called.get(&*person.user);
        let mut all: Vec<Option<&str>> = vec![now.map(String::as_str)];
        all.extend(person.former_names.iter().map(|name| Some(name.as_str())));
        for name in all {
            names.add(&person.user, name, &person.name);
        }
    }
    let unknown = |user: &&OwnedUserId| {
        let mut people = conversation.people.iter();
        !people.any(|person| person.user == **user || person.ghost == **user)
    };
    for user in others.filter(unknown).take(OTHERS_MAX) {
        names.add(user, called.get(user).map(String::as_str), "Someone");
    }
    names
}

/// Returns the names that people have in their own room and that are not yet remembered.
pub fn names_to_remember(
    conversation: &Conversation,
    role: RoomRole,
    called: &BTreeMap<OwnedUserId, String>,
) -> Vec<Input> {
    conversation
        .people
        .iter()
        .enumerate()
        .filter(|(index, person)| person.room_role(*index) == role)
        .filter_map(|(index, person)| {
            let name = called.get(&*person.user)?;
            let new = name.len() <= FORMER_NAME_BYTES_MAX && !person.former_names.contains(name);
            new.then(|| Input::NameSeen {
                person: index,
                name: name.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "room_names_tests.rs"]
mod tests;
