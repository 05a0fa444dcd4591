//! The cases on disk.
//!
//! An event stands in its file as JSON that need not be valid beyond its grammar, with two
//! abbreviations for what is too long to be read: `%repeat 500 x%` is `x` 500 times, and the string
//! `"%nested 90%"` is 90 arrays in one another.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;

/// What the events have that do not bring an envelope of their own.
const ENVELOPE: &str = r#""event_id":"$event","room_id":"!here:far.example","sender":"@alice.harbour:far.example","origin_server_ts":1700000000000,"#;

/// An event, and why it is here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What is odd about it.
    pub name: String,
    /// The report, the proposal or the part of the spec that it is made up from.
    pub source: String,
    /// Whether the event has its envelope already.
    #[serde(default)]
    pub whole: bool,
    event: Box<RawValue>,
}

impl Case {
    /// Returns the event as the homeserver pushes it.
    pub(super) fn json(&self) -> String {
        let event = expanded(self.event.get());
        match event.strip_prefix('{') {
            Some(fields) if !self.whole => format!("{{{ENVELOPE}{fields}"),
            _ => event,
        }
    }
}

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/events")
}

/// Returns the cases of a file.
pub(super) fn cases(group: &str) -> Vec<Case> {
    let file = folder().join(format!("{group}.json"));
    let text = fs::read_to_string(&file).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns a text with its abbreviations written out.
fn expanded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%repeat ") {
        let (what, after) = after.split_once('%').expect("an end of the repetition");
        let (times, what) = what.split_once(' ').expect("a number and a text");
        out.push_str(before);
        out.push_str(&what.repeat(times.parse().unwrap()));
        rest = after;
    }
    out.push_str(rest);
    let mut nested = String::with_capacity(out.len());
    let mut rest = out.as_str();
    while let Some((before, after)) = rest.split_once("\"%nested ") {
        let (depth, after) = after.split_once("%\"").expect("an end of the nesting");
        let depth: usize = depth.parse().unwrap();
        nested.push_str(before);
        nested.push_str(&"[".repeat(depth));
        nested.push_str(&"]".repeat(depth));
        rest = after;
    }
    nested + rest
}
