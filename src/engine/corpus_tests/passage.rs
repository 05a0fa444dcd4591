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
    introduced::effects_of,
};
use crate::{
    bot,
    conversation::{EventKind, Notice},
    crypto::parse_leniently,
    directory::{Directory, DirectorySettings},
    engine::{
        control_rooms::requests::without_asker,
        conversations::inputs::{event_kind, replacement},
        event::RoomEvent,
        introductions::inputs::message_kind,
    },
    introduction::{
        Effect, IntroductionNotice, MessageKind, Quote, QuoteError, gist, quote, quote_edit,
    },
    matrix::{Transaction, transaction::TransactionReader},
    relay::{self, Alias, Context, EventMapping, Masking, Translated},
    store::Store,
    testing::{NOW, person},
    text::is_invisible,
};

/// Who writes, and where.
pub(super) const ALICE: &str = "@alice.harbour:far.example";
pub(super) const HERE: &str = "!here:far.example";
/// Her homeserver.
const SERVER: &str = "far.example";
/// Her name in profiles of single messages.
const PROFILE_NAME: &str = "alice harbour";
/// The device that she writes on.
const DEVICE: &str = "ALICESDEVICE";
/// Alice's name for the owner of an open handle.
const NAME: &str = "Alice";
/// Maximum size of a content that a client can send encrypted, in bytes of JSON.
const CONTENT_BYTES_MAX: usize = 47_000;
/// Maximum size of a quote, in bytes of JSON: encryption makes four bytes of three, and an event
/// may have 65,536.
const QUOTE_BYTES_MAX: usize = 48_000;

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
    /// What is wrong with what comes out.
    #[serde(skip)]
    faults: Vec<String>,
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

    /// Returns what names the sender in what the other side of a mask gets, and what does not fit
    /// into an event.
    pub(super) fn faults(&self) -> impl Iterator<Item = &String> {
        self.ways.iter().flat_map(|ways| {
            let leaks = match &ways.masked {
                Outcome::Words(_) => [].iter(),
                Outcome::Changed { leaks, .. } => leaks.iter(),
            };
            leaks.chain(&ways.faults)
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
    if let Some(room) = replacement(event) {
        return Some(format!("the conversation follows to {room} if it may"));
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
            faults: Vec::new(),
        }
    }

    async fn of(kind: &str, content: &Value, commands: bool) -> Self {
        let line = matches!(
            message_kind(kind, content),
            Some(MessageKind::Line | MessageKind::Edit { .. })
        );
        let request = line.then(|| gist(NAME, kind, content, |text| Some(text.to_owned())));
        let masked_request = line.then(|| {
            let (room, sender) = (
                <&RoomId>::try_from(HERE).unwrap(),
                <&UserId>::try_from(ALICE).unwrap(),
            );
            let secrets = secrets();
            let mut context = Context::for_quote(room, sender, server_name!("hs.test"));
            context.secrets = &secrets;
            gist("Kim", kind, content, |text| {
                without_asker(text, content, &context)
            })
        });
        let mut faults = Vec::new();
        if let Some(text) = &masked_request
            && names_sender(text, content)
        {
            faults.push(format!("the masked request: {}", printable(text)));
        }
        Self {
            masked: masked(kind, content),
            open: open(kind, content, &mut faults),
            faults,
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
        secrets: &secrets(),
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
                leaks: leaks(&translated, content),
            }
        }
    }
}

/// Returns what the clear part of an encrypted event tells of Alice's device.
fn secrets() -> Vec<String> {
    relay::device_secrets(&json!({ "device_id": DEVICE }))
}

