//! The oracle of the tests and the fuzz targets of this room: two people, and whether an output
//! identifies one of them. It decodes by other means than the code under test.

#![expect(
    clippy::unwrap_used,
    reason = "only tests and fuzz targets use it, and there a panic is the answer"
)]

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use ruma::{EventId, OwnedEventId, OwnedUserId, ServerName, UserId, room_id, server_name};
use serde_json::Value;

use super::{Alias, Context, EventMapping};

pub(super) const ALICE: &str = "@alice.harbour:far.example";
pub(super) const GHOST: &str = "@_dm_.p2345672345672345:hs.test";
pub(super) const SAM: &str = "@_dm_sam:hs.test";
pub(super) const SAMUEL: &str = "@samuel:hs.test";

/// The room that an event comes from.
const SOURCE_ROOM: &str = "!here:far.example";
/// A device of the sender.
const DEVICE: &str = "ALICESDEVICE";
/// Maximum length of a tag in a plain text, in bytes.
const ORACLE_TAG_BYTES_MAX: usize = 2000;

pub(super) struct Map(pub HashMap<OwnedEventId, OwnedEventId>);

impl EventMapping for Map {
    fn target_of(&self, source: &EventId) -> Option<OwnedEventId> {
        self.0.get(source).cloned()
    }
}

/// The direction of a translation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Direction {
    /// From Alice's room into Sam's portal.
    ToSam,
    /// From Sam's portal into Alice's room.
    ToAlice,
}

/// Calls `act` with the context of a chat of Alice, who is called "Kim", and Sam. `$one` of the
/// source room is `$eins` in the target room, and so on.
pub(super) fn with_context<T>(
    direction: Direction,
    hide: bool,
    act: impl FnOnce(&Context<'_>) -> T,
) -> T {
    let alias = |source: &str, target: &str, name: &str| Alias {
        source: OwnedUserId::try_from(source).unwrap(),
        target: OwnedUserId::try_from(target).unwrap(),
        name: name.to_owned(),
    };
    let (aliases, sender) = match direction {
        Direction::ToSam => (
            [alias(ALICE, GHOST, "Kim"), alias(SAM, SAMUEL, "@sam")],
            ALICE,
        ),
        Direction::ToAlice => (
            [alias(GHOST, ALICE, "Kim"), alias(SAMUEL, SAM, "@sam")],
            SAMUEL,
        ),
    };
    let pairs = [("$one", "$eins"), ("$two", "$zwei"), ("$poll", "$umfrage")];
    let pairs = pairs.into_iter().map(|(source, target)| {
        let id = |id: &str| OwnedEventId::try_from(id).unwrap();
        (id(source), id(target))
    });
    let events = Map(pairs.collect());
    let sender = <&UserId>::try_from(sender).unwrap();
    act(&Context {
        sender,
        aliases: &aliases,
        source: room_id!("!here:far.example"),
        target: room_id!("!there:hs.test"),
        events: &events,
        secrets: &[DEVICE.to_owned()],
        homeserver: sender.server_name(),
        hide_addresses: hide,
        pseudonym_key: &[7; 32],
    })
}

/// Calls `act` with every kind of context: both directions, with Alice's homeserver being the
/// service's own and another one.
pub(super) fn with_every_context(mut act: impl FnMut(&Context<'_>, Direction)) {
    with_context(Direction::ToSam, true, |context| {
        act(context, Direction::ToSam);
        let homeserver: &ServerName = server_name!("hs.test");
        let from_elsewhere = Context {
            homeserver,
            ..context.clone()
        };
        act(&from_elsewhere, Direction::ToSam);
    });
    with_context(Direction::ToAlice, true, |context| {
        act(context, Direction::ToAlice)
    });
}

/// Collects every string of a value, keys too.
pub(super) fn strings(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, out)),
        Value::Object(fields) => {
            for (key, value) in fields {
                out.push(key.clone());
                strings(value, out);
            }
        }
        _ => {}
    }
}

/// Returns whether `text` shows who sent it: the sender's Matrix ID, the source room, or the
/// sender's device.
pub(super) fn identifies_sender(direction: Direction, text: &str) -> bool {
    let user = match direction {
        Direction::ToSam => ALICE,
        Direction::ToAlice => SAMUEL,
    };
    let mut forms = readings(text).into_iter().flat_map(|reading| {
        let bare = without_tags(&reading);
        [reading, bare]
    });
    text.contains(DEVICE)
        || forms.any(|form| {
            let form = visible(&form);
            names(&form, user, "u/") || names(&form, SOURCE_ROOM, "roomid/")
        })
}

