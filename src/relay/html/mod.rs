//! `formatted_body` and other HTML.
//!
//! Only tags and attributes that the Matrix spec lists are written; comments and a client's own
//! attributes are dropped. Text is searched across tags, so that no identifier gets through in
//! parts.

pub(super) mod attributes;
pub(super) mod hidden;
pub(super) mod pieces;
mod spoilers;

use super::{
    CONTENT_BYTES_MAX,
    identifiers::link,
    profile::is_fallback_name,
    scrub::{REDACTED, Replacement, Scrubber},
};
use attributes::{allowed_tag, attributes, is_block, is_hidden, is_scheme, is_void};
use hidden::hidden_length;
use pieces::{Piece, pieces};
pub use spoilers::{TextPart, may_have_spoilers, text_with_spoilers};

use crate::text::{is_invisible, push_escaped, turns_text, without_turns};

/// Maximum nesting depth of HTML elements, as in the specification.
const HTML_DEPTH_MAX: usize = 100;

/// Maximum number of mentions that are looked for in the plain text.
const RENAMED_MENTIONS_MAX: usize = 50;

/// HTML for the other room.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Html {
    /// The HTML.
    pub(super) html: String,
    /// The former and the new texts of links to people, which the plain text repeats.
    pub(super) renamed: Vec<(String, String)>,
    /// Whether it quoted the message that it replies to.
    pub(super) quoted: bool,
    /// Whether it shows nothing.
    pub(super) is_blank: bool,
}

enum Out {
    Text(String),
    Open(&'static str, Vec<(&'static str, String)>),
    Close(&'static str),
    Person(usize),
    /// A tag that is dropped.
    Dropped,
}

impl Out {
    /// Returns whether nothing is seen of it.
    fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.chars().all(|c| c.is_whitespace() || is_invisible(c)),
            Self::Open(tag, attributes) => {
                !matches!(*tag, "img" | "hr")
                    && !attributes.iter().any(|(name, _)| *name == "data-mx-maths")
            }
            Self::Person(_) => false,
            Self::Close(_) | Self::Dropped => true,
        }
    }
}

/// Translates HTML and returns only the HTML.
pub(super) fn plainly(scrub: &Scrubber<'_>, html: &str) -> String {
    translate(scrub, html).map_or_else(|| REDACTED.to_owned(), |translated| translated.html)
}

/// Translates HTML. Returns `None` if no person could have written it.
pub(super) fn translate(scrub: &Scrubber<'_>, html: &str) -> Option<Html> {
    let mut translation = HtmlTranslation {
        scrub,
        out: Vec::new(),
        renamed: Vec::new(),
        quoted: false,
        replaced: false,
    };
    translation.take(&without_turns_in(pieces(html)?));
    translation.take_out_profile_name();
    // An identifier may be spread over tags, and it may begin or end where a block or any tag does.
    for breaks in [Breaks::None, Breaks::AtBlocks, Breaks::AtTags] {
        translation.scrub_text(breaks);
    }
    let html = translation.write();
    // What is too long is not sent, so it is not worth a search either.
    let is_reborn = || html.len() > CONTENT_BYTES_MAX || scrub.is_identifier_reborn(&html);
    if translation.replaced && is_reborn() {
        return None;
    }
    Some(Html {
        html,
        is_blank: translation.out.iter().all(Out::is_blank),
        renamed: translation.renamed,
        quoted: translation.quoted,
    })
}

/// Returns the pieces without what turns a text, in their texts and in their attributes.
fn without_turns_in(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let clean = |text: &mut String| {
        if text.contains(turns_text) {
            *text = without_turns(text).into_owned();
        }
    };
    for piece in &mut pieces {
        match piece {
            Piece::Text(text) => clean(text),
            Piece::Open(_, attributes) => attributes.iter_mut().for_each(|(_, value)| clean(value)),
            Piece::Close(_) => {}
        }
    }
    pieces
}

/// Where a text is broken when it is read without its tags.
#[derive(Clone, Copy, PartialEq)]
enum Breaks {
    /// Nowhere.
    None,
    /// Where a client begins a new line.
    AtBlocks,
    /// At every tag.
    AtTags,
}

impl Breaks {
    /// Returns the text that stands for a piece that is not text.
    fn read(self, piece: &Out) -> &'static str {
        match (self, piece) {
            // Invisible, so that an identifier is found that begins at one tag and goes on over others.
            (Self::AtTags, Out::Open(..) | Out::Close(_) | Out::Dropped) => "\u{2060}",
            (Self::AtBlocks, Out::Dropped) => "\n",
            (Self::AtBlocks, Out::Open(tag, _) | Out::Close(tag))
                if is_block(tag) || is_void(tag) =>
            {
                "\n"
            }
            _ => "",
        }
    }
}

