//! The decoded forms of a string.
//!
//! `@alice:example.org`, `@Alice:example.org`, `%40alice%3Aexample.org` and
//! `&#64;alice&#58;example.org` all identify Alice to some client. A [`DecodedForm`] is a string
//! after some decoding. It knows which part of the original each of its bytes comes from.

use std::ops::Range;

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use crate::text::is_invisible;

/// Maximum number of decoded forms. A string with more of them is suspicious.
const FORMS_MAX: usize = 40;

/// The decoders. Each is applied to each form, since a sender can encode in any order.
const DECODERS: [Decoder; 3] = [percent, escape, tag];

/// Returns the character that the beginning of a lower-cased text encodes, and the length of its
/// encoding. A `None` character stands for nothing visible.
type Decoder = fn(&str) -> Option<(Option<char>, usize)>;

/// Maximum length of an HTML tag outside of HTML, in bytes.
const TAG_BYTES_MAX: usize = 2000;

/// A string in lower case, without invisible characters, decoded zero or more times.
pub(super) struct DecodedForm {
    pub(super) text: String,
    /// The origin of each byte of `text`; `None` if all are at their original positions.
    origin: Option<Vec<(u32, u32)>>,
}

/// All decoded forms of a string.
pub(super) struct DecodedForms {
    pub(super) forms: Vec<DecodedForm>,
    /// Whether there were too many: only a sender with something to hide encodes that often.
    pub(super) suspicious: bool,
}

/// Returns all decoded forms of `text`, the plain one first.
pub(super) fn decoded_forms(text: &str) -> DecodedForms {
    let mut forms = vec![DecodedForm::plain(text)];
    let mut at = 0;
    while at < forms.len() {
        for decoder in DECODERS {
            let next = forms.get(at).and_then(|form| form.decoded(decoder));
            let next = next.filter(|next| forms.iter().all(|known| known.text != next.text));
            forms.extend(next);
        }
        at += 1;
        if forms.len() > FORMS_MAX {
            return DecodedForms {
                forms,
                suspicious: true,
            };
        }
    }
    DecodedForms {
        forms,
        suspicious: false,
    }
}

/// Returns the plain form of a needle.
pub(super) fn folded(text: &str) -> String {
    DecodedForm::plain(text).text
}

impl DecodedForm {
    fn plain(text: &str) -> Self {
        let simple = |b: u8| (b' '..=b'~').contains(&b) || matches!(b, b'\n' | b'\t');
        if text.bytes().all(simple) {
            return Self {
                text: text.to_ascii_lowercase(),
                origin: None,
            };
        }
        let mut out = FormBuilder::default();
        for (at, c) in text.char_indices() {
            out.push(c, (at as u32, (at + c.len_utf8()) as u32));
        }
        out.finish()
    }

    /// Returns the part of the original that a part of this form comes from.
    pub(super) fn origin(&self, part: &Range<usize>) -> Range<usize> {
        match &self.origin {
            None => part.clone(),
            Some(origin) => {
                let from = origin.get(part.start).map_or(0, |span| span.0);
                let to = part.end.checked_sub(1).and_then(|last| origin.get(last));
                from as usize..to.map_or(from, |span| span.1) as usize
            }
        }
    }

    /// Returns whether something directly before the byte `at` of the original is left out, such as
    /// a control character or a tag.
    pub(super) fn is_gap(&self, at: usize) -> bool {
        let Some(origin) = &self.origin else {
            return false;
        };
        let before = at.checked_sub(1).and_then(|last| origin.get(last));
        before
            .zip(origin.get(at))
            .is_some_and(|(before, next)| before.1 < next.0)
    }

    /// Returns the form after one more decoding, unless there is nothing to decode.
    fn decoded(&self, decoder: Decoder) -> Option<Self> {
        if !self
            .text
            .bytes()
            .any(|b| matches!(b, b'%' | b'&' | b'\\' | b'<'))
        {
            return None;
        }
        let mut out = FormBuilder::default();
        let mut changed = false;
        let mut at = 0;
        while let Some(c) = self.text.get(at..).and_then(|rest| rest.chars().next()) {
            let (chars, length) = match decoder(&self.text[at..]) {
                Some((decoded, length)) => {
                    changed = true;
                    (decoded, length)
                }
                None => (Some(c), c.len_utf8()),
            };
            if let Some(c) = chars {
                let span = self.origin(&(at..at + length));
                out.push(c, (span.start as u32, span.end as u32));
            }
            at += length;
        }
        changed.then(|| out.finish())
    }
}

#[derive(Default)]
struct FormBuilder {
    text: String,
    origin: Vec<(u32, u32)>,
}

impl FormBuilder {
    fn push(&mut self, c: char, span: (u32, u32)) {
        if c.is_ascii() {
            if !c.is_control() || matches!(c, '\n' | '\t') {
                self.text.push(c.to_ascii_lowercase());
                self.origin.push(span);
            }
            return;
        }
        // Full-width and other compatibility characters count as the plain ones.
        for c in std::iter::once(c).nfkc().flat_map(char::to_lowercase) {
            if !c.is_control() && !is_invisible(c) && !is_combining_mark(c) {
                self.text.push(c);
                self.origin.resize(self.text.len(), span);
            }
        }
    }

