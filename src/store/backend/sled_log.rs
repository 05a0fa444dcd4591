//! Finds what sled will skip of its log, before sled opens it.
//!
//! When sled opens, it reads the part of its log since its last snapshot. Near the end of the log,
//! an incomplete message is the end: everything after it is dropped, and the batch number shows if
//! confirmed batches are missing. Further back, sled skips the rest of the segment without an error
//! and continues with the next one. That is right for a segment that was free and partly
//! overwritten. In a damaged segment it loses records, leaves outdated ones, or breaks some ways to
//! find them. The log alone does not tell the two cases apart. So this module looks for such places
//! first, and if there is one, the records are verified and the database is rebuilt
//! (`integrity/rebuild.rs`).
//!
//! The end of the log begins as follows: each segment records how far the log was stable when the
//! segment was begun, and sled trusts nothing from the segment on that contains the greatest of
//! these numbers.
//!
//! The format of sled 0.34.7: segments of 512 KiB, each with a header of 20 bytes (CRC-32, log
//! sequence number, stable number), then messages: CRC-32, kind, length, number of the segment,
//! page, content. Lengths and numbers have one to nine bytes. sled checks older segments itself
//! when it reads a page from them.

use std::{fs::File, io::ErrorKind, os::unix::fs::FileExt as _, path::Path};

use crc32fast::Hasher;

use crate::store::StoreError;

const SEGMENT_BYTES: usize = 512 * 1024;
const SEGMENT_HEADER_BYTES: usize = 20;
/// No message begins closer than this to the end of a segment.
const MESSAGE_HEADER_MAX: usize = 32;

const CANCELED: u8 = 1;
const CAP: u8 = 2;
const LAST_KIND: u8 = 11;
/// The kinds of messages whose content is in its own file. `split.rs` keeps values below the size
/// at which sled writes them, so there are none; if there is one, the records are verified.
const BLOBS: [u8; 3] = [7, 9, 11];

/// Returns what sled will skip of its log, if anything. Skipping it may be right.
pub(in crate::store) fn skipped(folder: &Path) -> Result<Option<String>, StoreError> {
    let path = folder.join("db");
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("open", &path, &e)),
    };
    let io = |e| StoreError::io("read", &path, &e);
    let snapshot = snapshot(folder)?;
    let length = log.metadata().map_err(io)?.len();
    let mut stable = snapshot;
    let mut broken = Vec::new();
    let mut at = 0;
    while at + SEGMENT_HEADER_BYTES as u64 <= length {
        let mut segment = vec![0; SEGMENT_HEADER_BYTES];
        log.read_exact_at(&mut segment, at).map_err(io)?;
        let size = SEGMENT_BYTES.min(usize::try_from(length - at).unwrap_or(SEGMENT_BYTES));
        let Some((number, stable_before)) = numbers(&segment) else {
            segment.resize(size, 0);
            log.read_exact_at(&mut segment, at).map_err(io)?;
            // sled fills a free segment with zeros when it opens.
            if segment.iter().any(|byte| *byte != 0) {
                return Ok(Some(format!("a segment without a header at {at}")));
            }
            at += SEGMENT_BYTES as u64;
            continue;
        };
        if number + SEGMENT_BYTES as u64 > snapshot {
            stable = stable.max(stable_before);
            segment.resize(size, 0);
            log.read_exact_at(&mut segment, at).map_err(io)?;
            match end_of_messages(&segment, number / SEGMENT_BYTES as u64) {
                Some(End::Blob(byte)) => {
                    let what = format!("a value outside the segment at {at}, at its byte {byte}");
                    return Ok(Some(what));
                }
                Some(End::Break(byte)) => {
                    let what = format!("the segment at {at} from its byte {byte} on");
                    broken.push((number, what));
                }
                None => {}
            }
        }
        at += SEGMENT_BYTES as u64;
    }
    let end = stable / SEGMENT_BYTES as u64 * SEGMENT_BYTES as u64;
    broken.retain(|(number, _)| *number < end);
    Ok(broken.pop().map(|(_, what)| what))
}

/// Returns the log sequence number of the newest snapshot.
fn snapshot(folder: &Path) -> Result<u64, StoreError> {
    let io = |e| StoreError::io("read", folder, &e);
    let mut newest = 0;
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("snap."));
        if let Some(number) = number.and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
            newest = newest.max(number);
        }
    }
    Ok(newest)
}

/// Returns the numbers in a segment's header: its own, and how far the log was stable. `None` if
/// the header is damaged.
fn numbers(header: &[u8]) -> Option<(u64, u64)> {
    let (crc, rest) = header.split_first_chunk::<4>()?;
    let rest = rest.get(..16)?;
    let (number, stable) = rest.split_first_chunk::<8>()?;
    let number = i64::from_le_bytes(*number) ^ i64::MAX;
    let stable = i64::from_le_bytes(*stable.first_chunk()?) ^ i64::MAX;
    let is_valid = u32::from_le_bytes(*crc) ^ u32::MAX == crc32fast::hash(rest);
    // The first segment begins when nothing is stable, which sled writes as -1.
    let (number, stable) = (u64::try_from(number).ok()?, stable.try_into().unwrap_or(0));
    (is_valid && number % SEGMENT_BYTES as u64 == 0).then_some((number, stable))
}

/// Why sled may not read a segment to its end, and from which byte on.
enum End {
    /// A message that is not whole, or no message.
    Break(usize),
    /// A message whose content is in a file of its own, which may be gone.
    Blob(usize),
}

/// Returns where the messages end, if they neither fill the segment nor end with a cap.
fn end_of_messages(segment: &[u8], number: u64) -> Option<End> {
    let mut rest = segment.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
    while rest.len() >= MESSAGE_HEADER_MAX {
        let at = segment.len() - rest.len();
        let Some((kind, after)) = message(rest, number) else {
            return Some(End::Break(at));
        };
        match kind {
            CAP => return None,
            kind if BLOBS.contains(&kind) => return Some(End::Blob(at)),
            _ => rest = after,
        }
    }
    (segment.len() < SEGMENT_BYTES).then_some(End::Break(segment.len()))
}

/// Returns the kind of the message at the start of `rest`, and what follows it.
fn message(rest: &[u8], segment: u64) -> Option<(u8, &[u8])> {
    let (crc, header) = rest.split_first_chunk::<4>()?;
    let (kind, numbers) = header.split_first()?;
    let (length, numbers) = number(numbers)?;
    let (of, numbers) = number(numbers)?;
    let (_page, content) = number(numbers)?;
    let content_at = header.len() - content.len();
    let (content, after) = content.split_at_checked(usize::try_from(length).ok()?)?;
    let mut hash = Hasher::new();
    hash.update(content);
    hash.update(&header[..content_at]);
    let is_valid = hash.finalize() ^ u32::MAX == u32::from_le_bytes(*crc);
    (is_valid && of == segment && (CANCELED..=LAST_KIND).contains(kind)).then_some((*kind, after))
}

/// Reads a number of one to nine bytes. Returns it and what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let size = match *first {
        0..=240 => 0,
        241..=248 => 1,
        249 => 2,
        more => usize::from(more) - 247,
    };
    let (bytes, rest) = rest.split_at_checked(size)?;
    let first = u64::from(*first);
    let value = match bytes {
        [] => first,
        [low] => 240 + 256 * (first - 241) + u64::from(*low),
        [high, low] => 2288 + 256 * u64::from(*high) + u64::from(*low),
        bytes => {
            let mut number = [0; 8];
            number[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(number)
        }
    };
    Some((value, rest))
}
