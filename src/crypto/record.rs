//! What we know about a ghost's keys without opening its crypto store. Nothing here is secret.

use std::collections::BTreeMap;

use ruma::{EventId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, store::Table};

/// Which keys a ghost has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GhostKind {
    /// None: it is registered, so that it can decline invites, and nothing more.
    Bare,
    /// An Olm machine: it reads and writes.
    Machine,
    /// Published keys whose private halves nobody has: it does neither.
    Keyless,
}

/// How far the making of a ghost's keys has come. Each step is written before the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Step {
    /// About to be registered. Nothing is known to be ours.
    Planned,
    /// Registered by us.
    Registered,
    /// Keys exist and may have been uploaded in part.
    Keyed,
    /// Everything is uploaded and was seen on the homeserver.
    Ready,
    /// Being taken away.
    Retiring,
}

/// A device and an identity that a ghost had before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Former {
    pub(super) device: OwnedDeviceId,
    /// The public master key, in base64.
    pub(super) master: Option<String>,
    /// Whether the homeserver no longer has the device.
    pub(super) deleted: bool,
}

/// One ghost's keys, as the public may know them. Deleted never: a name that was ours once must be
/// recognised as ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GhostRecord {
    pub(super) kind: GhostKind,
    pub(super) step: Step,
    /// Counts the devices the ghost has had.
    pub(super) generation: u32,
    pub(super) device: Option<OwnedDeviceId>,
    /// The device's public Ed25519 key, in base64.
    pub(super) ed25519: Option<String>,
    /// The public master key, in base64.
    pub(super) master: Option<String>,
    pub(super) former: Vec<Former>,
    /// Whether somebody has used the fallback key that is published now.
    #[serde(default)]
    pub(super) fallback_used: bool,
    /// When one-time keys were last made on somebody's demand.
    #[serde(default)]
    pub(super) topped_up_at: Timestamp,
    /// How many were made since unused ones were last thrown away.
    #[serde(default)]
    pub(super) topped_up: u32,
}

impl GhostRecord {
    pub(super) fn planned(kind: GhostKind) -> Self {
        Self {
            kind,
            step: Step::Planned,
            generation: 0,
            device: None,
            ed25519: None,
            master: None,
            former: Vec::new(),
            fallback_used: false,
            topped_up_at: Timestamp::default(),
            topped_up: 0,
        }
    }

    /// Moves the present device to the former ones.
    pub(super) fn put_aside(&mut self) {
        /// The homeserver can only show the newest master key; older ones need no remembering.
        const KEPT: usize = 8;
        if let Some(device) = self.device.take() {
            self.former.push(Former {
                device,
                master: self.master.take(),
                deleted: false,
            });
            let surplus = self.former.len().saturating_sub(KEPT);
            self.former.drain(..surplus);
        }
        self.ed25519 = None;
        self.fallback_used = false;
        self.topped_up = 0;
    }

    pub(super) fn is_ready(&self, kind: GhostKind) -> bool {
        self.kind == kind && self.step == Step::Ready
    }
}

/// [`GhostRecord`] by user.
pub(super) struct Ghosts;

impl Table for Ghosts {
    const ID: u8 = 7;
    const NAME: &'static str = "ghost keys";
    const SECRET: bool = false;
    type Key = OwnedUserId;
    type Value = GhostRecord;
}

/// Rooms whose keys a ghost keeps: it is joined, or about to join. Deleted when it has left.
pub(super) struct ExpectedRooms;

impl Table for ExpectedRooms {
    const ID: u8 = 8;
    const NAME: &'static str = "expected rooms";
    const SECRET: bool = false;
    type Key = (OwnedUserId, OwnedRoomId);
    type Value = ();
}

/// Which messages of a part of a session were decrypted, by ghost, room, session and part; a part has
/// [`PART`] places. A message changes one short record, however many came before it. Deleted with
/// the room.
pub(super) struct Heard;

impl Table for Heard {
    const ID: u8 = 70;
    const NAME: &'static str = "heard messages";
    const SECRET: bool = false;
    type Key = (OwnedUserId, OwnedRoomId, String, u32);
    type Value = HeardPart;
}

/// As it was before: all of a session in one record. Read, deleted, and not written any more.
pub(super) struct HeardWhole;

impl Table for HeardWhole {
    const ID: u8 = 9;
    const NAME: &'static str = "heard sessions";
    const SECRET: bool = false;
    type Key = (OwnedUserId, OwnedRoomId, String);
    type Value = HeardPart;
}

/// How many places of a session a part has.
const PART: u32 = 16;

/// The part of a session that a place is in.
pub(super) fn part_of(index: u32) -> u32 {
    index / PART
}

/// The messages of a part of a session that were decrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeardPart {
    /// By message index.
    pub(super) events: BTreeMap<u32, OwnedEventId>,
    /// When this part was begun, every index below this one counted as heard.
    pub(super) below: u32,
}

/// What is to be done so that a part can be begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) part: HeardPart,
    /// The part that is forgotten for it.
    pub(super) forget: Option<u32>,
}

impl HeardPart {
    /// As many parts of a session are kept: more than it has before it rotates in any client we
    /// know.
    pub(super) const KEPT: usize = 24;

    /// Notes a message; `Ok(false)` when it was noted before. `Err` names the event that had this
    /// index before, unless that is too long ago.
    pub(super) fn note(
        &mut self,
        index: u32,
        event: &EventId,
    ) -> Result<bool, Option<OwnedEventId>> {
        match self.events.get(&index) {
            Some(first) if first == event => return Ok(false),
            Some(first) => return Err(Some(first.clone())),
            None if index < self.below => return Err(None),
            None => {}
        }
        self.events.insert(index, event.to_owned());
        Ok(true)
    }

