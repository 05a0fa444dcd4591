//! The way of one event: into the inbox, through a mask, into an introduction, to the bot.

use std::collections::HashMap;

use rand::{SeedableRng, rngs::StdRng};
use ruma::{
    EventId, OwnedEventId, OwnedUserId, RoomId, UserId, event_id, room_id, server_name, user_id,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    changes::{changes, printable},
    fixture::Case,
};
use crate::{
    bot,
    conversation::{EventKind, Notice},
    crypto::parse_leniently,
    directory::{Directory, DirectorySettings},
    engine::{
        conversations::inputs::event_kind, event::RoomEvent, introductions::inputs::message_kind,
    },
    introduction::{IntroductionNotice, MessageKind, Quote, QuoteError, gist, quote, quote_edit},
    matrix::{Transaction, transaction::TransactionReader},
    relay::{self, Alias, Context, EventMapping, Masking, Translated},
    store::Store,
    testing::{NOW, person},
    text::is_invisible,
};

/// Who writes, and where.
const ALICE: &str = "@alice.harbour:far.example";
const HERE: &str = "!here:far.example";
/// The device that she writes on.
const DEVICE: &str = "ALICESDEVICE";
/// Alice's name for the owner of an open handle.
const NAME: &str = "Alice";

/// What becomes of a case.
#[derive(Serialize)]
pub(super) struct Passage {
    pub(super) case: String,
    /// How it is read when the homeserver pushes it.
    pushed: String,
    /// What is done about it if it was not encrypted; nothing for a message, which is asked for
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_clear: Option<String>,
    /// What comes out of the other ways, for an event that can be read.
    #[serde(flatten)]
    ways: Option<Ways>,
}

/// What becomes of a decrypted event.
#[derive(Serialize)]
struct Ways {
    /// In a masked conversation.
    masked: Outcome,
    /// In an introduction.
    open: Outcome,
    /// As the opening line that an owner is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    /// The same of an asker who is masked, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    masked_request: Option<String>,
    /// What the bot answers, where that is not about an unknown word.
    #[serde(skip_serializing_if = "Option::is_none")]
    bot: Option<String>,
}

/// What comes out.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    /// One sentence.
    Words(String),
    /// A content, by how it differs from the original.
    Changed {
        what: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        changes: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        uploaded_again: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        told: Vec<&'static str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        leaks: Vec<String>,
    },
}

impl Passage {
    /// Takes a case the whole way. `commands` says whether texts are meant for the bot.
    pub(super) async fn of(case: &Case, commands: bool) -> Self {
        let json = case.json();
        let (pushed, event) = push(&json);
        let in_clear = event.as_ref().and_then(in_clear);
        let is_state = event.is_some_and(|event| event.state_key.is_some());
        // What is about the envelope says nothing about what is inside.
        let ways = if case.whole || is_state {
            None
        } else {
            match decrypted(&json) {
                Some((kind, content)) => Some(Ways::of(&kind, &content, commands).await),
                None => Some(Ways::unreadable()),
            }
        };
        Self {
            case: case.name.clone(),
            pushed,
            in_clear,
            ways,
        }
    }

    /// Returns what names the sender in what the other side of a mask gets.
    pub(super) fn leaks(&self) -> impl Iterator<Item = &String> {
        let masked = self.ways.iter().map(|ways| &ways.masked);
        masked.flat_map(|masked| match masked {
            Outcome::Words(_) => [].iter(),
            Outcome::Changed { leaks, .. } => leaks.iter(),
        })
    }
}

/// Reads a transaction with one event, as it arrives in small pieces.
fn push(json: &str) -> (String, Option<RoomEvent>) {
    let body = format!("{{\"events\":[{json}]}}");
    let mut reader = TransactionReader::default();
    for piece in body.as_bytes().chunks(1000) {
        reader.feed(piece);
    }
    let Transaction {
        events,
        dead_letters,
        dropped,
        ..
    } = reader.finish().unwrap();
    if let [letter] = &dead_letters[..] {
        return (format!("set aside: {}", letter.reason), None);
    }
    let [event] = &events[..] else {
        return (format!("dropped: {dropped}"), None);
    };
    match RoomEvent::parse(event.get(), None) {
        Some(event) => (read_as(&event), Some(event)),
        None => ("set aside: event_malformed".to_owned(), None),
    }
}

/// Says how an event was read.
fn read_as(event: &RoomEvent) -> String {
    let mut out = event.kind.clone();
    if event.id != event_id!("$event") {
        out.push_str(&format!(", id {}", event.id));
    }
    if event.sender != ALICE {
        out.push_str(&format!(", sender {}", event.sender));
    }
    if event.room != HERE {
        out.push_str(&format!(", room {}", event.room));
    }
    if let Some(key) = &event.state_key {
        out.push_str(&format!(", state key {key:?}"));
    }
    match event.sent_at {
        Some(at) if at.0 == 1_700_000_000_000 => {}
        Some(at) => out.push_str(&format!(", sent at {}", at.0)),
        None => out.push_str(", sent at an unknown time"),
    }
    if !event.age.is_zero() {
        out.push_str(&format!(", age {} ms", event.age.as_millis()));
    }
    if let Some(of) = &event.redacts {
        out.push_str(&format!(", redacts {of}"));
    }
    if let Some(transaction) = &event.transaction {
        out.push_str(&format!(", transaction {transaction}"));
    }
    if !event.invite_state.is_empty() {
        out.push_str(&format!(", {} stripped events", event.invite_state.len()));
    }
    printable(&out)
}

