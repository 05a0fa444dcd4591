//! Contents that clients send, altered at random: nothing panics, and nobody is identified.
//!
//! `hostile` generates random trees, which seldom look like an event; this takes events and makes
//! them odd. It searches by other means than the code does: every decoding that a client could do,
//! in every order, some layers deep.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use ruma::UserId;
use serde_json::{Value, json};

use super::{ALICE, Direction, SAMUEL, real, with_context};
use crate::relay::{Context, Names, TOPIC_CHARS_MAX, translate, translate_room_text};

/// Maximum number of decodings that are applied one after another.
const LAYERS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Encoder {
    Percent,
    SomePercent,
    Entities,
    HexEntities,
    NamedEntities,
    Invisible,
    Upper,
    Tags,
    FullWidth,
    Backslash,
}

impl Encoder {
    fn encode(self, text: &str) -> String {
        let each = |act: &dyn Fn(char) -> String| text.chars().map(act).collect::<String>();
        let percent = |c: char| {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.map(|b| format!("%{b:02x}")).collect::<String>()
        };
        match self {
            Self::Percent => each(&percent),
            Self::SomePercent => each(&|c| {
                if c.is_ascii_punctuation() {
                    percent(c)
                } else {
                    c.to_string()
                }
            }),
            Self::Entities => each(&|c| format!("&#{};", u32::from(c))),
            Self::HexEntities => each(&|c| format!("&#x{:x}", u32::from(c)) + ";"),
            Self::NamedEntities => text
                .replace('&', "&amp;")
                .replace('@', "&commat;")
                .replace(':', "&colon;")
                .replace('.', "&period;"),
            Self::Invisible => each(&|c| format!("{c}\u{200D}")),
            Self::Upper => text.to_uppercase(),
            Self::Tags => text.replacen('.', ".<b></b>", 1),
            Self::FullWidth => text.replace('@', "＠").replace(':', "："),
            Self::Backslash => text.replace(['.', '_'], "\\."),
        }
    }
}

fn encoder() -> impl Strategy<Value = Encoder> {
    use Encoder::*;
    prop::sample::select(vec![
        Percent,
        SomePercent,
        Entities,
        HexEntities,
        NamedEntities,
        Invisible,
        Upper,
        Tags,
        FullWidth,
        Backslash,
    ])
}

/// A Matrix ID, encoded and put where a client would look for it.
fn spelled(id: &'static str) -> impl Strategy<Value = String> {
    let encoders = prop::collection::vec(encoder(), 0..3);
    (encoders, 0..12_usize, "[ -~]{0,6}", "[ -~]{0,6}").prop_map(
        move |(encoders, place, before, after)| {
            let encode = |text: &str| {
                encoders
                    .iter()
                    .fold(text.to_owned(), |text, it| it.encode(&text))
            };
            let (whole, bare) = (encode(id), encode(&id[1..]));
            match place {
                0 => format!("https://matrix.to/#/{whole}"),
                1 => format!("matrix:u/{bare}?action=chat"),
                2 => format!("<a href=\"https://matrix.to/#/{whole}\">me</a>"),
                3 => format!("[me](https://matrix.to/#/{whole}) {before}"),
                4 => format!("<img alt='{whole}' src='mxc://{bare}/x'>"),
                5 => format!("mxc://{bare}/media"),
                6 => format!("{before}<!-- {whole} --><a href='matrix:u/{bare}'>"),
                7 => format!("https://matrix.to/#/#x:y.example?via=far.example {whole}{after}"),
                8 => format!("> <{whole}> {before}\n> {after}\n\n{before}"),
                9 => whole,
                _ => format!("{before}{whole}{after}"),
            }
        },
    )
}

fn odd(id: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => spelled(id).prop_map(Value::String),
        1 => Just(Value::Null),
        1 => Just(json!([])),
        1 => Just(json!({})),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => any::<u64>().prop_map(|number| json!(number)),
        1 => "\\PC{0,30}".prop_map(Value::String),
        1 => spelled(id).prop_map(|text| json!({ "body": text, "event_id": text, "user_id": text })),
        1 => spelled(id).prop_map(|text| json!([{ "candidate": text }, text, { text: 1 }])),
    ]
}

