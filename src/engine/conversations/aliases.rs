//! Aliases: the ghost and the name by which a person in a conversation is shown to the others.

use std::collections::BTreeMap;

use rand::Rng as _;
use ruma::{OwnedRoomId, OwnedUserId};

use crate::{
    conversation::{Conversation, Home, Input, Participant, PortalStatus, RoomRole},
    directory::{HandleRecord, Mode, PAIR_RETRY},
    engine::{Engine, EngineError, conversations::repository::is_there},
    handle::{GHOST_PREFIX, Handle, ghost_id},
    ids::{Ghost, Person},
    introduction::Refusal,
    relay::Alias,
    store::Batch,
    text::clean_name,
};

/// The name, in other people's portals, of a person who has not chosen one.
pub(in crate::engine) const SOMEONE: &str = "Someone";

/// The digits in the name of a ghost that is made for one conversation.
pub(in crate::engine) const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl Engine {
    /// Returns the room that a person already has with a masked handle's ghost, and notes that they
    /// were led back to it. Returns `None` if they try again soon after: that room is no use to
    /// them, and the conversation moves. It cannot move to a room of a ghost without a handle, whom
    /// nobody can reach anew.
    pub(in crate::engine) async fn existing_room(
        &self,
        asker: &Person,
        ghost: &Ghost,
    ) -> Result<Option<OwnedRoomId>, EngineError> {
        let Some(conversation) = self.conversation_with(asker, ghost)? else {
            return Ok(None);
        };
        let Some((index, person)) = conversation
            .people
            .iter()
            .enumerate()
            .find(|(_, person)| person.user == *asker && person.ghost != *ghost)
        else {
            return Ok(None);
        };
        // If the others can no longer hear this person, the room is no use to them.
        let mut others = conversation
            .people
            .iter()
            .filter(|other| other.ghost == *ghost);
        if !others.any(|other| other.takes_part()) {
            return Ok(None);
        }
        let room = conversation.room(person.room_role(index)).cloned();
        let now = self.now();
        let led_back = conversation.last_return_at;
        let lately = Handle::of_ghost(ghost.localpart()).is_some()
            && led_back.is_some_and(|at| now.since(at) < PAIR_RETRY);
        let was_there = matches!(
            person.home,
            Home::Portal {
                status: PortalStatus::Left,
                ..
            }
        );
        if room.is_none() || lately || !(is_there(person) || was_there) {
            return Ok(None);
        }
        let batch = Batch::new();
        let inputs = [Input::ReturnedToRoom {
            at: now,
            person: index,
        }];
        self.apply(&conversation.id, &inputs, batch).await?;
        Ok(room)
    }

    /// Returns the ghost that shows the asker of a direct conversation in the other person's
    /// portal, its name, and whether it was made for this conversation. It is the asker's masked
    /// handle if they have exactly one: we do not choose between several.
    pub(in crate::engine) fn alias_in_direct(
        &self,
        person: &Person,
        not: &Ghost,
    ) -> Result<(Ghost, String, bool), EngineError> {
        let handles = self.directory().handles_of(person)?;
        let mut masked = handles
            .iter()
            .filter(|record| record.is_active() && record.mode == Mode::Masked);
        if let (Some(record), None) = (masked.next(), masked.next())
            && let Some(ghost) = self.ghost_of(record)
            && ghost != *not
        {
            return Ok((ghost, record.handle.to_string(), false));
        }
        self.alias_in_group(person)
    }

    /// Returns the ghost that shows a person in a group, its name, and `true`: it is always made
    /// for this conversation. A person may be in a group's origin and also have a portal; messages
    /// in both at the same time would show who owns a masked handle.
    pub(in crate::engine) fn alias_in_group(
        &self,
        person: &Person,
    ) -> Result<(Ghost, String, bool), EngineError> {
        let name = self.directory().appearance(person)?;
        let ghost = self.new_alias_ghost()?;
        Ok((ghost, name.unwrap_or_else(|| SOMEONE.to_owned()), true))
    }

    /// Returns whether calls in a conversation hide IP addresses: one masked person who wants that
    /// is enough.
    pub(in crate::engine) fn hides_addresses(
        &self,
        conversation: &Conversation,
    ) -> Result<bool, EngineError> {
        for person in &conversation.people {
            let record = self.directory().cached_by_ghost(&person.ghost)?;
            let hides = match (record, &person.home) {
                // Somebody who began the conversation may appear in it by a masked handle too.
                (Some(record), _) => record.mode == Mode::Masked && record.hide_addresses,
                (None, Home::Portal { .. }) => true,
                (None, _) => false,
            };
            if hides {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(in crate::engine) fn ghost_of(&self, record: &HandleRecord) -> Option<Ghost> {
        let server = &self.0.settings.server_name;
        record.handle.ghost_id(server)
    }

    pub(in crate::engine) fn new_alias_ghost(&self) -> Result<Ghost, EngineError> {
        let server = &self.0.settings.server_name;
        let mut rng = self.rng();
        let name: String = (0..16)
            .map(|_| char::from(DIGITS[rng.random_range(0..DIGITS.len())]))
            .collect();
        ghost_id(&format!("{GHOST_PREFIX}.p{name}"), server)
            .ok_or(EngineError::Refused(Refusal::Impossible))
    }
}

/// Returns the aliases of the people in a conversation, as the two rooms show them. A person who is
/// in the target room themselves is called there by their own name, which is in `called` if it is
/// known.
pub(in crate::engine) fn aliases(
    conversation: &Conversation,
    source: RoomRole,
    target: RoomRole,
    called: Option<&BTreeMap<OwnedUserId, String>>,
) -> Vec<Alias> {
    let people = conversation.people.iter().enumerate();
    people
        .filter(|(index, _)| !is_superseded(conversation, *index, source, target))
        .filter_map(|(index, person)| {
            let shown = conversation.shown_as(index, target)?.clone();
            let called = called.filter(|_| person.user == shown);
            let name = called.map_or_else(
                || person.name.clone(),
                |called| clean_name(called.get(&shown).map(String::as_str), &shown),
            );
            Some(Alias {
                source: conversation.shown_as(index, source)?.clone(),
                target: shown,
                name,
            })
        })
        .collect()
}

/// Returns whether a person's ghost in the source room means a masked person instead of them: one
/// who takes part while they no longer do, or the owner of the target room.
fn is_superseded(
    conversation: &Conversation,
    index: usize,
    source: RoomRole,
    target: RoomRole,
) -> bool {
    let people = &conversation.people;
    let is_ghost = |index: usize| conversation.home_of(index) != source;
    let rank = |index: usize, person: &Participant| {
        let owns_target = matches!(target, RoomRole::Portal(owner) if owner == index);
        (person.takes_part(), owns_target)
    };
    let Some(person) = people.get(index).filter(|_| is_ghost(index)) else {
        return false;
    };
    let mut others = people.iter().enumerate();
    others.any(|(other, masked)| {
        masked.ghost == person.ghost
            && matches!(masked.home, Home::Portal { .. })
            && is_ghost(other)
            && rank(other, masked) > rank(index, person)
    })
}
