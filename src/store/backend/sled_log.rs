//! Looking through sled's log before sled does.
//!
//! When sled opens, it reads the part of its log that is younger than its last snapshot. Near the end
//! of it, a message that is not whole is where the log ends: whatever comes after is dropped, and
//! that confirmed batches are missing is seen by their number. Further back, it skips the rest of
//! the segment without a word and goes on with the next: for a segment that was freed and half
//! written over, that is right; for one that was damaged, records are gone or older than they were,
//! or cannot be found any more in every way. The two cannot be told apart from the log alone. So
//! this looks for such places first, and where there is one the records are counted and the
//! database is made anew (`integrity/rebuild.rs`).
//!
//! Where the end begins: each segment says how far the log was stable when the segment was begun,
//! and sled trusts nothing from the segment on in which the greatest of these numbers lies.
//!
//! What sled 0.34.7 writes: segments of 512 KiB, each with a header of 20 bytes (CRC-32, log
//! sequence number, stable number), then messages: CRC-32, kind, length, number of the segment,
//! page, content. Lengths and numbers have one to nine bytes. Older segments are checked by sled
//! itself when a page is read from them.

use std::{
    fs::File,
    io::ErrorKind,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crc32fast::Hasher;

use crate::store::StoreError;

const SEGMENT: usize = 512 * 1024;
const SEGMENT_HEADER: usize = 20;
/// Closer than this to the end of a segment no message begins.
const LONGEST_HEADER: usize = 32;

const CANCELED: u8 = 1;
const CAP: u8 = 2;
const LAST_KIND: u8 = 11;
/// Contents that lie in a file of their own.
const BLOBS: [u8; 3] = [7, 9, 11];

/// What sled will skip of its log, if anything. That something is skipped may be right.
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
    while at + SEGMENT_HEADER as u64 <= length {
        let mut segment = vec![0; SEGMENT_HEADER];
        log.read_exact_at(&mut segment, at).map_err(io)?;
        let size = SEGMENT.min(usize::try_from(length - at).unwrap_or(SEGMENT));
        let Some((number, stable_before)) = numbers(&segment) else {
            segment.resize(size, 0);
            log.read_exact_at(&mut segment, at).map_err(io)?;
            // sled fills a segment that is free with zeros when it opens.
            if segment.iter().any(|byte| *byte != 0) {
                return Ok(Some(format!("a segment without a header at {at}")));
            }
            at += SEGMENT as u64;
            continue;
        };
        if number + SEGMENT as u64 > snapshot {
            stable = stable.max(stable_before);
            segment.resize(size, 0);
            log.read_exact_at(&mut segment, at).map_err(io)?;
            let blobs = folder.join("blobs");
            if let Some(end) = end_of_messages(&segment, number / SEGMENT as u64, &blobs) {
                let what = format!("the segment at {at} from its byte {end} on");
                broken.push((number, what));
            }
        }
        at += SEGMENT as u64;
    }
    let end = stable / SEGMENT as u64 * SEGMENT as u64;
    broken.retain(|(number, _)| *number < end);
    Ok(broken.pop().map(|(_, what)| what))
}

/// The log sequence number up to which there is a snapshot.
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

/// The number in a segment's header and the one up to which the log was stable, if it is whole.
fn numbers(header: &[u8]) -> Option<(u64, u64)> {
    let (crc, rest) = header.split_first_chunk::<4>()?;
    let rest = rest.get(..16)?;
    let (number, stable) = rest.split_first_chunk::<8>()?;
    let number = i64::from_le_bytes(*number) ^ i64::MAX;
    let stable = i64::from_le_bytes(*stable.first_chunk()?) ^ i64::MAX;
    let whole = u32::from_le_bytes(*crc) ^ u32::MAX == crc32fast::hash(rest);
    // The first segment begins when nothing is stable, which is -1.
    let (number, stable) = (u64::try_from(number).ok()?, stable.try_into().unwrap_or(0));
    (whole && number % SEGMENT as u64 == 0).then_some((number, stable))
}

/// Where the messages end, if they neither fill the segment nor are capped.
fn end_of_messages(segment: &[u8], number: u64, blobs: &Path) -> Option<usize> {
    let mut rest = segment.get(SEGMENT_HEADER..).unwrap_or_default();
    while rest.len() >= LONGEST_HEADER {
        let Some((kind, content, after)) = message(rest, number) else {
            return Some(segment.len() - rest.len());
        };
        if kind == CAP {
            return None;
        }
        if BLOBS.contains(&kind) && !blob(content, blobs).is_some_and(|file| file.exists()) {
            return Some(segment.len() - rest.len());
        }
        rest = after;
    }
    (segment.len() < SEGMENT).then_some(segment.len())
}

/// Kind and content of the message at the beginning of `rest`, and what follows it.
fn message(rest: &[u8], segment: u64) -> Option<(u8, &[u8], &[u8])> {
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
    let whole = hash.finalize() ^ u32::MAX == u32::from_le_bytes(*crc);
    (whole && of == segment && (CANCELED..=LAST_KIND).contains(kind))
        .then_some((*kind, content, after))
}

/// A number of one to nine bytes, and what follows it.
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

fn blob(content: &[u8], blobs: &Path) -> Option<PathBuf> {
    let id = i64::from_le_bytes(content.try_into().ok()?);
    Some(blobs.join(id.to_string()))
}