/// What is done to a value somewhere in a content.
#[derive(Clone, Debug)]
enum Alteration {
    Replace(Value),
    Remove,
    Append(String),
    Wrap,
    Add(String, Value),
}

fn alteration(id: &'static str) -> impl Strategy<Value = (usize, Alteration)> {
    let alteration = prop_oneof![
        4 => odd(id).prop_map(Alteration::Replace),
        2 => Just(Alteration::Remove),
        4 => spelled(id).prop_map(Alteration::Append),
        1 => Just(Alteration::Wrap),
        2 => (spelled(id), odd(id)).prop_map(|(key, value)| Alteration::Add(key, value)),
        2 => ("(formatted_body|m\\.text|via|m\\.relates_to|filename)", odd(id))
            .prop_map(|(key, value)| Alteration::Add(key, value)),
    ];
    (0..60_usize, alteration)
}

/// Alters the `at`th value in `value`, as they are written; says how far it came.
fn alter(value: &mut Value, at: &mut usize, alteration: &Alteration) -> bool {
    if *at == 0 {
        match (alteration, &mut *value) {
            (Alteration::Replace(with), _) => *value = with.clone(),
            (Alteration::Remove, _) => *value = Value::Null,
            (Alteration::Append(text), Value::String(before)) => before.push_str(text),
            (Alteration::Append(text), _) => *value = json!(text),
            (Alteration::Wrap, _) => *value = json!([value.take()]),
            (Alteration::Add(key, with), Value::Object(fields)) => {
                fields.insert(key.clone(), with.clone());
            }
            (Alteration::Add(key, with), _) => *value = json!({ key: with }),
        }
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(values) => values.iter_mut().any(|value| alter(value, at, alteration)),
        Value::Object(fields) => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            keys.iter().any(|key| {
                if *at == 0 && matches!(alteration, Alteration::Remove) {
                    return fields.remove(key).is_some();
                }
                fields
                    .get_mut(key)
                    .is_some_and(|value| alter(value, at, alteration))
            })
        }
        _ => false,
    }
}

fn event(id: &'static str) -> impl Strategy<Value = (&'static str, Value)> {
    let all: Vec<(&'static str, Value)> = [real::messages(), real::calls()].concat();
    let alterations = prop::collection::vec(alteration(id), 1..4);
    (prop::sample::select(all), alterations).prop_map(|((kind, mut content), alterations)| {
        for (mut at, alteration) in alterations {
            // At the top it would be no event.
            at += usize::from(!matches!(alteration, Alteration::Add(..)));
            alter(&mut content, &mut at, &alteration);
        }
        (kind, content)
    })
}

fn entities(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let digits = |text: &str, hex: bool| {
            let length = text.find(|c: char| !c.is_digit(if hex { 16 } else { 10 }));
            length.unwrap_or(text.len())
        };
        let named = [
            ("commat;", '@'),
            ("colon;", ':'),
            ("period;", '.'),
            ("amp;", '&'),
            ("lt;", '<'),
            ("gt;", '>'),
            ("quot;", '"'),
        ];
        let (c, length) =
            if let Some((name, c)) = named.iter().find(|(name, _)| after.starts_with(name)) {
                (Some(*c), name.len())
            } else if let Some(number) = after.strip_prefix("#x").or(after.strip_prefix("#X")) {
                let length = digits(number, true);
                let c = u32::from_str_radix(&number[..length], 16)
                    .ok()
                    .and_then(char::from_u32);
                (
                    c,
                    2 + length + usize::from(number[length..].starts_with(';')),
                )
            } else if let Some(number) = after.strip_prefix('#') {
                let length = digits(number, false);
                let c = number[..length].parse().ok().and_then(char::from_u32);
                (
                    c,
                    1 + length + usize::from(number[length..].starts_with(';')),
                )
            } else {
                (None, 0)
            };
        match c {
            Some(c) => {
                out.push(c);
                rest = &after[length..];
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

fn without_tags(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        let is_tag =
            after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        match after.split_once('>') {
            Some((_, after)) if is_tag => rest = after,
            _ => {
                out.push('<');
                rest = after;
            }
        }
    }
    out + rest
}

/// Everything that a text can be read as.
fn readings(text: &str) -> HashSet<String> {
    let mut all = HashSet::from([text.to_owned()]);
    let mut last = vec![text.to_owned()];
    for _ in 0..LAYERS {
        let mut next = Vec::new();
        for text in &last {
            for reading in [
                percent_decode_str(text).decode_utf8_lossy().into_owned(),
                entities(text),
                without_tags(text),
            ] {
                if all.insert(reading.clone()) {
                    next.push(reading);
                }
            }
        }
        last = next;
    }
    all
}

fn names(text: &str, id: &str) -> bool {
    let bare = id.trim_start_matches('@');
    readings(text).iter().any(|reading| {
        let seen = |c: &char| !matches!(c, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{00AD}');
        let reading: String = reading.chars().filter(seen).collect();
        reading
            .to_lowercase()
            .replace('＠', "@")
            .replace('：', ":")
            .contains(bare)
    })
}

fn strings<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, out)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            out.push(key);
            strings(value, out);
        }),
        _ => {}
    }
}

