//! Keys that can be destroyed: the file `shred.keys` beside the database.
//!
//! sled appends: overwritten and deleted bytes stay on the disk for an unknown time, and with them
//! the sessions of conversations that are over. So the keys of a ghost's records are in one record,
//! its ring (`key_ring.rs`), which is sealed under the ghost's own key. One half of that key is in
//! this file, outside the database, in a place that is *overwritten*: once the old key is gone,
//! nobody can read an older ring and what was under its keys, with or without the key of the store.
//!
//! The file: a header of 64 bytes, then 144 bytes per ghost: three slots of 48 bytes, each a key
//! (32), its epoch (8, big endian) and a check of both (8). A slot of zeros is empty. Slot 0, of
//! epoch 0, holds the key of *lasting* records (other people's public keys), which goes when the
//! ghost goes. Slots 1 and 2 hold the key of the ring, one generation each.
//!
//! Overwriting in place is what ext4 and xfs do to a file of this kind. On a file system that
//! copies on write (btrfs, zfs), on a snapshot of a virtual disk, and in the spare blocks of an
//! SSD, an old slot can survive its overwriting; `docs/store.md` says so to admins.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use zeroize::Zeroizing;

use super::GhostStoreError;
use crate::store::{Store, StoreError, Subkey, files::SideFile, files::check_of, random, raw};

const MAGIC: &[u8; 64] = b"stonechat shred keys 1; a copy of this file undoes forgetting  \n";
const SLOT: usize = 48;
const SLOTS: usize = 3;

/// The epoch of the key for lasting records.
pub(super) const LASTING: u64 = 0;
/// Marks a ghost in slot 0 as wiped.
const WIPED: u64 = u64::MAX;

/// The slots of one ghost.
#[derive(Default)]
pub(super) struct KeySlots {
    pub(super) lasting: Option<Subkey>,
    /// Slots 1 and 2: epoch and key.
    pub(super) generations: [Option<(u64, Subkey)>; 2],
    pub(super) wiped: bool,
}

/// The file `shred.keys`.
#[derive(Clone, Debug)]
pub(super) struct ShredKeys(SideFile);

impl ShredKeys {
    /// Opens the file. With `fresh` there is no ghost yet, so an empty file is right.
    pub(super) fn open(store: &Store, fresh: bool) -> Result<Self, GhostStoreError> {
        let file = raw::shred_file(store)?;
        let header = file.read(0, MAGIC.len())?;
        if header.as_slice() == MAGIC.as_slice() {
            return Ok(Self(file));
        }
        // A crash may have cut the first header short; in that case no ghost was ever made.
        if !fresh {
            let why = if header.is_empty() {
                "is missing"
            } else {
                "is not what it should be"
            };
            return Err(GhostStoreError::KeysGone { why });
        }
        file.write(0, MAGIC)?;
        Ok(Self(file))
    }