/// Says what is done about an event that came in clear.
fn in_clear(event: &RoomEvent) -> Option<String> {
    if let Some((user, membership)) = event.membership() {
        return Some(format!("membership of {user}: {}", printable(membership)));
    }
    Some(match event_kind(event) {
        Some(EventKind::Unencrypted) => return None,
        Some(EventKind::Forwardable) => "carried".to_owned(),
        Some(EventKind::Redaction { of }) => format!("the copy of {of} is deleted"),
        Some(EventKind::MatrixRtc) => format!("told: {}", Notice::MatrixRtc.text()),
        Some(EventKind::RoomOnly) => format!("told: {}", Notice::RoomOnly.text()),
        Some(EventKind::Verification { .. }) => {
            format!("declined, and told: {}", Notice::Verification.text())
        }
        Some(EventKind::RoomInfo) => "names are compared".to_owned(),
        None => "nothing".to_owned(),
    })
}

/// Returns the type and content, if the crypto stack could read them from a ciphertext.
fn decrypted(json: &str) -> Option<(String, Value)> {
    #[derive(Deserialize)]
    struct Plain {
        #[serde(rename = "type")]
        kind: String,
        content: Box<RawValue>,
    }
    let plain: Plain = serde_json::from_str(json).ok()?;
    let content = plain.content.get();
    let payload = format!("{{\"type\":{:?},\"content\":{content}}}", "m.x");
    let payload = parse_leniently(&payload).ok()?;
    Some((plain.kind, payload.get("content")?.clone()))
}

impl Ways {
    /// What becomes of a payload that the crypto stack does not read.
    fn unreadable() -> Self {
        let unread = || Outcome::Words("not understood, and the sender is told".to_owned());
        Self {
            masked: unread(),
            open: unread(),
            request: None,
            masked_request: None,
            bot: None,
        }
    }

    async fn of(kind: &str, content: &Value, commands: bool) -> Self {
        let line = matches!(
            message_kind(kind, content),
            Some(MessageKind::Line | MessageKind::Edit { .. })
        );
        let request = line.then(|| gist(NAME, kind, content, |text| Some(text.to_owned())));
        let masked_request = line.then(|| gist(NAME, kind, content, without_asker));
        Self {
            masked: masked(kind, content),
            open: open(kind, content),
            masked_request: masked_request
                .filter(|masked| Some(masked) != request.as_ref())
                .map(|text| printable(&text)),
            request: request.map(|text| printable(&text)),
            bot: bot_answer(kind, content).await.filter(|_| {
                // Outside of the commands, texts are no commands.
                commands || content["msgtype"] != "m.text" || !content["body"].is_string()
            }),
        }
    }
}

/// The events of the other room: `$one` is `$eins` there, and so on.
struct Known(HashMap<OwnedEventId, OwnedEventId>);

impl EventMapping for Known {
    fn target_of(&self, source: &EventId) -> Option<OwnedEventId> {
        self.0.get(source).cloned()
    }
}

/// Translates an event of Alice, who is called "Kim", for Sam.
fn masked(kind: &str, content: &Value) -> Outcome {
    let alias = |source: &str, target: &str, name: &str| Alias {
        source: OwnedUserId::try_from(source).unwrap(),
        target: OwnedUserId::try_from(target).unwrap(),
        name: name.to_owned(),
    };
    let aliases = [
        alias(ALICE, "@_dm_.p2345672345672345:hs.test", "Kim"),
        alias("@_dm_sam:hs.test", "@samuel:hs.test", "@sam"),
    ];
    let known = [("$one", "$eins"), ("$two", "$zwei"), ("$poll", "$umfrage")];
    let known = known.map(|(here, there)| {
        let id = |id: &str| OwnedEventId::try_from(id).unwrap();
        (id(here), id(there))
    });
    let known = Known(known.into_iter().collect());
    let masking = Masking {
        homeserver: server_name!("hs.test"),
        hide_addresses: true,
        pseudonym_key: &[7; 32],
        secrets: &relay::device_secrets(&json!({ "device_id": DEVICE })),
    };
    let here = <&RoomId>::try_from(HERE).unwrap();
    let rooms = (here, room_id!("!there:hs.test"));
    let sender = <&UserId>::try_from(ALICE).unwrap();
    let context = Context::between(rooms, sender, &aliases, &known, masking);
    match relay::translate(kind, content, &context) {
        Ok(None) => Outcome::Words("nothing, and nobody is told".to_owned()),
        Err(why) => Outcome::Words(format!("refused: {}", why.notice_text())),
        Ok(Some(translated)) => {
            let changes = changes(content, &translated.content);
            Outcome::Changed {
                what: match (&*translated.event_type == kind, changes.is_empty()) {
                    (false, _) => format!("carried as {}", translated.event_type),
                    (true, true) => "carried as it is".to_owned(),
                    (true, false) => "carried".to_owned(),
                },
                changes,
                uploaded_again: translated
                    .media_to_reupload
                    .iter()
                    .map(|media| media.pointer.clone())
                    .collect(),
                told: translated
                    .remarks
                    .iter()
                    .map(|it| it.notice_text())
                    .collect(),
                leaks: leaks(&translated),
            }
        }
    }
}

