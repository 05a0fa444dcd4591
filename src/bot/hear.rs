//! What the bot hears: from the content of an event to the words of a command.

use std::time::Duration;

use ruma::OwnedEventId;
use serde_json::Value;

use crate::{clock::Timestamp, text::is_invisible};

/// The longest command that is read, in characters.
pub const LONGEST: usize = 1000;

/// A command must reach us within this time. Otherwise a homeserver could keep a `release` and
/// deliver it when it suits it.
pub const FRESH: Duration = Duration::from_secs(10 * 60);

/// What an event in a control room says to the bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Words.
    Text(String),
    /// A reaction to a message.
    Reaction {
        /// The message.
        to: OwnedEventId,
        /// The emoji.
        key: String,
    },
    /// Something a person sent that is not text, which is told them.
    NotText,
    /// Nothing that wants an answer: an edit, a notice of another bot.
    Nothing,
}

/// Reads the decrypted content of an event. Of a message only its plain body is looked at.
pub fn hear(event_type: &str, content: &Value) -> Heard {
    match event_type {
        "m.room.message" => {}
        "m.reaction" => return reaction(content).unwrap_or(Heard::Nothing),
        "m.sticker" | "m.poll.start" | "org.matrix.msc3381.poll.start" => return Heard::NotText,
        _ => return Heard::Nothing,
    }
    // An edit repeats a command that was run, or never made one.
    if content
        .pointer("/m.relates_to/rel_type")
        .and_then(Value::as_str)
        == Some("m.replace")
    {
        return Heard::Nothing;
    }
    match content.get("msgtype").and_then(Value::as_str) {
        Some("m.text") => match content.get("body").and_then(Value::as_str) {
            Some(body) => Heard::Text(body.to_owned()),
            None => Heard::Nothing,
        },
        // Bots answer with notices: answering those could go on for ever.
        Some("m.notice") | None => Heard::Nothing,
        // Clients verify each other with these, and show them as no message.
        Some(kind) if kind.starts_with("m.key.verification.") => Heard::Nothing,
        Some(_) => Heard::NotText,
    }
}

fn reaction(content: &Value) -> Option<Heard> {
    let relation = content.get("m.relates_to")?;
    let to = relation.get("event_id")?.as_str()?.try_into().ok()?;
    let key = relation.get("key")?.as_str()?;
    let is_reaction = relation.get("rel_type")?.as_str()? == "m.annotation";
    (is_reaction && key.len() <= LONGEST).then(|| Heard::Reaction {
        to,
        key: key.to_owned(),
    })
}

/// The words of one command, cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words(pub Vec<String>);

/// Why a text is not one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCommand {
    /// Nothing but spaces.
    Empty,
    /// More than [`LONGEST`] characters.
    TooLong,
    /// More than one line.
    ManyLines,
}

impl Words {
    pub(super) fn of(text: &str) -> Result<Words, NoCommand> {
        // Bytes are counted before characters, so that a huge text costs nothing.
        if text.len() > LONGEST * 4 || text.chars().count() > LONGEST {
            return Err(NoCommand::TooLong);
        }
        let mut lines = without_quote(text)
            .lines()
            .map(clean)
            .filter(|line| !line.is_empty());
        let line = lines.next().ok_or(NoCommand::Empty)?;
        if lines.next().is_some() {
            return Err(NoCommand::ManyLines);
        }
        let line = line.trim_matches(is_quote_mark);
        let line = line.strip_prefix(['!', '/']).unwrap_or(line);
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| word.trim_matches(is_quote_mark).to_owned())
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() {
            Err(NoCommand::Empty)
        } else {
            Ok(Words(words))
        }
    }
}

/// Without the quote of the message that is answered, which older clients put before a reply.
fn without_quote(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with('>') {
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
    }
    rest
}

/// Without what cannot be seen, so that what a person reads is what is run.
fn clean(line: &str) -> String {
    let visible: String = line
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .collect();
    visible.trim().to_owned()
}

