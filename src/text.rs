//! Text by other people, made fit for our own sentences and for HTML.

use std::borrow::Cow;

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

/// Maximum number of combining marks after a letter. Vietnamese and Hindi need two or three; more
/// are written to cover the lines above and below.
const MARKS_MAX: usize = 4;

/// Maximum length of a name, in characters without their combining marks.
const NAME_CHARS_MAX: usize = 48;

/// Returns a name fit for our own sentences: no control characters, direction overrides or other
/// invisible characters, `@` or `:`, few combining marks, at most 48 characters without these. Empty
/// if nothing is left.
pub fn clean(text: &str) -> String {
    let shown = text.chars().take(500).filter(|c| !matches!(c, '@' | ':'));
    let text: String = visible(shown.nfc()).into_iter().nfc().collect();
    let mut out = String::new();
    let (mut letters, mut marks) = (0, 0);
    for c in text.chars() {
        if is_combining_mark(c) {
            let has_letter = out.chars().next_back().is_some_and(|c| !c.is_whitespace());
            marks += 1;
            if has_letter && marks <= MARKS_MAX {
                out.push(c);
            }
            continue;
        }
        if !joins(c) {
            letters += 1;
            marks = 0;
        }
        if letters > NAME_CHARS_MAX {
            break;
        }
        if !c.is_whitespace() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    // A name that was cut may end with what joined it to the rest.
    out.trim_end_matches(|c| c == ' ' || is_joiner(c))
        .to_owned()
}

/// Returns the characters that people see, with the joiners that their scripts need: U+200C and
/// U+200D between letters, U+200D and U+FE0F in emoji.
pub fn visible(text: impl IntoIterator<Item = char>) -> Vec<char> {
    let seen = |c: &char| !c.is_control() && (!is_invisible(*c) || joins(*c));
    let all: Vec<char> = text.into_iter().filter(seen).collect();
    let mut out: Vec<char> = Vec::with_capacity(all.len());
    // The last letter or emoji, and whether it has a joiner.
    let (mut before, mut is_joined) = (None, false);
    for (at, &c) in all.iter().enumerate() {
        let keeps = match c {
            '\u{FE0F}' => out.last().is_some_and(|last| is_emoji(*last)),
            c if is_joiner(c) => {
                let after = all[at..].iter().copied().find(|c| stands_alone(*c));
                let between =
                    |is: fn(char) -> bool| before.is_some_and(is) && after.is_some_and(is);
                let is_needed = between(joins_letters) || c == '\u{200D}' && between(is_emoji);
                is_needed && !std::mem::replace(&mut is_joined, is_needed)
            }
            c => {
                if stands_alone(c) {
                    (before, is_joined) = (Some(c), false);
                }
                true
            }
        };
        if keeps {
            out.push(c);
        }
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

/// Returns whether a character is none that changes the one before it or joins it to the next.
fn stands_alone(c: char) -> bool {
    let is_skin_tone = matches!(c, '\u{1F3FB}'..='\u{1F3FF}');
    !joins(c) && !is_combining_mark(c) && !is_skin_tone
}

/// Returns whether a character is invisible and has a meaning in some scripts or in emoji.
fn joins(c: char) -> bool {
    is_joiner(c) || c == '\u{FE0F}'
}

/// Returns whether a character says whether its neighbours are joined.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}')
}

fn is_emoji(c: char) -> bool {
    matches!(c,
        '\u{2190}'..='\u{2BFF}' | '\u{3030}' | '\u{303D}' | '\u{3297}' | '\u{3299}'
        | '\u{1F000}'..='\u{1FAFF}')
}

/// Returns whether a letter belongs to a script that writes joiners, from Hebrew and Arabic to the
/// scripts of South and South-East Asia.
fn joins_letters(c: char) -> bool {
    c.is_alphanumeric()
        && matches!(c,
            '\u{0590}'..='\u{109F}' | '\u{1700}'..='\u{18AF}' | '\u{1900}'..='\u{1C7F}'
            | '\u{A800}'..='\u{AAFF}' | '\u{ABC0}'..='\u{ABFF}' | '\u{FB1D}'..='\u{FDFF}'
            | '\u{FE70}'..='\u{FEFC}' | '\u{10A00}'..='\u{11FFF}')
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

/// Returns whether a character overrides, embeds or isolates a direction of writing: then a text
/// can be shown in another order than the one in which it is read and searched. Marks that only say
/// of which direction they are (U+200E, U+200F, U+061C) are none of these.
pub fn turns_text(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Returns whether a character overrides the direction of writing: what follows is shown backwards.
pub fn is_override(c: char) -> bool {
    matches!(c, '\u{202D}' | '\u{202E}')
}

/// Returns a text without the characters that turn it.
pub fn without_turns(text: &str) -> Cow<'_, str> {
    if text.contains(turns_text) {
        Cow::Owned(text.replace(turns_text, ""))
    } else {
        Cow::Borrowed(text)
    }
}

/// Returns a text by somebody else as it may stand beside a sentence of ours: with `\n` for each line
/// break, without what turns it and without other control characters than tabs, and with few
/// combining marks on each letter. Nothing of it then looks as if it stood outside its quote.
pub fn fit_to_quote(text: &str) -> String {
    let text = with_plain_breaks(text);
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        if turns_text(c) || c.is_control() && !matches!(c, '\n' | '\t') {
            continue;
        }
        if is_combining_mark(c) {
            marks += 1;
        } else if !joins(c) {
            marks = 0;
        }
        if marks <= MARKS_MAX || !is_combining_mark(c) {
            out.push(c);
        }
    }
    out
}

/// Returns a text with `\n` for each line break, whatever character it is written with.
pub fn with_plain_breaks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push('\n');
            }
            '\u{B}' | '\u{C}' | '\u{85}' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            c => out.push(c),
        }
    }
    out
}

