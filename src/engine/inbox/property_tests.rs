//! Whatever a transaction holds, it is accepted, in bounded memory, and what is well-formed in it is in
//! the inbox once.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proptest::prelude::*;
use ruma::OwnedRoomId;

use crate::{
    engine::{
        Engine,
        records::{Inbox, InboxItem},
    },
    matrix::transaction::{Transaction, TransactionReader},
    store::{Store, prefix},
    testing::{self, TestEngine},
};

/// Maximum size of what is held of a body while it is read, in bytes.
const HELD_MAX: usize = 16 << 20;

/// An element of a list in a transaction. `{n}` stands for a number that no other case uses.
#[derive(Clone, Debug)]
enum Item {
    /// An event that is to be in the inbox once, by its number within the case.
    Event { id: u8, extra: String },
    /// An invite of a ghost, with stripped state.
    Invite { id: u8, state: String },
    /// A to-device message that is to be accepted once.
    Message { id: u8, extra: String },
    /// Anything else, as JSON text.
    Odd(String),
}

impl Item {
    fn text(&self, case: u64) -> String {
        match self {
            Self::Event { id, extra } => format!(
                r#"{{"content":{{"body":"x"}},{extra}"event_id":"$c{case}e{id}","origin_server_ts":1,
                "room_id":"!c{case}:x","sender":"@alice:x","type":"m.room.message"}}"#
            ),
            Self::Invite { id, state } => format!(
                r#"{{"invite_room_state":{state},"content":{{"membership":"invite"}},
                "event_id":"$c{case}e{id}","origin_server_ts":-1,"room_id":"!c{case}:x",
                "sender":"@eve:evil.org","state_key":"@_dm_nobody{case}:hs.test",
                "type":"m.room.member","unsigned":{{"invite_room_state":{state}}}}}"#
            ),
            Self::Message { id, extra } => format!(
                r#"{{"content":{{"n":"c{case}m{id}"}},{extra}"sender":"@alice:x",
                "to_device_id":"D","to_user_id":"@_dm_sam:hs.test","type":"m.room.encrypted"}}"#
            ),
            Self::Odd(text) => text.clone(),
        }
    }
}

/// JSON text that is no item, or only nearly one.
fn odd() -> impl Strategy<Value = String> {
    const FIXED: &[&str] = &[
        "null",
        "7",
        "[]",
        "\"text\"",
        "{}",
        "-0.0",
        "1e400",
        r#"{"event_id":7}"#,
        r#"{"event_id":"$x","sender":"nobody","type":"t","room_id":"!r:x","content":{}}"#,
        r#"{"event_id":"$x","sender":"@a:x","type":"t","room_id":"nowhere","content":{}}"#,
        r#"{"event_id":"$x","sender":"@a:x","type":{},"room_id":"!r:x","content":[]}"#,
        r#"{"to_user_id":"nobody","content":"\ud800"}"#,
        r#"{"to_user_id":{"a":1},"type":null}"#,
        r#"{"a":"\\\"}]","b":["]","}"]}"#,
        r#"{"":{"":""},"":1}"#,
    ];
    let letter = || "[a-z\u{e9}\u{202e}]{0,8}";
    prop_oneof![
        80 => prop::sample::select(FIXED).prop_map(str::to_owned),
        10 => (1..300_usize).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
        10 => (1..300_usize).prop_map(|depth| {
            format!("{{\"content\":{}1{}}}", "{\"a\":".repeat(depth), "}".repeat(depth))
        }),
        10 => (letter(), letter()).prop_map(|(name, value)| format!("{{\"{name}\":\"{value}\"}}")),
        1 => (0..300_000_usize).prop_map(|size| {
            format!("{{\"room_id\":\"!r:x\",\"content\":\"{}\"}}", "x".repeat(size))
        }),
    ]
}