struct HtmlTranslation<'a> {
    scrub: &'a Scrubber<'a>,
    out: Vec<Out>,
    renamed: Vec<(String, String)>,
    quoted: bool,
    /// Whether an identifier was replaced.
    replaced: bool,
}

impl HtmlTranslation<'_> {
    /// Takes the allowed tags and the text from the pieces.
    fn take(&mut self, pieces: &[Piece]) {
        let mut at = 0;
        while let Some(piece) = pieces.get(at) {
            at += 1;
            match piece {
                Piece::Text(text) => self.out.push(Out::Text(text.clone())),
                Piece::Close(tag) => {
                    let close = allowed_tag(tag).map_or(Out::Dropped, Out::Close);
                    self.out.push(close);
                }
                Piece::Open(tag, all) if is_hidden(tag) || is_fallback_name(all) => {
                    self.quoted |= tag == "mx-reply";
                    self.out.push(Out::Dropped);
                    at += hidden_length(tag, &pieces[at..]);
                }
                Piece::Open(tag, attributes) if tag == "a" => {
                    at += self.take_link(attributes, &pieces[at..]);
                }
                Piece::Open(tag, all) => self.take_tag(tag, all),
            }
        }
    }

    /// Takes out the name that a profile puts before the text, in whatever tags it stands.
    fn take_out_profile_name(&mut self) {
        let profile = &self.scrub.profile;
        if profile.is_empty() {
            return;
        }
        let texts = self.out.iter().filter_map(|out| match out {
            Out::Text(text) => Some(text.as_str()),
            _ => None,
        });
        let mut left = profile.length_in(&texts.collect::<String>());
        for out in &mut self.out {
            if let Out::Text(text) = out {
                let taken = left.min(text.len());
                text.drain(..taken);
                left -= taken;
            }
        }
    }

    fn take_tag(&mut self, tag: &str, all: &[(String, String)]) {
        let Some(tag) = allowed_tag(tag) else {
            self.out.push(Out::Dropped);
            return;
        };
        let attributes = attributes(self.scrub, tag, all);
        let has = |name: &str| attributes.iter().any(|(it, _)| *it == name);
        if tag == "img" && !has("src") {
            // The text in place of a picture that cannot be shown.
            let words = ["alt", "title"].into_iter().find_map(|name| {
                let (_, value) = attributes.iter().find(|(it, _)| *it == name)?;
                Some(value.clone())
            });
            self.out.extend(words.map(Out::Text));
            return;
        }
        self.out.push(Out::Open(tag, attributes));
    }

    /// Takes a link. Returns how many of the pieces after it were taken too.
    fn take_link(&mut self, attributes: &[(String, String)], after: &[Piece]) -> usize {
        let href = attributes.iter().find(|(name, _)| name == "href");
        let Some((_, href)) = href.filter(|(_, href)| is_scheme(href.trim())) else {
            return 0;
        };
        let uri = match self.scrub.href(href) {
            None => href.trim().to_owned(),
            Some(Replacement::Link(uri)) => uri,
            Some(Replacement::Words(_)) => return 0,
            Some(Replacement::Person(person)) => return self.take_person(person, after),
        };
        self.out.push(Out::Open("a", vec![("href", uri)]));
        0
    }

    /// Takes a link to a person, without its text: that may be a name which they have only in the
    /// source room.
    fn take_person(&mut self, person: usize, after: &[Piece]) -> usize {
        self.replaced = true;
        self.out.push(Out::Person(person));
        let mut said = String::new();
        for (length, piece) in after.iter().enumerate() {
            match piece {
                Piece::Text(text) => said.push_str(text),
                Piece::Close(tag) if tag == "a" => {
                    let mention = self.scrub.mention(person);
                    if self.renamed.len() < RENAMED_MENTIONS_MAX && said.trim() != mention {
                        let said = said.trim().to_owned();
                        self.renamed.push((said, mention.to_owned()));
                    }
                    return length + 1;
                }
                Piece::Open(tag, _) if tag == "a" || is_block(tag) => break,
                Piece::Close(tag) if is_block(tag) => break,
                _ => {}
            }
        }
        // Nobody knows where a link without an end was to end, so what follows is kept, except for
        // the name itself.
        if let Some(Piece::Text(text)) = after.first()
            && let Some(rest) = without_name(text, self.scrub.mention(person))
        {
            self.out.push(Out::Text(rest.to_owned()));
            return 1;
        }
        if said.starts_with(char::is_alphanumeric) {
            self.out.push(Out::Text(" ".to_owned()));
        }
        0
    }

    /// Replaces identifiers in the text, read without its tags.
    fn scrub_text(&mut self, breaks: Breaks) {
        let all: String = self
            .out
            .iter()
            .map(|out| match out {
                Out::Text(text) => text.as_str(),
                other => breaks.read(other),
            })
            .collect();
        let replacements = self.scrub.replacements(&all);
        if replacements.is_empty() {
            return;
        }
        self.replaced = true;
        let mut next = 0;
        let mut out = Vec::with_capacity(self.out.len());
        // The open links and code blocks: no link can be put into them.
        let mut inside: Vec<&'static str> = Vec::new();
        let mut start = 0;
        for piece in std::mem::take(&mut self.out) {
            let Out::Text(text) = piece else {
                match &piece {
                    Out::Open(tag @ ("a" | "code" | "pre"), _) => inside.push(tag),
                    Out::Close(tag) => {
                        if let Some(at) = inside.iter().rposition(|open| open == tag) {
                            inside.truncate(at);
                        }
                    }
                    _ => {}
                }
                start += breaks.read(&piece).len();
                out.push(piece);
                continue;
            };
            let end = start + text.len();
            let mut at = start;
            while let Some((range, replacement)) = replacements.get(next)
                && range.start < end
            {
                let from = range.start.max(at);
                out.push(Out::Text(text[at - start..from - start].to_owned()));
                if range.start >= start {
                    self.place(&mut out, replacement, inside.is_empty());
                }
                at = range.end.min(end);
                if range.end > end {
                    // The rest of it is in the next piece.
                    break;
                }
                next += 1;
            }
            out.push(Out::Text(text[at - start..].to_owned()));
            start = end;
        }
        self.out = out;
    }

    fn place(&self, out: &mut Vec<Out>, replacement: &Replacement, links: bool) {
        match replacement {
            Replacement::Person(person) if links => out.push(Out::Person(*person)),
            Replacement::Person(person) => {
                out.push(Out::Text(self.scrub.mention(*person).to_owned()));
            }
            // Without a scheme, as people write it, it would lead to the client's own server.
            Replacement::Link(uri) if links && is_scheme(uri) => {
                out.push(Out::Open("a", vec![("href", uri.clone())]));
                out.push(Out::Text(uri.clone()));
                out.push(Out::Close("a"));
            }
            Replacement::Link(uri) => out.push(Out::Text(uri.clone())),
            Replacement::Words(words) => out.push(Out::Text((*words).to_owned())),
        }
    }

    /// Writes well-formed HTML.
    fn write(&self) -> String {
        let mut html = String::new();
        let mut open: Vec<&'static str> = Vec::new();
        for piece in &self.out {
            match piece {
                Out::Text(text) => push_escaped(&mut html, text),
                Out::Person(person) => {
                    // A mention is a link too.
                    close(&mut html, &mut open, "a");
                    self.write_person(&mut html, *person);
                }
                Out::Open(tag, attributes) => {
                    // A link ends where the next one begins.
                    if *tag == "a" {
                        close(&mut html, &mut open, "a");
                    }
                    if open.len() < HTML_DEPTH_MAX {
                        write_tag(&mut html, tag, attributes);
                        if !is_void(tag) {
                            open.push(tag);
                        }
                    }
                }
                Out::Close(tag) => close(&mut html, &mut open, tag),
                Out::Dropped => {}
            }
        }
        for tag in open.iter().rev() {
            write_end(&mut html, tag);
        }
        html
    }

    fn write_person(&self, html: &mut String, person: usize) {
        let context = self.scrub.context;
        let Some(alias) = context.aliases.get(person) else {
            return;
        };
        if context.alias_to_mention(alias.source.as_str()).is_none() {
            push_escaped(html, self.scrub.mention(person));
            return;
        }
        write_tag(html, "a", &[("href", link::to_user(&alias.target))]);
        push_escaped(html, self.scrub.mention(person));
        write_end(html, "a");
    }
}

