use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

static SELECTORS: [Selector; 4] = [
    Selector {
        path: &[PathStep::Key("events"), PathStep::Each],
        limit: 100,
    },
    Selector {
        path: &[PathStep::Key("rooms"), PathStep::AnyKey, PathStep::Key("n")],
        limit: 100,
    },
    Selector {
        path: &[
            PathStep::Key("rooms"),
            PathStep::AnyKey,
            PathStep::Key("list"),
            PathStep::Each,
        ],
        limit: 100,
    },
    Selector {
        path: &[PathStep::Key("token")],
        limit: 100,
    },
];

/// What is found: the selector, the names, and the value or its head.
type All = Vec<(usize, Vec<String>, Result<String, Head>)>;

fn read(pieces: &[&[u8]]) -> (All, Result<(), NotJson>, u32) {
    let mut all = All::new();
    let mut found = |it: Match<'_>| {
        let value = match it.value {
            MatchValue::Whole(json) => Ok(json.to_owned()),
            MatchValue::TooLarge(head) => Err(head.clone()),
        };
        all.push((it.selector, it.names.to_vec(), value));
    };
    let mut stream = JsonStream::new(&SELECTORS);
    for piece in pieces {
        stream.feed(piece, &mut found);
    }
    let ended = stream.finish(&mut found);
    (all, ended, stream.mismatches())
}

fn found(text: &str) -> Vec<(usize, Vec<String>, String)> {
    let (all, ended, _) = read(&[text.as_bytes()]);
    assert_eq!(ended, Ok(()), "{text}");
    all.into_iter()
        .map(|(at, names, value)| (at, names, value.unwrap()))
        .collect()
}

fn some(at: usize, names: &[&str], value: &str) -> (usize, Vec<String>, String) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    (at, names, value.to_owned())
}

