//! The fuzz target of this room: a backup comes back whole, or is refused with words.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a fuzz target reports a fault"
)]

use std::{collections::BTreeMap, path::Path};

use hkdf::hmac::Mac as _;
use secrecy::SecretString;

use super::{
    MAX_KEY, MAX_VALUE, StoreError, StoreKey,
    backend::{Backend, memory::MemoryBackend},
    backup::{MAC_BYTES, MAGIC, import::import_into, mac},
    meta, migrate,
    seal::Sealer,
    table::META_ID,
};

/// Length of the schema version and the run.
const HEAD: usize = 4 + 8;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The key under which the backups of the corpus were made.
pub(crate) fn key() -> StoreKey {
    StoreKey::from_env("KEY", &SecretString::from("07".repeat(32))).unwrap()
}

/// A backup file, as it is, and once more with checks that match, so that what lies behind them is
/// reached.
pub(crate) fn backup(input: &[u8]) {
    let key = key();
    if let Err(error) = import(input, &key) {
        check_words(&error);
    }
    let Some(rest) = input.get(MAGIC.len()..) else {
        return;
    };
    let Some((head, rest)) = rest.split_at_checked(HEAD) else {
        return;
    };
    let body = rest.get(MAC_BYTES..).unwrap_or_default();
    let changes = Changes::read(body);
    let stream = sealed(head, &changes, body, &key);
    let schema = u32::from_be_bytes(head[..4].try_into().unwrap());
    match import(&stream, &key) {
        Ok(found) => {
            assert!(changes.end, "a damaged backup came back");
            assert!(changes.touch_meta || found == changes.records);
            assert!(is_read(schema));
        }
        Err(error) => {
            check_words(&error);
            let refused = !is_read(schema) || !changes.end || changes.touch_meta;
            assert!(refused, "a good backup is refused: {error}");
        }
    }
}

fn is_read(schema: u32) -> bool {
    (migrate::OLDEST..=migrate::newest_version(migrate::STEPS)).contains(&schema)
}

/// Imports a backup into memory, opens what came of it, and returns its records without those that
/// a store keeps about itself.
fn import(stream: &[u8], key: &StoreKey) -> Result<Records, StoreError> {
    let backend = MemoryBackend::default();
    import_into(&mut &*stream, &backend, key)?;
    let sealer = Sealer::of(key)?;
    meta::open_or_init(&backend, &sealer, Path::new("memory"), None, migrate::STEPS)?;
    let mut records: Records = backend.scan(&[], None, usize::MAX)?.into_iter().collect();
    records.retain(|key, _| key.first() != Some(&META_ID));
    Ok(records)
}

fn check_words(error: &StoreError) {
    let words = error.to_string();
    assert!((10..1000).contains(&words.len()), "{words:?}");
}

/// What the changes of a backup lead to, by another reader than the one under test.
#[derive(Default)]
struct Changes {
    count: u64,
    /// How many bytes they take.
    length: usize,
    records: Records,
    /// Whether they change what a store keeps about itself, which no backup does.
    touch_meta: bool,
    /// Whether the mark of the end stands behind them.
    end: bool,
}

impl Changes {
    fn read(body: &[u8]) -> Self {
        let mut changes = Self::default();
        let mut rest = body;
        while let Some((kind, after)) = rest.split_first() {
            changes.end = *kind == b'E';
            let Some(after) = changes.add(*kind, after) else {
                break;
            };
            changes.count += 1;
            rest = after;
            changes.length = body.len() - rest.len();
        }
        changes
    }

    /// Adds a change, and returns what stands behind it; `None` if it is none.
    fn add<'a>(&mut self, kind: u8, rest: &'a [u8]) -> Option<&'a [u8]> {
        let (key, mut rest) = match kind {
            b'P' | b'D' => part(rest, MAX_KEY + 1)?,
            _ => return None,
        };
        let value = if kind == b'P' {
            let (value, after) = part(rest, MAX_VALUE + 1024)?;
            rest = after;
            Some(value)
        } else {
            None
        };
        self.touch_meta |= key.first() == Some(&META_ID);
        if key.first() != Some(&META_ID) {
            match value {
                Some(value) => self.records.insert(key.to_vec(), value.to_vec()),
                None => self.records.remove(key),
            };
        }
        Some(rest)
    }
}

/// Splits off a part that has its length before it.
fn part(bytes: &[u8], at_most: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    (length <= at_most).then(|| rest.split_at_checked(length))?
}

/// A backup of these changes with checks that match.
fn sealed(head: &[u8], changes: &Changes, body: &[u8], key: &StoreKey) -> Vec<u8> {
    let check = |stream: &[u8]| {
        let mut hmac = mac(key).unwrap();
        hmac.update(stream);
        hmac.finalize().into_bytes()
    };
    let mut stream = MAGIC.to_vec();
    stream.extend_from_slice(head);
    stream.extend_from_slice(&check(&stream));
    if changes.end {
        stream.extend_from_slice(&body[..changes.length]);
        stream.push(b'E');
        stream.extend_from_slice(&changes.count.to_be_bytes());
        stream.extend_from_slice(&check(&stream));
    } else {
        stream.extend_from_slice(body);
    }
    stream
}
