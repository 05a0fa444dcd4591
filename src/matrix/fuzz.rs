//! Fuzz targets of this module: items from the homeserver are read whatever the size of the
//! document and wherever it is cut on its way, and a room's state whatever it says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a fuzz target reports a fault"
)]

use std::fmt;

use ruma::{UserId, user_id};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    RoomState,
    bounds::{DeadLetter, ITEM_MAX, STRIPPED_EVENT_MAX, STRIPPED_STATE_MAX, bounded_event},
    sync::{SyncPage, SyncReader},
    transaction::{TO_DEVICE_BYTES, Transaction, TransactionReader},
};

/// Inputs of at most this length are cut at every byte.
const CUT_EVERYWHERE: usize = 200;
/// Minimum size of a repeated input, in bytes.
const LARGE: usize = 3 * ITEM_MAX;
/// One input in this many is also repeated: that takes a hundred times as long.
const ONE_IN: usize = 64;

/// The body of a transaction.
pub(crate) fn transaction(input: &[u8]) {
    let whole = read_transaction([input]);
    check_cuts(input, &whole, |parts| {
        read_transaction(parts.iter().copied())
    });
    if let Ok(Members(members)) = serde_json::from_slice(input) {
        let Ok(parts) = &whole else {
            panic!("a JSON object is refused");
        };
        let events: Vec<&str> = texts(parts.iter().flat_map(|part| &part.events));
        let expected = items(&members, &["events"]);
        assert!(events == expected, "{events:?} is not {expected:?}");
        let to_device: Vec<&str> = texts(parts.iter().flat_map(|part| &part.to_device));
        let names = ["to_device", "de.sorunome.msc2409.to_device"];
        assert!(to_device == items(&members, &names), "{to_device:?}");
    }
    repeat(input, |large| {
        let list: &[u8] = &large.list;
        let body: [&[u8]; 5] = [b"{\"events\":[", list, b"],\"to_device\":[", list, b"]}"];
        let parts = read_transaction(body).unwrap();
        let events = parts.iter().map(|part| part.events.len()).sum::<usize>();
        let to_device = parts.iter().map(|part| part.to_device.len()).sum::<usize>();
        let kept = if large.is_object { large.count } else { 0 };
        assert_eq!(events, kept);
        // Each costs something besides its text, and what they may cost together is bounded.
        let too_many = kept * (large.item_len + 64) > TO_DEVICE_BYTES;
        assert!(
            to_device == kept || too_many && to_device < kept,
            "{to_device}"
        );
        check_event(&large);
    });
}

/// The answer to a `/sync`.
pub(crate) fn sync(input: &[u8]) {
    let whole = read_sync([input]);
    check_cuts(input, &whole, |parts| read_sync(parts.iter().copied()));
    repeat(input, |large| {
        let body: [&[u8]; 5] = [
            b"{\"next_batch\":\"s\",\"rooms\":{\"join\":{\"!r:hs.test\":{\"timeline\":{\"events\":[",
            &large.list,
            b"]}}},\"invite\":{\"!i:hs.test\":{\"invite_state\":{\"events\":[",
            &large.list,
            b"]}}}}}",
        ];
        let (pages, _) = read_sync(body).unwrap();
        let joined: Vec<_> = pages.iter().flat_map(|page| page.joined.values()).collect();
        let whole = joined.iter().map(|room| room.timeline.len()).sum::<usize>() == large.count;
        let limited = joined.iter().any(|room| room.limited);
        assert!(whole || limited, "events are lost and no gap is shown");
        for state in pages.iter().flat_map(|page| page.invited.values()) {
            assert!(state.len() <= STRIPPED_STATE_MAX);
            assert!(state.iter().all(|it| it.get().len() <= STRIPPED_EVENT_MAX));
        }
        assert_eq!(pages.last().unwrap().next_batch.as_deref(), Some("s"));
    });
}

/// Reads a body that arrives in these pieces.
fn read_transaction<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Transaction>, String> {
    let mut reader = TransactionReader::default();
    let mut parts = Vec::new();
    for piece in pieces {
        reader.feed(piece);
        parts.extend(reader.take_part());
    }
    parts.push(reader.finish().map_err(|error| error.to_string())?);
    Ok(parts)
}

fn read_sync<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<SyncPage>, Vec<DeadLetter>), String> {
    let mut reader = SyncReader::new(user_id!("@_dm_sam:hs.test"));
    let (mut pages, mut letters) = (Vec::new(), Vec::new());
    for piece in pieces {
        reader.feed(piece);
        pages.extend(reader.take_page());
        letters.extend(reader.take_dead_letters());
    }
    let (last, at_its_end) = reader.finish().map_err(|error| error.to_string())?;
    pages.push(last);
    letters.extend(at_its_end);
    Ok((pages, letters))
}

