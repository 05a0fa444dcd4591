//! A copy of the records as one stream, taken while the store runs, and the way back.
//!
//! # The stream
//!
//! A line that names the format, its version, the schema version (4 bytes) and the run (8 bytes),
//! and a check of these under the store's key (32 bytes), so that a wrong key is known at once.
//! Then changes: a byte `P` (put) or `D` (delete), the length of the key (4 bytes), the key, and
//! for `P` the length of the value (4 bytes) and the value, as they lie in the database: secret
//! values stay sealed. At the end `E`, the number of changes (8 bytes), and HMAC-SHA256 of all
//! that stands before, under a key derived from the store's. Numbers are big endian.
//!
//! # One moment
//!
//! The stream holds the store as it was when the copying *ended*. Records are scanned page by
//! page while others write; what they write meanwhile is noted and stands behind the scanned
//! records, in order. Nobody waits, except for the moment in which the note is closed.

use std::{
    io::{Read, Write},
    path::Path,
    sync::PoisonError,
};

use hkdf::hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::store::{
    Batch, MAX_KEY, MAX_VALUE, Store, StoreError, StoreKey, StoreOptions,
    backend::{Backend, Op, sled::SledBackend},
    files::{self, Lock},
    meta, migrate,
    seal::Sealer,
};

pub(in crate::store) const MAGIC: &[u8; 20] = b"stonechat backup 1\r\n";
pub(in crate::store) const MAC: usize = 32;
/// How much may be written to the store while it is copied.
const MAX_NOTED: usize = 256 * 1024 * 1024;
/// How many bytes are applied at once on the way back.
const CHUNK: usize = 4 * 1024 * 1024;

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The number of changes in the stream; at least the number of records.
    pub changes: u64,
}

/// What is written while a copy is made.
#[derive(Default)]
pub(in crate::store) struct Note {
    ops: Vec<Op>,
    bytes: usize,
}

impl Note {
    /// Add changes; false when there are too many to keep.
    pub(in crate::store) fn add(&mut self, ops: &[Op]) {
        for op in ops {
            self.bytes += match op {
                Op::Put(key, value) => key.len() + value.len(),
                Op::Delete(key) => key.len(),
            };
            if self.bytes <= MAX_NOTED {
                self.ops.push(op.clone());
            } else {
                self.ops = Vec::new();
            }
        }
    }
}

fn failed(why: impl std::fmt::Display) -> StoreError {
    StoreError::Backup(why.to_string())
}

pub(in crate::store) fn mac(key: &StoreKey) -> Result<Hmac<Sha256>, StoreError> {
    let key = key.derive(&[], &[b"stonechat backup"])?;
    Hmac::new_from_slice(key.as_slice()).map_err(|_| StoreError::Seal("a key could not be derived"))
}

/// Writes, and remembers what it wrote.
struct Out<'a> {
    to: &'a mut dyn Write,
    mac: Hmac<Sha256>,
    changes: u64,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.mac.update(bytes);
        self.to
            .write_all(bytes)
            .map_err(|e| failed(format!("cannot write the backup: {e}")))
    }

    fn part(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let length = u32::try_from(bytes.len()).map_err(failed)?;
        self.write(&length.to_be_bytes())?;
        self.write(bytes)
    }

    fn op(&mut self, op: &Op) -> Result<(), StoreError> {
        self.changes += 1;
        match op {
            Op::Put(key, value) => {
                self.write(b"P")?;
                self.part(key)?;
                self.part(value)
            }
            Op::Delete(key) => {
                self.write(b"D")?;
                self.part(key)
            }
        }
    }

    fn seal(&mut self) -> Result<(), StoreError> {
        let mac = self.mac.clone().finalize().into_bytes();
        self.write(&mac)
    }
}

impl Store {
    /// Copy the store to `to`, without the tables whose ids are in `leave_out`, and with the
    /// records of `extra` as if they were in it. Blocks; others go on reading and writing.
    pub fn export(
        &self,
        to: &mut dyn Write,
        leave_out: &[u8],
        extra: Batch,
    ) -> Result<Copied, StoreError> {
        self.begin_note()?;
        let outcome = self.export_noted(to, leave_out, extra);
        self.inner.memtable.end_note();
        outcome
    }

    fn begin_note(&self) -> Result<(), StoreError> {
        match self.inner.memtable.begin_note()? {
            true => Ok(()),
            false => Err(failed("another backup is being written; wait for it")),
        }
    }