#[test]
fn selected_values_come_as_they_stand() {
    let text = r#" {"x":[1,{"events":[9]}],"events": [ {"a":"}]\""} , 7,"s",null,[[]] , -1.5e3],
        "rooms":{"!a:x":{"n":true,"list":[1,2],"m":{"n":3}},"!b\u003ax":{"list":[{}],"n" : {"n":4}}},
        "token":"t" } "#;
    assert_eq!(
        found(text),
        [
            some(0, &[], r#"{"a":"}]\""}"#),
            some(0, &[], "7"),
            some(0, &[], "\"s\""),
            some(0, &[], "null"),
            some(0, &[], "[[]]"),
            some(0, &[], "-1.5e3"),
            some(1, &["!a:x"], "true"),
            some(2, &["!a:x"], "1"),
            some(2, &["!a:x"], "2"),
            some(2, &["!b:x"], "{}"),
            some(1, &["!b:x"], r#"{"n":4}"#),
            some(3, &[], "\"t\""),
        ]
    );
}

#[test]
fn a_value_over_its_limit_leaves_its_head() {
    let large = json!({
        "content": {"body": "x".repeat(200), "type": "inner"}, "room_id": "!r:x", "type": "t\"x",
        "sender": "s".repeat(400), "state_key": 5, "event_id": "$e",
    });
    let text = json!({"events": [large, {"a": 1}]}).to_string();
    let (all, ended, _) = read(&[text.as_bytes()]);
    assert_eq!(ended, Ok(()));
    let head = all[0].2.clone().unwrap_err();
    assert_eq!(head.size, large.to_string().len() as u64);
    assert_eq!(head.get("room_id"), Some("!r:x"));
    assert_eq!(head.get("type"), Some("t\"x"));
    assert_eq!(head.get("event_id"), Some("$e"));
    assert_eq!(head.get("sender"), None, "too long to be an id");
    assert_eq!(head.get("state_key"), None, "not a string");
    assert_eq!(all[1].2.as_deref(), Ok(r#"{"a":1}"#));
}

#[test]
fn a_large_value_is_not_kept_while_it_is_read() {
    let mut stream = JsonStream::new(&SELECTORS);
    let mut seen = 0;
    let mut found = |_: Match<'_>| seen += 1;
    stream.feed(b"{\"events\":[{\"body\":\"", &mut found);
    for _ in 0..1000 {
        stream.feed(&[b'x'; 1000], &mut found);
        assert!(stream.held() <= 2000);
    }
    stream.feed(b"\"}],\"other\":\"", &mut found);
    for _ in 0..1000 {
        stream.feed(&[b'x'; 1000], &mut found);
        assert!(stream.held() <= 4000);
    }
    stream.feed(b"\"}", &mut found);
    assert_eq!(stream.finish(&mut found), Ok(()));
    assert_eq!(seen, 1);
}

#[test]
fn what_is_no_json_or_ends_early_is_said_to_be_so() {
    for text in [
        "",
        " ",
        "\0",
        "<html>",
        "{",
        "{}{}",
        "{\"events\":[",
        "{\"events\":[}]",
        "{\"events\":[]]",
        "{\"events\" []}",
        "{\"events\":[1 2]}",
        "{\"events\":[1,]}",
        "{\"events\":[],}",
        "{events:[]}",
        "{\"events\":[\"",
        "\"half",
    ] {
        assert!(read(&[text.as_bytes()]).1.is_err(), "{text}");
    }
    for text in [
        "{}",
        "[]",
        "7",
        "null",
        "\"text\"",
        " {\"events\":[]}\n",
        "{\"\":{}}",
    ] {
        assert_eq!(read(&[text.as_bytes()]).1, Ok(()), "{text}");
    }
}

#[test]
fn values_of_another_kind_are_counted_and_passed_over() {
    let (all, ended, mismatches) =
        read(&[br#"{"events":{"a":[1]},"rooms":{"!a":7,"!b":null,"!c":{"n":1}}}"#]);
    assert_eq!((all.len(), ended, mismatches), (1, Ok(()), 2));
}

#[test]
fn no_depth_and_no_length_of_a_name_exhausts_anything() {
    let deep = |open: &str, close: &str| {
        format!(
            "{{\"x\":{}{},\"events\":[1]}}",
            open.repeat(300_000),
            close.repeat(300_000)
        )
    };
    assert_eq!(found(&deep("[", "]")), [some(0, &[], "1")]);
    let long = format!(
        "{{\"rooms\":{{\"{}\":{{\"n\":1}},\"!a\":{{\"n\":2}}}}}}",
        "x".repeat(100_000)
    );
    assert_eq!(found(&long), [some(1, &["!a"], "2")]);
}

/// Any JSON document with some of the names that are selected.
fn document() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        "[a-z\\\\\"{}\\[\\],: é\u{7}]{0,30}".prop_map(Json::from),
        Just(json!("x".repeat(150))),
    ];
    let name = prop_oneof![
        Just("events".to_owned()),
        Just("rooms".to_owned()),
        Just("list".to_owned()),
        Just("n".to_owned()),
        Just("token".to_owned()),
        "[a-z\"\\\\]{0,6}",
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// What should be found, by a parser that reads all of it.
fn expected(document: &Json) -> Vec<Json> {
    let mut all = Vec::new();
    let each = |value: &Json| value.as_array().cloned().unwrap_or_default();
    for (name, value) in document.as_object().into_iter().flatten() {
        match name.as_str() {
            "events" => all.extend(each(value)),
            "token" => all.push(value.clone()),
            "rooms" => {
                for room in value.as_object().into_iter().flat_map(|it| it.values()) {
                    for (name, value) in room.as_object().into_iter().flatten() {
                        match name.as_str() {
                            "n" => all.push(value.clone()),
                            "list" => all.extend(each(value)),
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_finds_what_a_parser_finds_wherever_the_pieces_are_cut(
        document in document(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        pretty in any::<bool>(),
    ) {
        let text = if pretty {
            serde_json::to_string_pretty(&document).unwrap()
        } else {
            document.to_string()
        };
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|it| &text.as_bytes()[it[0]..it[1]]).collect();
        let (all, ended, mismatches) = read(&pieces);
        prop_assert_eq!(ended, Ok(()));
        let wanted = expected(&document);
        prop_assert_eq!(all.len(), wanted.len());
        for ((_, _, value), wanted) in all.iter().zip(&wanted) {
            match value {
                Ok(json) => prop_assert_eq!(&serde_json::from_str::<Json>(json).unwrap(), wanted),
                Err(head) => prop_assert!(head.size > 100),
            }
        }
        prop_assert_eq!(read(&[text.as_bytes()]), (all, ended, mismatches));
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let whole = read(&[&bytes]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(whole, read(&single));
    }

    #[test]
    fn nearly_json_does_not_bring_it_down(text in "[{}\\[\\]\":,\\\\ 0-9a-z]{0,200}") {
        let whole = read(&[text.as_bytes()]);
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(whole, read(&single));
    }
}