    /// Overwrites all keys in the file of a replaced store with zeros, durably. Its header stays.
    pub(super) fn destroy_all(path: &Path) -> Result<(), GhostStoreError> {
        let io = |e| StoreError::io("overwrite", path, &e);
        let mut options = OpenOptions::new();
        let file = match options.read(true).write(true).open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(io)?,
        };
        let mut bytes = Zeroizing::new(Vec::new());
        (&file).read_to_end(&mut bytes).map_err(io)?;
        let keys = bytes.get(MAGIC.len()..).unwrap_or_default();
        if keys.iter().any(|byte| *byte != 0) {
            file.write_all_at(&vec![0; keys.len()], MAGIC.len() as u64)
                .and_then(|()| file.sync_data())
                .map_err(io)?;
        }
        Ok(())
    }

    pub(super) fn read(&self, ghost: u32) -> Result<KeySlots, GhostStoreError> {
        let bytes = self.0.read(place(ghost, 0), SLOT * SLOTS)?;
        let slot = |n: usize| bytes.get(n * SLOT..(n + 1) * SLOT).and_then(parse);
        let mut slots = KeySlots {
            generations: [slot(1), slot(2)],
            ..KeySlots::default()
        };
        match slot(0) {
            Some((WIPED, _)) => slots.wiped = true,
            Some((LASTING, key)) => slots.lasting = Some(key),
            _ => {}
        }
        Ok(slots)
    }

    /// Writes keys for a new ghost.
    pub(super) fn create(&self, ghost: u32) -> Result<KeySlots, GhostStoreError> {
        let (lasting, first) = (random()?, random()?);
        let mut bytes = Zeroizing::new(Vec::with_capacity(SLOT * SLOTS));
        bytes.extend_from_slice(&*write(LASTING, &lasting));
        bytes.extend_from_slice(&*write(1, &first));
        bytes.resize(SLOT * SLOTS, 0);
        self.0.write(place(ghost, 0), &bytes)?;
        Ok(KeySlots {
            lasting: Some(lasting),
            generations: [Some((1, first)), None],
            wiped: false,
        })
    }

    /// Writes a new key into slot 1 (`slot` 0) or 2.
    pub(super) fn put(
        &self,
        ghost: u32,
        slot: usize,
        epoch: u64,
    ) -> Result<Subkey, GhostStoreError> {
        let key = random()?;
        self.0.write(place(ghost, slot + 1), &*write(epoch, &key))?;
        Ok(key)
    }

    /// Destroys the key in slot 1 (`slot` 0) or 2.
    pub(super) fn destroy(&self, ghost: u32, slot: usize) -> Result<(), GhostStoreError> {
        Ok(self.0.write(place(ghost, slot + 1), &[0; SLOT])?)
    }

    /// Destroys all keys of a ghost.
    pub(super) fn wipe(&self, ghost: u32) -> Result<(), GhostStoreError> {
        let mut bytes = [0u8; SLOT * SLOTS];
        bytes[..SLOT].copy_from_slice(&*write(WIPED, &Zeroizing::new([0; 32])));
        Ok(self.0.write(place(ghost, 0), &bytes)?)
    }
}

fn place(ghost: u32, slot: usize) -> u64 {
    (MAGIC.len() + slot * SLOT) as u64 + u64::from(ghost) * (SLOT * SLOTS) as u64
}

fn write(epoch: u64, key: &Subkey) -> Zeroizing<[u8; SLOT]> {
    let mut slot = Zeroizing::new([0u8; SLOT]);
    slot[..32].copy_from_slice(key.as_slice());
    slot[32..40].copy_from_slice(&epoch.to_be_bytes());
    let check = check_of(&slot[..40]);
    slot[40..].copy_from_slice(&check);
    slot
}

fn parse(slot: &[u8]) -> Option<(u64, Subkey)> {
    let (body, check) = slot.split_at_checked(40)?;
    if check_of(body) != *check {
        return None;
    }
    let (key, epoch) = body.split_at(32);
    let mut out = Zeroizing::new([0u8; 32]);
    out.copy_from_slice(key);
    Some((u64::from_be_bytes(epoch.try_into().ok()?), out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_looks_like_this_on_disk() {
        let slot = write(3, &Zeroizing::new([0xAB; 32]));
        assert_eq!(slot[..32], [0xAB; 32]);
        assert_eq!(slot[32..40], [0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(hex::encode(&slot[40..]), "cdeb58a56804c42f");
        let (epoch, key) = parse(slot.as_slice()).unwrap();
        assert_eq!((epoch, *key), (3, [0xAB; 32]));
        for at in 0..SLOT {
            let mut torn = slot.clone();
            torn[at] ^= 1;
            assert!(parse(torn.as_slice()).is_none(), "byte {at}");
        }
        assert!(parse(&[0; SLOT]).is_none(), "zeros are no slot");
        assert_eq!((place(0, 0), place(0, 2), place(2, 1)), (64, 160, 400));
    }
}