    fn finish(self) -> DecodedForm {
        DecodedForm {
            text: self.text,
            origin: Some(self.origin),
        }
    }
}

/// Decodes a character in percent-encoding.
fn percent(text: &str) -> Option<(Option<char>, usize)> {
    if !text.starts_with('%') {
        return None;
    }
    let byte = |n: usize| {
        let hex = text.get(3 * n..3 * n + 3)?.strip_prefix('%')?;
        hex_value(hex).and_then(|value| u8::try_from(value).ok())
    };
    let length = match byte(0)? {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    let bytes: Vec<u8> = (0..length).map_while(byte).collect();
    let decoded = std::str::from_utf8(&bytes).ok();
    match decoded.and_then(|text| text.chars().next()) {
        Some(c) => Some((Some(c), 3 * length)),
        // Not UTF-8: clients show a mark in its place.
        None => Some((Some(char::REPLACEMENT_CHARACTER), 3)),
    }
}

fn hex_value(hex: &str) -> Option<u32> {
    if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(hex, 16).ok()
}

/// Entities for characters of identifiers, and for invisible characters.
const ENTITIES: [(&str, Option<char>); 34] = [
    ("amp", Some('&')),
    ("lt", Some('<')),
    ("gt", Some('>')),
    ("quot", Some('"')),
    ("apos", Some('\'')),
    ("commat", Some('@')),
    ("colon", Some(':')),
    ("period", Some('.')),
    ("excl", Some('!')),
    ("num", Some('#')),
    ("dollar", Some('$')),
    ("percnt", Some('%')),
    ("sol", Some('/')),
    ("bsol", Some('\\')),
    ("lowbar", Some('_')),
    ("underbar", Some('_')),
    ("equals", Some('=')),
    ("plus", Some('+')),
    ("hyphen", Some('-')),
    ("dash", Some('-')),
    ("nbsp", Some(' ')),
    ("shy", None),
    ("zwj", None),
    ("zwnj", None),
    ("lrm", None),
    ("rlm", None),
    ("nobreak", None),
    ("zerowidthspace", None),
    ("negativethinspace", None),
    ("negativemediumspace", None),
    ("negativethickspace", None),
    ("negativeverythinspace", None),
    ("invisiblecomma", None),
    ("invisibletimes", None),
];

fn entity(text: &str) -> Option<(Option<char>, usize)> {
    let name = text.strip_prefix('&')?;
    if let Some(number) = name.strip_prefix('#') {
        return numeric(number).map(|(c, length)| (Some(c), 2 + length));
    }
    let length = name
        .bytes()
        .take(24)
        .take_while(u8::is_ascii_alphabetic)
        .count();
    let closed = name.as_bytes().get(length) == Some(&b';');
    let (entity, c) = ENTITIES.iter().find(|(entity, _)| {
        if closed {
            return *entity == &name[..length];
        }
        // The oldest entities need no semicolon.
        matches!(*entity, "amp" | "lt" | "gt" | "quot" | "nbsp" | "shy") && name.starts_with(entity)
    })?;
    Some((*c, 1 + entity.len() + usize::from(closed)))
}

fn numeric(number: &str) -> Option<(char, usize)> {
    let (digits, radix, before) = match number.strip_prefix('x') {
        Some(hex) => (hex, 16, 1),
        None => (number, 10, 0),
    };
    let length = digits
        .bytes()
        .take_while(|b| char::from(*b).is_digit(radix))
        .count();
    let significant = digits[..length].trim_start_matches('0');
    if significant.is_empty() || significant.len() > 8 {
        return None;
    }
    let c = char::from_u32(u32::from_str_radix(significant, radix).ok()?)?;
    let closed = usize::from(digits.as_bytes().get(length) == Some(&b';'));
    Some((c, before + length + closed))
}

/// Decodes entities of HTML, `\u0040` of JSON and JavaScript, and `\@` of Markdown.
fn escape(text: &str) -> Option<(Option<char>, usize)> {
    match text.as_bytes().first()? {
        b'&' => entity(text),
        b'\\' => backslash(text),
        _ => None,
    }
}

fn backslash(text: &str) -> Option<(Option<char>, usize)> {
    let next = text.get(1..)?.chars().next()?;
    let digits = match next {
        'u' => 2..6,
        'x' => 2..4,
        c if c.is_ascii_punctuation() => return Some((None, 1)),
        _ => return None,
    };
    let length = digits.end;
    let c = char::from_u32(hex_value(text.get(digits)?)?)?;
    Some((Some(c), length))
}

/// Decodes an HTML tag, which is invisible.
fn tag(text: &str) -> Option<(Option<char>, usize)> {
    let bytes = text.strip_prefix('<').map(|_| text.as_bytes())?;
    if !matches!(bytes.get(1)?, b'a'..=b'z' | b'/' | b'!' | b'?') {
        return None;
    }
    let end = bytes.iter().take(TAG_BYTES_MAX).position(|b| *b == b'>')?;
    Some((None, end + 1))
}
