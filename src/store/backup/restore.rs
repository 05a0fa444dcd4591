//! A backup in the place of a store: looked through before anything is touched, brought back
//! beside what is there, and put in its place in steps of which each can be the last.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::export::{Copied, import_into};
use crate::{
    clock::Timestamp,
    store::{
        Batch, Store, StoreError, StoreKey, StoreOptions, Table,
        backend::{Backend, Op, Record, sled::wait_until_closed},
        files::{Lock, make_folder, remove_folder, sync_parent},
        integrity::rebuild,
    },
};

/// Where a store is made before it takes the place of another.
const STAGING: &str = "restoring";
/// What belongs to a store, in the order in which it is moved away: as long as `progress` lies
/// there without its database, or with another, the folder is refused as one that lost writes.
const PARTS: [&str; 3] = ["sled", "shred.keys", "progress"];

/// When a backup was made, and by which version. One record, written by the backup itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// When.
    pub at: Timestamp,
    /// The version of Stonechat.
    pub version: String,
}

/// [`Made`] under 0.
struct Backups;

impl Table for Backups {
    const ID: u8 = 6;
    const NAME: &'static str = "backups";
    const SECRET: bool = false;
    type Key = u8;
    type Value = Made;
}

/// What is in a backup.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// When it was made.
    pub made: Option<Made>,
    /// The keys of the records of the tables that were asked for, without the table's id.
    pub keys: BTreeMap<u8, BTreeSet<Vec<u8>>>,
}

impl Contents {
    /// How many records there are in a table that was asked for.
    pub fn count(&self, table: u8) -> usize {
        self.keys.get(&table).map_or(0, BTreeSet::len)
    }
}

/// A backup that took the place of a store.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// What was brought back.
    pub copied: Copied,
    /// Where the store that was there lies now.
    pub aside: Option<PathBuf>,
}

impl Store {
    /// Add to a batch of a backup when it is made.
    pub fn note_backup(batch: &mut Batch, made: &Made) -> Result<(), StoreError> {
        batch.put::<Backups>(&0, made)
    }

    /// When the backup was made from which this store comes, if it comes from one.
    pub fn made(&self) -> Result<Option<Made>, StoreError> {
        self.get::<Backups>(&0)
    }

    /// Read a backup to its end and check all of it. Keeps the keys of these tables only.
    pub fn read_backup(
        from: &mut dyn Read,
        key: &StoreKey,
        tables: &[u8],
    ) -> Result<Contents, StoreError> {
        let reader = Reader {
            tables: tables.to_vec(),
            contents: Mutex::default(),
        };
        import_into(from, &reader, key)?;
        Ok(reader
            .contents
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is a store in a folder, or what is left of one.
    pub fn is_in(path: &Path) -> bool {
        PARTS
            .iter()
            .any(|part| path.join(part).symlink_metadata().is_ok())
    }

    /// Put a backup in the place of the store in a folder. What was there is moved into a folder
    /// of this name below it, and stays; without a name a store that is there is an error. Nothing
    /// is moved before the backup is whole on disk.
    pub fn replace(
        from: &mut dyn Read,
        path: &Path,
        key: &StoreKey,
        options: &StoreOptions,
        aside: Option<&str>,
    ) -> Result<Replaced, StoreError> {
        make_folder(path)?;
        let _lock = Lock::take(path)?;
        let there = Self::is_in(path);
        if there && aside.is_none() {
            return Err(StoreError::Backup(format!(
                "there is a store in {} already",
                path.display()
            )));
        }
        let staging = path.join(STAGING);
        remove_folder(&staging)?;
        rebuild::recover(path)?;
        let copied = match Self::import(from, &staging, key, options) {
            Ok(copied) => copied,
            Err(error) => {
                remove_folder(&staging)?;
                return Err(error);
            }
        };
        wait_until_closed(&staging.join(PARTS[0]));
        let mut old = None;
        if let Some(name) = aside.filter(|_| there) {
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
        Ok(Replaced { copied, aside: old })
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

/// Takes in what is brought back and keeps next to nothing of it.
#[derive(Debug)]
struct Reader {
    tables: Vec<u8>,
    contents: Mutex<Contents>,
}

impl Backend for Reader {
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
                        contents.made = rmp_serde::from_slice(&value).ok();
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
        let made = Made {
            at: Timestamp(7),
            version: "0.0.0".to_owned(),
        };
        Store::note_backup(&mut extra, &made).unwrap();
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
    ) -> Result<Replaced, StoreError> {
        Store::replace(&mut &*file, path, key, &StoreOptions::default(), aside)
    }

    #[test]
    fn a_backup_is_read_to_its_end_and_says_what_is_in_it() {
        let key = StoreKey::random().unwrap();
        let file = backup_of(&["kim", "sam"], &key);
        let contents = Store::read_backup(&mut &*file, &key, &[Names::ID]).unwrap();
        assert_eq!((contents.count(Names::ID), contents.count(77)), (2, 0));
        assert_eq!(contents.made.unwrap().at, Timestamp(7));
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

    /// Whatever step was the last one, nobody finds an empty or an older store there and works
    /// with it.
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
