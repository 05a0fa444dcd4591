//! A text of the bot, written as plain text and as HTML at once.

use ruma::UserId;
use serde::{Deserialize, Serialize};

use crate::text::push_escaped_lines;

/// A text of the bot, as plain text and as HTML. Its methods escape their arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeText {
    /// The `body`.
    pub plain: String,
    /// The `formatted_body`, in `org.matrix.custom.html`.
    pub html: String,
}

impl NoticeText {
    /// Starts a text with these words.
    pub fn new(words: &str) -> NoticeText {
        NoticeText::default().and(words)
    }

    /// Returns `a`, `a and b`, or `a, b and c`, each in bold.
    pub(super) fn names(names: impl Iterator<Item = String>) -> NoticeText {
        let names: Vec<String> = names.collect();
        let mut text = NoticeText::default();
        for (index, name) in names.iter().enumerate() {
            text = match index {
                0 => text,
                _ if index + 1 == names.len() => text.and(" and "),
                _ => text.and(", "),
            };
            text = text.name(name);
        }
        text
    }

    /// Adds words.
    pub fn and(mut self, words: &str) -> NoticeText {
        self.plain.push_str(words);
        push_escaped_lines(&mut self.html, words);
        self
    }

    /// Adds words in bold.
    pub fn strong(mut self, words: &str) -> NoticeText {
        self.plain.push_str(words);
        self.wrap("strong", words)
    }

    /// Adds the name of a person or a handle in bold. A Matrix ID is set as code, so that clients
    /// do not turn it into a pill, which hides it behind a display name.
    pub fn name(mut self, name: &str) -> NoticeText {
        self.plain.push_str(name);
        let tag = if UserId::parse(name).is_ok() {
            "code"
        } else {
            "strong"
        };
        self.wrap(tag, name)
    }

    /// Adds words to type.
    pub fn code(mut self, words: &str) -> NoticeText {
        self.plain.push('`');
        self.plain.push_str(words);
        self.plain.push('`');
        self.wrap("code", words)
    }

    /// Adds a link. Clients show links to people and rooms as pills, which hide the address, so the
    /// HTML has the address as code too, to be read and copied.
    pub fn link(mut self, url: &str) -> NoticeText {
        self.plain.push_str(url);
        self = self.wrap("code", url);
        self.html.push_str(" (<a href=\"");
        push_escaped_lines(&mut self.html, url);
        self.html.push_str("\">open</a>)");
        self
    }

    /// Begins a new line. After a list, the HTML is on a new line already.
    pub fn line(mut self) -> NoticeText {
        self.plain.push('\n');
        if !self.html.ends_with("</ul>") {
            self.html.push_str("<br>");
        }
        self
    }

    /// Begins a new paragraph.
    pub fn paragraph(self) -> NoticeText {
        self.line().line()
    }

    /// Adds a list below the text.
    pub fn list(mut self, items: impl IntoIterator<Item = NoticeText>) -> NoticeText {
        self.html.push_str("<ul>");
        for item in items {
            self.plain.push_str("\n• ");
            self.plain.push_str(&item.plain);
            self.html.push_str("<li>");
            self.html.push_str(&item.html);
            self.html.push_str("</li>");
        }
        self.html.push_str("</ul>");
        self
    }

    /// Adds a quote of somebody else's words.
    pub fn quote(mut self, words: &str) -> NoticeText {
        self.plain.push('\n');
        for line in words.lines() {
            self.plain.push_str("> ");
            self.plain.push_str(line);
            self.plain.push('\n');
        }
        self.plain.push('\n');
        self.wrap("blockquote", words)
    }

    /// Adds another text.
    pub fn append(mut self, more: NoticeText) -> NoticeText {
        self.plain.push_str(&more.plain);
        self.html.push_str(&more.html);
        self
    }

    fn wrap(mut self, tag: &str, words: &str) -> NoticeText {
        self.html.push_str(&format!("<{tag}>"));
        push_escaped_lines(&mut self.html, words);
        self.html.push_str(&format!("</{tag}>"));
        self
    }
}

/// Turns an error's words into a sentence: `sam is taken` becomes `Sam is taken.` Matrix IDs in it
/// are set as code.
pub(super) fn sentence(words: &str) -> NoticeText {
    let mut chars = words.chars();
    let mut sentence: String = chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default();
    if !sentence.is_empty() && !sentence.ends_with(['.', '?', '!']) {
        sentence.push('.');
    }
    let mut text = NoticeText::default();
    for word in sentence.split_inclusive(' ') {
        let id = word.trim_end_matches([' ', ',', ';', '.']);
        text = if id.starts_with('@') && UserId::parse(id).is_ok() {
            text.name(id).and(&word[id.len()..])
        } else {
            text.and(word)
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_of_others_stays_text() {
        let text = NoticeText::new("a <b>")
            .strong("\"&'")
            .code("<script>")
            .link("https://x/\"><img src=x>")
            .line()
            .and("1\n2");
        assert_eq!(
            text.plain,
            "a <b>\"&'`<script>`https://x/\"><img src=x>\n1\n2"
        );
        assert_eq!(
            text.html,
            "a &lt;b&gt;<strong>&quot;&amp;'</strong><code>&lt;script&gt;</code>\
             <code>https://x/&quot;&gt;&lt;img src=x&gt;</code> (<a \
             href=\"https://x/&quot;&gt;&lt;img src=x&gt;\">open</a>)<br>1<br>2"
        );
    }

    #[test]
    fn errors_become_sentences() {
        for (words, expected) in [
            ("you have 5 handles", "You have 5 handles."),
            ("did you mean it?", "Did you mean it?"),
            ("", ""),
        ] {
            assert_eq!(sentence(words).plain, expected);
        }
    }

    #[test]
    fn matrix_ids_are_no_pills_and_lists_are_lists() {
        let text = NoticeText::new("You:")
            .list([
                NoticeText::default().name("@sam"),
                NoticeText::default().name("@sam:example.org"),
            ])
            .line()
            .append(sentence("@kim:example.org is a Matrix ID"));
        assert_eq!(
            text.plain,
            "You:\n• @sam\n• @sam:example.org\n@kim:example.org is a Matrix ID."
        );
        assert_eq!(
            text.html,
            "You:<ul><li><strong>@sam</strong></li><li><code>@sam:example.org</code></li></ul>\
             <code>@kim:example.org</code> is a Matrix ID."
        );
    }
}
