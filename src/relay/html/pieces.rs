//! HTML, cut into pieces.
//!
//! Only the tokenizer of html5ever is used, not its tree. The output is written from the pieces, so
//! every client reads it in the same way, and nesting costs no more than length.

use std::cell::RefCell;

use html5ever::{
    tendril::StrTendril,
    tokenizer::{
        BufferQueue, EndTag, StartTag, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
    },
};

/// Maximum length of a tag, in bytes. HTML with a longer one is refused: the tokenizer compares
/// each attribute with all before it.
const HTML_TAG_BYTES_MAX: usize = 8 * 1024;

/// A piece of HTML. Comments and the like are left out.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::relay) enum Piece {
    /// Text, with its entities resolved.
    Text(String),
    /// A start tag with its attributes.
    Open(String, Vec<(String, String)>),
    /// An end tag.
    Close(String),
}

#[derive(Default)]
struct Sink(RefCell<Vec<Piece>>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut pieces = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) => match pieces.last_mut() {
                Some(Piece::Text(before)) => before.push_str(&text),
                _ => pieces.push(Piece::Text(text.to_string())),
            },
            Token::TagToken(tag) => {
                let name = tag.name.to_string();
                pieces.push(match tag.kind {
                    StartTag => {
                        let attribute = |it: html5ever::Attribute| {
                            (it.name.local.to_string(), it.value.to_string())
                        };
                        Piece::Open(name, tag.attrs.into_iter().map(attribute).collect())
                    }
                    EndTag => Piece::Close(name),
                });
            }
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// Returns the pieces of `html`, or `None` if no person could have written it.
pub(in crate::relay) fn pieces(html: &str) -> Option<Vec<Piece>> {
    if longest_tag(html) > HTML_TAG_BYTES_MAX {
        return None;
    }
    let input = BufferQueue::default();
    input.push_back(StrTendril::from(html));
    let tokenizer = Tokenizer::new(Sink::default(), TokenizerOpts::default());
    // A sink could interrupt it to run a script; this one never does.
    while !matches!(tokenizer.feed(&input), html5ever::TokenizerResult::Done) {}
    tokenizer.end();
    Some(tokenizer.sink.0.take())
}

fn longest_tag(html: &str) -> usize {
    let tag = |at: usize| html[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let mut longest = 0;
    let mut at = 0;
    while let Some(start) = html[at..].find('<').map(|found| at + found) {
        let end = html[start..]
            .find('>')
            .map_or(html.len(), |found| start + found);
        if tag(start) {
            longest = longest.max(end - start);
        }
        at = start + 1;
        if longest > HTML_TAG_BYTES_MAX {
            break;
        }
    }
    longest
}
