//! A text that the bot says, written as plain text and as HTML at once.

use serde::{Deserialize, Serialize};

/// A text that the bot says, as plain text and as HTML. Its methods escape their arguments.
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

    /// Returns `a`, `a and b`, or `a, b and c`, each standing out.
    pub(super) fn names(names: impl Iterator<Item = String>) -> NoticeText {
        let names: Vec<String> = names.collect();
        let mut text = NoticeText::default();
        for (index, name) in names.iter().enumerate() {
            text = match index {
                0 => text,
                _ if index + 1 == names.len() => text.and(" and "),
                _ => text.and(", "),
            };
            text = text.strong(name);
        }
        text
    }

    /// Adds words.
    pub fn and(mut self, words: &str) -> NoticeText {
        self.plain.push_str(words);
        escape(words, &mut self.html);
        self
    }

    /// Adds a name that stands out.
    pub fn strong(mut self, words: &str) -> NoticeText {
        self.plain.push_str(words);
        self.wrap("strong", words)
    }

    /// Adds something to type or to copy.
    pub fn code(mut self, words: &str) -> NoticeText {
        self.plain.push('`');
        self.plain.push_str(words);
        self.plain.push('`');
        self.wrap("code", words)
    }

    /// Adds a link. The plain text shows its address.
    pub fn link(mut self, url: &str) -> NoticeText {
        self.plain.push_str(url);
        self.html.push_str("<a href=\"");
        escape(url, &mut self.html);
        self.html.push_str("\">");
        escape(url, &mut self.html);
        self.html.push_str("</a>");
        self
    }

    /// Begins a new line.
    pub fn line(mut self) -> NoticeText {
        self.plain.push('\n');
        self.html.push_str("<br>");
        self
    }

    /// Begins a new paragraph.
    pub fn paragraph(self) -> NoticeText {
        self.line().line()
    }

    /// Adds a quote of what somebody else wrote.
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

    /// Begins a new line of a list.
    pub fn item(self) -> NoticeText {
        self.line().and("• ")
    }

    /// Adds another text.
    pub fn append(mut self, more: NoticeText) -> NoticeText {
        self.plain.push_str(&more.plain);
        self.html.push_str(&more.html);
        self
    }

    fn wrap(mut self, tag: &str, words: &str) -> NoticeText {
        self.html.push_str(&format!("<{tag}>"));
        escape(words, &mut self.html);
        self.html.push_str(&format!("</{tag}>"));
        self
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("<br>"),
            other => out.push(other),
        }
    }
}

/// Turns an error's words into a sentence: `sam is taken` becomes `Sam is taken.`
pub(super) fn sentence(words: &str) -> String {
    let mut chars = words.chars();
    let mut sentence: String = match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => return String::new(),
    };
    if !sentence.ends_with(['.', '?', '!']) {
        sentence.push('.');
    }
    sentence
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
            "a &lt;b&gt;<strong>&quot;&amp;&#39;</strong><code>&lt;script&gt;</code>\
             <a href=\"https://x/&quot;&gt;&lt;img src=x&gt;\">https://x/&quot;&gt;&lt;img \
             src=x&gt;</a><br>1<br>2"
        );
    }

    #[test]
    fn errors_become_sentences() {
        assert_eq!(sentence("you have 5 handles"), "You have 5 handles.");
        assert_eq!(sentence("did you mean it?"), "Did you mean it?");
        assert_eq!(sentence(""), "");
    }
}