    fn export_noted(
        &self,
        to: &mut dyn Write,
        leave_out: &[u8],
        extra: Batch,
    ) -> Result<Copied, StoreError> {
        let left_out = |key: &[u8]| {
            key.first()
                .is_none_or(|id| *id == meta::ID || leave_out.contains(id))
        };
        let mut out = Out {
            to,
            mac: mac(&self.inner.key)?,
            changes: 0,
        };
        out.write(MAGIC)?;
        out.write(&migrate::newest_version(migrate::STEPS).to_be_bytes())?;
        out.write(&self.inner.run.number.to_be_bytes())?;
        out.seal()?;
        let database = self.inner.memtable.backend();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = database.scan(&[], after.as_deref(), 256)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, value) in page {
                if !left_out(&key) {
                    out.op(&Op::Put(key, value))?;
                }
            }
        }
        let note = {
            // Nobody is writing at this moment.
            let _gate = self
                .inner
                .closed
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            self.inner.memtable.write_out()?;
            self.inner.memtable.end_note()
        };
        let note = note.unwrap_or_default();
        if note.bytes > MAX_NOTED {
            return Err(failed(
                "too much was written during the backup; try at a quieter time",
            ));
        }
        let extra = extra.into_ops(self.inner.memtable.sealer())?;
        let noted = note.ops.iter().filter(|op| match op {
            Op::Put(key, _) | Op::Delete(key) => !left_out(key),
        });
        for op in noted.chain(&extra) {
            out.op(op)?;
        }
        out.write(b"E")?;
        out.write(&out.changes.to_be_bytes())?;
        out.seal()?;
        out.to
            .flush()
            .map_err(|e| failed(format!("cannot write the backup: {e}")))?;
        Ok(Copied {
            changes: out.changes,
        })
    }

    /// Make a store in a folder that has none, from a stream that [`Store::export`] wrote with
    /// the same key. If it fails no store is left there. The next start counts as one after an
    /// unclean end, and [`Store::restored`] says so until it is told otherwise.
    pub fn import(
        from: &mut dyn Read,
        path: &Path,
        key: &StoreKey,
        options: &StoreOptions,
    ) -> Result<Copied, StoreError> {
        let place = path.join("sled");
        files::make_folder(path)?;
        let _lock = Lock::take(path)?;
        if place.exists() || path.join("progress").exists() {
            return Err(failed(format!(
                "there is a store in {} already; move it away first",
                path.display()
            )));
        }
        let backend = SledBackend::open(&place, options)?;
        let outcome = import_into(from, &backend, key);
        drop(backend);
        if outcome.is_err() {
            std::fs::remove_dir_all(&place).map_err(|e| StoreError::io("remove", &place, &e))?;
        }
        outcome
    }
}

/// Reads, and remembers what it read.
struct In<'a> {
    from: &'a mut dyn Read,
    mac: Hmac<Sha256>,
}

impl In<'_> {
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

    /// Whether the check that comes next is right.
    fn check(&mut self) -> Result<bool, StoreError> {
        let expected = self.mac.clone();
        let found: [u8; MAC] = self.array()?;
        Ok(expected.verify_slice(&found).is_ok())
    }
}

pub(in crate::store) fn import_into(
    from: &mut dyn Read,
    backend: &dyn Backend,
    key: &StoreKey,
) -> Result<Copied, StoreError> {
    let mut input = In {
        from,
        mac: mac(key)?,
    };
    if input.bytes(MAGIC.len())? != MAGIC {
        return Err(failed("this is not a backup of this version of stonechat"));
    }
    let schema = u32::from_be_bytes(input.array()?);
    let run = u64::from_be_bytes(input.array()?);
    if !input.check()? {
        return Err(failed(
            "the backup was made with another store key, or is damaged",
        ));
    }
    let known = migrate::newest_version(migrate::STEPS);
    migrate::check(schema, known, Path::new("the backup"))?;
    let (mut ops, mut size, mut changes) = (Vec::new(), 0, 0u64);
    loop {
        let op = match &input.array()? {
            b"P" => Op::Put(input.part(MAX_KEY + 1)?, input.part(MAX_VALUE + 1024)?),
            b"D" => Op::Delete(input.part(MAX_KEY + 1)?),
            b"E" => break,
            _ => return Err(failed("the backup is damaged")),
        };
        size += match &op {
            Op::Put(key, value) => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        };
        ops.push(op);
        changes += 1;
        if size >= CHUNK {
            backend.apply(std::mem::take(&mut ops))?;
            size = 0;
        }
    }
    let counted = u64::from_be_bytes(input.array()?);
    if counted != changes || !input.check()? {
        return Err(failed("the backup is damaged: its check does not match"));
    }
    backend.apply(ops)?;
    // Last: without these records the folder is no store.
    let sealer = Sealer::of(key)?;
    meta::restore(backend, schema, run, &sealer)?;
    backend.flush()?;
    Ok(Copied { changes })
}