fn is_quote_mark(c: char) -> bool {
    matches!(
        c,
        '`' | '"' | '\'' | '“' | '”' | '„' | '‘' | '’' | '«' | '»'
    )
}

/// Whether a command sent then is still run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    Old(Duration),
    FromTheFuture,
}

pub(super) fn age(sent_at: Timestamp, now: Timestamp) -> Age {
    if sent_at.since(now) > FRESH {
        Age::FromTheFuture
    } else if now.since(sent_at) > FRESH {
        Age::Old(now.since(sent_at))
    } else {
        Age::Fresh
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        Words::of(text).unwrap().0
    }

    #[test]
    fn commands_are_read_with_goodwill() {
        for text in [
            "claim sam",
            "  claim   sam ",
            "!claim sam",
            "/claim sam",
            "`claim sam`",
            "claim `sam`",
            "“claim sam”",
            "claim\u{a0}sam",
            "cl\u{200b}aim s\u{202e}am\u{7}",
            "claim\u{3164} s\u{34f}am\u{fe0f}",
            "> <@bot:example.org> Hello\n> more\n\nclaim sam",
            "\n\nclaim sam\n",
        ] {
            assert_eq!(words(text), ["claim", "sam"], "{text:?}");
        }
    }

    #[test]
    fn what_is_not_one_command_is_told_apart() {
        assert_eq!(Words::of(" \n "), Err(NoCommand::Empty));
        assert_eq!(Words::of("> only a quote"), Err(NoCommand::Empty));
        assert_eq!(Words::of("`!`"), Err(NoCommand::Empty));
        assert_eq!(Words::of("claim a\nclaim b"), Err(NoCommand::ManyLines));
        assert_eq!(Words::of(&"é".repeat(1001)), Err(NoCommand::TooLong));
        assert!(Words::of(&"é".repeat(1000)).is_ok());
        assert_eq!(Words::of(&"a".repeat(10_000_000)), Err(NoCommand::TooLong));
    }

    #[test]
    fn only_messages_of_people_are_heard() {
        let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
        for (kind, content, expected) in [
            (
                "m.room.message",
                text("help"),
                Heard::Text("help".to_owned()),
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": "help", "formatted_body": "<b>release</b>",
                        "format": "org.matrix.custom.html" }),
                Heard::Text("help".to_owned()),
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.notice", "body": "help" }),
                Heard::Nothing,
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.key.verification.request", "body": "x" }),
                Heard::Nothing,
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.image", "body": "x.png" }),
                Heard::NotText,
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": 7 }),
                Heard::Nothing,
            ),
            ("m.room.message", json!({}), Heard::Nothing),
            ("m.room.message", json!([1]), Heard::Nothing),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": "* release sam",
                        "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } }),
                Heard::Nothing,
            ),
            ("m.sticker", json!({ "body": "hi" }), Heard::NotText),
            ("m.reaction", json!({}), Heard::Nothing),
        ] {
            assert_eq!(hear(kind, &content), expected, "{kind} {content}");
        }
    }

    #[test]
    fn a_command_is_run_within_ten_minutes() {
        let now = Timestamp(100_000_000);
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(age(now, now), Age::Fresh);
        assert_eq!(age(now - FRESH, now), Age::Fresh);
        assert_eq!(age(now - FRESH - ms(1), now), Age::Old(FRESH + ms(1)));
        assert_eq!(age(now + FRESH, now), Age::Fresh);
        assert_eq!(age(now + FRESH + ms(1), now), Age::FromTheFuture);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reading(text in any::<String>()) {
            if let Ok(Words(words)) = Words::of(&text) {
                prop_assert!(!words.is_empty());
                for word in words {
                    prop_assert!(!word.chars().any(|c| c.is_control() || is_invisible(c)));
                }
            }
        }
    }
}
