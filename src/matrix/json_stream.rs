//! Reads a JSON document of any size in bounded memory, piece by piece.
//!
//! A document from the homeserver holds what strangers wrote, so its size is theirs to choose. A
//! [`JsonStream`] is fed the bytes as they arrive and hands out the values that a [`Selector`] names,
//! each as it completes. A value over its limit is not kept: only its [`Head`], a few short members
//! that say what it was, and its size. Everything that no selector names is passed over without
//! being stored. So memory is bounded by the largest limit, whatever the document holds.
//!
//! This is no validator: it follows the brackets, strings and separators on the way to the selected
//! values, and leaves it to the reader of a value to parse it. It does not recurse, so no depth of
//! nesting exhausts the stack.

use std::collections::BTreeMap;

use memchr::memchr2;

/// Maximum length of a member's name on the way to a selected value, in bytes. Matrix ids have at
/// most 255. A value under a longer name is passed over.
const NAME_MAX: usize = 512;
/// Maximum length of a string in a [`Head`], in bytes as escaped. Longer ones are left out.
const HEAD_VALUE_MAX: usize = 300;
/// The members of an object that a [`Head`] keeps.
const HEAD_NAMES: [&str; 7] = [
    "event_id",
    "membership",
    "room_id",
    "sender",
    "state_key",
    "to_user_id",
    "type",
];

/// One step of the path from a document's root to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The member of an object with this name.
    Key(&'static str),
    /// Every member of an object.
    AnyKey,
    /// Every element of an array.
    Each,
}

/// The values at a path, and how large each may be.
#[derive(Clone, Copy, Debug)]
pub struct Selector {
    /// The way from the root.
    pub path: &'static [Step],
    /// Maximum length of one value, in bytes of JSON text.
    pub limit: usize,
}

/// A selected value.
#[derive(Debug)]
pub struct Found<'a> {
    /// The index of the selector that names it.
    pub selector: usize,
    /// The names that [`Step::AnyKey`] stood for, outermost first.
    pub names: &'a [String],
    /// The value.
    pub value: Captured<'a>,
}

/// A selected value, or what is left of one over its limit.
#[derive(Debug)]
pub enum Captured<'a> {
    /// The JSON text of the value. Bytes that are not UTF-8 are replaced by U+FFFD.
    Whole(&'a str),
    /// The value was over its limit.
    TooLarge(&'a Head),
}

/// What is known of a value over its limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The length of the value, in bytes of JSON text.
    pub size: u64,
    /// The strings among its outermost members that say what it was, such as `room_id` and `type`.
    /// Short by construction, but as hostile as everything else.
    pub members: BTreeMap<&'static str, String>,
}

impl Head {
    /// Returns one of the members.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.members.get(name).map(String::as_str)
    }
}

/// A document that is not JSON, or ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a complete JSON document (byte {at})")]
pub struct NotJson {
    /// How many bytes were understood.
    pub at: u64,
}

/// A document under way. See the module's page.
#[derive(Debug)]
pub struct JsonStream {
    selectors: &'static [Selector],
    state: State,
    /// The containers that are open on the way to a selected value.
    frames: Vec<Frame>,
    /// The names of [`Step::AnyKey`] among the open containers.
    names: Vec<String>,
    /// Selectors that may match the value that comes next, by bit.
    candidates: u64,
    key: Vec<u8>,
    value: Value,
    at: u64,
    root: Option<u8>,
    misfits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value comes; in an array that has just been opened, its end may come.
    Value {
        or_end: bool,
    },
    /// A name comes; in an object that has just been opened, its end may come.
    Name {
        or_end: bool,
    },
    /// In a name.
    InName {
        escaped: bool,
    },
    Colon,
    /// A separator or the end of the container comes.
    After,
    /// In a value that is passed over or kept.
    Inside,
    /// The document is complete.
    Done,
    Broken,
}

#[derive(Debug)]
struct Frame {
    /// Whether it is an object.
    object: bool,
    /// Selectors that lead through this container, by bit.
    mask: u64,
    /// Whether the name of the present member stands in `names`.
    named: bool,
}

/// The value that is being passed over or kept.
#[derive(Debug, Default)]
struct Value {
    selector: Option<usize>,
    limit: usize,
    kept: Vec<u8>,
    size: u64,
    depth: u32,
    scalar: bool,
    in_string: bool,
    escaped: bool,
    object: bool,
    /// In an object's outermost level: the next string is a name.
    name_comes: bool,
    /// Which member of the head comes next.
    member: Option<&'static str>,
    /// The string of the outermost level that is being read.
    text: Option<Vec<u8>>,
    head: Head,
}

impl JsonStream {
    /// Returns a stream that hands out what `selectors` name. At most 64 of them.
    pub fn new(selectors: &'static [Selector]) -> Self {
        debug_assert!(selectors.len() <= 64);
        let all = (0..selectors.len().min(64)).fold(0, |mask, at| mask | 1 << at);
        Self {
            selectors,
            state: State::Value { or_end: false },
            frames: Vec::new(),
            names: Vec::new(),
            candidates: all,
            key: Vec::new(),
            value: Value::default(),
            at: 0,
            root: None,
            misfits: 0,
        }
    }

