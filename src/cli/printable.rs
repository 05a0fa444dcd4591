//! Text from outside, made safe for a log or a terminal.

use std::fmt::{self, Write};

/// Maximum length of a value in the log, in characters.
pub(super) const VALUE_CHARS_MAX: usize = 255;
/// Maximum length of a sentence of our own in the log, in characters. It may quote a value or two.
pub(super) const SENTENCE_CHARS_MAX: usize = 2048;

/// A text that is shown with misleading characters escaped: those that control a terminal, begin a
/// line, or change the direction of the text after them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printable<T> {
    text: T,
    chars_max: usize,
}

impl<T: fmt::Display> Printable<T> {
    /// Returns the whole text.
    pub(super) fn whole(text: T) -> Self {
        Self::cut(text, usize::MAX)
    }

    /// Returns the first `chars_max` characters, with an ellipsis if there are more.
    pub(super) fn cut(text: T, chars_max: usize) -> Self {
        Self { text, chars_max }
    }
}

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaper = Escaper {
            out: f,
            left: self.chars_max,
            cut: false,
        };
        write!(escaper, "{}", self.text)
    }
}

/// Passes on what is written to it, escaped and cut.
struct Escaper<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    left: usize,
    cut: bool,
}

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                // The formatter still writes the rest, which is dropped here.
                if !std::mem::replace(&mut self.cut, true) {
                    self.out.write_char('…')?;
                }
                return Ok(());
            }
            self.left -= 1;
            match c {
                '\n' => self.out.write_str("\\n")?,
                '\r' => self.out.write_str("\\r")?,
                '\t' => self.out.write_str("\\t")?,
                c if is_misleading(c) => write!(self.out, "{}", c.escape_unicode())?,
                c => self.out.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Returns `true` for control characters (C0, DEL, C1), line and paragraph separators, direction
/// marks and overrides, and other characters without a shape of their own.
fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> String {
        Printable::whole(text).to_string()
    }

    #[test]
    fn nothing_that_controls_a_terminal_or_begins_a_line_comes_through() {
        for c in ('\0'..='\u{9f}').filter(|c| c.is_control()) {
            let shown = whole(&format!("a{c}b"));
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            assert!(shown.starts_with("a\\") && shown.ends_with('b'), "{shown}");
        }
        for c in ['\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{200f}'] {
            assert_eq!(whole(&c.to_string()), format!("\\u{{{:x}}}", c as u32));
        }
        assert_eq!(whole("a\nb\r\x1b[31m"), "a\\nb\\r\\u{1b}[31m");
    }

    #[test]
    fn what_people_read_stays_as_it_is() {
        for text in [
            "!room:example.org",
            "naïve Ünïcode — “ok”",
            "సమీర",
            "C:\\x",
            "→ 7 s",
        ] {
            assert_eq!(whole(text), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_by_characters_as_they_came() {
        let cut = |text: &str| Printable::cut(text, 5).to_string();
        assert_eq!(cut("12345"), "12345");
        assert_eq!(cut("123456"), "12345…");
        assert_eq!(cut("\n\n\n\n\n\n"), "\\n\\n\\n\\n\\n…");
        // Written in pieces.
        assert_eq!(
            Printable::cut(format_args!("{}{}{}", "1234", "56", "78"), 5).to_string(),
            "12345…"
        );
    }
}