/// Returns the strings of a translation of `content` that name the sender, the room, or media
/// elsewhere.
fn leaks(translated: &Translated, content: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut left = vec![(String::new(), &translated.content)];
    while let Some((pointer, value)) = left.pop() {
        match value {
            Value::String(text) => {
                let mut uploaded = translated.media_to_reupload.iter();
                let uploaded = uploaded.any(|media| media.pointer == pointer);
                let text = text.to_lowercase();
                let is_elsewhere = is_elsewhere(&text) || names_server(&pointer, &text);
                if names_sender(&text, content) || is_elsewhere && !uploaded {
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
                    if names_sender(&key, content) || is_elsewhere(&key) {
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

/// Returns whether a text has Alice's Matrix ID, her room or her device, whatever stands in between,
/// or her name in a profile of `content`.
fn names_sender(text: &str, content: &Value) -> bool {
    let text = text.to_lowercase();
    let seen = |c: &char| !is_invisible(*c) && (!c.is_control() || *c == '\n');
    let text = text.chars().filter(seen).collect::<String>();
    let text = text.replace("%3a", ":").replace("%40", "@");
    let device = DEVICE.to_lowercase();
    let original = content.to_string();
    let marks = ["per_message_profile", "msc4144", "profile-fallback"];
    let has_profile = marks.iter().any(|mark| original.contains(mark));
    has_profile && text.contains(PROFILE_NAME)
        || ["alice.harbour:far.example", HERE, &device]
            .iter()
            .any(|id| text.contains(id))
}

/// Returns whether a text in lower case names Alice's homeserver where neither a person nor a bot
/// writes what others shall read or open.
fn names_server(pointer: &str, text: &str) -> bool {
    const WRITTEN: [&str; 14] = [
        "admin_contact",
        "email",
        "external_url",
        "body",
        "filename",
        "formatted_body",
        "org.matrix.msc1767.text",
        "org.matrix.msc1767.html",
        "m.text",
        "m.html",
        "description",
        "name",
        "topic",
        "reason",
    ];
    let key = pointer.rsplit('/').next().unwrap_or_default();
    text.contains(SERVER) && !WRITTEN.contains(&key)
}

/// Returns whether a text in lower case is the address of media on another homeserver.
fn is_elsewhere(text: &str) -> bool {
    let is_address = text.trim_start().starts_with("mxc:");
    is_address && !text.starts_with("mxc://hs.test/") || text.contains("mxc://far.example/")
}

/// Introduces Alice to the owner of an open handle, who can already read her messages `$one` and
/// `$two`.
fn open(kind: &str, content: &Value, faults: &mut Vec<String>) -> Outcome {
    let nothing = || Outcome::Words("nothing, and nobody is told".to_owned());
    let Some(message) = message_kind(kind, content) else {
        return nothing();
    };
    let told =
        |notice: &IntroductionNotice| Outcome::Words(format!("refused: {}", notice.plain("sam")));
    match &effects_of("$event", message)[..] {
        [] => nothing(),
        [Effect::PassOn { .. }] => match quote(NAME, kind, content) {
            Ok(quote) => quoted("quoted".to_owned(), kind, content, &quote, faults),
            Err(why) => told(&notice_of(why)),
        },
        [Effect::PassOnEdit { of, .. }] => match quote_edit(NAME, kind, content, "$passed_on") {
            Ok(quote) => {
                let what = format!("quoted as an edit of {of}");
                quoted(what, kind, content, &quote, faults)
            }
            Err(why) => told(&notice_of(why)),
        },
        [Effect::SendReply { notice, .. } | Effect::SendNotice { notice }] => told(notice),
        effects => Outcome::Words(
            effects
                .iter()
                .map(Effect::kind)
                .collect::<Vec<_>>()
                .join(", "),
        ),
    }
}

/// Returns what the asker reads about a message that could not be quoted.
fn notice_of(why: QuoteError) -> IntroductionNotice {
    match why {
        QuoteError::PlainAttachment => IntroductionNotice::SendAgainPlainFile,
        QuoteError::NotAMessage | QuoteError::Malformed => IntroductionNotice::SendAgainOther,
    }
}

/// Returns how a quote differs from its original, which has to fit into an event if that did.
fn quoted(
    what: String,
    kind: &str,
    content: &Value,
    quote: &Quote,
    faults: &mut Vec<String>,
) -> Outcome {
    let size = quote.content.to_string().len();
    if content.to_string().len() <= CONTENT_BYTES_MAX && size > QUOTE_BYTES_MAX {
        faults.push(format!("the quote has {size} bytes"));
    }
    Outcome::Changed {
        what: if quote.event_type == kind {
            what
        } else {
            format!("{what} as {}", quote.event_type)
        },
        changes: changes(content, &quote.content),
        uploaded_again: Vec::new(),
        told: Vec::new(),
        leaks: Vec::new(),
    }
}

/// Returns what the bot answers to the owner of `@sam`, if anything, and how many effects it has.
async fn bot_answer(kind: &str, content: &Value) -> Option<String> {
    let settings = DirectorySettings::new(server_name!("hs.test").to_owned());
    let directory = Directory::new(Store::in_memory(), settings);
    let options = bot::Options::new(user_id!("@_dm_.bot:hs.test").to_owned());
    let mut tx = directory.begin().await;
    let mut rng = StdRng::seed_from_u64(7);
    let (sam, kim) = (person("@samuel:hs.test"), person("@kim:hs.test"));
    let claim = |name: &str| json!({ "msgtype": "m.text", "body": format!("claim {name}") });
    let mut answer = |person, kind, content: &Value| {
        let message = bot::Message {
            person,
            event_type: kind,
            content,
            sent_at: NOW,
            now: NOW,
            greeted_at: None,
        };
        bot::answer(&message, &options, &mut tx, &mut rng).unwrap()
    };
    for (person, name) in [(sam, "sam"), (kim, "kim")] {
        let claimed = answer(person, "m.room.message", &claim(name));
        assert!(!claimed.effects.is_empty());
    }
    let answer = answer(sam, kind, content);
    let mut out = printable(&answer.text?.plain);
    if !answer.effects.is_empty() {
        out.push_str(&format!(" (and {} effects)", answer.effects.len()));
    }
    Some(out)
}
