//! Which rooms are control rooms.
//!
//! In a control room somebody decides about their handles, so nobody else may read it, speak in
//! it or come in. Whatever is not such a room is left, with the reason.

use ruma::{OwnedUserId, UserId};

use crate::matrix::{self, MEGOLM};

/// What is known of a room that the bot is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomView<'a> {
    /// The bot.
    pub bot: &'a UserId,
    /// Whose control room it is to be: whoever invited the bot, or was invited by it.
    pub expected: Option<&'a UserId>,
    /// Who is joined, the bot too.
    pub joined: Vec<OwnedUserId>,
    /// Who is invited.
    pub invited: Vec<OwnedUserId>,
    /// `join_rule` of `m.room.join_rules`; none is `invite`.
    pub join_rule: Option<&'a str>,
    /// `history_visibility` of `m.room.history_visibility`; none is `shared`.
    pub history_visibility: Option<&'a str>,
    /// `algorithm` of `m.room.encryption`, none if the room is not encrypted. An event without
    /// one is `Some("")`.
    pub encryption: Option<&'a str>,
    /// Whether the bot may send `m.room.encryption`.
    pub may_encrypt: bool,
}

/// What the bot does about a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRoomVerdict {
    /// It is the control room of this person.
    ControlRoom {
        /// The person.
        person: OwnedUserId,
    },
    /// It would be one if it were encrypted: turn that on, and look again.
    Encrypt {
        /// The person.
        person: OwnedUserId,
    },
    /// It can be none.
    Leave(NoControlRoom),
}

/// Why a room is no control room. Most words fit into the `reason` of a leave event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoControlRoom {
    /// Somebody else is there or invited.
    #[error("I talk about handles only with one person at a time. Start a new chat with me alone.")]
    NotAlone,
    /// Nobody else is there any more.
    #[error("Nobody else is here any more. Start a new chat with me when you need me.")]
    Nobody,
    /// The other member is not the one who invited the bot: somebody else could make their control
    /// room of a room that the person is in for another reason.
    #[error("I talk only with whoever invited me. Start a new chat with me.")]
    NotTheInviter,
    /// It was made for something else.
    #[error("This is no chat. Start a new chat with me instead.")]
    NoChat,
    /// The other member is one of our own.
    #[error("I talk only with people.")]
    NotAPerson,
    /// People can come in without an invite.
    #[error("People can join this room without an invite. Start a private chat with me instead.")]
    OpenToAll,
    /// People can read without coming in.
    #[error("This room can be read from outside. Start a private chat with me instead.")]
    WorldReadable,
    /// Not encrypted, and the bot may not change that.
    #[error(
        "This room is not encrypted, and I may not turn encryption on. Start a new, encrypted \
         chat with me."
    )]
    NotEncrypted,
    /// Encrypted in a way that is unknown.
    #[error("This room is encrypted in a way I do not know. Start a new chat with me.")]
    UnknownEncryption,
}

/// Judges a room. `is_ours` says of a Matrix ID whether it is in our namespace.
pub fn judge(view: &RoomView<'_>, is_ours: impl Fn(&UserId) -> bool) -> ControlRoomVerdict {
    use ControlRoomVerdict::{ControlRoom, Encrypt, Leave};

    let mut others = view.joined.iter().filter(|user| *user != view.bot);
    let person = match (others.next(), others.next()) {
        (Some(person), None) => person,
        (Some(_), Some(_)) => return Leave(NoControlRoom::NotAlone),
        (None, _) => return Leave(NoControlRoom::Nobody),
    };
    if view
        .invited
        .iter()
        .any(|user| user != person && user != view.bot)
    {
        return Leave(NoControlRoom::NotAlone);
    }
    if is_ours(person) {
        return Leave(NoControlRoom::NotAPerson);
    }
    if view.expected.is_some_and(|expected| expected != person) {
        return Leave(NoControlRoom::NotTheInviter);
    }
    if let Some(why) = is_open(view.join_rule, view.history_visibility) {
        return Leave(why);
    }
    match view.encryption {
        Some(MEGOLM) => ControlRoom {
            person: person.clone(),
        },
        Some(_) => Leave(NoControlRoom::UnknownEncryption),
        None if view.may_encrypt => Encrypt {
            person: person.clone(),
        },
        None => Leave(NoControlRoom::NotEncrypted),
    }
}

fn is_open(join_rule: Option<&str>, history_visibility: Option<&str>) -> Option<NoControlRoom> {
    if join_rule.is_some_and(|rule| rule != "invite") {
        return Some(NoControlRoom::OpenToAll);
    }
    (history_visibility == Some("world_readable")).then_some(NoControlRoom::WorldReadable)
}

