//! The names of mentioned people in a plain text, which repeats what its HTML links.

use std::{cmp::Reverse, collections::BTreeMap, ops::Range};

use super::scrub::Scrubber;

/// Minimum length of a name that is replaced, in characters.
const NAME_CHARS_MIN: usize = 2;

/// Returns the text with the former names of mentioned people replaced by those of the links. Names
/// in addresses, in longer words and in what is replaced as an identifier stay.
pub(super) fn with_new_names(
    scrub: &Scrubber<'_>,
    text: &str,
    renamed: &[(String, String)],
) -> String {
    let long = |(said, _): &&(String, String)| said.chars().count() >= NAME_CHARS_MIN;
    let mut names: Vec<&(String, String)> = renamed.iter().filter(long).collect();
    if names.is_empty() {
        return text.to_owned();
    }
    // The longest first, so that no name is taken for a part of another.
    names.sort_by(|(one, _), (other, _)| {
        (Reverse(one.len()), one).cmp(&(Reverse(other.len()), other))
    });
    names.dedup_by(|(later, _), (said, _)| later == said);
    let mut pieces: BTreeMap<usize, (usize, Option<&str>)> = BTreeMap::new();
    for kept in kept_ranges(scrub, text) {
        pieces.insert(kept.start, (kept.end, None));
    }
    for (said, says) in names {
        for place in places(text, said) {
            let before = pieces.range(..place.end).next_back();
            if before.is_none_or(|(_, (end, _))| *end <= place.start) {
                pieces.insert(place.start, (place.end, Some(says)));
            }
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, (end, says)) in pieces {
        if let Some(says) = says {
            out.push_str(&text[at..start]);
            out.push_str(says);
            at = end;
        }
    }
    out.push_str(&text[at..]);
    out
}

/// Returns, in order and apart, what holds no names: identifiers with the whole links to them, and
/// the addresses of web pages.
fn kept_ranges(scrub: &Scrubber<'_>, text: &str) -> Vec<Range<usize>> {
    let identifiers = scrub.replacements(text).into_iter();
    let mut all: Vec<Range<usize>> = identifiers.map(|(range, _)| range).collect();
    let mut start = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        if let Some(scheme) = word.find("://") {
            all.push(start + scheme..start + word.trim_end().len());
        }
        start += word.len();
    }
    all.sort_by_key(|range| range.start);
    let mut out: Vec<Range<usize>> = Vec::new();
    for next in all {
        match out.last_mut() {
            Some(last) if next.start < last.end => last.end = last.end.max(next.end),
            _ => out.push(next),
        }
    }
    out
}

/// Returns where a name stands as a word of its own, with the `@` that some clients put before it.
fn places<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    text.match_indices(name).filter_map(move |(start, _)| {
        let (before, after) = (&text[..start], &text[start + name.len()..]);
        let bare = before.strip_suffix('@');
        let goes_on = goes_on(bare.unwrap_or(before), after) || bare.is_some() && is_server(after);
        (!goes_on).then(|| bare.unwrap_or(before).len()..start + name.len())
    })
}

/// Returns whether a word goes on before or after a name: `sam.smith`, `@_dm_sam`, `sam@example.org`.
fn goes_on(before: &str, after: &str) -> bool {
    let joins = |c: char| matches!(c, '.' | '_' | '-');
    let mut before = before.chars().rev();
    let begins_earlier = before.next().is_some_and(|last| {
        let further = before.next();
        let goes_on = further.is_some_and(|c| c.is_alphanumeric() || c == '@');
        last.is_alphanumeric() || joins(last) && goes_on
    });
    let mut after = after.chars();
    let ends_later = after.next().is_some_and(|next| {
        let further = after.next().is_some_and(char::is_alphanumeric);
        next.is_alphanumeric() || (joins(next) || next == '@') && further
    });
    begins_earlier || ends_later
}

/// Returns whether what follows a localpart is the server of a Matrix ID.
fn is_server(after: &str) -> bool {
    let server = after.strip_prefix(':');
    server.is_some_and(|server| server.starts_with(|c: char| c.is_alphanumeric() || c == '['))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::oracle::{ALICE, Direction, with_context};

    fn renamed(text: &str, names: &[(&str, &str)]) -> String {
        let names = names
            .iter()
            .map(|(said, says)| ((*said).to_owned(), (*says).to_owned()));
        let names: Vec<(String, String)> = names.collect();
        with_context(Direction::ToSam, true, |context| {
            with_new_names(&Scrubber::new(context), text, &names)
        })
    }

    #[test]
    fn a_name_is_replaced_as_a_word_of_its_own() {
        for (text, expected) in [
            ("sam: look", "@kim: look"),
            ("@sam: look", "@kim: look"),
            ("_sam_ and (sam), sam.", "_@kim_ and (@kim), @kim."),
            ("sam:look", "@kim:look"),
            ("sam.smith, sam_2, sam-like", "sam.smith, sam_2, sam-like"),
            ("samuel and flotsam", "samuel and flotsam"),
            (
                "@_dm_sam:hs.test @sam:third.example",
                "@_dm_sam:hs.test @sam:third.example",
            ),
            (
                "sam@example.org me@sam.example",
                "sam@example.org me@sam.example",
            ),
            (
                "https://example.org/sam sam",
                "https://example.org/sam @kim",
            ),
            (
                "[sam](https://example.org/sam)",
                "[@kim](https://example.org/sam)",
            ),
        ] {
            assert_eq!(renamed(text, &[("sam", "@kim")]), expected, "{text}");
        }
    }

    #[test]
    fn a_link_to_a_person_is_left_whole() {
        let link = format!("[Alice [x] sam](https://matrix.to/#/{ALICE})");
        assert_eq!(
            renamed(&format!("{link} sam"), &[("sam", "@kim")]),
            format!("{link} @kim")
        );
    }

    #[test]
    fn no_name_is_replaced_in_another() {
        let names = [
            ("Al", "@Kim"),
            ("Al Bo", "@Bo Kim"),
            ("Kim", "@Al"),
            ("x", "@y"),
        ];
        assert_eq!(
            renamed("Al Bo, Al, Kim, x", &names),
            "@Bo Kim, @Kim, @Al, x"
        );
    }
}
