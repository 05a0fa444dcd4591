//! Text by other people, made fit for our own sentences and for HTML.

use ruma::UserId;
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// Returns somebody's display name, cleaned like [`clean`]. Falls back to their localpart.
pub fn clean_name(name: Option<&str>, user: &UserId) -> String {
    let cleaned = clean(name.unwrap_or_default());
    if !cleaned.is_empty() {
        return cleaned;
    }
    let localpart = clean(user.localpart());
    if localpart.is_empty() {
        "Someone".to_owned()
    } else {
        localpart
    }
}

/// Returns a name fit for our own sentences: no control characters, direction overrides, combining
/// marks, `@` or `:`, at most 48 characters. Empty if nothing is left.
pub fn clean(text: &str) -> String {
    let visible = text.chars().take(500).nfc().filter(|c| {
        !c.is_control() && !is_combining_mark(*c) && !is_invisible(*c) && !matches!(c, '@' | ':')
    });
    let mut out = String::new();
    for word in visible.take(48).collect::<String>().split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Returns a Matrix ID as it can be shown in our texts: characters that are invisible or begin a line
/// are replaced by a mark. Localparts of other servers can hold almost anything.
pub fn fit_to_show(id: &str) -> String {
    let fit = |c: char| c.is_ascii_graphic() || c.is_alphanumeric();
    id.chars()
        .map(|c| {
            if fit(c) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect()
}

/// Returns whether a character is not seen itself: fillers, variation selectors, tags, and format
/// characters that only change how the text around them is shown.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Appends text to HTML, escaped for text nodes and for attribute values in double quotes.
pub fn push_escaped(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
    }
}

/// Appends text to HTML like [`push_escaped`], with `<br>` for each line break.
pub fn push_escaped_lines(html: &mut String, text: &str) {
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            html.push_str("<br>");
        }
        push_escaped(html, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_makes_no_html() {
        let mut html = String::from("<p title=\"");
        push_escaped(&mut html, "a \"b\"");
        html.push_str("\">");
        push_escaped_lines(&mut html, "<i> & it's\n\n&amp;\n");
        assert_eq!(
            html,
            "<p title=\"a &quot;b&quot;\">&lt;i&gt; &amp; it's<br><br>&amp;amp;<br>"
        );
    }
}
