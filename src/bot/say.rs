//! What the bot says, as plain text and as HTML at once.

use crate::text::push_escaped_lines;

/// A text in the making. Whatever is put in is escaped; only these methods make HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Say {
    plain: String,
    html: String,
}

impl Say {
    /// Begins with these words.
    pub fn text(words: &str) -> Say {
        Say::default().and(words)
    }

    /// Goes on with these words.
    pub fn and(mut self, words: &str) -> Say {
        self.plain.push_str(words);
        push_escaped_lines(&mut self.html, words);
        self
    }

    /// Something that stands out.
    pub fn strong(mut self, words: &str) -> Say {
        self.plain.push_str(words);
        self.wrap("strong", words)
    }

    /// Something to type.
    pub fn code(mut self, words: &str) -> Say {
        self.plain.push('`');
        self.plain.push_str(words);
        self.plain.push('`');
        self.wrap("code", words)
    }

    /// A link. In the plain text it stands for itself.
    pub fn link(mut self, url: &str) -> Say {
        self.plain.push_str(url);
        self.html.push_str("<a href=\"");
        push_escaped_lines(&mut self.html, url);
        self.html.push_str("\">");
        push_escaped_lines(&mut self.html, url);
        self.html.push_str("</a>");
        self
    }

    /// A new line.
    pub fn line(mut self) -> Say {
        self.plain.push('\n');
        self.html.push_str("<br>");
        self
    }

    /// A new paragraph.
    pub fn par(self) -> Say {
        self.line().line()
    }

    /// What somebody else wrote.
    pub fn quote(mut self, words: &str) -> Say {
        self.plain.push('\n');
        for line in words.lines() {
            self.plain.push_str("> ");
            self.plain.push_str(line);
            self.plain.push('\n');
        }
        self.plain.push('\n');
        self.wrap("blockquote", words)
    }

    /// A new line of a list.
    pub fn item(self) -> Say {
        self.line().and("• ")
    }

    /// Goes on with what was put together elsewhere.
    pub fn then(mut self, more: Say) -> Say {
        self.plain.push_str(&more.plain);
        self.html.push_str(&more.html);
        self
    }

    /// The plain text.
    pub fn plain(&self) -> &str {
        &self.plain
    }

    /// The HTML.
    pub fn html(&self) -> &str {
        &self.html
    }

    fn wrap(mut self, tag: &str, words: &str) -> Say {
        self.html.push_str(&format!("<{tag}>"));
        push_escaped_lines(&mut self.html, words);
        self.html.push_str(&format!("</{tag}>"));
        self
    }
}

/// An error's words as a sentence: `sam is taken` becomes `Sam is taken.`
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
        let say = Say::text("a <b>")
            .strong("\"&'")
            .code("<script>")
            .link("https://x/\"><img src=x>")
            .line()
            .and("1\n2");
        assert_eq!(
            say.plain(),
            "a <b>\"&'`<script>`https://x/\"><img src=x>\n1\n2"
        );
        assert_eq!(
            say.html(),
            "a &lt;b&gt;<strong>&quot;&amp;'</strong><code>&lt;script&gt;</code>\
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
