//! How far an element reaches whose contents are not passed on.

use super::{
    super::identifiers::link,
    attributes::{is_block, is_raw_text, is_void},
    pieces::Piece,
};

/// Returns how many of the pieces after the start tag of a hidden element belong to it.
///
/// An element without an end reaches to the end of the HTML, but for a quoted message
/// (`mx-reply`): some clients forget its end, and what follows is what the person has written.
pub(in crate::relay) fn hidden_length(tag: &str, after: &[Piece]) -> usize {
    if is_void(tag) {
        return 0;
    }
    if let Some(length) = length(tag, after) {
        return length;
    }
    if tag == "mx-reply" {
        return unclosed_quote_length(after);
    }
    after.len()
}

/// Returns how many pieces there are up to the end tag of an element, and with it. Elements of the
/// same name in it have their own.
fn length(tag: &str, after: &[Piece]) -> Option<usize> {
    let mut depth = 1_usize;
    for (at, piece) in after.iter().enumerate() {
        match piece {
            Piece::Open(inner, _) if inner == tag && !is_raw_text(tag) => depth += 1,
            Piece::Close(inner) if inner == tag => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Returns how many pieces are the quote in an `mx-reply` without an end: the block that it begins
/// with. Without one nobody knows where it ends, and a link to a message shows that there is one.
fn unclosed_quote_length(after: &[Piece]) -> usize {
    let is_blank = |piece: &&Piece| matches!(piece, Piece::Text(text) if text.trim().is_empty());
    let blank = after.iter().take_while(is_blank).count();
    let rest = after.get(blank..).unwrap_or_default();
    if let Some((Piece::Open(tag, _), inside)) = rest.split_first()
        && is_block(tag)
        && !is_void(tag)
    {
        return match length(tag, inside) {
            Some(length) => blank + 1 + length,
            None => after.len(),
        };
    }
    let links_to_event = after.iter().any(|piece| match piece {
        Piece::Open(tag, attributes) if tag == "a" => attributes
            .iter()
            .any(|(name, value)| name == "href" && link::event_in(value).is_some()),
        _ => false,
    });
    if links_to_event { after.len() } else { 0 }
}
