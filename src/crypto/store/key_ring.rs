//! The key ring of a ghost: the keys under which its secret records are sealed.
//!
//! Forgetting makes the older versions of records unreadable by destroying the key that they are
//! under, and the records that stay have to be sealed again. So that this costs what has changed
//! and not what the ghost has, the records are divided into groups, each with a key of its own: a
//! room's sessions are together, and so are the Olm sessions with a device. There are at most 256
//! groups of each sort, chosen by a hash, one for the keys that are parked, and one for the rest (the
//! account, the identity, requests).
//!
//! A group is *outdated* once a record in it was overwritten or deleted: only then an older version
//! of something lies on the disk under its key. A rotation replaces the keys of these groups. A
//! crash may leave bytes in the log that the database does not know, so after it all are outdated.
//!
//! All keys are in one record, sealed under the ghost's key in `shred.keys`.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{
    GhostStoreError,
    record::{
        DEVICE_KINDS, KIND_AT, Kind, OTHER_SECRET_KINDS, PARKED_KINDS, RING, ROOM_KINDS,
        ghost_prefix,
    },
};
use crate::store::{Subkey, random, seal::Sealer};

/// A group of records: its sort in the first byte, the first byte of their first part in the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group(u16);

impl Group {
    /// Returns the group of a record; `None` if it is sealed under the lasting key, or is not
    /// sealed.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let kind = key.get(KIND_AT)?;
        let sorts = (0..).map_while(kinds_of);
        let mut sorts = sorts.zip(0u8..);
        let (_, sort) = sorts.find(|(kinds, _)| kinds.iter().any(|it| it.byte == *kind))?;
        let part = if is_one_group(sort) {
            0
        } else {
            *key.get(KIND_AT + 1)?
        };
        Some(Self(u16::from_be_bytes([sort, part])))
    }

    /// Returns the prefixes of the keys of all records in the group.
    pub(super) fn prefixes(self, ghost: u32) -> Vec<Vec<u8>> {
        let [sort, part] = self.0.to_be_bytes();
        let prefix = |kind: &Kind| {
            let mut prefix = ghost_prefix(ghost);
            prefix.push(kind.byte);
            prefix.extend((!is_one_group(sort)).then_some(part));
            prefix
        };
        let kinds = kinds_of(sort).unwrap_or_default();
        kinds.iter().map(prefix).collect()
    }
}

/// The sort of the group of the records that belong to no room and no device.
const OTHERS: u8 = 2;
/// The sort of the group of parked keys. They are few, so strangers cannot make it large.
const PARKED_KEYS: u8 = 3;

/// Returns whether all records of a sort are in one group.
fn is_one_group(sort: u8) -> bool {
    matches!(sort, OTHERS | PARKED_KEYS)
}

/// Returns the kinds of the records in groups of a sort.
fn kinds_of(sort: u8) -> Option<&'static [Kind]> {
    match sort {
        0 => Some(ROOM_KINDS),
        1 => Some(DEVICE_KINDS),
        OTHERS => Some(OTHER_SECRET_KINDS),
        PARKED_KEYS => Some(PARKED_KINDS),
        _ => None,
    }
}

/// The key of a group.
#[derive(Clone)]
struct GroupKey {
    /// The number of the key, unique in the ring.
    number: u64,
    key: Subkey,
    is_outdated: bool,
}

/// Length of an entry: group (2 bytes), number (8), key (32), whether it is outdated (1).
const GROUP_KEY_BYTES: usize = 43;

/// The keys of a ghost's groups.
#[derive(Clone, Default)]
pub(super) struct KeyRing {
    entries: BTreeMap<Group, GroupKey>,
    /// The number of the newest key.
    last: u64,
    /// The first run since which no run ended with a crash.
    since: u64,
}

impl KeyRing {
    /// Returns the number and the cipher of a group's key.
    pub(super) fn sealer(&self, group: Group) -> Option<(u64, Sealer)> {
        let entry = self.entries.get(&group)?;
        Some((entry.number, Sealer::new(&entry.key)))
    }

    /// Returns whether a group has a key.
    pub(super) fn has(&self, group: Group) -> bool {
        self.entries.contains_key(&group)
    }

    /// Returns whether a record in the group was overwritten or deleted since it has its key.
    pub(super) fn is_outdated(&self, group: Group) -> bool {
        self.entries.get(&group).is_some_and(|it| it.is_outdated)
    }

    pub(super) fn mark_outdated(&mut self, group: Group) {
        if let Some(entry) = self.entries.get_mut(&group) {
            entry.is_outdated = true;
        }
    }

    /// Returns the outdated groups.
    pub(super) fn outdated(&self) -> Vec<Group> {
        let outdated = self.entries.iter().filter(|(_, it)| it.is_outdated);
        outdated.map(|(group, _)| *group).collect()
    }

