//! The identifiers that must not come out, and how they are found in a string.

use std::ops::Range;

mod decoded_form;
pub(super) mod link;

use super::context::Context;
use decoded_form::DecodedForm;

/// A secret shorter than this many characters is found as a whole word only; otherwise ordinary
/// words would be replaced.
const WHOLE_WORD_BELOW: usize = 8;

/// Minimum length of a secret that is looked for, in characters.
const SECRET_CHARS_MIN: usize = 3;

/// A kind of identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdentifierKind {
    /// A participant, by the index of their alias.
    Person(usize),
    /// The source room.
    Room,
    /// The address of media on the sender's homeserver.
    Content,
    /// Any other secret.
    Secret,
}

/// An identifier in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) range: Range<usize>,
    pub(super) kind: IdentifierKind,
}

/// The characters that may be next to a needle in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edges {
    /// Anything.
    Any,
    /// Nothing that makes it part of a longer Matrix ID. What a form leaves out ends an ID.
    Name,
    /// Nothing that makes it part of a longer word.
    Word,
}

struct Needle {
    text: String,
    kind: IdentifierKind,
    edges: Edges,
}

/// All identifiers that must not come out of the source room.
pub(super) struct Identifiers {
    needles: Vec<Needle>,
}

impl Identifiers {
    pub(super) fn of(context: &Context<'_>) -> Self {
        let mut all = Self {
            needles: Vec::new(),
        };
        for (index, alias) in context.aliases.iter().enumerate() {
            if alias.source != alias.target {
                all.add_user(alias.source.as_str(), IdentifierKind::Person(index));
            }
        }
        if !context.is_participant(context.sender) {
            all.add_user(context.sender.as_str(), IdentifierKind::Secret);
        }
        all.add_id(context.source.as_str(), "roomid/", IdentifierKind::Room);
        for secret in context.secrets {
            let secret = secret.trim();
            match secret.chars().count() {
                n if n < SECRET_CHARS_MIN => {}
                n if n < WHOLE_WORD_BELOW => all.add(secret, IdentifierKind::Secret, Edges::Word),
                _ => all.add(secret, IdentifierKind::Secret, Edges::Any),
            }
        }
        if !context.is_sender_local() {
            let content = format!("mxc://{}/", context.sender.server_name());
            all.add(&content, IdentifierKind::Content, Edges::Any);
        }
        all
    }

    fn add_user(&mut self, user: &str, kind: IdentifierKind) {
        self.add_id(user, "u/", kind);
    }

    /// Adds an id, also in the form of a `matrix:` link and without its sigil.
    fn add_id(&mut self, id: &str, in_link: &str, kind: IdentifierKind) {
        let bare = id.get(1..).unwrap_or_default();
        self.add(id, kind, Edges::Any);
        self.add(&format!("{in_link}{bare}"), kind, Edges::Any);
        self.add(bare, kind, Edges::Name);
    }

    fn add(&mut self, text: &str, kind: IdentifierKind, edges: Edges) {
        let text = decoded_form::folded(text);
        if !text.is_empty() {
            self.needles.push(Needle { text, kind, edges });
        }
    }

    /// Returns all identifiers in `text`, in order and without overlaps.
    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        let decoded = decoded_form::decoded_forms(text);
        if decoded.suspicious {
            return vec![Found {
                range: 0..text.len(),
                kind: IdentifierKind::Secret,
            }];
        }
        let mut found = Vec::new();
        for form in &decoded.forms {
            for needle in &self.needles {
                needle.find(form, &mut found);
            }
        }
        apart(found)
    }

    /// Returns whether `text` has an identifier.
    pub(super) fn any(&self, text: &str) -> bool {
        !self.find(text).is_empty()
    }
}

impl Needle {
    fn find(&self, form: &DecodedForm, found: &mut Vec<Found>) {
        for (start, _) in form.text.match_indices(&self.text) {
            let mut end = start + self.text.len();
            if !self.stands(form, start, end) {
                continue;
            }
            if self.kind == IdentifierKind::Content {
                end += form.text[end..]
                    .bytes()
                    .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                    .count();
            }
            found.push(Found {
                range: form.origin(&(start..end)),
                kind: self.kind,
            });
        }
    }

    fn stands(&self, form: &DecodedForm, start: usize, end: usize) -> bool {
        let text = &form.text;
        let before = text[..start].chars().next_back();
        let after = text[end..].chars().next();
        let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        match self.edges {
            Edges::Any => true,
            Edges::Name => {
                (form.is_gap(start) || !is_in_name(form, start))
                    && (form.is_gap(end) || !letter(after))
            }
            Edges::Word => {
                // A word that begins or ends with a punctuation mark needs no edge there.
                let first = text[start..].chars().next();
                let last = text[..end].chars().next_back();
                !(letter(first) && letter(before) || letter(last) && letter(after))
            }
        }
    }
}

/// Returns whether what stands before `at` makes a longer Matrix ID of what begins there: a letter
/// or digit, with one of `.`, `_` and `-` between them or nothing. People write those characters in
/// front of an ID as well: `_alice:example.org_` for emphasis, `...alice:example.org`.
fn is_in_name(form: &DecodedForm, at: usize) -> bool {
    let mut before = form.text[..at].char_indices().rev();
    let joint = |c: char| matches!(c, '.' | '_' | '-');
    match before.next() {
        Some((start, c)) if joint(c) && !form.is_gap(start) => {
            before.next().is_some_and(|(_, c)| c.is_alphanumeric())
        }
        Some((_, c)) => c.is_alphanumeric(),
        None => false,
    }
}

/// Sorts findings and merges those that overlap. The kind of the first one counts, and of several
/// that begin together that of the longest.
fn apart(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|it| (it.range.start, std::cmp::Reverse(it.range.end)));
    let mut out: Vec<Found> = Vec::with_capacity(found.len());
    for next in found {
        match out.last_mut() {
            Some(last) if next.range.start < last.range.end => {
                last.range.end = last.range.end.max(next.range.end);
            }
            _ => out.push(next),
        }
    }
    out
}
