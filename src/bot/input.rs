//! Reads an event in a control room: its content, and the words of a command in it.

use std::time::Duration;

use ruma::OwnedEventId;
use serde_json::Value;

use crate::{
    clock::Timestamp,
    matrix::event_type::{is_verification, without_namespace},
    relay::without_profile_name,
    text::{is_override, visible},
};

/// Maximum length of a command, in characters.
pub(super) const COMMAND_CHARS_MAX: usize = 1000;

/// Maximum age of a command, so that what was stuck in a queue is not done by surprise. It does not
/// bind the sender's own homeserver, which sets the time of an event.
pub const COMMAND_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// The content of an event in a control room, as the bot reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommandInput {
    /// A text.
    Text(String),
    /// A reaction to a message.
    Reaction {
        /// The message.
        to: OwnedEventId,
        /// The emoji.
        key: String,
    },
    /// Something that a person sent and that is not text: the bot answers that it reads only text.
    NotText,
    /// An event that needs no answer: an edit, or a notice of another bot.
    Ignored,
}

/// Reads the decrypted content of an event. A message counts by its plain body.
pub(super) fn read_input(event_type: &str, content: &Value) -> CommandInput {
    if event_type == "m.reaction" {
        return reaction(content).unwrap_or(CommandInput::Ignored);
    }
    // The original was run as a command, or was not one.
    let is_edit = content.pointer("/m.relates_to/rel_type") == Some(&Value::from("m.replace"));
    // Clients verify each other with messages too, and do not show these.
    if is_edit || is_verification(event_type, content) {
        return CommandInput::Ignored;
    }
    if event_type != "m.room.message" {
        return match is_shown(event_type) && !is_automated(content) {
            true => CommandInput::NotText,
            false => CommandInput::Ignored,
        };
    }
    let body = content.get("body");
    match content.get("msgtype").and_then(Value::as_str) {
        Some("m.text") => match body.and_then(Value::as_str) {
            Some(body) => CommandInput::Text(without_profile_name(content, body)),
            None => CommandInput::NotText,
        },
        // Bots answer with notices: answering those would never end.
        Some("m.notice") => CommandInput::Ignored,
        // A redaction leaves nothing of a message.
        None if body.is_none() => CommandInput::Ignored,
        Some(_) | None => CommandInput::NotText,
    }
}

/// Returns whether clients show events of this type as something that a person has sent.
fn is_shown(event_type: &str) -> bool {
    let name = without_namespace(event_type).unwrap_or_default();
    matches!(
        name.trim_start_matches("v2."),
        "message"
            | "emote"
            | "image"
            | "video"
            | "audio"
            | "voice"
            | "voice.v1"
            | "voice.v2"
            | "file"
            | "location"
            | "sticker"
            | "poll.start"
    )
}

/// Returns whether an extensible event says that no person has sent it (MSC3955), and so is what a
/// notice is among messages.
fn is_automated(content: &Value) -> bool {
    let marks = ["m.automated", "org.matrix.msc1767.automated"];
    marks
        .iter()
        .any(|mark| content.get(mark) == Some(&Value::Bool(true)))
}

fn reaction(content: &Value) -> Option<CommandInput> {
    let relation = content.get("m.relates_to")?;
    let to = relation.get("event_id")?.as_str()?.try_into().ok()?;
    let key = relation.get("key")?.as_str()?;
    let is_reaction = relation.get("rel_type")?.as_str()? == "m.annotation";
    (is_reaction && key.len() <= COMMAND_CHARS_MAX).then(|| CommandInput::Reaction {
        to,
        key: key.to_owned(),
    })
}

/// The words of one command, without invisible characters and quotation marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine(pub Vec<String>);

/// Why a text is not one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandLineError {
    /// It has nothing but spaces.
    Empty,
    /// It has more than [`COMMAND_CHARS_MAX`] characters.
    TooLong,
    /// It has more than one line.
    ManyLines,
    /// It mentions somebody, and it is not clear where.
    UnclearPerson,
    /// It overrides the direction of writing, so the person sees other words than the bot reads.
    Overridden,
}

impl CommandLine {
    /// Reads the words of a text. `mention` puts Matrix IDs in the place of names, or returns `None`
    /// if it is not clear whose they are.
    pub(super) fn parse(
        text: &str,
        mention: impl FnOnce(&str) -> Option<String>,
    ) -> Result<CommandLine, CommandLineError> {
        // Bytes are counted before characters, so that a huge text costs nothing. The quote of what is
        // answered, such as a request with its first line, does not count.
        let text = without_quote(text);
        if text.len() > COMMAND_CHARS_MAX * 4 || text.chars().count() > COMMAND_CHARS_MAX {
            return Err(CommandLineError::TooLong);
        }
        if text.contains(is_override) {
            return Err(CommandLineError::Overridden);
        }
        let lines = text.lines().map(clean);
        let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
        let line = match without_fence(&lines) {
            [] => return Err(CommandLineError::Empty),
            [line] => without_emphasis(without_list_mark(line), &MARKS_OF_LINES),
            _ => return Err(CommandLineError::ManyLines),
        };
        let line = mention(line).ok_or(CommandLineError::UnclearPerson)?;
        let line = line.trim_matches(is_quote_mark);
        let line = line.strip_prefix(['!', '/']).unwrap_or(line);
        let bare = |word| without_emphasis(word, &MARKS_OF_WORDS).trim_matches(is_quote_mark);
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word: &str| bare(word).to_owned())
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() {
            Err(CommandLineError::Empty)
        } else {
            Ok(CommandLine(words))
        }
    }
}

