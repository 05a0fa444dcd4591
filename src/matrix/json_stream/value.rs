//! One value: its end, its text, and its head once it is too large.

use std::borrow::Cow;

use memchr::memchr2;

use super::Head;

/// Maximum length of a string in a [`Head`], in bytes as escaped. Longer ones are left out.
const HEAD_VALUE_BYTES_MAX: usize = 300;
/// The members of an object that a [`Head`] keeps.
const HEAD_MEMBERS: [&str; 7] = [
    "event_id",
    "membership",
    "room_id",
    "sender",
    "state_key",
    "to_user_id",
    "type",
];

/// The value that is being passed over or kept.
#[derive(Debug, Default)]
pub(super) struct Value {
    /// The selector that names the value; `None` for one that is passed over.
    selector: Option<usize>,
    /// Maximum size of a value that is kept, in bytes.
    limit: usize,
    /// The JSON text so far; empty once it is too large.
    kept: Vec<u8>,
    /// How many bytes were read.
    size: u64,
    depth: u32,
    is_scalar: bool,
    is_object: bool,
    in_string: bool,
    escaped: bool,
    /// Whether the next string of an object's outermost level is a name.
    expects_name: bool,
    /// The member of the head whose value comes next.
    member: Option<&'static str>,
    /// The string of the outermost level that is being read.
    text: Option<Vec<u8>>,
    head: Head,
}

impl Value {
    /// Begins the next value with its first byte, in the memory of the one before.
    pub(super) fn restart(&mut self, first: u8, selector: Option<usize>, limit: usize) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = Self {
            selector,
            limit,
            kept,
            is_scalar: !matches!(first, b'{' | b'[' | b'"'),
            is_object: first == b'{',
            ..Self::default()
        };
    }

    /// Returns the selector that names the value.
    pub(super) fn selector(&self) -> Option<usize> {
        self.selector
    }

    /// Returns `true` for a number, `true`, `false` or `null`: only what follows ends it.
    pub(super) fn is_scalar(&self) -> bool {
        self.is_scalar
    }

    /// Returns how many bytes are allocated for the text.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.kept.capacity()
    }

    /// Returns the text of a value that is within its limit.
    pub(super) fn json(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.kept)
    }

    /// Returns the head of a value.
    pub(super) fn head(&mut self) -> &Head {
        self.head.size = self.size;
        &self.head
    }

    /// Returns whether the value is over its limit.
    pub(super) fn is_too_large(&self) -> bool {
        self.size > self.limit as u64
    }

    /// Reads the next bytes. Returns how many of them belong to the value, and whether it is
    /// complete.
    pub(super) fn read(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        let mut ended = false;
        while at < bytes.len() && !ended {
            if self.in_string {
                at += self.read_string(&bytes[at..]);
                ended = !self.in_string && self.depth == 0;
                continue;
            }
            let byte = bytes[at];
            if self.is_scalar && (byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}'))
            {
                ended = true;
                break;
            }
            at += 1;
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    ended = self.depth == 0;
                }
                b'"' => self.begin_string(),
                _ => {}
            }
            if self.is_object && self.depth == 1 {
                match byte {
                    b'{' | b',' => (self.expects_name, self.member) = (true, None),
                    b':' => self.expects_name = false,
                    _ => {}
                }
            }
        }
        self.keep_bytes(&bytes[..at]);
        (at, ended)
    }

    fn begin_string(&mut self) {
        self.in_string = true;
        let outermost = self.selector.is_some() && self.is_object && self.depth == 1;
        if outermost && (self.expects_name || self.member.is_some()) {
            self.text = Some(Vec::new());
        }
    }

    /// Reads the next bytes of a string. Returns how many of them belong to it.
    fn read_string(&mut self, bytes: &[u8]) -> usize {
        if self.escaped {
            self.escaped = false;
            self.note_text(&bytes[..1]);
            return 1;
        }
        let Some(at) = memchr2(b'"', b'\\', bytes) else {
            self.note_text(bytes);
            return bytes.len();
        };
        self.note_text(&bytes[..at]);
        if bytes[at] == b'\\' {
            self.escaped = true;
            self.note_text(b"\\");
        } else {
            self.in_string = false;
            self.end_string();
        }
        at + 1
    }

    fn note_text(&mut self, bytes: &[u8]) {
        if let Some(text) = &mut self.text
            && text.len() <= HEAD_VALUE_BYTES_MAX
        {
            let room = HEAD_VALUE_BYTES_MAX + 1 - text.len();
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn end_string(&mut self) {
        let Some(text) = self.text.take() else {
            return;
        };
        let text = if text.len() > HEAD_VALUE_BYTES_MAX {
            None
        } else {
            unescape(&text)
        };
        if self.expects_name {
            let known = HEAD_MEMBERS
                .iter()
                .find(|name| Some(**name) == text.as_deref());
            self.member = known.copied();
        } else if let Some((member, text)) = self.member.take().zip(text) {
            self.head.members.insert(member, text);
        }
    }

    fn keep_bytes(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if self.selector.is_none() {
            return;
        }
        if self.is_too_large() {
            // Not only cleared: a value that is too large gives its memory back.
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }
}

/// Returns the text of a JSON string without its quotes; `None` if it is not one.
pub(super) fn unescape(raw: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(raw);
    if text.contains('\\') {
        serde_json::from_str(&format!("\"{text}\"")).ok()
    } else {
        Some(text.into_owned())
    }
}