/// Returns why a room can be no control room of `inviter`, from what an invite shows of it. What
/// is not shown is not held against it: the bot looks again when it is inside.
pub(super) fn look_from_outside(
    view: &matrix::RoomState,
    inviter: &UserId,
    bot: &UserId,
) -> Option<NoControlRoom> {
    if view.room_type.is_some() || view.replaced_by.is_some() {
        return Some(NoControlRoom::NoChat);
    }
    if view.readers().any(|user| user != inviter && user != bot) {
        return Some(NoControlRoom::NotAlone);
    }
    if let Some(why) = is_open(Some(&view.join_rule), Some(&view.history_visibility)) {
        return Some(why);
    }
    view.foreign_encryption
        .then_some(NoControlRoom::UnknownEncryption)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    fn good() -> RoomView<'static> {
        RoomView {
            bot: user_id!("@_dm_.bot:example.org"),
            expected: Some(user_id!("@sam:example.org")),
            joined: vec![
                user_id!("@_dm_.bot:example.org").to_owned(),
                user_id!("@sam:example.org").to_owned(),
            ],
            invited: vec![],
            join_rule: Some("invite"),
            history_visibility: Some("shared"),
            encryption: Some(MEGOLM),
            may_encrypt: false,
        }
    }

    fn judged(view: &RoomView<'_>) -> ControlRoomVerdict {
        judge(view, |user| user.localpart().starts_with("_dm_"))
    }

    #[test]
    fn one_person_in_an_encrypted_private_room_is_in_control() {
        let sam = user_id!("@sam:example.org").to_owned();
        assert_eq!(
            judged(&good()),
            ControlRoomVerdict::ControlRoom {
                person: sam.clone()
            }
        );
        let bare = RoomView {
            join_rule: None,
            history_visibility: None,
            ..good()
        };
        assert_eq!(
            judged(&bare),
            ControlRoomVerdict::ControlRoom {
                person: sam.clone()
            }
        );
        let plain = RoomView {
            encryption: None,
            may_encrypt: true,
            ..good()
        };
        assert_eq!(judged(&plain), ControlRoomVerdict::Encrypt { person: sam });
    }

    #[test]
    fn every_other_room_is_left_with_its_reason() {
        let eve = user_id!("@eve:example.org").to_owned();
        let bot = good().joined[0].clone();
        let sam = good().joined[1].clone();
        let ghost = user_id!("@_dm_kim:example.org").to_owned();
        for (view, reason) in [
            (
                RoomView {
                    joined: vec![bot.clone(), sam, eve.clone()],
                    ..good()
                },
                NoControlRoom::NotAlone,
            ),
            (
                RoomView {
                    invited: vec![eve],
                    ..good()
                },
                NoControlRoom::NotAlone,
            ),
            (
                RoomView {
                    joined: vec![bot.clone()],
                    ..good()
                },
                NoControlRoom::Nobody,
            ),
            (
                RoomView {
                    joined: vec![],
                    ..good()
                },
                NoControlRoom::Nobody,
            ),
            (
                RoomView {
                    joined: vec![bot, ghost],
                    ..good()
                },
                NoControlRoom::NotAPerson,
            ),
            (
                RoomView {
                    expected: Some(user_id!("@kim:example.org")),
                    ..good()
                },
                NoControlRoom::NotTheInviter,
            ),
            (
                RoomView {
                    join_rule: Some("public"),
                    ..good()
                },
                NoControlRoom::OpenToAll,
            ),
            (
                RoomView {
                    join_rule: Some("knock"),
                    ..good()
                },
                NoControlRoom::OpenToAll,
            ),
            (
                RoomView {
                    join_rule: Some("restricted"),
                    ..good()
                },
                NoControlRoom::OpenToAll,
            ),
            (
                RoomView {
                    join_rule: Some("new"),
                    ..good()
                },
                NoControlRoom::OpenToAll,
            ),
            (
                RoomView {
                    history_visibility: Some("world_readable"),
                    ..good()
                },
                NoControlRoom::WorldReadable,
            ),
            (
                RoomView {
                    encryption: None,
                    ..good()
                },
                NoControlRoom::NotEncrypted,
            ),
            (
                RoomView {
                    encryption: Some(""),
                    ..good()
                },
                NoControlRoom::UnknownEncryption,
            ),
            (
                RoomView {
                    encryption: Some("rot13"),
                    ..good()
                },
                NoControlRoom::UnknownEncryption,
            ),
        ] {
            assert_eq!(judged(&view), ControlRoomVerdict::Leave(reason), "{view:?}");
        }
    }

    #[test]
    fn a_public_room_is_left_even_if_it_could_be_encrypted() {
        let view = RoomView {
            encryption: None,
            may_encrypt: true,
            join_rule: Some("public"),
            ..good()
        };
        assert_eq!(
            judged(&view),
            ControlRoomVerdict::Leave(NoControlRoom::OpenToAll)
        );
    }

    fn outside(shown: &[(&str, &str, serde_json::Value)]) -> Option<NoControlRoom> {
        let (sam, bot) = (
            user_id!("@sam:example.org"),
            user_id!("@_dm_.bot:example.org"),
        );
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
        let view = matrix::RoomState::from_state(state.iter().map(AsRef::as_ref));
        look_from_outside(&view, sam, bot)
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
                NoControlRoom::OpenToAll,
            ),
            (
                "m.room.join_rules",
                "",
                json!({"join_rule": "knock"}),
                NoControlRoom::OpenToAll,
            ),
            (
                "m.room.create",
                "",
                json!({"type": "m.space"}),
                NoControlRoom::NoChat,
            ),
            (
                "m.room.history_visibility",
                "",
                json!({"history_visibility": "world_readable"}),
                NoControlRoom::WorldReadable,
            ),
            (
                "m.room.encryption",
                "",
                json!({"algorithm": "rot13"}),
                NoControlRoom::UnknownEncryption,
            ),
            (
                "m.room.member",
                "@eve:example.org",
                json!({"membership": "join"}),
                NoControlRoom::NotAlone,
            ),
            (
                "m.room.tombstone",
                "",
                json!({"replacement_room": "!new:example.org"}),
                NoControlRoom::NoChat,
            ),
        ] {
            assert_eq!(outside(&[(kind, key, content)]), Some(reason), "{kind}");
        }
    }
}
