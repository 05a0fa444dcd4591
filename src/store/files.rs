//! Files beside the database. Only their owner can read them.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{StoreError, StoreFailure};

/// Makes a folder that only its owner can read, durably.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let missing = path.ancestors().take_while(|it| !it.exists());
    let new: Vec<&Path> = missing.filter(|it| !it.as_os_str().is_empty()).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| StoreError::io("create", path, &e))?;
    new.into_iter().try_for_each(sync_parent)
}

/// Removes a folder and everything in it, if it exists.
pub(super) fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::io("remove", path, &e)),
        _ => Ok(()),
    }
}

/// Opens or creates a file that only its owner can read.
pub(crate) fn open_private(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| StoreError::io("open", path, &e))
}

/// Makes the name of a new file durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Makes the names in a folder durable, where the file system can do that: some network and FUSE
/// file systems know no sync of a folder.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced.map_err(|e| StoreError::io("write", folder, &e)),
    }
}

#[cfg(test)]
thread_local! {
    /// The folders that were made durable with everything in them.
    pub(super) static SYNCED_TREES: std::cell::RefCell<Vec<PathBuf>> = const {
        std::cell::RefCell::new(Vec::new())
    };
}

/// Makes every file of a folder and of the folders in it durable, and their names.
pub(super) fn sync_tree(folder: &Path) -> Result<(), StoreError> {
    #[cfg(test)]
    SYNCED_TREES.with_borrow_mut(|synced| synced.push(folder.to_owned()));
    for entry in std::fs::read_dir(folder).map_err(|e| StoreError::io("read", folder, &e))? {
        let path = entry
            .map_err(|e| StoreError::io("read", folder, &e))?
            .path();
        if path.is_dir() {
            sync_tree(&path)?;
            continue;
        }
        match File::open(&path).and_then(|file| file.sync_all()) {
            // sled deletes files of its own at any time.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            synced => synced.map_err(|e| StoreError::io("write", &path, &e))?,
        }
    }
    sync_folder(folder)
}

/// How long to wait for a lock that another process holds.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);

/// Unlocks a file that is about to be closed. To close it is not enough: a child process that is just
/// being started shares the open file, and with it the lock, until it calls `exec`.
fn unlock(file: &File) {
    // If this fails, closing it is left.
    let _ = file.unlock();
}

/// Locks a file. A child process inherits the open files of its parent until it calls `exec`, and
/// so may hold the lock for a moment after the parent has released it.
#[expect(
    clippy::disallowed_methods,
    reason = "its thread sleeps as well: nothing here is tokio's"
)]
fn lock(file: &File) -> Result<(), TryLockError> {
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_WAIT_MAX => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// The lock of a store. The system releases it when the process ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

impl Lock {
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let file = open_private(&path)?;
        match lock(&file) {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: folder.to_owned(),
            }),
            Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &path, &e)),
        }
    }
}

/// The number of the last batch that was confirmed to be durable, kept outside the database.
///
/// It is written after the flush and not synced itself, so it is never ahead of the database. If
/// the database is behind it, acknowledged writes are lost.
#[derive(Debug)]
pub(super) struct Progress {
    file: File,
    path: PathBuf,
}

/// Length of the file: the number and its check.
const PROGRESS_BYTES: usize = 16;

impl Progress {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("progress");
        Ok(Self {
            file: open_private(&path)?,
            path,
        })
    }

    /// Returns the number; `None` if nothing was ever confirmed or the file is torn.
    pub(super) fn read(&self) -> Option<u64> {
        let mut bytes = [0u8; PROGRESS_BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let (number, check) = bytes.split_first_chunk::<8>()?;
        (*check == check_of(number)).then(|| u64::from_be_bytes(*number))
    }

    /// Writes that an imported database must hold its records, durably: without a number, an empty
    /// database would be taken for a new one.
    pub(super) fn begin(folder: &Path) -> Result<(), StoreError> {
        let progress = Self::open(folder)?;
        progress.write(0)?;
        let synced = progress.file.sync_all();
        synced.map_err(|e| StoreError::io("write", &progress.path, &e))?;
        sync_folder(folder)
    }

    pub(super) fn write(&self, number: u64) -> Result<(), StoreError> {
        let number = number.to_be_bytes();
        let mut bytes = [0u8; PROGRESS_BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&check_of(&number));
        self.file
            .write_all_at(&bytes, 0)
            .map_err(|e| StoreError::io("write", &self.path, &e))
    }
}