/// Removes the quote of the original message, which older clients put before a reply.
fn without_quote(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with('>') {
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
    }
    rest
}

/// Removes the mark with which Markdown makes a line an item of a list.
fn without_list_mark(line: &str) -> &str {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let item = match &line[digits..] {
        numbered if digits > 0 => numbered.strip_prefix(['.', ')']),
        line => line.strip_prefix(['-', '*', '+', '•']),
    };
    item.and_then(|item| item.strip_prefix(' '))
        .map_or(line, str::trim_start)
}

/// The marks that Markdown puts around a line to emphasise it.
const MARKS_OF_LINES: [&str; 6] = ["**", "__", "~~", "*", "_", "`"];

/// The marks that Markdown puts around a word. An underscore can be part of a handle.
const MARKS_OF_WORDS: [&str; 3] = ["**", "~~", "*"];

/// Removes the marks of Markdown around a text.
fn without_emphasis<'a>(text: &'a str, marks: &[&str]) -> &'a str {
    let mut text = text;
    while let Some(inner) = marks.iter().find_map(|mark| inside(text, mark)) {
        text = inner;
    }
    text
}

/// Returns what one pair of a mark encloses, if that is all of a text.
fn inside<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let inner = text.strip_prefix(mark)?.strip_suffix(mark)?;
    // `*claim* *sam*` has two pairs.
    let mut others = inner.match_indices(mark).map(|(at, _)| at);
    let is_edge = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let ends_between = others.any(|at| {
        is_edge(inner[..at].chars().next_back()) || is_edge(inner[at + mark.len()..].chars().next())
    });
    (!ends_between && !inner.trim().is_empty()).then(|| inner.trim())
}

/// Removes the lines with which Markdown begins and ends a block of code.
fn without_fence(lines: &[String]) -> &[String] {
    let opens = |line: &str| {
        let language = line
            .strip_prefix("```")
            .or_else(|| line.strip_prefix("~~~"));
        language.is_some_and(|name| !name.contains([' ', '`', '~']))
    };
    match lines {
        [first, inner @ .., last] if opens(first) && matches!(last.as_str(), "```" | "~~~") => {
            inner
        }
        lines => lines,
    }
}

/// Removes invisible characters, so that the bot runs what the person sees. Joiners that a name needs
/// stay.
pub(super) fn clean(line: &str) -> String {
    let spaced = line
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c });
    let line: String = visible(spaced).into_iter().collect();
    line.trim().to_owned()
}

pub(super) fn is_quote_mark(c: char) -> bool {
    matches!(
        c,
        '`' | '"' | '\'' | '“' | '”' | '„' | '‘' | '’' | '«' | '»'
    )
}

/// Whether a command is still young enough to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    Old(Duration),
    FromTheFuture,
}

