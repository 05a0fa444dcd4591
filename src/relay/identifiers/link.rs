//! Links to people, rooms and events: `https://matrix.to/#/…` and `matrix:…`.

use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ruma::{EventId, RoomId, ServerName, UserId};

/// The characters that are not percent-encoded in an identifier in a link.
const IN_LINK: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b':');

const TO: &str = "matrix.to/#/";
const SCHEME: &str = "matrix:";
const KINDS: [&str; 5] = ["u/", "user/", "r/", "room/", "roomid/"];

/// Returns the links in a text, in order.
pub(in crate::relay) fn links(text: &str) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    // Most texts have no link.
    if !text.bytes().any(|b| b == b':' || b == b'#') {
        return out;
    }
    let lower = text.to_ascii_lowercase();
    let mut at = 0;
    while let Some((start, rest)) = next_link(&lower, at) {
        let length = lower[rest..]
            .find(|c: char| c.is_whitespace() || c.is_control() || "<>\"'`|\\^{}()[]".contains(c))
            .unwrap_or(lower.len() - rest);
        let link =
            lower[start..rest + length].trim_end_matches(['.', ',', ';', ':', '!', '?', '*']);
        let end = (start + link.len()).max(rest);
        out.push(start..end);
        at = end;
    }
    out
}

/// Returns the next link at or after `at`: its start, and the start of its target.
fn next_link(lower: &str, at: usize) -> Option<(usize, usize)> {
    let to = lower[at..].find(TO).map(|found| {
        let before = &lower[at..at + found];
        let scheme = ["https://", "http://", "https://www.", "http://www."]
            .iter()
            .filter(|scheme| before.ends_with(**scheme))
            .map(|scheme| scheme.len())
            .max();
        let start = at + found - scheme.unwrap_or(0);
        (start, at + found + TO.len())
    });
    let scheme = lower[at..].match_indices(SCHEME).find_map(|(found, _)| {
        let start = at + found;
        let target = &lower[start + SCHEME.len()..];
        let kind = KINDS.iter().find(|kind| target.starts_with(**kind))?;
        Some((start, start + SCHEME.len() + kind.len()))
    });
    [to, scheme].into_iter().flatten().min()
}

/// Returns whether a whole string is a link into Matrix, of these two kinds or a client's own.
pub(in crate::relay) fn is_link(uri: &str) -> bool {
    links(uri).first().is_some_and(|link| link.start == 0)
        || ["/#/user/", "/#/room/"]
            .iter()
            .any(|path| uri.contains(path))
}

/// Returns the event that a link leads to.
pub(in crate::relay) fn event_in(link: &str) -> Option<String> {
    let path = link.split('?').next().unwrap_or_default();
    let path = percent_decode_str(path).decode_utf8().ok()?;
    if let Some(start) = path.find("/$") {
        return Some(path[start + 1..].to_owned());
    }
    for kind in ["/e/", "/event/"] {
        if let Some(start) = path.find(kind) {
            return Some(format!("${}", &path[start + kind.len()..]));
        }
    }
    None
}

/// Returns a link to a user.
pub(in crate::relay) fn to_user(user: &UserId) -> String {
    format!("https://matrix.to/#/{}", encode(user.as_str()))
}

/// Returns a link to a room, or to an event in it.
pub(in crate::relay) fn to_room(room: &RoomId, event: Option<&EventId>) -> String {
    let mut link = format!("https://matrix.to/#/{}", encode(room.as_str()));
    if let Some(event) = event {
        link.push('/');
        link.push_str(&encode(event.as_str()));
    }
    link
}

fn encode(id: &str) -> String {
    utf8_percent_encode(id, IN_LINK).to_string()
}

/// Returns the link without the hint (`via`) that `server` is in the room; `None` if it has none.
pub(in crate::relay) fn without_via(link: &str, server: &ServerName) -> Option<String> {
    let (path, query) = link.split_once('?')?;
    let is_via = |pair: &&str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        key.eq_ignore_ascii_case("via") && value.eq_ignore_ascii_case(server.as_str())
    };
    let pairs: Vec<&str> = query.split('&').collect();
    let kept: Vec<&str> = pairs.iter().copied().filter(|pair| !is_via(pair)).collect();
    if kept.len() == pairs.len() {
        return None;
    }
    Some(if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    })
}
