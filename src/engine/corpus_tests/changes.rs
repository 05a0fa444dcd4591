//! Says in one line per field what became of a content.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::text::is_invisible;

/// Maximum length of a text that is shown whole, in characters.
const SHOWN_CHARS_MAX: usize = 400;
/// How much is shown of the end of a longer one: there a quote could end before its text does.
const TAIL_CHARS: usize = 100;

/// Returns how `new` differs from `old`: a line for each field, by its JSON pointer.
pub(super) fn changes(old: &Value, new: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare("", old, new, &mut out);
    out
}

fn compare(pointer: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(before), Value::Object(after)) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let step = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                match (before.get(key), after.get(key)) {
                    (Some(before), Some(after)) => compare(&step, before, after, out),
                    (Some(_), None) => out.push(format!("without {}", printable(&step))),
                    (None, Some(added)) => out.push(line(&step, added)),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{pointer}/{at}"), before, after, out);
            }
        }
        (_, new) => out.push(line(pointer, new)),
    }
}

fn line(pointer: &str, value: &Value) -> String {
    let value = match value {
        Value::String(text) => printable(text),
        value => printable(&value.to_string()),
    };
    format!("{}: {value}", printable(pointer))
}

/// Returns a text on one line, with what nobody sees written out; of a long one its beginning and
/// its end.
pub(super) fn printable(text: &str) -> String {
    let count = text.chars().count();
    if count <= SHOWN_CHARS_MAX {
        return escaped(text.chars());
    }
    let head = escaped(text.chars().take(SHOWN_CHARS_MAX - TAIL_CHARS));
    let tail = escaped(text.chars().skip(count - TAIL_CHARS));
    format!("{head}… ({count} characters) …{tail}")
}

fn escaped(text: impl Iterator<Item = char>) -> String {
    let mut out = String::new();
    for c in text {
        match c {
            '\n' => out.push('⏎'),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}