fn check(
    direction: Direction,
    sender: &'static str,
    same: bool,
    hide: bool,
    kind: &str,
    content: &Value,
) -> Result<(), TestCaseError> {
    with_context(direction, hide, |context| {
        let sender_id = <&UserId>::try_from(sender).unwrap();
        let context = Context {
            sender: sender_id,
            homeserver: if same {
                sender_id.server_name()
            } else {
                ruma::server_name!("ours.test")
            },
            ..context.clone()
        };
        let Ok(Some(out)) = translate(kind, content, &context) else {
            return Ok(());
        };
        let mut all = vec![out.event_type.as_str()];
        strings(&out.content, &mut all);
        for text in all {
            prop_assert!(!names(text, sender), "{text:?} of {kind} {content}");
            prop_assert!(
                !text.contains("ALICESDEVICE"),
                "{text:?} of {kind} {content}"
            );
        }
        // The media to upload again are where the translation says.
        for media_to_reupload in &out.media_to_reupload {
            let found = out
                .content
                .pointer(&media_to_reupload.pointer)
                .and_then(Value::as_str);
            prop_assert_eq!(found, Some(media_to_reupload.uri.as_str()));
        }
        Ok(())
    })
}

/// Returns a configuration with at least this many cases; `PROPTEST_CASES` can ask for more.
fn cases(at_least: u32) -> ProptestConfig {
    let asked = ProptestConfig::default().cases;
    ProptestConfig::with_cases(asked.max(at_least))
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn an_altered_event_names_neither_of_the_two(
        (kind, alices) in event(ALICE), (sams_kind, sams) in event(SAMUEL),
        same in any::<bool>(), hide in any::<bool>(),
    ) {
        check(Direction::ToSam, ALICE, same, hide, kind, &alices)?;
        check(Direction::ToAlice, SAMUEL, same, hide, sams_kind, &sams)?;
    }

    #[test]
    fn a_name_of_a_room_names_nobody(text in prop::collection::vec(spelled(ALICE), 1..3)) {
        let out = with_context(Direction::ToSam, true, |context| {
            translate_room_text(&text.join(" "), context, &Names::default(), TOPIC_CHARS_MAX)
        });
        let out = out.unwrap_or_default();
        prop_assert!(!names(&out, ALICE), "{out:?} of {text:?}");
    }
}

