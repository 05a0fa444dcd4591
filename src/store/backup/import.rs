//! Reads a backup into an empty database.

use std::{io::Read, path::Path};

use hkdf::hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{BackupStats, MAC_BYTES, MAGIC, failed, mac};
use crate::store::{
    KEY_BYTES_MAX, Store, StoreError, StoreKey, StoreOptions, VALUE_BYTES_MAX,
    backend::{Backend, Op, sled::SledBackend},
    files::{self, Lock, Progress},
    meta, migrate,
    seal::Sealer,
};

/// Size from which changes read from a backup are applied, in bytes of keys and values.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

impl Store {
    /// Makes a store in a folder without one, from a stream that [`Store::export`] wrote with the
    /// same key. On failure no store is left there. The next start counts as one after a crash, and
    /// [`Store::is_restored`] returns `true` until [`Store::restore_done`] is applied.
    pub fn import(
        from: &mut dyn Read,
        path: &Path,
        key: &StoreKey,
        options: &StoreOptions,
    ) -> Result<BackupStats, StoreError> {
        let database = path.join("sled");
        files::make_folder(path)?;
        let _lock = Lock::take(path)?;
        if database.exists() || path.join("progress").exists() {
            return Err(failed(format!(
                "there is a store in {} already; move it away first",
                path.display()
            )));
        }
        let backend = SledBackend::open(&database, options)?;
        let outcome = import_into(from, &backend, key).and_then(|stats| {
            Progress::begin(path)?;
            Ok(stats)
        });
        drop(backend);
        if outcome.is_err() {
            // It may not be there.
            let _ = std::fs::remove_file(path.join("progress"));
            std::fs::remove_dir_all(&database)
                .map_err(|e| StoreError::io("remove", &database, &e))?;
        }
        outcome
    }
}

/// Reads a backup, and authenticates what it reads.
struct BackupReader<'a> {
    from: &'a mut dyn Read,
    mac: Hmac<Sha256>,
}

impl BackupReader<'_> {
    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; length];
        self.from
            .read_exact(&mut bytes)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => failed("the backup is cut short"),
                _ => failed(format!("cannot read the backup: {e}")),
            })?;
        self.mac.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes(N)?
            .try_into()
            .map_err(|_| failed("the backup is cut short"))
    }

    fn part(&mut self, limit: usize) -> Result<Vec<u8>, StoreError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        if length > limit {
            return Err(failed("the backup is damaged: a record is too long"));
        }
        self.bytes(length)
    }

    /// Reads the next change; `None` at the end.
    fn op(&mut self) -> Result<Option<Op>, StoreError> {
        Ok(Some(match &self.array()? {
            b"P" => Op::Put(
                self.part(KEY_BYTES_MAX + 1)?,
                self.part(VALUE_BYTES_MAX + 1024)?,
            ),
            b"D" => Op::Delete(self.part(KEY_BYTES_MAX + 1)?),
            b"E" => return Ok(None),
            _ => return Err(failed("the backup is damaged")),
        }))
    }

    /// Reads an HMAC. Returns `true` if it matches what precedes it.
    fn mac_matches(&mut self) -> Result<bool, StoreError> {
        let expected = self.mac.clone();
        let found: [u8; MAC_BYTES] = self.array()?;
        Ok(expected.verify_slice(&found).is_ok())
    }
}

/// Reads a backup into an empty database.
pub(in crate::store) fn import_into(
    from: &mut dyn Read,
    backend: &dyn Backend,
    key: &StoreKey,
) -> Result<BackupStats, StoreError> {
    let mut input = BackupReader {
        from,
        mac: mac(key)?,
    };
    if input.bytes(MAGIC.len())? != MAGIC {
        return Err(failed("this is not a backup of this version of stonechat"));
    }
    let schema = u32::from_be_bytes(input.array()?);
    let run = u64::from_be_bytes(input.array()?);
    if !input.mac_matches()? {
        return Err(failed(
            "the backup was made with another store key, or is damaged",
        ));
    }
    let newest = migrate::newest_version(migrate::STEPS);
    migrate::check(schema, newest, Path::new("the backup"))?;
    let (mut ops, mut size, mut changes) = (Vec::new(), 0, 0u64);
    while let Some(op) = input.op()? {
        size += match &op {
            Op::Put(key, value) => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        };
        ops.push(op);
        changes += 1;
        if size >= CHUNK_BYTES {
            backend.apply(std::mem::take(&mut ops))?;
            size = 0;
        }
    }
    let counted = u64::from_be_bytes(input.array()?);
    if counted != changes || !input.mac_matches()? {
        return Err(failed("the backup is damaged: its checksum does not match"));
    }
    backend.apply(ops)?;
    // Written last: without these records the folder is not a store.
    let sealer = Sealer::of(key)?;
    meta::mark_restored(backend, schema, run, &sealer)?;
    backend.flush()?;
    Ok(BackupStats { changes })
}