/// Returns what follows on the name of a mention at the beginning of a text, with or without `@`.
fn without_name<'a>(text: &'a str, mention: &str) -> Option<&'a str> {
    let name = mention.trim_start_matches('@');
    let text = text.trim_start();
    let text = text.strip_prefix('@').unwrap_or(text);
    let (said, rest) = text.split_at_checked(name.len())?;
    let is_name = said.eq_ignore_ascii_case(name) && !rest.starts_with(char::is_alphanumeric);
    is_name.then_some(rest)
}

/// Closes the innermost such tag, and all tags that are open in it.
fn close(html: &mut String, open: &mut Vec<&'static str>, tag: &str) {
    let Some(at) = open.iter().rposition(|it| *it == tag) else {
        return;
    };
    for tag in open.drain(at..).rev() {
        write_end(html, tag);
    }
}

fn write_tag(html: &mut String, tag: &str, attributes: &[(&'static str, String)]) {
    html.push('<');
    html.push_str(tag);
    for (name, value) in attributes {
        html.push(' ');
        html.push_str(name);
        if !value.is_empty() {
            html.push_str("=\"");
            push_escaped(html, value);
            html.push('"');
        }
    }
    html.push('>');
}

fn write_end(html: &mut String, tag: &str) {
    html.push_str("</");
    html.push_str(tag);
    html.push('>');
}
