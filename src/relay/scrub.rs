//! Replaces every identifier in texts.

use std::ops::Range;

use super::{
    context::Context,
    identifiers::{Found, IdentifierKind, Identifiers, link},
    profile::ProfileNames,
};
use crate::text::without_turns;

/// The mark in place of something that was redacted.
pub(super) const REDACTED: &str = "…";

/// The replacement of an identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    /// A mention of a participant, by the index of their alias.
    Person(usize),
    /// A link.
    Link(String),
    /// A fixed text.
    Words(&'static str),
}

/// Replaces identifiers that must not come out.
pub(super) struct Scrubber<'a> {
    pub(super) context: &'a Context<'a>,
    /// The names in the profiles of the event itself.
    pub(super) profile: ProfileNames,
    identifiers: Identifiers,
    mentions: Vec<String>,
}

impl<'a> Scrubber<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        Self {
            context,
            profile: ProfileNames::default(),
            identifiers: Identifiers::of(context),
            mentions: context.aliases.iter().map(|p| p.mention()).collect(),
        }
    }

    /// Also takes out the names that the profiles in an event put before its text.
    pub(super) fn with_profile(mut self, profile: ProfileNames) -> Self {
        self.profile = profile;
        self
    }

    /// Returns how a text mentions a participant.
    pub(super) fn mention(&self, person: usize) -> &str {
        self.mentions.get(person).map_or(REDACTED, String::as_str)
    }

    /// Returns whether `text` has an identifier that must not come out.
    pub(super) fn finds_identifier(&self, text: &str) -> bool {
        self.identifiers.any(text)
    }

    /// Returns what to replace in a text, in order and without overlaps.
    pub(super) fn replacements(&self, text: &str) -> Vec<(Range<usize>, Replacement)> {
        let mut found = self.identifiers.find(text).into_iter().peekable();
        let mut out: Vec<(Range<usize>, Replacement)> = Vec::new();
        for link in link::links(text) {
            while let Some(it) = found.next_if(|it| it.range.end <= link.start) {
                out.push(self.bare_in(text, it));
            }
            // An identifier that began in an earlier link may reach over this one.
            if out.last().is_some_and(|(range, _)| link.start < range.end) {
                continue;
            }
            let mut first = None;
            let mut whole = link.clone();
            while let Some(it) = found.next_if(|it| it.range.start < link.end) {
                first.get_or_insert(it.kind);
                whole.start = whole.start.min(it.range.start);
                whole.end = whole.end.max(it.range.end);
            }
            let uri = &text[link];
            match first {
                Some(kind) => {
                    let replacement = self.link(kind, uri);
                    // What the link says may be a name that they have only in the source room.
                    if matches!(kind, IdentifierKind::Person(_) | IdentifierKind::Secret) {
                        whole = with_markdown(text, whole);
                    }
                    // The whole Markdown link is replaced, with what was found in its text.
                    while let Some((range, _)) = out.pop_if(|(range, _)| range.end > whole.start) {
                        whole.start = whole.start.min(range.start);
                    }
                    out.push((whole, replacement));
                }
                None => {
                    let server = self.context.sender.server_name();
                    if let Some(uri) = link::without_via(uri, server) {
                        out.push((whole, Replacement::Link(uri)));
                    }
                }
            }
        }
        out.extend(found.map(|it| self.bare_in(text, it)));
        out
    }

    /// Returns the replacement of an identifier outside of a link, and what it replaces. In place of
    /// a file to which Markdown links stands that there was one.
    fn bare_in(&self, text: &str, found: Found) -> (Range<usize>, Replacement) {
        let Found { range, kind } = found;
        if kind == IdentifierKind::Content && is_markdown_target(text, &range) {
            let target = range.start - 1..range.end + 1;
            return (target, Replacement::Words(" (a file)"));
        }
        (range, self.bare(kind))
    }

    /// Returns the replacement of an identifier outside of a link.
    fn bare(&self, kind: IdentifierKind) -> Replacement {
        match kind {
            IdentifierKind::Person(person) => Replacement::Person(person),
            IdentifierKind::Room => Replacement::Words("(this chat)"),
            IdentifierKind::Content => Replacement::Words("(a file)"),
            IdentifierKind::Secret => Replacement::Words(REDACTED),
        }
    }

    /// Returns the replacement of a link into Matrix.
    pub(super) fn link(&self, kind: IdentifierKind, uri: &str) -> Replacement {
        if kind != IdentifierKind::Room {
            return self.bare(kind);
        }
        let target = self.context.target;
        match link::event_in(uri) {
            None => Replacement::Link(link::to_room(target, None)),
            Some(event) => match self.context.mapped_event(&event) {
                Some(event) => Replacement::Link(link::to_room(target, Some(&event))),
                None => Replacement::Words("(a message that is no longer known here)"),
            },
        }
    }

    /// Returns the replacement of an `href` in HTML; `None` if it may stay.
    pub(super) fn href(&self, uri: &str) -> Option<Replacement> {
        let uri = uri.trim();
        match self.identifiers.find(uri).first() {
            Some(found) if link::is_link(uri) => Some(self.link(found.kind, uri)),
            Some(_) => Some(Replacement::Words(REDACTED)),
            None => {
                link::without_via(uri, self.context.sender.server_name()).map(Replacement::Link)
            }
        }
    }

    /// Returns whether a text has an identifier again after replacements: an inserted text can form
    /// one together with its neighbours. Nobody writes that by chance.
    pub(super) fn is_identifier_reborn(&self, text: &str) -> bool {
        // A secret may be a word that a mention has too.
        let found = self.identifiers.find(text);
        found.iter().any(|it| it.kind != IdentifierKind::Secret)
    }

    /// Translates a text for people. Every text that comes out was here or is HTML, whose pieces are
    /// cleaned in the same way: what turns a text goes before it is searched.
    pub(super) fn text(&self, text: &str) -> String {
        let text = &*without_turns(text);
        let replacements = self.replacements(text);
        if replacements.is_empty() {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for (range, replacement) in replacements {
            out.push_str(text.get(at..range.start).unwrap_or_default());
            out.push_str(match &replacement {
                Replacement::Person(person) => self.mention(*person),
                Replacement::Link(uri) => uri,
                Replacement::Words(words) => words,
            });
            at = range.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        if self.is_identifier_reborn(&out) {
            return REDACTED.to_owned();
        }
        out
    }

    /// Translates a string for programs.
    pub(super) fn token(&self, text: &str) -> String {
        if let Some(alias) = self.context.alias_to_mention(text) {
            return alias.target.to_string();
        }
        if text == self.context.source {
            return self.context.target.to_string();
        }
        if text.starts_with('$')
            && let Some(event) = self.context.mapped_event(text)
        {
            return event.to_string();
        }
        if self.is_usable_content(text) {
            return text.to_owned();
        }
        if is_like_content(text) {
            return REDACTED.to_owned();
        }
        self.text(text)
    }

    /// Translates the name of a field. Returns `None` for the address of media that get another
    /// address when they are uploaded again: it would lead to nothing, and it names a homeserver.
    pub(super) fn field_name(&self, name: &str) -> Option<String> {
        let stays = self.is_usable_content(name) && self.context.is_local_media(name);
        (stays || !is_like_content(name)).then(|| self.token(name))
    }

    /// Returns whether a whole string is the address of media, without an identifier besides its
    /// homeserver.
    pub(super) fn is_usable_content(&self, uri: &str) -> bool {
        let names = || {
            let found = self.identifiers.find(uri);
            found.iter().any(|it| it.kind != IdentifierKind::Content)
        };
        is_content(uri) && !names()
    }
}

/// Returns the range of the whole Markdown link `[Alice](https://matrix.to/#/@alice:example.org)`,
/// if `link` is the target of one.
fn with_markdown(text: &str, link: Range<usize>) -> Range<usize> {
    if !is_markdown_target(text, &link) {
        return link;
    }
    let line = text[..link.start - 2].rsplit('\n').next().unwrap_or("");
    let line_start = link.start - 2 - line.len();
    // Brackets within the text of the link belong to it.
    let (mut depth, mut innermost) = (1, None);
    for (at, c) in line.char_indices().rev() {
        match c {
            ']' => depth += 1,
            '[' => {
                depth -= 1;
                innermost = innermost.or(Some(at));
                if depth == 0 {
                    return line_start + at..link.end + 1;
                }
            }
            _ => {}
        }
    }
    innermost.map_or(link.clone(), |at| line_start + at..link.end + 1)
}

/// Returns whether a range is what Markdown links to: `(…)` after `[Alice]`.
fn is_markdown_target(text: &str, range: &Range<usize>) -> bool {
    text[..range.start].ends_with("](") && text[range.end..].starts_with(')')
}

/// Returns whether a client may read a string as the address of media.
pub(super) fn is_like_content(text: &str) -> bool {
    let head = text.trim_start().get(..4).unwrap_or_default();
    head.eq_ignore_ascii_case("mxc:")
}

/// Returns whether a whole string is the address of media.
pub(super) fn is_content(text: &str) -> bool {
    let Some((server, media)) = text
        .strip_prefix("mxc://")
        .and_then(|it| it.split_once('/'))
    else {
        return false;
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let host = |b: u8| name(b) || matches!(b, b'.' | b':' | b'[' | b']');
    !server.is_empty()
        && !media.is_empty()
        && text.len() <= 512
        && server.bytes().all(host)
        && media.bytes().all(name)
}