/// Members that an item may have besides those that are read.
fn extra() -> impl Strategy<Value = String> {
    prop_oneof![
        120 => Just(String::new()),
        20 => Just(r#""unsigned":null,"#.to_owned()),
        20 => Just(r#""unsigned":{"age":-1,"invite_room_state":7},"#.to_owned()),
        20 => Just(r#""odd":"\ud83d \u0000 \"}","#.to_owned()),
        20 => (1..100_usize).prop_map(|depth| {
            format!("\"odd\":{}{},", "[".repeat(depth), "]".repeat(depth))
        }),
        1 => (0..100_000_usize).prop_map(|size| format!("\"odd\":\"{}\",", "x".repeat(size))),
    ]
}

/// The stripped state of an invite.
fn state() -> impl Strategy<Value = String> {
    let entry = prop_oneof![
        20 => odd(),
        20 => Just(r#"{"type":"m.room.create","state_key":"","sender":"@eve:evil.org"}"#.to_owned()),
        1 => (0..200_000_usize).prop_map(|size| {
            format!("{{\"type\":\"m.room.topic\",\"content\":\"{}\"}}", "x".repeat(size))
        }),
    ];
    let list = prop::collection::vec(entry, 0..6).prop_map(|all| format!("[{}]", all.join(",")));
    prop_oneof![9 => list, 1 => odd()]
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        6 => (0..6_u8, extra()).prop_map(|(id, extra)| Item::Event { id, extra }),
        1 => (6..9_u8, state()).prop_map(|(id, state)| Item::Invite { id, state }),
        3 => (0..4_u8, extra()).prop_map(|(id, extra)| Item::Message { id, extra }),
        5 => odd().prop_map(Item::Odd),
    ]
}

#[derive(Clone, Debug)]
struct Body {
    items: Vec<Item>,
    /// Other members of the body.
    others: Vec<String>,
    /// Where pieces end.
    piece: usize,
    /// Whether the messages come first, as Synapse sends them.
    messages_first: bool,
}

fn body() -> impl Strategy<Value = Body> {
    let other = prop_oneof![
        odd().prop_map(|value| format!("\"ephemeral\":[{value}]")),
        odd().prop_map(|value| format!("\"ephemeral\":{value}")),
        odd().prop_map(|value| format!("\"device_lists\":{{\"changed\":[{value}]}}")),
        odd().prop_map(|value| format!("\"device_one_time_keys_count\":{value}")),
        odd().prop_map(|value| format!("\"org.matrix.msc3202.device_lists\":{value}")),
        odd().prop_map(|value| format!("\"something.new\":{value}")),
    ];
    (
        prop::collection::vec(item(), 0..12),
        prop::collection::vec(other, 0..3),
        prop_oneof![1 => Just(7_usize), 4 => Just(1000), 4 => Just(65_536)],
        any::<bool>(),
    )
        .prop_map(|(items, others, piece, messages_first)| Body {
            items,
            others,
            piece,
            messages_first,
        })
}

impl Body {
    fn text(&self, case: u64) -> String {
        let list = |messages: bool| {
            let of = |item: &&Item| matches!(item, Item::Message { .. }) == messages;
            let items = self.items.iter().filter(of);
            let items: Vec<String> = items.map(|item| item.text(case)).collect();
            let name = if messages { "to_device" } else { "events" };
            format!("\"{name}\":[{}]", items.join(","))
        };
        let mut members = vec![list(self.messages_first), list(!self.messages_first)];
        members.splice(1..1, self.others.iter().cloned());
        format!("{{{}}}", members.join(","))
    }

    /// The ids of the events that are to be in the inbox, in order.
    fn events(&self, case: u64) -> Vec<String> {
        let mut ids = Vec::new();
        for item in &self.items {
            if let Item::Event { id, .. } | Item::Invite { id, .. } = item {
                let id = format!("$c{case}e{id}");
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        ids
    }

    /// How many different messages there are.
    fn messages(&self) -> usize {
        let id = |item: &Item| match item {
            Item::Message { id, .. } => Some(*id),
            _ => None,
        };
        self.items
            .iter()
            .filter_map(id)
            .collect::<HashSet<_>>()
            .len()
    }
}

async fn accept(engine: &Engine, body: &str, piece: usize) {
    let mut reader = TransactionReader::default();
    let mut parts: Vec<Transaction> = Vec::new();
    for piece in body.as_bytes().chunks(piece) {
        reader.feed(piece);
        assert!(reader.held() <= HELD_MAX, "{} bytes", reader.held());
        parts.extend(reader.take_part());
    }
    parts.push(reader.finish().expect("JSON is never refused"));
    for part in parts {
        engine
            .accept_transaction(part)
            .await
            .expect("it is accepted");
    }
}

#[derive(serde::Deserialize)]
struct Event {
    event_id: String,
}

fn in_inbox(store: &Store, case: u64) -> Vec<String> {
    let room = OwnedRoomId::try_from(format!("!c{case}:x")).unwrap();
    let rows = store.scan::<Inbox>(&prefix(&room), None, 1000).unwrap();
    let id = |arrived: InboxItem| match arrived {
        InboxItem::Event(json) => serde_json::from_str::<Event>(&json).unwrap().event_id,
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(|(_, arrived)| id(arrived)).collect()
}

#[test]
fn a_hostile_transaction_is_accepted_and_what_is_well_formed_in_it_is_there_once() {
    const CASES: u32 = 20_000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let TestEngine {
        engine,
        store,
        clock,
        ..
    } = runtime.block_on(testing::engine().build());
    let case = AtomicU64::new(0);
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&body(), |body| {
        let case = case.fetch_add(1, Ordering::Relaxed);
        let text = body.text(case);
        clock.advance(Duration::from_millis(1));
        let before = engine.0.arrivals.count();
        // A transaction whose answer was lost comes again.
        for _ in 0..2 {
            runtime.block_on(accept(&engine, &text, body.piece));
            prop_assert_eq!(in_inbox(&store, case), body.events(case));
            // A machine may have the to-device messages by now.
            let arrived = engine.0.arrivals.count() - before;
            prop_assert_eq!(arrived, body.events(case).len() + body.messages());
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
