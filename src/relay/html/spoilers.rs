//! The text of HTML in which something is covered (MSC2010).

use super::{
    attributes::{is_block, is_hidden},
    hidden::hidden_length,
    pieces::{Piece, pieces},
};

/// The attribute of an element that clients cover until somebody wants to see it. Its value is the
/// reason.
const SPOILER: &str = "data-mx-spoiler";

/// A part of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPart {
    /// The text, with a line break where a block begins or ends.
    pub text: String,
    /// The reason for which it is covered, which may be empty, or `None` if it is shown.
    pub spoiler: Option<String>,
}

/// Returns whether something in this HTML may be covered.
pub fn may_have_spoilers(html: &str) -> bool {
    html.to_ascii_lowercase().contains(SPOILER)
}

/// Returns the text of HTML in parts, covered ones and others. Returns `None` if no person could
/// have written it.
pub fn text_with_spoilers(html: &str) -> Option<Vec<TextPart>> {
    let pieces = pieces(html)?;
    let mut text = TextParts::default();
    // Where the covered element ends that the text is in.
    let mut covered_until: Option<usize> = None;
    let mut at = 0;
    while let Some(piece) = pieces.get(at) {
        if covered_until.is_some_and(|end| at >= end) {
            covered_until = None;
            text.begin(None);
        }
        at += 1;
        let after = pieces.get(at..).unwrap_or_default();
        match piece {
            Piece::Text(said) => text.push(said),
            Piece::Close(tag) => {
                // The line that it ends is not covered with it.
                if covered_until.take_if(|end| at >= *end).is_some() {
                    text.begin(None);
                }
                text.end_element(tag);
            }
            Piece::Open(tag, _) if is_hidden(tag) => at += hidden_length(tag, after),
            Piece::Open(tag, attributes) => {
                let of = |name: &str| {
                    let found = attributes.iter().find(|(it, _)| it == name);
                    found.map(|(_, value)| value.clone())
                };
                text.begin_element(tag, of("alt"));
                if let (None, Some(reason)) = (covered_until, of(SPOILER)) {
                    covered_until = Some(at + hidden_length(tag, after));
                    text.begin(Some(reason));
                }
            }
        }
    }
    Some(text.finish())
}

/// The parts of a text in the making.
#[derive(Default)]
struct TextParts {
    done: Vec<TextPart>,
    part: TextPart,
    /// The number of open elements whose line breaks count.
    preformatted: usize,
}

impl TextParts {
    fn begin(&mut self, spoiler: Option<String>) {
        let text = String::new();
        let part = std::mem::replace(&mut self.part, TextPart { text, spoiler });
        if !part.text.is_empty() {
            self.done.push(part);
        }
    }

    fn push(&mut self, said: &str) {
        if self.preformatted > 0 {
            self.part.text.push_str(said);
            return;
        }
        // A line break in HTML is a space.
        for c in said.chars() {
            let c = if c.is_ascii_whitespace() { ' ' } else { c };
            if c != ' ' || !self.ends_with(&[' ', '\n']) {
                self.part.text.push(c);
            }
        }
    }

    fn begin_element(&mut self, tag: &str, alt: Option<String>) {
        match tag {
            "br" => self.part.text.push('\n'),
            "img" => self.part.text.push_str(&alt.unwrap_or_default()),
            tag if is_block(tag) => self.end_line(),
            _ => {}
        }
        if tag == "pre" {
            self.preformatted += 1;
        }
    }

    fn end_element(&mut self, tag: &str) {
        if is_block(tag) {
            self.end_line();
        }
        if tag == "pre" {
            self.preformatted = self.preformatted.saturating_sub(1);
        }
    }

    fn end_line(&mut self) {
        if !self.ends_with(&['\n']) {
            self.part.text.push('\n');
        }
    }

    /// Returns whether the text ends with one of these, or is still empty.
    fn ends_with(&self, ends: &[char]) -> bool {
        let last = self.done.last();
        let text = if self.part.text.is_empty() {
            last.map_or("", |part| part.text.as_str())
        } else {
            self.part.text.as_str()
        };
        text.is_empty() || text.ends_with(ends)
    }

    fn finish(mut self) -> Vec<TextPart> {
        self.begin(None);
        if let Some(last) = self.done.last_mut() {
            last.text.truncate(last.text.trim_end().len());
        }
        self.done.retain(|part| !part.text.is_empty());
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes covered parts in brackets.
    fn read(html: &str) -> String {
        let parts = text_with_spoilers(html).unwrap().into_iter();
        let shown = parts.map(|part| match part.spoiler {
            Some(reason) => format!("[{reason}|{}]", part.text),
            None => part.text,
        });
        shown.collect()
    }

    #[test]
    fn what_is_covered_is_told_from_what_is_shown() {
        for (html, expected) in [
            ("<span data-mx-spoiler>he dies</span>", "[|he dies]"),
            (
                "so: <span data-mx-spoiler=\"the end\">he <b>d</b>ies</span>, sadly",
                "so: [the end|he dies], sadly",
            ),
            ("<SPAN DATA-MX-SPOILER>x</SPAN> y", "[|x] y"),
            // Nested, and never closed: rather too much is covered than too little.
            (
                "a <span data-mx-spoiler>b <span data-mx-spoiler=c>d</span> e</span> f",
                "a [|b d e] f",
            ),
            ("a <span data-mx-spoiler>b <i>c", "a [|b c]"),
            (
                "<p data-mx-spoiler>one</p><p>two</p>\n<p>three</p>",
                "[|one]\ntwo\nthree",
            ),
            ("one<br>two<br/>three", "one\ntwo\nthree"),
            ("<pre>a\nb</pre>c\nd", "a\nb\nc d"),
            (
                "<mx-reply>who?</mx-reply><span data-mx-spoiler>he &amp; she</span>",
                "[|he & she]",
            ),
            ("<img data-mx-spoiler alt=\":x:\"> y", ":x: y"),
            ("", ""),
        ] {
            assert_eq!(read(html), expected, "{html}");
        }
        assert_eq!(
            text_with_spoilers(&format!("<b {}", "x".repeat(9000))),
            None
        );
    }
}
