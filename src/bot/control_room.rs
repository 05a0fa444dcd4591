//! Which rooms are control rooms.
//!
//! In a control room a person manages their handles, so nobody else may read it, write in it or join
//! it. The bot leaves every other room, and says why.

use ruma::UserId;

use crate::{handle::GHOST_PREFIX, ids::Person, matrix::RoomState};

/// Whether a room is a control room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomCheck {
    /// It is the control room of this person.
    ControlRoom(Person),
    /// It would be the control room of this person if it were encrypted: turn encryption on and check
    /// again.
    NotEncrypted(Person),
    /// The bot made it, and the person is invited and has not come yet.
    Waiting,
    /// It cannot be one: leave it.
    Leave(RoomProblem),
}

/// The reason why a room is not a control room, in the words of the bot's leave event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RoomProblem {
    /// Somebody else is there or invited.
    #[error("I talk about handles only with one person at a time. Start a new chat with me alone.")]
    NotAlone,
    /// Nobody else is there.
    #[error("Nobody else is here. Start a new chat when you need me.")]
    Nobody,
    /// The other member did not invite the bot. Otherwise a stranger could turn a room in which the
    /// person is for another reason into their control room.
    #[error("I only talk with the person who invited me. Start a new chat with me.")]
    NotTheInviter,
    /// It was made for something else.
    #[error("This isn't a chat. Start a new chat with me instead.")]
    NoChat,
    /// The other member is one of our own users.
    #[error("I only talk with people.")]
    NotAPerson,
    /// People can join without an invite.
    #[error("People can join this room without an invite. Start a private chat with me instead.")]
    OpenToAll,
    /// People can read it without joining.
    #[error("This room can be read from outside. Start a private chat with me instead.")]
    WorldReadable,
    /// It is not encrypted, and the bot may not turn encryption on.
    #[error("{}", super::texts::NOT_ENCRYPTED)]
    NotEncrypted,
    /// It is encrypted with an unknown algorithm.
    #[error("This room is encrypted in a way I don't know. Start a new chat with me.")]
    UnknownEncryption,
}

/// Checks whether a room that the bot is in is a control room: of `expected`, if that is given (the
/// person who invited the bot, or was invited by it).
pub fn check_room(view: &RoomState, bot: &UserId, expected: Option<&Person>) -> RoomCheck {
    use RoomCheck::Leave;

    if view.joined().count() == 1 && view.invited().count() == 1 {
        let invited = view.invited().next();
        if expected.is_none_or(|expected| invited == Some(&**expected)) {
            return RoomCheck::Waiting;
        }
    }
    let mut others = view.joined().filter(|user| *user != bot);
    let person = match (others.next(), others.next()) {
        (Some(person), None) => person,
        (Some(_), Some(_)) => return Leave(RoomProblem::NotAlone),
        (None, _) => return Leave(RoomProblem::Nobody),
    };
    if view.invited().any(|user| user != person && user != bot) {
        return Leave(RoomProblem::NotAlone);
    }
    if person.server_name() == bot.server_name() && person.localpart().starts_with(GHOST_PREFIX) {
        return Leave(RoomProblem::NotAPerson);
    }
    if expected.is_some_and(|expected| expected != person) {
        return Leave(RoomProblem::NotTheInviter);
    }
    if let Some(why) = find_opening(view) {
        return Leave(why);
    }
    if view.encryption.is_some() {
        RoomCheck::ControlRoom(Person::new(person.clone()))
    } else if view.foreign_encryption {
        Leave(RoomProblem::UnknownEncryption)
    } else if view.may_send_state(bot, "m.room.encryption") {
        RoomCheck::NotEncrypted(Person::new(person.clone()))
    } else {
        Leave(RoomProblem::NotEncrypted)
    }
}

fn find_opening(view: &RoomState) -> Option<RoomProblem> {
    if view.join_rule != "invite" {
        return Some(RoomProblem::OpenToAll);
    }
    (view.history_visibility == "world_readable").then_some(RoomProblem::WorldReadable)
}