/// Returns whether a text has an identifier: with its sigil, as in a link, or alone as a word.
fn names(text: &str, id: &str, in_link: &str) -> bool {
    let (sign, bare) = id.split_at(1);
    text.match_indices(bare).any(|(start, _)| {
        let (before, after) = (&text[..start], &text[start + bare.len()..]);
        // `a_bare` is another name; `_bare`, `a__bare` and `a=bare` are this one with something else.
        let begins_earlier = before
            .strip_suffix(['.', '_', '-'])
            .unwrap_or(before)
            .ends_with(char::is_alphanumeric);
        before.ends_with(sign)
            || before.ends_with(in_link)
            || !begins_earlier && !after.starts_with(char::is_alphanumeric)
    })
}

fn visible(text: &str) -> String {
    let seen = |c: &char| !matches!(c, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{00AD}');
    text.chars().filter(seen).collect::<String>().to_lowercase()
}

/// Returns what a person could read in a text, with entities and percent-encoding decoded.
fn readings(text: &str) -> Vec<String> {
    let mut readings = vec![text.to_owned()];
    for _ in 0..3 {
        let last = &readings[readings.len() - 1];
        let decoded = percent_decode_str(last).decode_utf8_lossy();
        let next = without_entities(&decoded);
        if next == *last {
            break;
        }
        readings.push(next);
    }
    readings
}

fn without_entities(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let named = after
            .split_once(';')
            .and_then(|(name, after)| Some((character(name)?, after)));
        match named {
            Some((c, after)) => {
                out.push(c);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

/// Returns the character of an entity.
fn character(name: &str) -> Option<char> {
    let Some(code) = name.strip_prefix('#') else {
        return match name {
            "colon" => Some(':'),
            "commat" => Some('@'),
            "period" => Some('.'),
            _ => None,
        };
    };
    let (digits, radix) = match code.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16),
        None => (code, 10),
    };
    let all_digits = digits.chars().all(|c| c.is_digit(radix));
    let code = u32::from_str_radix(digits, radix).ok()?;
    char::from_u32(code).filter(|_| all_digits)
}

fn without_tags(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        let is_tag =
            after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        match after
            .find('>')
            .filter(|end| is_tag && *end < ORACLE_TAG_BYTES_MAX - 2)
        {
            Some(end) => rest = &after[end + 1..],
            None => {
                out.push('<');
                rest = after;
            }
        }
    }
    out + rest
}

/// Returns every string with its JSON pointer and its key.
pub(super) fn loaded(value: &Value) -> Vec<(String, String, String)> {
    let mut out = Vec::new();
    let mut left = vec![(String::new(), String::new(), value)];
    while let Some((pointer, key, value)) = left.pop() {
        match value {
            Value::String(text) => out.push((pointer, key, text.clone())),
            Value::Array(values) => {
                let all = values.iter().enumerate();
                left.extend(all.map(|(n, value)| (format!("{pointer}/{n}"), key.clone(), value)));
            }
            Value::Object(fields) => left.extend(fields.iter().map(|(key, value)| {
                let step = key.replace('~', "~0").replace('/', "~1");
                (format!("{pointer}/{step}"), key.clone(), value)
            })),
            _ => {}
        }
    }
    out
}

/// Returns the name of every field.
pub(super) fn field_names(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(values) => left.extend(values),
            Value::Object(fields) => {
                out.extend(fields.keys().cloned());
                left.extend(fields.values());
            }
            _ => {}
        }
    }
    out
}

/// Returns whether a client would load something from another homeserver than `home` because of a
/// string, however loosely it reads addresses.
pub(super) fn leads_elsewhere(key: &str, text: &str, home: &str) -> bool {
    let text = text.trim_start().to_lowercase();
    let away = |address: &str| !address.starts_with(&format!("mxc://{home}/"));
    match key {
        "body" | "filename" | "org.matrix.msc1767.text" | "m.text" => false,
        "formatted_body" | "org.matrix.msc1767.html" => {
            let mut sources = text.split("src=").skip(1);
            sources.any(|source| {
                let source = source.trim_start_matches(['"', '\'', ' ']);
                source.starts_with("mxc:") && away(source)
            })
        }
        _ => text.starts_with("mxc:") && away(&text),
    }
}
