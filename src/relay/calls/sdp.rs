//! Session descriptions and candidates of calls (RFC 8866, RFC 8839), without network addresses of
//! people.
//!
//! Only candidates of relays pass (`typ relay`): their address is the TURN server's. Each is built
//! from its known parts, so that odd spacing and unknown extensions leak nothing.

use std::net::IpAddr;

use super::{super::scrub::Scrubber, pseudonym::digest};

/// Maximum size of a description, in bytes.
pub(super) const SDP_BYTES_MAX: usize = 40 * 1024;

const NOWHERE: &str = "IN IP4 0.0.0.0";

/// Translates a description.
pub(super) fn description(scrub: &Scrubber<'_>, sdp: &str) -> String {
    let hide = scrub.context.hide_addresses;
    let mut out = String::with_capacity(sdp.len());
    for line in sdp.lines().map(|line| line.trim_end_matches('\r')) {
        let line = if hide {
            hidden(scrub, line)
        } else {
            (!asserts_who(line)).then(|| scrub.text(line))
        };
        if let Some(line) = line {
            out.push_str(&line);
            out.push_str("\r\n");
        }
    }
    out
}

/// Returns whether a line is an identity assertion of a provider (RFC 8827), which cannot be
/// searched.
fn asserts_who(line: &str) -> bool {
    let name = line.trim().get(..10).unwrap_or_default();
    name.eq_ignore_ascii_case("a=identity")
}

/// Translates a line without its addresses. Returns `None` if nothing else is in it.
fn hidden(scrub: &Scrubber<'_>, line: &str) -> Option<String> {
    let line = line.trim();
    let (kind, value) = line.split_once('=')?;
    if asserts_who(line) {
        return None;
    }
    match kind {
        "o" => {
            let mut parts = value.split_whitespace().skip(1);
            let number = |part: Option<&str>| {
                part.filter(|part| part.bytes().all(|b| b.is_ascii_digit()))
                    .unwrap_or("0")
                    .to_owned()
            };
            let (session, version) = (number(parts.next()), number(parts.next()));
            Some(format!("o=- {session} {version} {NOWHERE}"))
        }
        "c" => Some(format!("c={NOWHERE}")),
        "s" => Some("s=-".to_owned()),
        // All other attributes are about codecs and streams.
        "a" => attribute(scrub, value),
        "v" | "t" | "b" if !names_an_address(value) => Some(scrub.text(line)),
        "m" if !names_an_address(value) => Some(media(scrub, value)),
        _ => None,
    }
}

/// Translates a media line. Its port belongs to an address that is not shown.
fn media(scrub: &Scrubber<'_>, value: &str) -> String {
    let mut parts: Vec<&str> = value.split_whitespace().collect();
    // Port 0 means that a stream is declined.
    if let Some(port) = parts.get_mut(1).filter(|port| **port != "0") {
        *port = "9";
    }
    scrub.text(&format!("m={}", parts.join(" ")))
}

fn attribute(scrub: &Scrubber<'_>, value: &str) -> Option<String> {
    let (name, rest) = value.split_once(':').unwrap_or((value, ""));
    match name.trim().to_ascii_lowercase().as_str() {
        "candidate" => candidate(scrub, value).map(|candidate| format!("a={candidate}")),
        "rtcp" => Some(format!("a=rtcp:9 {NOWHERE}")),
        "remote-candidates" | "tool" | "source-filter" | "alt" | "altc" => None,
        // The hash of a certificate looks like an IPv6 address.
        "fingerprint" if is_fingerprint(rest) => Some(scrub.text(&format!("a={value}"))),
        _ if names_an_address(value) => None,
        _ => Some(scrub.text(&format!("a={value}"))),
    }
}

/// Returns whether a text is the name of a hash and at least 16 bytes, the size of the shortest
/// one.
fn is_fingerprint(text: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let byte = |b: &str| b.len() == 2 && b.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((hash, bytes)) = text.trim().split_once(' ') else {
        return false;
    };
    hash.chars().all(name) && bytes.split(':').count() >= 16 && bytes.split(':').all(byte)
}

/// Returns whether a part of `text` can be read as a network address.
fn names_an_address(text: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '%');
    let mut words = text.split(|c: char| !part(c));
    dotted(text)
        || words.any(|word| {
            let word = word.trim_end_matches('.').to_ascii_lowercase();
            // The name of an attribute may precede it, and a port may follow.
            let starts = word.match_indices(':').map(|(at, _)| &word[at + 1..]);
            let mut tails = std::iter::once(word.as_str()).chain(starts);
            let mut between = word.split([':', '%']).map(|it| it.trim_end_matches('.'));
            between.any(|it| it.ends_with(".local")) || tails.any(begins_with_an_address)
        })
}

/// Returns whether a text has four numbers with dots between them, whatever surrounds them.
fn dotted(text: &str) -> bool {
    let mut runs = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    runs.any(|run| run.split('.').filter(|number| !number.is_empty()).count() >= 4)
}

fn begins_with_an_address(text: &str) -> bool {
    let zoneless = text.split('%').next().unwrap_or_default();
    let before_port = text.rsplit_once(':').map_or("", |(host, _)| host);
    [text, zoneless, before_port]
        .iter()
        .any(|host| host.parse::<IpAddr>().is_ok())
}

/// Translates a candidate. If addresses are hidden, only those of relays pass.
pub(super) fn candidate(scrub: &Scrubber<'_>, line: &str) -> Option<String> {
    if !scrub.context.hide_addresses {
        return Some(scrub.text(line));
    }
    let line = line.trim();
    let prefix = line
        .get(..10)
        .filter(|p| p.eq_ignore_ascii_case("candidate:"))?;
    let parts: Vec<&str> = line[prefix.len()..].split_whitespace().collect();
    let [
        foundation,
        component,
        transport,
        priority,
        address,
        port,
        typ,
        kind,
        rest @ ..,
    ] = &parts[..]
    else {
        return None;
    };
    if !typ.eq_ignore_ascii_case("typ") || !kind.eq_ignore_ascii_case("relay") {
        return None;
    }
    let component: u16 = component.parse().ok()?;
    let priority: u32 = priority.parse().ok()?;
    let address: IpAddr = address.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    let transport = ["udp", "tcp"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(transport))?;
    // Clients derive it from the address behind the relay, among other things.
    let foundation = digest(scrub.context.pseudonym_key, foundation)?;
    let mut out = format!(
        "candidate:{foundation} {component} {transport} {priority} {address} {port} typ relay \
         raddr 0.0.0.0 rport 9"
    );
    for pair in rest.chunks_exact(2) {
        let known = ["generation", "ufrag", "tcptype"];
        let ice = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
        if let Some(name) = known.into_iter().find(|name| *name == pair[0])
            && pair[1].len() <= 256
            && pair[1].chars().all(ice)
        {
            out.push_str(&format!(" {name} {}", pair[1]));
        }
    }
    Some(out)
}

/// Returns whether a description says that no more candidates follow.
pub(crate) fn is_complete(sdp: &str) -> bool {
    sdp.lines()
        .any(|line| line.trim().eq_ignore_ascii_case("a=end-of-candidates"))
}

/// Returns whether a description or a candidate is of a relay.
pub(super) fn has_relay(text: &str) -> bool {
    text.lines().any(|line| {
        let words: Vec<String> = line
            .split_whitespace()
            .map(str::to_ascii_lowercase)
            .collect();
        words
            .windows(2)
            .any(|pair| pair[0] == "typ" && pair[1] == "relay")
    })
}
