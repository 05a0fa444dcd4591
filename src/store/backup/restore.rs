//! Replaces a store by a backup. The backup is verified before anything is touched, imported beside
//! the old store, and then moved into its place in steps. A crash may follow each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{BackupStats, failed, import::import_into};
use crate::{
    clock::Timestamp,
    store::{
        Batch, Store, StoreError, StoreKey, StoreOptions, Table,
        backend::{Backend, Op, Record, sled::wait_until_closed},
        files::{Lock, make_folder, remove_folder, sync_parent, sync_tree},
        integrity::rebuild,
    },
};

/// Folder in which the backup is imported before it takes the place of a store.
const STAGING: &str = "restoring";
/// How the name of a folder with a replaced store begins.
pub const REPLACED: &str = "replaced-";
/// The parts of a store, in the order in which they are moved away. A folder with `progress` but
/// without its database, or with another one, is refused as one that has lost writes.
const PARTS: [&str; 3] = ["sled", "shred.keys", "progress"];

/// When a backup was made, and by which version. The backup adds it as one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// The time of the backup.
    pub at: Timestamp,
    /// The version of Stonechat.
    pub version: String,
}

/// A [`BackupInfo`] under the key 0.
struct Backups;

impl Table for Backups {
    const ID: u8 = 6;
    const NAME: &'static str = "backups";
    const SECRET: bool = false;
    type Key = u8;
    type Value = BackupInfo;
}

/// The contents of a backup.
#[derive(Clone, Debug, Default)]
pub struct BackupContents {
    /// When and by which version it was made.
    pub info: Option<BackupInfo>,
    /// The keys of the records of the requested tables, without the table's id.
    pub keys: BTreeMap<u8, BTreeSet<Vec<u8>>>,
}

impl BackupContents {
    /// Returns the number of records in a requested table.
    pub fn count(&self, table: u8) -> usize {
        self.keys.get(&table).map_or(0, BTreeSet::len)
    }
}

/// The outcome of a restore.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The size of the backup.
    pub stats: BackupStats,
    /// The folder to which the old store was moved.
    pub aside: Option<PathBuf>,
}

impl Store {
    /// Adds the record about a backup to the backup's extra records.
    pub fn put_backup_info(batch: &mut Batch, info: &BackupInfo) -> Result<(), StoreError> {
        batch.put::<Backups>(&0, info)
    }

    /// Returns the record about the backup from which this store was restored, if it was.
    pub fn backup_info(&self) -> Result<Option<BackupInfo>, StoreError> {
        self.get::<Backups>(&0)
    }