    /// The part that an index is in, when none of it was heard. `others` are the parts of the
    /// session that are kept, in order; `whole` is what an earlier version wrote down of it.
    pub(super) fn begin(
        index: u32,
        others: &[(u32, Self)],
        whole: Option<Self>,
    ) -> Result<Begun, Option<OwnedEventId>> {
        let own = part_of(index);
        let whole = whole.unwrap_or_default();
        let below = others.iter().map(|(_, part)| part.below);
        let mut part = Self {
            below: below.max().unwrap_or_default().max(whole.below),
            events: whole.events,
        };
        part.events.retain(|index, _| part_of(*index) == own);
        let mut forget = None;
        if others.len() >= Self::KEPT
            && let Some((oldest, _)) = others.first()
        {
            if own < *oldest {
                return Err(None);
            }
            forget = Some(*oldest);
            part.below = oldest
                .saturating_add(1)
                .saturating_mul(PART)
                .max(part.below);
        }
        Ok(Begun { part, forget })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::owned_event_id;

    /// The records of a session.
    #[derive(Default)]
    struct Session {
        parts: BTreeMap<u32, HeardPart>,
        whole: Option<HeardPart>,
    }

    impl Session {
        fn note(&mut self, index: u32, event: &str) -> Result<bool, Option<OwnedEventId>> {
            let event = OwnedEventId::try_from(event).unwrap();
            let own = part_of(index);
            if let Some(part) = self.parts.get_mut(&own) {
                return part.note(index, &event);
            }
            let others: Vec<_> = self.parts.clone().into_iter().collect();
            let mut begun = HeardPart::begin(index, &others, self.whole.clone())?;
            let news = begun.part.note(index, &event)?;
            if let Some(forget) = begun.forget {
                self.parts.remove(&forget).unwrap();
            }
            self.parts.insert(own, begun.part);
            Ok(news)
        }
    }

    #[test]
    fn the_same_index_under_another_event_is_a_replay() {
        let mut session = Session::default();
        for (index, event) in [(3, "$a"), (100, "$far"), (1, "$c")] {
            assert_eq!(session.note(index, event), Ok(true), "in any order");
            assert_eq!(session.note(index, event), Ok(false));
        }
        let first = owned_event_id!("$a");
        assert_eq!(session.note(3, "$b"), Err(Some(first)));
    }

    #[test]
    fn the_memory_of_a_session_is_bounded_and_never_forgets_to_refuse() {
        let mut session = Session::default();
        for index in 0..10_000u32 {
            assert_eq!(session.note(index, &format!("$e{index}")), Ok(true));
            assert!(session.parts.len() <= HeardPart::KEPT);
        }
        for index in 0..10_000u32 {
            session.note(index, "$again").unwrap_err();
        }
        let parts = session.parts.values();
        assert!(parts.clone().all(|part| part.events.len() <= PART as usize));
        assert_eq!(parts.map(|part| part.events.len()).sum::<usize>(), 24 * 16);
        // Far apart and backwards.
        let mut session = Session::default();
        for step in 0..100u32 {
            let index = u32::MAX - step * 1000;
            let kept = (step as usize) < HeardPart::KEPT;
            assert_eq!(session.note(index, "$e").is_ok(), kept);
        }
        session.note(u32::MAX, "$again").unwrap_err();
    }

    #[test]
    fn what_an_earlier_version_wrote_down_is_heard() {
        let events = [(90, owned_event_id!("$a")), (99, owned_event_id!("$b"))];
        let mut session = Session {
            whole: Some(HeardPart {
                events: events.into(),
                below: 40,
            }),
            ..Session::default()
        };
        assert_eq!(session.note(39, "$old"), Err(None));
        assert_eq!(session.note(90, "$a"), Ok(false));
        assert_eq!(session.note(90, "$again"), Err(Some(owned_event_id!("$a"))));
        assert_eq!(session.note(91, "$new"), Ok(true));
        assert_eq!(session.note(90, "$again"), Err(Some(owned_event_id!("$a"))));
        assert_eq!(session.note(99, "$c"), Err(Some(owned_event_id!("$b"))));
        assert_eq!(session.note(40, "$new"), Ok(true));
        assert_eq!(session.note(39, "$old"), Err(None));
    }

    #[test]
    fn a_part_keeps_its_shape_on_disk() {
        let part = HeardPart {
            events: [(17, owned_event_id!("$a"))].into(),
            below: 3,
        };
        let bytes = rmp_serde::to_vec_named(&part).unwrap();
        assert_eq!(bytes, b"\x82\xA6events\x81\x11\xA2$a\xA5below\x03");
    }

    #[test]
    fn a_record_keeps_its_shape_on_disk() {
        let mut record = GhostRecord::planned(GhostKind::Machine);
        record.device = Some("DEV1".into());
        record.master = Some("master".into());
        record.put_aside();
        record.device = Some("DEV2".into());
        record.step = Step::Ready;
        insta::assert_json_snapshot!(record, @r#"
        {
          "kind": "Machine",
          "step": "Ready",
          "generation": 0,
          "device": "DEV2",
          "ed25519": null,
          "master": null,
          "former": [
            {
              "device": "DEV1",
              "master": "master",
              "deleted": false
            }
          ],
          "fallback_used": false,
          "topped_up_at": 0,
          "topped_up": 0
        }
        "#);
    }
}