/// Returns whether a text shows nothing.
pub fn is_blank(text: &str) -> bool {
    let unseen = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c);
    text.chars().all(unseen)
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_keep_the_marks_and_joiners_of_their_scripts() {
        for name in [
            "सुनीता देवी",
            "สมชัย ใจดี",
            "தமிழ்செல்வி",
            "শিউলি",
            "র\u{200d}\u{9cd}যাব",
            "မြန်မာ",
            "علی\u{200c}رضا",
            "שָׁלוֹם",
            "👩\u{200d}🚀 Ana",
            "🧑🏽\u{200d}✈\u{fe0f} Bo",
            "Nguyễn",
            "Zoë",
        ] {
            assert_eq!(clean(name), name);
        }
        for (name, shown) in [
            ("Z\u{200d}o\u{200c}ë", "Zoë"),
            ("а\u{200d}б", "аб"),
            ("\u{200d}", ""),
            ("علی\u{200c} ", "علی"),
            ("ع\u{200c}\u{200c}\u{200d}ل", "ع\u{200c}ل"),
            ("👩\u{200d} 🚀", "👩 🚀"),
            ("\u{301}a \u{302}b", "a b"),
            ("e\u{200d}\u{301}", "é"),
            ("a\u{315}\u{315}\u{315}b", "a\u{315}\u{315}\u{315}b"),
            ("a\u{20dd}", "a\u{20dd}"),
            ("\u{202e}nimda\u{2066}", "nimda"),
            ("a\u{fe0f}b", "ab"),
        ] {
            assert_eq!(clean(name), shown, "{name:?}");
        }
        let covered = format!("a{}b", "\u{315}".repeat(20));
        assert_eq!(clean(&covered), format!("a{}b", "\u{315}".repeat(4)));
        let long = "क\u{94d}\u{200d}".repeat(100);
        let cut = clean(&long);
        assert_eq!(cut.matches('क').count(), 48);
        assert!(cut.ends_with('\u{94d}'));
    }

    proptest! {
        #[test]
        fn a_clean_name_stays_as_it_is(
            name in "[a-e@: कई्\u{93f}ل\u{301}\u{315}\u{200b}-\u{200f}\u{fe0f}👩🚀🏽✈\u{7}]{0,80}|.{0,80}"
        ) {
            let once = clean(&name);
            prop_assert_eq!(clean(&once), once.clone());
            prop_assert!(!once.contains(['@', ':']));
            prop_assert!(once.chars().count() <= 48 * (3 + MARKS_MAX));
            let mut chars = once.chars();
            prop_assert!(chars.all(|c| !c.is_control() && (!is_invisible(c) || joins(c))));
        }
    }

    #[test]
    fn every_line_break_is_one() {
        let text = "a\r\nb\rc\u{b}d\u{c}e\u{85}f\u{2028}g\u{2029}h\n\r\n";
        assert_eq!(with_plain_breaks(text), "a\nb\nc\nd\ne\nf\ng\nh\n\n");
    }

    #[test]
    fn what_turns_a_text_goes_and_the_marks_of_scripts_stay() {
        for (text, expected) in [
            ("send it to \u{202e}cod.exe", "send it to cod.exe"),
            ("\u{2067}a\u{2069} \u{202a}b\u{202c}", "a b"),
            (
                "\u{200f}שלום\u{200e} \u{61c}x",
                "\u{200f}שלום\u{200e} \u{61c}x",
            ),
            ("علی\u{200c}رضا", "علی\u{200c}رضا"),
        ] {
            assert_eq!(without_turns(text), expected);
            assert_eq!(fit_to_quote(text), expected);
        }
    }

    #[test]
    fn a_quote_has_few_marks_on_a_letter_and_plain_breaks() {
        let covered = format!("a{}\u{7}b\r\n\tc", "\u{301}".repeat(4000));
        let expected = format!("a{}b\n\tc", "\u{301}".repeat(4));
        assert_eq!(fit_to_quote(&covered), expected);
        let joined = format!("a{0}\u{200d}{0}b", "\u{301}".repeat(3));
        assert_eq!(fit_to_quote(&joined).matches('\u{301}').count(), 4);
        for text in [
            "1\u{fe0f}\u{20e3}",
            "र\u{200d}\u{94d}य",
            "Nguyễn",
            "שָׁלוֹם",
            "\n\n> x",
        ] {
            assert_eq!(fit_to_quote(text), text);
        }
    }

    #[test]
    fn what_shows_nothing_is_blank() {
        for text in ["", " \t\n", "\u{3164}\u{200b}", "\u{7}"] {
            assert!(is_blank(text), "{text:?}");
        }
        assert!(!is_blank(" . "));
    }

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