/// Checks that an input gives the same result wherever it is cut. `Debug` shows all of the result.
fn check_cuts<T: fmt::Debug>(input: &[u8], whole: &T, read: impl Fn(&[&[u8]]) -> T) {
    let whole = format!("{whole:?}");
    let check = |pieces: &[&[u8]]| assert_eq!(format!("{:?}", read(pieces)), whole);
    let single: Vec<&[u8]> = input.chunks(1).collect();
    check(&single);
    if input.len() <= CUT_EVERYWHERE {
        for at in 0..=input.len() {
            let (before, after) = input.split_at(at);
            check(&[before, after]);
        }
    }
}

/// The members of a JSON object, with duplicates.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// Returns the text of the objects in the arrays under these names, in order, without those that
/// are too large.
fn items<'a>(members: &[(String, &'a RawValue)], names: &[&str]) -> Vec<&'a str> {
    let named = members.iter().filter(|(name, _)| names.contains(&&**name));
    let arrays =
        named.filter_map(|(_, json)| serde_json::from_str::<Vec<&RawValue>>(json.get()).ok());
    let items = arrays.flatten().map(RawValue::get);
    items
        .filter(|item| item.starts_with('{') && item.len() <= ITEM_MAX)
        .collect()
}

fn texts<'a>(items: impl Iterator<Item = &'a Box<RawValue>>) -> Vec<&'a str> {
    items.map(|item| item.get()).collect()
}

/// An input, repeated until it is large.
struct Large {
    /// The input as an item of a list, many times, with commas between.
    list: Vec<u8>,
    /// How many times.
    count: usize,
    item_len: usize,
    is_object: bool,
}

/// Hands one input in [`ONE_IN`] to `act`, repeated; only those that are JSON.
fn repeat(input: &[u8], act: impl FnOnce(Large)) {
    let sum = input
        .iter()
        .fold(0_usize, |sum, byte| sum + usize::from(*byte));
    if sum % ONE_IN != 0 {
        return;
    }
    let Ok(item) = serde_json::from_slice::<&RawValue>(input) else {
        return;
    };
    let item = item.get();
    let count = LARGE.div_ceil(item.len() + 1);
    act(Large {
        list: vec![item; count].join(",").into_bytes(),
        count,
        item_len: item.len(),
        is_object: item.starts_with('{'),
    });
}

/// Checks that an event with a large stripped state, or large in another way, becomes one that fits
/// or a dead letter.
fn check_event(large: &Large) {
    let list = str::from_utf8(&large.list).unwrap();
    for event in [
        format!("{{\"unsigned\":{{\"invite_room_state\":[{list}]}}}}"),
        format!("{{\"type\":\"m.x\",\"content\":[{list}]}}"),
    ] {
        match bounded_event(&event) {
            Ok(event) => assert!(event.get().len() <= ITEM_MAX),
            Err(letter) => assert_eq!(letter.size, event.len() as u64),
        }
    }
}

/// The state of a room, whole or stripped, as an array of events.
pub(crate) fn room_state(input: &[u8]) {
    let Ok(events) = serde_json::from_slice::<Vec<Box<RawValue>>>(input) else {
        return;
    };
    let state = RoomState::from_state(events.iter().map(AsRef::as_ref));
    assert!(state.members.len() <= events.len());
    assert!(
        state
            .names
            .keys()
            .all(|user| state.members.contains_key(user))
    );
    assert!(
        bytes_in(&state) <= input.len() + 100,
        "more came out than went in"
    );
    assert!(state.creators.is_empty() || !events.is_empty());
    for user in state.readers() {
        let membership = state.membership(user);
        assert!(matches!(membership, "join" | "invite"), "{membership}");
    }
    for user in state.members.keys().chain(&state.creators) {
        check_power(&state, user);
    }
    check_power(&state, user_id!("@nobody:far.example"));
    // What is no state event changes nothing, wherever it stands.
    let noise = RawValue::from_string(r#"{"type":"m.room.member","state_key":7}"#.to_owned());
    let noise = noise.unwrap();
    let noisy = events.iter().flat_map(|event| [&*noise, &**event]);
    assert_eq!(RoomState::from_state(noisy), state);
}

/// Checks that a user with a creator's power has every power.
fn check_power(state: &RoomState, user: &UserId) {
    let all = [
        state.may_invite(user),
        state.may_send_state(user, "m.room.encryption"),
    ];
    let is_creator = state.creators.iter().any(|creator| creator == user);
    assert!(!is_creator || all == [true, true]);
}

fn bytes_in(state: &RoomState) -> usize {
    let members = state
        .members
        .iter()
        .map(|(user, data)| user.as_str().len() + data.len());
    let names = state.names.values().map(String::len);
    let creators = state.creators.iter().map(|user| user.as_str().len());
    let texts = [&state.name, &state.topic].into_iter().flatten();
    let texts = texts.map(|it| it.by.as_str().len() + it.text.len());
    let allowed_rooms = state.allowed_rooms.iter().map(String::len);
    let fields = [&state.version, &state.join_rule, &state.history_visibility];
    let fields = fields.into_iter().map(String::len);
    members
        .chain(names)
        .chain(creators)
        .chain(texts)
        .chain(allowed_rooms)
        .chain(fields)
        .sum()
}