#[test]
fn an_identifier_that_begins_or_ends_where_a_tag_does_is_found() {
    for html in [
        "<p>my ID is</p><p>samuel:hs.test</p>",
        "n<p>samuel:hs.test",
        "my ID is<br>samuel:hs.test",
        "<ul><li>Sam</li><li>samuel:hs.test</li></ul>",
        "<p>my ID is</p><p>sam<b>uel</b>:hs.test</p>",
        "<p>my ID is sam</p><p>uel:hs.test</p>",
        "samuel:hs.test<b>s</b>",
        "x<b>\u{200b}</b><i>samuel:hs.test</i>",
        "2<b></b>samuel<i>:hs.test</i>",
        "<section>my ID</section><section>samuel:hs.test</section>",
        "<dl><dt>Sam</dt><dd>samuel:hs.test</dd></dl>",
        "my<title>x</title>samuel:hs.test",
    ] {
        let content = json!({
            "msgtype": "m.text",
            "body": "my ID is",
            "format": "org.matrix.custom.html",
            "formatted_body": html,
        });
        let sent = with_context(Direction::ToAlice, true, |context| {
            translate("m.room.message", &content, context)
        });
        let sent = sent.unwrap().unwrap().content.to_string();
        assert!(!sent.contains("uel"), "{html}: {sent}");
    }
}

#[test]
fn an_identifier_that_begins_or_ends_at_something_invisible_is_found() {
    for text in [
        "2\u{14}alice.harbour:far.example",
        "2\u{200b}alice.harbour:far.example",
        "2\u{301}alice.harbour:far.example",
        "2%14alice.harbour:far.example",
        "2%2514alice.harbour:far.example",
        "2&#x14;alice.harbour:far.example",
        "2&shy;al\u{200b}ice.harbour:far.example",
        "2\u{14}al\u{200b}ice.harbour:far.example",
        "alice.harbour:far.example\u{14}s",
        "%98alice.harbour:far.example",
        "%e2%82alice.harbour:far.example",
    ] {
        let content = json!({"msgtype": "m.text", "body": text});
        let sent = with_context(Direction::ToSam, true, |context| {
            translate("m.room.message", &content, context)
        });
        let sent = sent.unwrap().unwrap().content.to_string();
        assert!(!sent.contains("harbour"), "{text:?}: {sent}");
    }
}

#[test]
fn what_is_put_in_makes_no_identifier_with_what_stands_beside_it() {
    for html in [
        "@samuel:hs.testuel:hs.test",
        "@samuel:hs.test<b>uel:hs.test</b>",
        "<a href=\"https://matrix.to/#/@samuel:hs.test\">Sam</a>uel:hs.test",
    ] {
        let content = json!({
            "msgtype": "m.text",
            "body": html,
            "format": "org.matrix.custom.html",
            "formatted_body": html,
        });
        let sent = with_context(Direction::ToAlice, true, |context| {
            translate("m.room.message", &content, context)
        });
        let sent = sent.unwrap().unwrap().content;
        assert!(sent["formatted_body"].is_null(), "{html}: {sent}");
        assert!(!sent.to_string().contains("uel"), "{html}: {sent}");
    }
}

#[test]
fn an_identifier_is_found_behind_punctuation_that_people_write() {
    for text in [
        "_alice.harbour:far.example_",
        "__alice.harbour:far.example__",
        "-alice.harbour:far.example",
        "hi...alice.harbour:far.example",
        "https://x.example/?user=alice.harbour:far.example",
        "q=hello+alice.harbour:far.example",
    ] {
        let content = json!({"msgtype": "m.text", "body": text});
        let sent = with_context(Direction::ToSam, true, |context| {
            translate("m.room.message", &content, context)
        });
        let sent = sent.unwrap().unwrap().content.to_string();
        assert!(!sent.contains("harbour"), "{text:?}: {sent}");
    }
}

#[test]
fn a_longer_matrix_id_is_left_alone() {
    for text in [
        "2alice.harbour:far.example",
        "mr.alice.harbour:far.example",
        "a_alice.harbour:far.example",
        "2<b>alice.harbour</b>:far.examples",
    ] {
        let content = json!({"msgtype": "m.text", "body": text});
        let sent = with_context(Direction::ToSam, true, |context| {
            translate("m.room.message", &content, context)
        });
        assert_eq!(sent.unwrap().unwrap().content["body"], text);
    }
}

#[test]
fn the_search_finds_identifiers() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut found = 0;
    for _ in 0..200 {
        let tree = spelled(ALICE).new_tree(&mut runner).unwrap();
        let text = proptest::strategy::ValueTree::current(&tree);
        found += usize::from(names(&text, ALICE));
    }
    // Only the code looks behind backslashes.
    assert!(found > 140, "{found} of 200");
}
