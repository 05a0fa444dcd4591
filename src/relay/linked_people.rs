//! The people to whom a text links, for those who read it and do not pass it on.

use ruma::OwnedUserId;

use super::html::{
    hidden::hidden_length,
    pieces::{Piece, pieces},
};
use crate::handle::linked_user;

/// Maximum number of links to people that are read.
const LINKS_MAX: usize = 20;

/// Maximum length of HTML that is read, in bytes.
const HTML_BYTES_MAX: usize = 64 * 1024;

/// Returns the people to whom HTML links, each with the text of the link. The quote of a reply is
/// left out. Returns `None` if it is too much to be a person's text.
pub fn linked_people(html: &str) -> Option<Vec<(String, OwnedUserId)>> {
    if html.len() > HTML_BYTES_MAX {
        return None;
    }
    let mut people = Vec::new();
    let mut link: Option<(String, OwnedUserId)> = None;
    let pieces = pieces(html)?;
    let mut quoted_until = 0;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            _ if at < quoted_until => {}
            Piece::Open(tag, _) if tag == "mx-reply" => {
                quoted_until = at + 1 + hidden_length(tag, &pieces[at + 1..]);
            }
            Piece::Open(tag, attributes) if tag == "a" => {
                people.extend(link.take());
                let mut addresses = attributes.iter().filter(|(name, _)| name == "href");
                let address = addresses.next().map(|(_, address)| address.trim());
                let user = address.and_then(|it| linked_user(it).ok().flatten());
                link = user.map(|user| (String::new(), user));
            }
            Piece::Close(tag) if tag == "a" => people.extend(link.take()),
            Piece::Text(text) => {
                if let Some((shown, _)) = &mut link {
                    shown.push_str(text);
                }
            }
            _ => {}
        }
        if people.len() > LINKS_MAX {
            return None;
        }
    }
    people.extend(link);
    Some(people)
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;

    #[test]
    fn links_to_people_are_found_with_their_text() {
        let kim = || owned_user_id!("@kim:far.example");
        for (html, expected) in [
            ("block Kim", vec![]),
            (
                "block <a href=\"https://matrix.to/#/@kim:far.example\">Kim <b>D&oacute;e</b></a>!",
                vec![("Kim Dóe".to_owned(), kim())],
            ),
            (
                "<a href='https://matrix.to/#/%40kim%3Afar.example'>Kim",
                vec![("Kim".to_owned(), kim())],
            ),
            (
                "<mx-reply><a href=\"https://matrix.to/#/@kim:far.example\">Kim</a></mx-reply>hi",
                vec![],
            ),
            // Some clients forget its end, and some quote a quote.
            (
                "<mx-reply><blockquote><a href=\"https://matrix.to/#/@bot:far.example\">bot</a> help\
                 </blockquote>block <a href=\"https://matrix.to/#/@kim:far.example\">Kim</a>",
                vec![("Kim".to_owned(), kim())],
            ),
            (
                "<mx-reply><mx-reply>a</mx-reply><a href=\"https://matrix.to/#/@bot:far.example\">bot</a>\
                 </mx-reply>block <a href=\"https://matrix.to/#/@kim:far.example\">Kim</a>",
                vec![("Kim".to_owned(), kim())],
            ),
            (
                "<a href=\"https://matrix.to/#/!room:far.example\">a</a> <a href=\"https://x.org\">b</a>",
                vec![],
            ),
        ] {
            assert_eq!(linked_people(html), Some(expected), "{html}");
        }
        let many = "<a href=\"https://matrix.to/#/@kim:far.example\">Kim</a>".repeat(21);
        assert_eq!(linked_people(&many), None);
        assert_eq!(linked_people(&"x".repeat(64 * 1024 + 1)), None);
    }
}