/// Returns the strings of a translated content that name the sender, the room, or media elsewhere.
fn leaks(translated: &Translated) -> Vec<String> {
    let mut out = Vec::new();
    let mut left = vec![(String::new(), &translated.content)];
    while let Some((pointer, value)) = left.pop() {
        match value {
            Value::String(text) => {
                let mut uploaded = translated.media_to_reupload.iter();
                let uploaded = uploaded.any(|media| media.pointer == pointer);
                let text = text.to_lowercase();
                if names_sender(&text) || is_elsewhere(&text) && !uploaded {
                    out.push(format!("{}: {}", printable(&pointer), printable(&text)));
                }
            }
            Value::Array(values) => {
                let all = values.iter().enumerate();
                left.extend(all.map(|(at, value)| (format!("{pointer}/{at}"), value)));
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    let step = key.replace('~', "~0").replace('/', "~1");
                    let step = format!("{pointer}/{step}");
                    let key = key.to_lowercase();
                    if names_sender(&key) || is_elsewhere(&key) {
                        out.push(format!("{}: a key", printable(&step)));
                    }
                    left.push((step, value));
                }
            }
            _ => {}
        }
    }
    out.sort();
    out
}

/// Returns whether a text in lower case has Alice's Matrix ID, her room or her device, whatever
/// stands in between.
fn names_sender(text: &str) -> bool {
    let seen = |c: &char| !is_invisible(*c) && (!c.is_control() || *c == '\n');
    let text = text.chars().filter(seen).collect::<String>();
    let text = text.replace("%3a", ":").replace("%40", "@");
    let device = DEVICE.to_lowercase();
    ["alice.harbour:far.example", HERE, &device]
        .iter()
        .any(|id| text.contains(id))
}

/// Returns whether a text in lower case is the address of media on another homeserver.
fn is_elsewhere(text: &str) -> bool {
    text.trim_start().starts_with("mxc:") && !text.starts_with("mxc://hs.test/")
}

/// Quotes an event for the owner of an open handle.
fn open(kind: &str, content: &Value) -> Outcome {
    let refused = |why: QuoteError| {
        let notice = match why {
            QuoteError::PlainAttachment => IntroductionNotice::SendAgainPlainFile,
            _ => IntroductionNotice::SendAgainOther,
        };
        Outcome::Words(format!("refused: {}", notice.plain("sam")))
    };
    let quoted = |what: String, quote: Result<Quote, QuoteError>| match quote {
        Err(why) => refused(why),
        Ok(quote) => Outcome::Changed {
            what: if quote.event_type == kind {
                what
            } else {
                format!("{what} as {}", quote.event_type)
            },
            changes: changes(content, &quote.content),
            uploaded_again: Vec::new(),
            told: Vec::new(),
            leaks: Vec::new(),
        },
    };
    match message_kind(kind, content) {
        None => Outcome::Words("nothing, and nobody is told".to_owned()),
        Some(MessageKind::Line) => quoted("quoted".to_owned(), quote(NAME, kind, content)),
        Some(MessageKind::Edit { of }) => quoted(
            format!("quoted as an edit of {of}"),
            quote_edit(NAME, kind, content, "$passed_on"),
        ),
        Some(MessageKind::PlainFile) => refused(QuoteError::PlainAttachment),
        Some(_) => refused(QuoteError::NotAMessage),
    }
}

/// Returns a masked asker's line as an owner is shown it.
fn without_asker(text: &str) -> Option<String> {
    let (room, sender) = (
        <&RoomId>::try_from(HERE).unwrap(),
        <&UserId>::try_from(ALICE).unwrap(),
    );
    let context = Context::for_quote(room, sender, server_name!("hs.test"));
    relay::translate_line(text, &context, 4000)
}

/// Returns what the bot answers in a control room, if anything, and how many effects it has.
async fn bot_answer(kind: &str, content: &Value) -> Option<String> {
    let settings = DirectorySettings::new(server_name!("hs.test").to_owned());
    let directory = Directory::new(Store::in_memory(), settings);
    let options = bot::Options::new(user_id!("@_dm_.bot:hs.test").to_owned());
    let message = bot::Message {
        person: person("@samuel:hs.test"),
        event_type: kind,
        content,
        sent_at: NOW,
        now: NOW,
        greeted_at: None,
    };
    let mut tx = directory.begin().await;
    let mut rng = StdRng::seed_from_u64(7);
    let answer = bot::answer(&message, &options, &mut tx, &mut rng).unwrap();
    let mut out = printable(&answer.text?.plain);
    if !answer.effects.is_empty() {
        out.push_str(&format!(" (and {} effects)", answer.effects.len()));
    }
    Some(out)
}