    /// Gives a group a new key.
    pub(super) fn renew(&mut self, group: Group) -> Result<(), GhostStoreError> {
        self.last += 1;
        let entry = GroupKey {
            number: self.last,
            key: random()?,
            is_outdated: false,
        };
        self.entries.insert(group, entry);
        Ok(())
    }

    /// Removes the key of a group without records.
    pub(super) fn remove(&mut self, group: Group) {
        self.entries.remove(&group);
    }

    /// Marks every group as outdated if a run ended with a crash since the ring was written.
    pub(super) fn trust_since(&mut self, run: u64) {
        if self.since < run {
            self.since = run;
            for entry in self.entries.values_mut() {
                entry.is_outdated = true;
            }
        }
    }

    /// Returns the bytes of the ring: the number of the newest key, the first run without a crash
    /// since, then the entries.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let length = 16 + self.entries.len() * GROUP_KEY_BYTES;
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend_from_slice(&self.last.to_be_bytes());
        bytes.extend_from_slice(&self.since.to_be_bytes());
        for (group, entry) in &self.entries {
            bytes.extend_from_slice(&group.0.to_be_bytes());
            bytes.extend_from_slice(&entry.number.to_be_bytes());
            bytes.extend_from_slice(entry.key.as_slice());
            bytes.push(u8::from(entry.is_outdated));
        }
        bytes
    }

    /// Returns the ring of bytes made by [`Self::encode`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, GhostStoreError> {
        let broken = || GhostStoreError::Decode {
            kind: RING.name,
            why: "it has another length".to_owned(),
        };
        let (last, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let (since, entries) = rest.split_first_chunk().ok_or_else(broken)?;
        let mut ring = Self {
            entries: BTreeMap::new(),
            last: u64::from_be_bytes(*last),
            since: u64::from_be_bytes(*since),
        };
        for bytes in entries.chunks(GROUP_KEY_BYTES) {
            let (group, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
            let (number, rest) = rest.split_first_chunk().ok_or_else(broken)?;
            let (bytes, rest) = rest.split_first_chunk::<32>().ok_or_else(broken)?;
            let [is_outdated] = rest else {
                return Err(broken());
            };
            let mut key = Zeroizing::new([0; 32]);
            key.copy_from_slice(bytes);
            let entry = GroupKey {
                number: u64::from_be_bytes(*number),
                key,
                is_outdated: *is_outdated != 0,
            };
            ring.entries
                .insert(Group(u16::from_be_bytes(*group)), entry);
        }
        Ok(ring)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{ACCOUNT, ALL_KINDS, INBOUND, Keys, OLM, OUTBOUND, PARKED},
        *,
    };

    #[test]
    fn a_ring_looks_like_this_on_disk() {
        let mut ring = KeyRing {
            last: 6,
            since: 3,
            ..KeyRing::default()
        };
        ring.renew(Group(1)).unwrap();
        ring.entries.get_mut(&Group(1)).unwrap().key = Zeroizing::new([0xAB; 32]);
        ring.mark_outdated(Group(1));
        let bytes = ring.encode();
        let head = "00000000000000070000000000000003";
        let expected = format!("{head}00010000000000000007{}01", "ab".repeat(32));
        assert_eq!(hex::encode(&*bytes), expected);
        let read = KeyRing::decode(&bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.outdated(), [Group(1)]);
        assert!(KeyRing::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(KeyRing::decode(&[]).is_err());
    }

    #[test]
    fn after_a_crash_every_group_is_outdated_once() {
        let mut ring = KeyRing::default();
        ring.renew(Group(1)).unwrap();
        ring.trust_since(5);
        assert_eq!(ring.outdated(), [Group(1)]);
        ring.renew(Group(1)).unwrap();
        let mut ring = KeyRing::decode(&ring.encode()).unwrap();
        ring.trust_since(5);
        assert!(ring.outdated().is_empty());
    }

    #[test]
    fn a_record_is_found_through_its_group_and_lasting_ones_have_none() {
        let keys = Keys::new(7, &Zeroizing::new([1; 32])).unwrap();
        for key in [
            keys.of(ACCOUNT, &[]),
            keys.of(INBOUND, &[b"!room", b"session"]),
            keys.of(OUTBOUND, &[b"!room"]),
            keys.of(OLM, &[b"device", b"session"]),
            keys.of(PARKED, &[b"!room", b"session", b"device"]),
        ] {
            let prefixes = Group::of(&key).unwrap().prefixes(7);
            let found = prefixes.iter().filter(|prefix| key.starts_with(prefix));
            assert_eq!(found.count(), 1);
        }
        let inbound = |session: &[u8]| Group::of(&keys.of(INBOUND, &[b"!room", session]));
        assert_eq!(inbound(b"one"), inbound(b"two"));
        for kind in ALL_KINDS {
            let group = Group::of(&keys.of(kind, &[b"one", b"two"]));
            let is_grouped = !kind.lasting && kind != RING;
            assert_eq!(group.is_some(), is_grouped, "{}", kind.name);
        }
    }
}