/// Returns the reason why a room cannot be a control room of `inviter`, from the part of its state
/// that an invite shows. State that is not shown counts as good: the bot checks again once it has
/// joined.
pub(super) fn check_invite(
    view: &RoomState,
    inviter: &Person,
    bot: &UserId,
) -> Option<RoomProblem> {
    if view.room_type.is_some() || view.replaced_by.is_some() {
        return Some(RoomProblem::NoChat);
    }
    if view.readers().any(|user| user != inviter && user != bot) {
        return Some(RoomProblem::NotAlone);
    }
    if let Some(why) = find_opening(view) {
        return Some(why);
    }
    view.foreign_encryption
        .then_some(RoomProblem::UnknownEncryption)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ruma::{OwnedUserId, user_id};
    use serde_json::json;

    use super::*;
    use crate::matrix::{MEGOLM, Rotation};

    fn bot() -> &'static UserId {
        user_id!("@_dm_.bot:example.org")
    }

    fn sam() -> &'static UserId {
        user_id!("@sam:example.org")
    }

    fn members(joined: &[&UserId], invited: &[&UserId]) -> BTreeMap<OwnedUserId, String> {
        let joined = joined
            .iter()
            .map(|user| ((*user).to_owned(), "join".to_owned()));
        let invited = invited
            .iter()
            .map(|user| ((*user).to_owned(), "invite".to_owned()));
        joined.chain(invited).collect()
    }

    fn good() -> RoomState {
        RoomState {
            join_rule: "invite".to_owned(),
            history_visibility: "shared".to_owned(),
            encryption: Some(Rotation::default()),
            members: members(&[bot(), sam()], &[]),
            power_levels: Some(json!({})),
            ..RoomState::default()
        }
    }

    /// Returns a room without encryption, in which the bot may turn it on.
    fn clear() -> RoomState {
        RoomState {
            encryption: None,
            power_levels: None,
            ..good()
        }
    }

    fn encrypted_with(content: &serde_json::Value) -> RoomState {
        let event = json!({"type": "m.room.encryption", "state_key": "", "content": content});
        let event = serde_json::value::to_raw_value(&event).unwrap();
        let shown = RoomState::from_state([&*event]);
        RoomState {
            encryption: shown.encryption,
            foreign_encryption: shown.foreign_encryption,
            ..clear()
        }
    }

    fn checked(view: &RoomState) -> RoomCheck {
        check_room(view, bot(), Some(&Person::new(sam().to_owned())))
    }

    #[test]
    fn one_person_in_an_encrypted_private_room_is_in_control() {
        let sam = Person::new(sam().to_owned());
        assert_eq!(checked(&good()), RoomCheck::ControlRoom(sam.clone()));
        let bare = RoomState {
            members: good().members,
            encryption: good().encryption,
            ..RoomState::from_state([])
        };
        assert_eq!(checked(&bare), RoomCheck::ControlRoom(sam.clone()));
        assert_eq!(checked(&clear()), RoomCheck::NotEncrypted(sam));
    }

    #[test]
    fn a_room_that_the_bot_made_waits_for_its_person() {
        let view = RoomState {
            members: members(&[bot()], &[sam()]),
            ..good()
        };
        assert_eq!(checked(&view), RoomCheck::Waiting);
    }

    #[test]
    fn every_other_room_is_left_with_its_reason() {
        let eve = user_id!("@eve:example.org");
        let ghost = user_id!("@_dm_kim:example.org");
        let with_members = |joined: &[&UserId], invited: &[&UserId]| RoomState {
            members: members(joined, invited),
            ..good()
        };
        let with_rule = |rule: &str| RoomState {
            join_rule: rule.to_owned(),
            ..good()
        };
        for (view, reason) in [
            (
                with_members(&[bot(), sam(), eve], &[]),
                RoomProblem::NotAlone,
            ),
            (with_members(&[bot(), sam()], &[eve]), RoomProblem::NotAlone),
            (with_members(&[bot()], &[]), RoomProblem::Nobody),
            // Somebody whom the person invited before they left.
            (with_members(&[bot()], &[eve]), RoomProblem::Nobody),
            (with_members(&[], &[]), RoomProblem::Nobody),
            (with_members(&[bot(), ghost], &[]), RoomProblem::NotAPerson),
            (
                with_members(&[bot(), user_id!("@kim:example.org")], &[]),
                RoomProblem::NotTheInviter,
            ),
            (with_rule("public"), RoomProblem::OpenToAll),
            (with_rule("knock"), RoomProblem::OpenToAll),
            (with_rule("restricted"), RoomProblem::OpenToAll),
            (with_rule("new"), RoomProblem::OpenToAll),
            (
                RoomState {
                    history_visibility: "world_readable".to_owned(),
                    ..good()
                },
                RoomProblem::WorldReadable,
            ),
            (
                RoomState {
                    encryption: None,
                    ..good()
                },
                RoomProblem::NotEncrypted,
            ),
            (encrypted_with(&json!({})), RoomProblem::UnknownEncryption),
            (
                encrypted_with(&json!({"algorithm": "rot13"})),
                RoomProblem::UnknownEncryption,
            ),
        ] {
            assert_eq!(checked(&view), RoomCheck::Leave(reason), "{view:?}");
        }
    }

    #[test]
    fn a_public_room_is_left_even_if_it_could_be_encrypted() {
        let view = RoomState {
            join_rule: "public".to_owned(),
            ..clear()
        };
        assert_eq!(checked(&view), RoomCheck::Leave(RoomProblem::OpenToAll));
    }

    fn outside(shown: &[(&str, &str, serde_json::Value)]) -> Option<RoomProblem> {
        let (sam, bot) = (&Person::new(sam().to_owned()), bot());
        let invite = (
            "m.room.member",
            bot.as_str(),
            json!({"membership": "invite"}),
        );
        let state: Vec<_> = shown
            .iter()
            .chain([&invite])
            .map(|(kind, key, content)| {
                let event =
                    json!({"type": kind, "state_key": key, "sender": sam, "content": content});
                serde_json::value::to_raw_value(&event).unwrap()
            })
            .collect();
        let view = RoomState::from_state(state.iter().map(AsRef::as_ref));
        check_invite(&view, sam, bot)
    }

    #[test]
    fn what_an_invite_does_not_show_is_not_held_against_the_room() {
        assert_eq!(outside(&[]), None);
        let sam = json!({"membership": "join", "displayname": "Sam"});
        assert_eq!(
            outside(&[
                ("m.room.create", "", json!({"room_version": "12"})),
                ("m.room.encryption", "", json!({"algorithm": MEGOLM})),
                ("m.room.join_rules", "", json!({"join_rule": "invite"})),
                ("m.room.member", "@sam:example.org", sam),
            ]),
            None
        );
    }

    #[test]
    fn what_cannot_be_a_control_room_is_seen_from_outside() {
        for (kind, key, content, reason) in [
            (
                "m.room.join_rules",
                "",
                json!({"join_rule": "public"}),
                RoomProblem::OpenToAll,
            ),
            (
                "m.room.join_rules",
                "",
                json!({"join_rule": "knock"}),
                RoomProblem::OpenToAll,
            ),
            (
                "m.room.create",
                "",
                json!({"type": "m.space"}),
                RoomProblem::NoChat,
            ),
            (
                "m.room.history_visibility",
                "",
                json!({"history_visibility": "world_readable"}),
                RoomProblem::WorldReadable,
            ),
            (
                "m.room.encryption",
                "",
                json!({"algorithm": "rot13"}),
                RoomProblem::UnknownEncryption,
            ),
            (
                "m.room.member",
                "@eve:example.org",
                json!({"membership": "join"}),
                RoomProblem::NotAlone,
            ),
            (
                "m.room.tombstone",
                "",
                json!({"replacement_room": "!new:example.org"}),
                RoomProblem::NoChat,
            ),
        ] {
            assert_eq!(outside(&[(kind, key, content)]), Some(reason), "{kind}");
        }
    }
}
