//! The fuzz target of the store: a backup is imported completely, or is refused with a message.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a fuzz target reports a fault"
)]

use std::{collections::BTreeMap, path::Path};

use hkdf::hmac::Mac as _;
use secrecy::SecretString;

use super::{
    KEY_BYTES_MAX, StoreError, StoreKey, VALUE_BYTES_MAX,
    backend::{Backend, memory::MemoryBackend},
    backup::{MAC_BYTES, MAGIC, import::import_into, mac},
    meta, migrate,
    seal::Sealer,
    table::META_ID,
};

/// Length of the schema version and the run.
const HEAD_BYTES: usize = 4 + 8;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns the key with which the backups of the corpus were made.
pub(crate) fn key() -> StoreKey {
    StoreKey::from_env("KEY", &SecretString::from("07".repeat(32))).unwrap()
}

/// Imports a backup file as it is, and again with correct HMACs, so that the code behind their
/// check is reached.
pub(crate) fn backup(input: &[u8]) {
    let key = key();
    if let Err(error) = import(input, &key) {
        check_text(&error);
    }
    let Some(rest) = input.get(MAGIC.len()..) else {
        return;
    };
    let Some((head, rest)) = rest.split_at_checked(HEAD_BYTES) else {
        return;
    };
    let body = rest.get(MAC_BYTES..).unwrap_or_default();
    let changes = Changes::read(body);
    let stream = sealed(head, &changes, body, &key);
    let schema = u32::from_be_bytes(head[..4].try_into().unwrap());
    match import(&stream, &key) {
        Ok(found) => {
            assert!(changes.end, "a damaged backup was imported");
            assert!(changes.touch_meta || found == changes.records);
            assert!(is_read(schema));
        }
        Err(error) => {
            check_text(&error);
            let refused = !is_read(schema) || !changes.end || changes.touch_meta;
            assert!(refused, "a sound backup was refused: {error}");
        }
    }
}

fn is_read(schema: u32) -> bool {
    (migrate::OLDEST..=migrate::newest_version(migrate::STEPS)).contains(&schema)
}

/// Imports a backup into memory, opens the store, and returns its records without the store's own.
fn import(stream: &[u8], key: &StoreKey) -> Result<Records, StoreError> {
    let backend = MemoryBackend::default();
    import_into(&mut &*stream, &backend, key)?;
    let sealer = Sealer::of(key)?;
    meta::open_or_init(&backend, &sealer, Path::new("memory"), None, migrate::STEPS)?;
    let mut records: Records = backend.scan(&[], None, usize::MAX)?.into_iter().collect();
    records.retain(|key, _| key.first() != Some(&META_ID));
    Ok(records)
}

fn check_text(error: &StoreError) {
    let text = error.to_string();
    assert!((10..1000).contains(&text.len()), "{text:?}");
}

/// The changes of a backup, parsed independently of the code under test.
#[derive(Default)]
struct Changes {
    count: u64,
    /// Length of the changes, in bytes.
    length: usize,
    records: Records,
    /// Whether they change the store's own records, which no backup does.
    touch_meta: bool,
    /// Whether the end mark follows them.
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

    /// Adds a change and returns the bytes after it, or `None` if it is not a change.
    fn add<'a>(&mut self, kind: u8, rest: &'a [u8]) -> Option<&'a [u8]> {
        let (key, mut rest) = match kind {
            b'P' | b'D' => part(rest, KEY_BYTES_MAX + 1)?,
            _ => return None,
        };
        let value = if kind == b'P' {
            let (value, after) = part(rest, VALUE_BYTES_MAX + 1024)?;
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

/// Splits off a part that is preceded by its length.
fn part(bytes: &[u8], limit: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    (length <= limit).then(|| rest.split_at_checked(length))?
}

/// Returns a backup of these changes with correct HMACs.
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