    /// Reads and verifies a whole backup. Returns the keys of `tables` only.
    pub fn read_backup(
        from: &mut dyn Read,
        key: &StoreKey,
        tables: &[u8],
    ) -> Result<BackupContents, StoreError> {
        let reader = ContentsReader {
            tables: tables.to_vec(),
            contents: Mutex::default(),
        };
        import_into(from, &reader, key)?;
        Ok(reader
            .contents
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns `true` if there is a store in a folder, or any part of one.
    pub fn exists_in(path: &Path) -> bool {
        PARTS
            .iter()
            .any(|part| path.join(part).symlink_metadata().is_ok())
    }

    /// Puts a backup in the place of the store in a folder. The old store is moved into a subfolder
    /// with the name `aside`; without a name an existing store is an error. Nothing is moved before
    /// the whole backup is on disk.
    pub fn restore(
        from: &mut dyn Read,
        path: &Path,
        key: &StoreKey,
        options: &StoreOptions,
        aside: Option<&str>,
    ) -> Result<Restored, StoreError> {
        make_folder(path)?;
        let _lock = Lock::take(path)?;
        let has_old = Self::exists_in(path);
        if has_old && aside.is_none() {
            return Err(failed(format!(
                "there is a store in {} already",
                path.display()
            )));
        }
        let staging = path.join(STAGING);
        remove_folder(&staging)?;
        rebuild::recover(path)?;
        let stats = match Self::import(from, &staging, key, options) {
            Ok(stats) => stats,
            Err(error) => {
                remove_folder(&staging)?;
                return Err(error);
            }
        };
        wait_until_closed(&staging.join(PARTS[0]));
        sync_tree(&staging)?;
        let mut old = None;
        if let Some(name) = aside.filter(|_| has_old) {
            let folder = path.join(name);
            make_folder(&folder)?;
            for part in &PARTS[..2] {
                move_part(path, &folder, part)?;
            }
            old = Some(folder);
        }
        move_part(&staging, path, PARTS[0])?;
        if let Some(folder) = &old {
            move_part(path, folder, PARTS[2])?;
        }
        for part in &PARTS[1..] {
            move_part(&staging, path, part)?;
        }
        remove_folder(&staging)?;
        Ok(Restored { stats, aside: old })
    }
}

fn move_part(from: &Path, to: &Path, part: &str) -> Result<(), StoreError> {
    let (old, new) = (from.join(part), to.join(part));
    if old.symlink_metadata().is_err() {
        return Ok(());
    }
    fs::rename(&old, &new).map_err(|e| StoreError::io("move", &old, &e))?;
    sync_parent(&new)?;
    sync_parent(&old)
}

/// A backend that keeps only the contents of a backup imported into it.
#[derive(Debug)]
struct ContentsReader {
    tables: Vec<u8>,
    contents: Mutex<BackupContents>,
}

impl Backend for ContentsReader {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn scan(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    fn scan_back(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    fn apply(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    let Some((table, key)) = key.split_first() else {
                        continue;
                    };
                    if *table == Backups::ID {
                        contents.info = rmp_serde::from_slice(&value).ok();
                    }
                    if self.tables.contains(table) {
                        contents
                            .keys
                            .entry(*table)
                            .or_default()
                            .insert(key.to_vec());
                    }
                }
                Op::Delete(key) => {
                    if let Some((table, key)) = key.split_first()
                        && let Some(keys) = contents.keys.get_mut(table)
                    {
                        keys.remove(key);
                    }
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use assert_matches::assert_matches;

    use super::*;
    use crate::store::files::SYNCED_TREES;

    struct Names;
    impl Table for Names {
        const ID: u8 = 202;
        const NAME: &'static str = "names";
        const SECRET: bool = false;
        type Key = String;
        type Value = u64;
    }

    fn backup_of(names: &[&str], key: &StoreKey) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), key, &StoreOptions::default()).unwrap();
        let mut batch = Batch::new();
        for name in names {
            batch.put::<Names>(&(*name).to_owned(), &1).unwrap();
        }
        store.apply(batch).unwrap();
        let mut extra = Batch::new();
        let info = BackupInfo {
            at: Timestamp(7),
            version: "0.0.0".to_owned(),
        };
        Store::put_backup_info(&mut extra, &info).unwrap();
        let mut file = Vec::new();
        store.export(&mut file, &[], extra).unwrap();
        file
    }

    fn names_in(path: &Path, key: &StoreKey) -> Vec<String> {
        let store = Store::open(path, key, &StoreOptions::default()).unwrap();
        let names = store.scan::<Names>(&[], None, 100).unwrap();
        names.into_iter().map(|(name, _)| name).collect()
    }

    fn put_back(
        file: &[u8],
        path: &Path,
        key: &StoreKey,
        aside: Option<&str>,
    ) -> Result<Restored, StoreError> {
        Store::restore(&mut &*file, path, key, &StoreOptions::default(), aside)
    }

    #[test]
    fn a_backup_is_read_to_its_end_and_says_what_is_in_it() {
        let key = StoreKey::random().unwrap();
        let file = backup_of(&["kim", "sam"], &key);
        let contents = Store::read_backup(&mut &*file, &key, &[Names::ID]).unwrap();
        assert_eq!((contents.count(Names::ID), contents.count(77)), (2, 0));
        assert_eq!(contents.info.unwrap().at, Timestamp(7));
        for cut in [0, 30, file.len() / 2, file.len() - 1] {
            let error = Store::read_backup(&mut &file[..cut], &key, &[]).unwrap_err();
            assert!(error.to_string().contains("cut short"), "{cut}: {error}");
        }
        let other = StoreKey::random().unwrap();
        let error = Store::read_backup(&mut &*file, &other, &[]).unwrap_err();
        assert!(error.to_string().contains("another store key"), "{error}");
    }

    #[test]
    fn a_store_that_is_there_is_moved_and_never_lost() {
        let key = StoreKey::random().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        put_back(&backup_of(&["old"], &key), &path, &key, None).unwrap();
        assert_eq!(names_in(&path, &key), ["old"]);
        fs::write(path.join("shred.keys"), "of the old one").unwrap();

        let file = backup_of(&["new"], &key);
        assert_matches!(
            put_back(&file, &path, &key, None),
            Err(StoreError::Backup(_))
        );
        assert_eq!(names_in(&path, &key), ["old"]);
        let replaced = put_back(&file, &path, &key, Some("replaced-1")).unwrap();
        assert_eq!(names_in(&path, &key), ["new"]);
        assert!(!path.join("shred.keys").exists() && !path.join(STAGING).exists());
        let aside = replaced.aside.unwrap();
        assert!(aside.join("shred.keys").exists());
        assert_eq!(names_in(&aside, &key), ["old"]);
    }

    #[test]
    fn a_restored_store_is_on_disk_before_it_is_put_in_its_place() {
        let key = StoreKey::random().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        SYNCED_TREES.take();
        put_back(&backup_of(&["sam"], &key), &path, &key, None).unwrap();
        assert_eq!(SYNCED_TREES.take().first(), Some(&path.join(STAGING)));
    }

    #[test]
    fn a_damaged_backup_or_a_store_in_use_leaves_everything_as_it_is() {
        let key = StoreKey::random().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        put_back(&backup_of(&["old"], &key), &path, &key, None).unwrap();
        let mut file = backup_of(&["new"], &key);
        let open = Store::open(&path, &key, &StoreOptions::default()).unwrap();
        assert_matches!(
            put_back(&file, &path, &key, Some("replaced-1")),
            Err(StoreError::InUse { .. })
        );
        drop(open);
        *file.last_mut().unwrap() ^= 1;
        assert_matches!(
            put_back(&file, &path, &key, Some("replaced-1")),
            Err(StoreError::Backup(_))
        );
        assert_eq!(names_in(&path, &key), ["old"]);
        assert!(!path.join("replaced-1").exists() && !path.join(STAGING).exists());
    }

    /// Whatever the last step was, no empty or older store is left that could be used.
    #[test]
    fn a_crash_between_the_moves_leaves_a_folder_that_is_refused() {
        let key = StoreKey::random().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        put_back(&backup_of(&["old"], &key), &path, &key, None).unwrap();
        assert_eq!(names_in(&path, &key), ["old"]);
        let refused = || {
            let opened = Store::open(&path, &key, &StoreOptions::default());
            assert_matches!(opened, Err(StoreError::LostWrites { .. }));
            let _ = fs::remove_dir_all(path.join("sled"));
        };
        let aside = path.join("aside");
        make_folder(&aside).unwrap();
        move_part(&path, &aside, "sled").unwrap();
        refused();
        let file = backup_of(&["new"], &key);
        let options = StoreOptions::default();
        Store::import(&mut &*file, &path.join(STAGING), &key, &options).unwrap();
        wait_until_closed(&path.join(STAGING).join("sled"));
        move_part(&path.join(STAGING), &path, "sled").unwrap();
        refused();
        put_back(&file, &path, &key, Some("replaced-2")).unwrap();
        assert_eq!(names_in(&path, &key), ["new"]);
    }
}