/// Returns the first eight bytes of a SHA-256, which tell a torn write from a whole one.
pub(crate) fn check_of(bytes: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(bytes);
    let mut check = [0u8; 8];
    check.copy_from_slice(&digest[..8]);
    check
}

/// A small file beside the database that belongs to one user of the store. A store in memory keeps
/// its bytes in memory.
#[derive(Clone)]
pub(crate) struct SideFile(Arc<SideStorage>);

enum SideStorage {
    Disk {
        file: File,
        path: PathBuf,
        /// The failure of the store, which cannot be used without this file.
        failure: StoreFailure,
    },
    Memory(Mutex<Vec<u8>>),
}

impl Drop for SideStorage {
    fn drop(&mut self) {
        if let Self::Disk { file, .. } = self {
            unlock(file);
        }
    }
}

impl std::fmt::Debug for SideFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SideFile")
    }
}

impl SideFile {
    pub(crate) fn memory() -> Self {
        Self(Arc::new(SideStorage::Memory(Mutex::default())))
    }

    /// Opens or creates the file durably, and locks it. If it cannot be read or written later, the
    /// store has failed.
    pub(crate) fn open(path: &Path, failure: StoreFailure) -> Result<Self, StoreError> {
        let file = open_private(path)?;
        let about = file
            .metadata()
            .map_err(|e| StoreError::io("read", path, &e))?;
        if about.mode() & 0o077 != 0 {
            return Err(StoreError::Key {
                place: format!("file {}", path.display()),
                why: "others may read or write it; run `chmod 600` on it".to_owned(),
            });
        }
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", path, &e)),
        }
        sync_parent(path)?;
        Ok(Self(Arc::new(SideStorage::Disk {
            file,
            path: path.to_owned(),
            failure,
        })))
    }

    /// Returns `true` if there are more than `own` handles of this file in memory.
    pub(crate) fn is_shared(&self, own: usize) -> bool {
        Arc::strong_count(&self.0) > own
    }

    /// Reads up to `length` bytes, and fewer at the end of the file.
    pub(crate) fn read(
        &self,
        offset: u64,
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let mut bytes = Zeroizing::new(vec![0u8; length]);
        let mut filled = 0;
        match &*self.0 {
            SideStorage::Disk {
                file,
                path,
                failure,
            } => {
                while filled < length {
                    match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(e) if e.kind() == ErrorKind::Interrupted => {}
                        Err(e) => {
                            return failure.record_fatal(Err(StoreError::io("read", path, &e)));
                        }
                    }
                }
            }
            SideStorage::Memory(memory) => {
                let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(memory.len());
                filled = length.min(memory.len() - start);
                bytes[..filled].copy_from_slice(&memory[start..start + filled]);
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Overwrites bytes in place. Durable when this returns.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        match &*self.0 {
            SideStorage::Disk {
                file,
                path,
                failure,
            } => {
                let written = file
                    .write_all_at(bytes, offset)
                    .and_then(|()| file.sync_data());
                failure.record_fatal(written.map_err(|e| StoreError::io("write", path, &e)))
            }
            SideStorage::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(bytes.len());
                if memory.len() < end {
                    memory.resize(end, 0);
                }
                memory[start..end].copy_from_slice(bytes);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use assert_matches::assert_matches;

    use super::*;

    #[test]
    fn a_lock_that_was_given_back_is_free_although_its_file_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        // As a process does that is just being started.
        let shared = lock.0.try_clone().unwrap();
        assert_matches!(Lock::take(folder.path()), Err(StoreError::InUse { .. }));
        drop(lock);
        Lock::take(folder.path()).unwrap();
        drop(shared);
    }
}
