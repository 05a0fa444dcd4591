//! Splits large values into pieces that sled keeps in its log.
//!
//! sled writes every message of more than 131,052 bytes into a file of its own in `blobs/`, and
//! syncs none of these files: a power cut would lose records whose flush was confirmed. A message
//! is at most a whole page. A leaf has 17 records before it is split, and some 20 after a merge:
//! with values of less than [`PIECE_BYTES`] and the longest keys in use (four Matrix ids) it stays
//! below the limit.
//!
//! A value shorter than [`PIECE_BYTES`] is stored as it is. Of any other, the first [`PIECE_BYTES`]
//! are stored under its key. A check of the whole value (8 bytes) and the rest follow in pieces of
//! [`PIECE_BYTES`], the last of which is shorter and may be empty, under the keys 0xFF, key, number
//! of the piece (2 bytes, big endian). So the length of a piece shows whether more follow.

use crate::store::{StoreError, files::check_of};

/// Length of every piece of a value except the last, in bytes.
pub(in crate::store) const PIECE_BYTES: usize = 4096;
/// The first byte of the keys of pieces.
pub(super) const RESERVED: u8 = 0xFF;
/// Length of the check of a value, in bytes.
const CHECK_BYTES: usize = 8;

/// Returns whether other pieces follow this one.
pub(super) fn has_more(piece: &[u8]) -> bool {
    piece.len() == PIECE_BYTES
}

/// Returns the key of a piece after the first.
pub(super) fn piece_key(key: &[u8], number: u16) -> Vec<u8> {
    let mut piece = Vec::with_capacity(1 + key.len() + 2);
    piece.push(RESERVED);
    piece.extend_from_slice(key);
    piece.extend_from_slice(&number.to_be_bytes());
    piece
}

/// Splits a value into its first piece and the others.
pub(super) fn split(mut value: Vec<u8>) -> Result<(Vec<u8>, Vec<Vec<u8>>), StoreError> {
    if value.len() < PIECE_BYTES {
        return Ok((value, Vec::new()));
    }
    let limit = usize::from(u16::MAX) * PIECE_BYTES;
    if value.len() > limit {
        return Err(StoreError::TooLarge {
            table: "raw",
            what: "a value",
            size: value.len(),
            limit,
        });
    }
    let check = check_of(&value);
    let rest = [&check[..], &value[PIECE_BYTES..]].concat();
    value.truncate(PIECE_BYTES);
    let mut pieces: Vec<_> = rest.chunks(PIECE_BYTES).map(<[u8]>::to_vec).collect();
    if pieces.last().is_some_and(|last| has_more(last)) {
        pieces.push(Vec::new());
    }
    Ok((value, pieces))
}

/// Joins a value whose first piece is given. Returns `None` if the pieces are not of one value.
pub(super) fn join(
    key: &[u8],
    first: Vec<u8>,
    get: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Option<Vec<u8>>, StoreError> {
    if !has_more(&first) {
        return Ok(Some(first));
    }
    let mut rest = Vec::new();
    for number in 0..=u16::MAX {
        let Some(piece) = get(&piece_key(key, number))? else {
            return Ok(None);
        };
        rest.extend_from_slice(&piece);
        if !has_more(&piece) {
            break;
        }
    }
    let Some((check, rest)) = rest.split_first_chunk::<CHECK_BYTES>() else {
        return Ok(None);
    };
    let value = [&first, rest].concat();
    Ok((check_of(&value) == *check).then_some(value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_pieces_of_a_value_look_like_this_on_disk() {
        let (first, pieces) = split(vec![7; PIECE_BYTES - 1]).unwrap();
        assert_eq!((first.len(), pieces.len()), (PIECE_BYTES - 1, 0));
        let (first, pieces) = split(vec![7; PIECE_BYTES]).unwrap();
        assert_eq!(first, [7; PIECE_BYTES]);
        assert_eq!(pieces.len(), 1);
        assert_eq!(hex::encode(&pieces[0]), "c9ac7b0624824f84");
        let (_, pieces) = split(vec![7; 2 * PIECE_BYTES - CHECK_BYTES]).unwrap();
        let lengths: Vec<_> = pieces.iter().map(Vec::len).collect();
        assert_eq!(lengths, [PIECE_BYTES, 0]);
        assert_eq!(piece_key(b"ab", 258), b"\xFFab\x01\x02");
    }

    #[test]
    fn pieces_of_two_values_are_not_joined() {
        let stored = |fill| {
            let (first, pieces) = split(vec![fill; 20_000]).unwrap();
            let keys = (0..).map(|number| piece_key(b"k", number));
            let pieces: BTreeMap<_, _> = keys.zip(pieces).collect();
            (first, pieces)
        };
        let ((first, mut pieces), (other, _)) = (stored(1), stored(2));
        let joined = |first: &Vec<u8>, pieces: &BTreeMap<Vec<u8>, Vec<u8>>| {
            join(b"k", first.clone(), |key| Ok(pieces.get(key).cloned())).unwrap()
        };
        assert_eq!(joined(&first, &pieces), Some(vec![1; 20_000]));
        assert_eq!(joined(&other, &pieces), None);
        pieces.remove(&piece_key(b"k", 1));
        assert_eq!(joined(&first, &pieces), None);
    }
}
