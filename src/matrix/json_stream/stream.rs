//! The way from the root of a document to its selected values.

use super::{
    Match, MatchValue, NotJson, PathStep, Selector,
    value::{Value, unescape},
};

/// Maximum length of a member's name on the way to a selected value, in bytes. Matrix ids have at
/// most 255. A value under a longer name is passed over.
const NAME_BYTES_MAX: usize = 512;

/// A document that is being read. See the module's page.
#[derive(Debug)]
pub struct JsonStream {
    selectors: &'static [Selector],
    state: State,
    /// The containers that are open on the way to a selected value.
    frames: Vec<Frame>,
    /// The names of [`PathStep::AnyKey`] among the open containers.
    names: Vec<String>,
    /// Selectors that may match the value that comes next, by bit.
    candidates: u64,
    key: Vec<u8>,
    value: Value,
    at: u64,
    root: Option<u8>,
    mismatches: u32,
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
    is_object: bool,
    /// Selectors that lead through this container, by bit.
    mask: u64,
    /// Whether the name of the current member is the last of `names`.
    is_named: bool,
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
            mismatches: 0,
        }
    }

    /// Reads the next bytes of the document and hands each selected value that they complete to
    /// `on_match`.
    pub fn feed(&mut self, bytes: &[u8], on_match: &mut impl FnMut(Match<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Broken {
            let used = match self.state {
                State::Inside => self.read_value(rest, on_match),
                _ => {
                    let byte = rest[0];
                    if matches!(self.state, State::InName { .. }) {
                        self.read_name(byte);
                        1
                    } else if byte.is_ascii_whitespace() {
                        1
                    } else {
                        self.read_structure(byte)
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
    pub fn finish(&mut self, on_match: &mut impl FnMut(Match<'_>)) -> Result<(), NotJson> {
        // A number at the root ends with the document.
        if self.state == State::Inside && self.value.is_scalar() && self.frames.is_empty() {
            self.end_value(on_match);
        }
        match self.state {
            State::Done => Ok(()),
            _ => Err(NotJson { at: self.at }),
        }
    }

    /// Returns how many bytes are held.
    #[cfg(test)]
    pub(in crate::matrix) fn held(&self) -> usize {
        self.value.capacity() + self.key.capacity()
    }

    /// Returns whether the document is an object, as far as it has been read.
    pub fn is_object(&self) -> bool {
        self.root == Some(b'{')
    }

    /// Returns how many values had the wrong type for the path of a selector. Nulls do not count.
    pub fn mismatches(&self) -> u32 {
        self.mismatches
    }

    /// Reads one byte between values. Returns how many bytes it used: none if the value begins
    /// there.
    fn read_structure(&mut self, byte: u8) -> usize {
        match (self.state, byte) {
            (State::Value { or_end: true }, b']') | (State::Name { or_end: true }, b'}') => {
                self.end_container();
                1
            }
            (State::Value { .. }, _) => self.begin_value(byte),
            (State::Name { .. }, b'"') => {
                self.key.clear();
                self.state = State::InName { escaped: false };
                1
            }
            (State::Colon, b':') => {
                self.begin_member();
                1
            }
            (State::After, b',') => {
                self.end_element();
                1
            }
            (State::After, b']' | b'}') => {
                let is_object = self.frames.last().is_some_and(|frame| frame.is_object);
                if is_object == (byte == b'}') {
                    self.end_container();
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

    fn read_name(&mut self, byte: u8) {
        let State::InName { escaped } = self.state else {
            return;
        };
        if byte == b'"' && !escaped {
            self.state = State::Colon;
            return;
        }
        if self.key.len() <= NAME_BYTES_MAX {
            self.key.push(byte);
        }
        self.state = State::InName {
            escaped: byte == b'\\' && !escaped,
        };
    }

    /// Selects the candidates for the value of the member whose name was read.
    fn begin_member(&mut self) {
        self.candidates = 0;
        self.state = State::Value { or_end: false };
        let name = if self.key.len() > NAME_BYTES_MAX {
            None
        } else {
            unescape(&self.key)
        };
        let (Some(name), Some(depth)) = (name, self.frames.len().checked_sub(1)) else {
            return;
        };
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        let mut any = false;
        for at in set_bits(frame.mask) {
            match self.selectors[at].path.get(depth) {
                Some(PathStep::Key(wanted)) if *wanted == name => self.candidates |= 1 << at,
                Some(PathStep::AnyKey) => {
                    self.candidates |= 1 << at;
                    any = true;
                }
                _ => {}
            }
        }
        if any {
            frame.is_named = true;
            self.names.push(name);
        }
    }

    fn end_element(&mut self) {
        self.forget_name();
        let Some(frame) = self.frames.last() else {
            return;
        };
        if frame.is_object {
            self.state = State::Name { or_end: false };
        } else {
            self.continue_array(false);
        }
    }

    fn continue_array(&mut self, or_end: bool) {
        let depth = self.frames.len().saturating_sub(1);
        let mask = self.frames.last().map_or(0, |frame| frame.mask);
        self.candidates = set_bits(mask)
            .filter(|at| self.selectors[*at].path.get(depth) == Some(&PathStep::Each))
            .fold(0, |mask, at| mask | 1 << at);
        self.state = State::Value { or_end };
    }

    fn end_container(&mut self) {
        self.forget_name();
        self.frames.pop();
        self.finish_element();
    }

    fn finish_element(&mut self) {
        self.state = if self.frames.is_empty() {
            State::Done
        } else {
            State::After
        };
    }

    fn forget_name(&mut self) {
        if let Some(frame) = self.frames.last_mut()
            && std::mem::take(&mut frame.is_named)
        {
            self.names.pop();
        }
    }

    /// Begins a value, which is kept, entered or passed over. Returns how many bytes were used.
    fn begin_value(&mut self, byte: u8) -> usize {
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
        let here = set_bits(self.candidates).find(|at| self.selectors[*at].path.len() == depth);
        let leads_on = |at: &usize| match self.selectors[*at].path.get(depth) {
            Some(PathStep::Each) => byte == b'[',
            Some(_) => byte == b'{',
            None => false,
        };
        let mask = set_bits(self.candidates)
            .filter(leads_on)
            .fold(0, |mask, at| mask | 1 << at);
        if here.is_none() && mask != 0 {
            let is_object = byte == b'{';
            self.frames.push(Frame {
                is_object,
                mask,
                is_named: false,
            });
            if is_object {
                self.state = State::Name { or_end: true };
            } else {
                self.continue_array(true);
            }
            return 1;
        }
        if here.is_none() && self.candidates != 0 && byte != b'n' {
            self.mismatches = self.mismatches.saturating_add(1);
        }
        let limit = here.map_or(0, |at| self.selectors[at].limit);
        self.value.restart(byte, here, limit);
        self.state = State::Inside;
        0
    }

    /// Reads the next bytes of a value. Returns how many of them belong to it.
    fn read_value(&mut self, bytes: &[u8], on_match: &mut impl FnMut(Match<'_>)) -> usize {
        let (used, ended) = self.value.read(bytes);
        if ended {
            self.end_value(on_match);
        }
        used
    }

    fn end_value(&mut self, on_match: &mut impl FnMut(Match<'_>)) {
        if let Some(selector) = self.value.selector() {
            let json;
            let value = if self.value.is_too_large() {
                MatchValue::TooLarge(self.value.head())
            } else {
                json = self.value.json();
                MatchValue::Whole(&json)
            };
            on_match(Match {
                selector,
                names: &self.names,
                value,
            });
        }
        self.finish_element();
    }
}

/// Returns the positions of the bits that are set.
fn set_bits(mask: u64) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let at = (left != 0).then(|| left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some(at)
    })
}
