//! Writes a backup of a running store.
//!
//! The backup holds the store as it was when the copying *ended*. Records are scanned page by page
//! while others write. What they write meanwhile is captured and follows the scanned records, in
//! order. Writers wait only at the end, while the capture is closed.

use std::{io::Write, sync::PoisonError};

use hkdf::hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{BackupStats, MAGIC, failed, mac};
use crate::store::{
    Batch, Store, StoreError, backend::Op, capture::Capture, migrate, table::META_ID,
};

/// Number of records that are read from the database at a time.
const PAGE_RECORDS: usize = 256;

/// Writes a backup, and authenticates and counts what it writes.
struct BackupWriter<'a> {
    to: &'a mut dyn Write,
    mac: Hmac<Sha256>,
    changes: u64,
}

impl BackupWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.mac.update(bytes);
        self.to.write_all(bytes).map_err(|e| cannot_write(&e))
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

    fn mac(&mut self) -> Result<(), StoreError> {
        let mac = self.mac.clone().finalize().into_bytes();
        self.write(&mac)
    }

    fn finish(mut self) -> Result<BackupStats, StoreError> {
        self.write(b"E")?;
        self.write(&self.changes.to_be_bytes())?;
        self.mac()?;
        self.to.flush().map_err(|e| cannot_write(&e))?;
        Ok(BackupStats {
            changes: self.changes,
        })
    }
}

fn cannot_write(error: &std::io::Error) -> StoreError {
    failed(format!("cannot write the backup: {error}"))
}

impl Store {
    /// Copies the store to `to`, without the tables whose ids are in `leave_out`, and with the
    /// records of `extra` added. Blocks; others can read and write meanwhile.
    pub fn export(
        &self,
        to: &mut dyn Write,
        leave_out: &[u8],
        extra: Batch,
    ) -> Result<BackupStats, StoreError> {
        if !self.inner.memtable.start_capture()? {
            return Err(failed("another backup is being written; wait for it"));
        }
        let outcome = self.export_captured(to, leave_out, extra);
        self.inner.memtable.stop_capture();
        outcome
    }

    fn export_captured(
        &self,
        to: &mut dyn Write,
        leave_out: &[u8],
        extra: Batch,
    ) -> Result<BackupStats, StoreError> {
        let is_left_out = |key: &[u8]| {
            key.first()
                .is_none_or(|id| *id == META_ID || leave_out.contains(id))
        };
        let mut out = BackupWriter {
            to,
            mac: mac(&self.inner.key)?,
            changes: 0,
        };
        out.write(MAGIC)?;
        out.write(&migrate::newest_version(migrate::STEPS).to_be_bytes())?;
        out.write(&self.inner.run.number.to_be_bytes())?;
        out.mac()?;
        let database = self.inner.memtable.backend();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = database.scan(&[], after.as_deref(), PAGE_RECORDS)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, value) in page {
                if !is_left_out(&key) {
                    out.op(&Op::Put(key, value))?;
                }
            }
        }
        let captured = self
            .close_capture()?
            .unwrap_or_default()
            .into_ops()
            .ok_or_else(|| {
                failed("too much was written during the backup; try at a quieter time")
            })?;
        for op in &captured {
            let (Op::Put(key, _) | Op::Delete(key)) = op;
            if !is_left_out(key) {
                out.op(op)?;
            }
        }
        for op in extra.into_ops(self.inner.memtable.sealer())? {
            out.op(&op)?;
        }
        out.finish()
    }

    /// Writes out the memtable and ends the capture, while no writer applies a batch.
    fn close_capture(&self) -> Result<Option<Capture>, StoreError> {
        let _no_writers = self
            .inner
            .closed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.inner.memtable.write_out()?;
        Ok(self.inner.memtable.stop_capture())
    }
}