impl Age {
    pub(super) fn of(sent_at: Timestamp, now: Timestamp) -> Age {
        if sent_at.since(now) > COMMAND_AGE_MAX {
            Age::FromTheFuture
        } else if now.since(sent_at) > COMMAND_AGE_MAX {
            Age::Old(now.since(sent_at))
        } else {
            Age::Fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::text::is_invisible;

    fn parse(text: &str) -> Result<CommandLine, CommandLineError> {
        CommandLine::parse(text, |line| Some(line.to_owned()))
    }

    fn words(text: &str) -> Vec<String> {
        parse(text).unwrap().0
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
            "cl\u{200b}aim s\u{200e}am\u{7}",
            "claim\u{3164} s\u{34f}am\u{fe0f}",
            "> <@bot:example.org> Hello\n> more\n\nclaim sam",
            "\n\nclaim sam\n",
            "**claim sam**",
            "***claim sam***",
            "_claim sam_",
            "*claim* **sam**",
            "**`claim sam`**",
            "`claim` `sam`",
            "- claim sam",
            "* claim sam",
            "* **claim** sam",
            "1. claim sam",
            "```\nclaim sam\n```",
            "```text\n\nclaim sam\n```\n",
            "> <@bot:example.org> Hello\n\n~~~\nclaim sam\n~~~",
        ] {
            assert_eq!(words(text), ["claim", "sam"], "{text:?}");
        }
    }

    #[test]
    fn a_handle_keeps_its_underscores() {
        assert_eq!(words("claim _sam_kim_"), ["claim", "_sam_kim_"]);
        assert_eq!(words("_claim sam_kim_"), ["claim", "sam_kim"]);
        assert_eq!(words("*"), ["*"]);
        assert_eq!(words("-claim"), ["-claim"]);
        assert_eq!(words("1 claim"), ["1", "claim"]);
    }

    #[test]
    fn a_name_keeps_the_joiners_of_its_script() {
        assert_eq!(
            words("appear علی\u{200c}رضا 👩\u{200d}🚀"),
            ["appear", "علی\u{200c}رضا", "👩\u{200d}🚀"]
        );
        assert_eq!(words("cl\u{200c}a\u{200d}im s\u{200c}"), ["claim", "s"]);
    }

    #[test]
    fn what_is_not_one_command_is_told_apart() {
        assert_eq!(parse(" \n "), Err(CommandLineError::Empty));
        assert_eq!(parse("> only a quote"), Err(CommandLineError::Empty));
        assert_eq!(parse("`!`"), Err(CommandLineError::Empty));
        assert_eq!(parse("claim a\nclaim b"), Err(CommandLineError::ManyLines));
        assert_eq!(
            parse("claim \u{202e}noreh"),
            Err(CommandLineError::Overridden)
        );
        let quoted = "> \u{202e}noreh\n\nclaim sam";
        assert_eq!(words(quoted), ["claim", "sam"]);
        assert_eq!(parse("```\n```"), Err(CommandLineError::Empty));
        assert_eq!(
            parse("```\nclaim a\nclaim b\n```"),
            Err(CommandLineError::ManyLines)
        );
        assert_eq!(parse(&"é".repeat(1001)), Err(CommandLineError::TooLong));
        assert!(parse(&"é".repeat(1000)).is_ok());
        // The quote of a request with a long first line does not count.
        let quoted = format!("> {}\n\naccept 1", "é".repeat(5000));
        assert_eq!(words(&quoted), ["accept", "1"]);
        assert_eq!(
            parse(&"a".repeat(10_000_000)),
            Err(CommandLineError::TooLong)
        );
    }

    #[test]
    fn only_messages_of_people_are_heard() {
        let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
        let help = || CommandInput::Text("help".to_owned());
        for (kind, content, expected) in [
            ("m.room.message", text("help"), help()),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": "help", "formatted_body": "<b>release</b>",
                        "format": "org.matrix.custom.html" }),
                help(),
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": "Kim: help",
                        "com.beeper.per_message_profile": { "id": "kim", "displayname": "Kim" } }),
                help(),
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.notice", "body": "help" }),
                CommandInput::Ignored,
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.key.verification.request", "body": "x" }),
                CommandInput::Ignored,
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.image", "body": "x.png" }),
                CommandInput::NotText,
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": 7 }),
                CommandInput::NotText,
            ),
            (
                "m.room.message",
                json!({ "msgtype": "m.text" }),
                CommandInput::NotText,
            ),
            (
                "m.room.message",
                json!({ "body": "help" }),
                CommandInput::NotText,
            ),
            ("m.message", json!({ "m.text": [] }), CommandInput::NotText),
            (
                "m.message",
                json!({ "m.automated": true }),
                CommandInput::Ignored,
            ),
            ("m.voice", json!({}), CommandInput::NotText),
            (
                "org.matrix.msc3245.voice.v2",
                json!({}),
                CommandInput::NotText,
            ),
            ("m.poll.start", json!({}), CommandInput::NotText),
            (
                "org.matrix.msc3381.v2.poll.start",
                json!({}),
                CommandInput::NotText,
            ),
            ("m.poll.response", json!({}), CommandInput::Ignored),
            ("m.room_key", json!({}), CommandInput::Ignored),
            ("m.key.verification.start", json!({}), CommandInput::Ignored),
            (
                "m.poll.start",
                json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } }),
                CommandInput::Ignored,
            ),
            ("m.room.message", json!({}), CommandInput::Ignored),
            ("m.room.message", json!([1]), CommandInput::Ignored),
            (
                "m.room.message",
                json!({ "msgtype": "m.text", "body": "* release sam",
                        "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } }),
                CommandInput::Ignored,
            ),
            ("m.sticker", json!({ "body": "hi" }), CommandInput::NotText),
            ("m.reaction", json!({}), CommandInput::Ignored),
        ] {
            assert_eq!(read_input(kind, &content), expected, "{kind} {content}");
        }
    }

    #[test]
    fn a_command_is_run_within_ten_minutes() {
        let now = Timestamp(100_000_000);
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(Age::of(now, now), Age::Fresh);
        assert_eq!(Age::of(now - COMMAND_AGE_MAX, now), Age::Fresh);
        assert_eq!(
            Age::of(now - COMMAND_AGE_MAX - ms(1), now),
            Age::Old(COMMAND_AGE_MAX + ms(1))
        );
        assert_eq!(Age::of(now + COMMAND_AGE_MAX, now), Age::Fresh);
        assert_eq!(
            Age::of(now + COMMAND_AGE_MAX + ms(1), now),
            Age::FromTheFuture
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reading(text in any::<String>()) {
            if let Ok(CommandLine(words)) = parse(&text) {
                prop_assert!(!words.is_empty());
                for word in words {
                    let joiner = |c| matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE0F}');
                    prop_assert!(!word.chars().any(|c| c.is_control()));
                    prop_assert!(!word.chars().any(|c| is_invisible(c) && !joiner(c)));
                    prop_assert!(!word.starts_with(joiner));
                }
            }
        }
    }
}