    /// Reads the next bytes of the document and hands each selected value that they complete to
    /// `found`.
    pub fn feed(&mut self, bytes: &[u8], found: &mut impl FnMut(Found<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Broken {
            let used = match self.state {
                State::Inside => self.inside(rest, found),
                _ => {
                    let byte = rest[0];
                    if matches!(self.state, State::InName { .. }) {
                        self.in_name(byte);
                        1
                    } else if byte.is_ascii_whitespace() {
                        1
                    } else {
                        self.structure(byte)
                    }
                }
            };
            self.at += used as u64;
            rest = &rest[used..];
        }
    }

    /// Ends the document.
    ///
    /// # Errors
    ///
    /// When it ended early, or was not JSON on the way to a selected value.
    pub fn finish(&mut self, found: &mut impl FnMut(Found<'_>)) -> Result<(), NotJson> {
        // A number at the root ends with the document.
        if self.state == State::Inside && self.value.scalar && self.frames.is_empty() {
            self.value_ends(found);
        }
        match self.state {
            State::Done => Ok(()),
            _ => Err(NotJson { at: self.at }),
        }
    }

    /// Returns how many bytes are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.value.kept.capacity() + self.key.capacity()
    }

    /// Returns whether the document is an object, as far as it has been read.
    pub fn is_object(&self) -> bool {
        self.root == Some(b'{')
    }

    /// Returns how many values on the way to selected ones were neither null nor of the kind that
    /// leads on.
    pub fn misfits(&self) -> u32 {
        self.misfits
    }

    /// Reads one byte between values; returns how many bytes are used up.
    fn structure(&mut self, byte: u8) -> usize {
        match (self.state, byte) {
            (State::Value { or_end: true }, b']') | (State::Name { or_end: true }, b'}') => {
                self.container_ends();
                1
            }
            (State::Value { .. }, _) => self.value_begins(byte),
            (State::Name { .. }, b'"') => {
                self.key.clear();
                self.state = State::InName { escaped: false };
                1
            }
            (State::Colon, b':') => {
                self.member_begins();
                1
            }
            (State::After, b',') => {
                self.element_ends();
                1
            }
            (State::After, b']' | b'}') => {
                let object = self.frames.last().is_some_and(|frame| frame.object);
                if object == (byte == b'}') {
                    self.container_ends();
                } else {
                    self.state = State::Broken;
                }
                1
            }
            _ => {
                self.state = State::Broken;
                0
            }
        }
    }

    fn in_name(&mut self, byte: u8) {
        let State::InName { escaped } = self.state else {
            return;
        };
        if byte == b'"' && !escaped {
            self.state = State::Colon;
            return;
        }
        if self.key.len() <= NAME_MAX {
            self.key.push(byte);
        }
        self.state = State::InName {
            escaped: byte == b'\\' && !escaped,
        };
    }

    /// Finds out which selectors lead through the member whose name was read.
    fn member_begins(&mut self) {
        self.candidates = 0;
        self.state = State::Value { or_end: false };
        let name = match self.key.len() > NAME_MAX {
            true => None,
            false => unescaped(&self.key),
        };
        let (Some(name), Some(depth)) = (name, self.frames.len().checked_sub(1)) else {
            return;
        };
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        let mut any = false;
        for at in bits(frame.mask) {
            match self.selectors[at].path.get(depth) {
                Some(Step::Key(wanted)) if *wanted == name => self.candidates |= 1 << at,
                Some(Step::AnyKey) => {
                    self.candidates |= 1 << at;
                    any = true;
                }
                _ => {}
            }
        }
        if any {
            frame.named = true;
            self.names.push(name);
        }
    }

    fn element_ends(&mut self) {
        self.forget_name();
        let Some(frame) = self.frames.last() else {
            return;
        };
        if frame.object {
            self.state = State::Name { or_end: false };
        } else {
            self.array_goes_on(false);
        }
    }

    fn array_goes_on(&mut self, or_end: bool) {
        let depth = self.frames.len().saturating_sub(1);
        let mask = self.frames.last().map_or(0, |frame| frame.mask);
        self.candidates = bits(mask)
            .filter(|at| self.selectors[*at].path.get(depth) == Some(&Step::Each))
            .fold(0, |mask, at| mask | 1 << at);
        self.state = State::Value { or_end };
    }

    fn container_ends(&mut self) {
        self.forget_name();
        self.frames.pop();
        self.element_is_read();
    }

    fn element_is_read(&mut self) {
        self.state = if self.frames.is_empty() {
            State::Done
        } else {
            State::After
        };
    }

    fn forget_name(&mut self) {
        if let Some(frame) = self.frames.last_mut()
            && std::mem::take(&mut frame.named)
        {
            self.names.pop();
        }
    }

    /// Begins a value: it is kept, or entered, or passed over.
    fn value_begins(&mut self, byte: u8) -> usize {
        if self.root.is_none() {
            self.root = Some(byte);
        }
        if !matches!(
            byte,
            b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'
        ) {
            self.state = State::Broken;
            return 0;
        }
        let depth = self.frames.len();
        let here = bits(self.candidates).find(|at| self.selectors[*at].path.len() == depth);
        let leads_on = |at: &usize| match self.selectors[*at].path.get(depth) {
            Some(Step::Each) => byte == b'[',
            Some(_) => byte == b'{',
            None => false,
        };
        let mask = bits(self.candidates)
            .filter(leads_on)
            .fold(0, |mask, at| mask | 1 << at);
        if here.is_none() && mask != 0 {
            let object = byte == b'{';
            self.frames.push(Frame {
                object,
                mask,
                named: false,
            });
            if object {
                self.state = State::Name { or_end: true };
            } else {
                self.array_goes_on(true);
            }
            return 1;
        }
        if here.is_none() && self.candidates != 0 && byte != b'n' {
            self.misfits = self.misfits.saturating_add(1);
        }
        let mut kept = std::mem::take(&mut self.value.kept);
        kept.clear();
        self.value = Value {
            selector: here,
            limit: here.map_or(0, |at| self.selectors[at].limit),
            kept,
            scalar: !matches!(byte, b'{' | b'[' | b'"'),
            object: byte == b'{',
            ..Value::default()
        };
        self.state = State::Inside;
        0
    }

    /// Reads on in a value; returns how many bytes belong to it.
    fn inside(&mut self, bytes: &[u8], found: &mut impl FnMut(Found<'_>)) -> usize {
        let (used, ended) = self.value.read(bytes);
        if ended {
            self.value_ends(found);
        }
        used
    }

    fn value_ends(&mut self, found: &mut impl FnMut(Found<'_>)) {
        if let Some(selector) = self.value.selector {
            let text;
            let value = if self.value.is_too_large() {
                self.value.head.size = self.value.size;
                Captured::TooLarge(&self.value.head)
            } else {
                text = String::from_utf8_lossy(&self.value.kept);
                Captured::Whole(&text)
            };
            found(Found {
                selector,
                names: &self.names,
                value,
            });
        }
        self.element_is_read();
    }
}

impl Value {
    fn is_too_large(&self) -> bool {
        self.size > self.limit as u64
    }

    /// Reads on; returns how many bytes belong to the value, and whether it is complete.
    fn read(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        let mut ended = false;
        while at < bytes.len() && !ended {
            if self.in_string {
                at += self.string(&bytes[at..]);
                ended = !self.in_string && self.depth == 0;
                continue;
            }
            let byte = bytes[at];
            if self.scalar && (byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}')) {
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
                b'"' => self.string_begins(),
                _ => {}
            }
            if self.object && self.depth == 1 {
                match byte {
                    b'{' | b',' => (self.name_comes, self.member) = (true, None),
                    b':' => self.name_comes = false,
                    _ => {}
                }
            }
        }
        self.keep(&bytes[..at]);
        (at, ended)
    }

    fn string_begins(&mut self) {
        self.in_string = true;
        let outermost = self.selector.is_some() && self.object && self.depth == 1;
        if outermost && (self.name_comes || self.member.is_some()) {
            self.text = Some(Vec::new());
        }
    }

    /// Reads on in a string; returns how many bytes belong to it.
    fn string(&mut self, bytes: &[u8]) -> usize {
        if self.escaped {
            self.escaped = false;
            self.note(&bytes[..1]);
            return 1;
        }
        let Some(at) = memchr2(b'"', b'\\', bytes) else {
            self.note(bytes);
            return bytes.len();
        };
        self.note(&bytes[..at]);
        if bytes[at] == b'\\' {
            self.escaped = true;
            self.note(b"\\");
        } else {
            self.in_string = false;
            self.string_ends();
        }
        at + 1
    }

    fn note(&mut self, bytes: &[u8]) {
        if let Some(text) = &mut self.text
            && text.len() <= HEAD_VALUE_MAX
        {
            let room = HEAD_VALUE_MAX + 1 - text.len();
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn string_ends(&mut self) {
        let Some(text) = self.text.take() else {
            return;
        };
        let text = match text.len() > HEAD_VALUE_MAX {
            true => None,
            false => unescaped(&text),
        };
        if self.name_comes {
            let known = HEAD_NAMES
                .iter()
                .find(|name| Some(**name) == text.as_deref());
            self.member = known.copied();
        } else if let Some((member, text)) = self.member.take().zip(text) {
            self.head.members.insert(member, text);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if self.selector.is_none() {
            return;
        }
        if self.is_too_large() {
            // Not only cleared: what is too large gives its memory back.
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }
}

/// Returns the text of a JSON string without its quotes; `None` if it is not one.
fn unescaped(raw: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(raw);
    if text.contains('\\') {
        serde_json::from_str(&format!("\"{text}\"")).ok()
    } else {
        Some(text.into_owned())
    }
}

/// Returns the positions of the bits that are set.
fn bits(mask: u64) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let at = (left != 0).then(|| left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some(at)
    })
}

#[cfg(test)]
#[path = "json_stream_tests.rs"]
mod tests;
