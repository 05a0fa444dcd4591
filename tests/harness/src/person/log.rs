//! What a client has shown to its owner, in the order in which it did.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use matrix_sdk::{
    deserialized_responses::{EncryptionInfo, ShieldState},
    ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId},
};
use serde_json::Value;
use tokio::sync::watch;

/// How many failures of syncs are remembered.
const FAILED_SYNCS: usize = 50;

/// An event that the client has shown, state and messages alike.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The room.
    pub room: OwnedRoomId,
    /// The event; the same id comes once.
    pub event_id: OwnedEventId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// Its type, after decryption.
    pub event_type: String,
    /// For state.
    pub state_key: Option<String>,
    /// Its content, after decryption; of an undecryptable event the ciphertext.
    pub content: Value,
    /// How it was encrypted.
    pub trust: Trust,
    /// When its server says that it was sent (milliseconds since 1970).
    pub sent: u64,
    /// When the client showed it.
    pub at: Instant,
}

/// What a client would show beside an event about its encryption.
#[derive(Clone, Debug)]
pub enum Trust {
    /// It was not encrypted.
    Clear,
    /// It was decrypted.
    Decrypted {
        /// The shield in Element's ordinary setting.
        shield: ShieldState,
        /// The shield that counts a person nobody has verified as a reason for one.
        strict_shield: ShieldState,
        /// The device that encrypted it.
        device: Option<String>,
        /// The Megolm session.
        session: Option<String>,
        /// Its key came after the event: somebody saw "Unable to decrypt" for a moment.
        late: bool,
    },
    /// "Unable to decrypt", until now.
    Undecryptable {
        /// Why, in the words of the SDK.
        reason: String,
    },
}

/// An invite that the client has shown.
#[derive(Clone, Debug)]
pub struct Invite {
    /// The room.
    pub room: OwnedRoomId,
    /// Who invites.
    pub sender: OwnedUserId,
    /// The name that the invite shows for them.
    pub sender_name: Option<String>,
    /// Whether the client puts the room among the chats with people.
    pub is_direct: bool,
    /// The reason given.
    pub reason: Option<String>,
    /// The room's name and topic, if the invite says.
    pub room_name: Option<String>,
    /// Whether the invite says that the room is encrypted.
    pub encrypted: bool,
    /// Its whole stripped state.
    pub state: Vec<Value>,
    /// When the client showed it.
    pub at: Instant,
}

/// Everything that a client has shown.
pub struct Log {
    owner: OwnedUserId,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    syncs: u64,
    events: Vec<Seen>,
    /// Where each event is in `events`.
    places: HashMap<OwnedEventId, usize>,
    invites: Vec<Invite>,
    left: Vec<OwnedRoomId>,
    signs: Vec<Sign>,
    /// Why syncs failed lately.
    failed_syncs: VecDeque<String>,
}

/// A receipt, or who types: what a client shows for a moment only.
#[derive(Clone, Debug)]
pub struct Sign {
    /// The room.
    pub room: OwnedRoomId,
    /// `m.receipt` or `m.typing`.
    pub kind: String,
    /// What the homeserver says of it.
    pub content: Value,
}

impl Sign {
    /// Whether somebody types.
    pub fn types(&self, user: &UserId) -> bool {
        let all = self.content["user_ids"].as_array();
        self.kind == "m.typing" && all.is_some_and(|all| all.iter().any(|it| it == user.as_str()))
    }

    /// In which thread somebody has read this event: none, `main`, or the thread's root.
    pub fn read(&self, event: &ruma::EventId, user: &UserId) -> Option<Option<&str>> {
        let receipt = self.content.get(event.as_str())?.get("m.read")?;
        let receipt = receipt.get(user.as_str())?;
        Some(receipt.get("thread_id").and_then(Value::as_str))
    }
}

impl Trust {
    pub(crate) fn decrypted(info: &EncryptionInfo, late: bool) -> Self {
        Self::Decrypted {
            shield: info.verification_state.to_shield_state_lax(),
            strict_shield: info.verification_state.to_shield_state_strict(),
            device: info.sender_device.as_ref().map(ToString::to_string),
            session: info.session_id().map(ToOwned::to_owned),
            late,
        }
    }
}

impl Seen {
    /// The text of a message; of an edit the new one.
    pub fn text(&self) -> Option<&str> {
        if self.event_type != "m.room.message" {
            return None;
        }
        self.content
            .get("m.new_content")
            .unwrap_or(&self.content)
            .get("body")?
            .as_str()
    }

    /// Whether it came encrypted and was decrypted.
    pub fn was_encrypted(&self) -> bool {
        matches!(self.trust, Trust::Decrypted { .. })
    }

    /// The event that it relates to, and how (`m.annotation`, `m.replace`, `m.in_reply_to`, …).
    pub fn relates_to(&self) -> Option<(&str, &str)> {
        let relation = self.content.get("m.relates_to")?;
        if let Some(reply) = relation.get("m.in_reply_to") {
            return Some(("m.in_reply_to", reply.get("event_id")?.as_str()?));
        }
        Some((
            relation.get("rel_type")?.as_str()?,
            relation.get("event_id")?.as_str()?,
        ))
    }

    /// The membership that a member event sets, and for whom.
    pub fn membership(&self) -> Option<(&str, &str)> {
        if self.event_type != "m.room.member" {
            return None;
        }
        Some((
            self.state_key.as_deref()?,
            self.content.get("membership")?.as_str()?,
        ))
    }
}

impl Inner {
    fn add(&mut self, events: Vec<Seen>) {
        for seen in events {
            let place = self.events.len();
            if let Entry::Vacant(new) = self.places.entry(seen.event_id.clone()) {
                new.insert(place);
                self.events.push(seen);
            }
        }
    }
}

impl Log {
    pub(crate) fn new(owner: OwnedUserId) -> Self {
        Self {
            owner,
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whenever something is added or changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the client has synced at all.
    pub fn synced(&self) -> bool {
        self.lock().syncs > 0
    }

    /// Every event, of every room.
    pub fn events(&self) -> Vec<Seen> {
        self.lock().events.clone()
    }

    /// The first event that `wanted` says yes to.
    pub fn find(&self, mut wanted: impl FnMut(&Seen) -> bool) -> Option<Seen> {
        self.lock().events.iter().find(|seen| wanted(seen)).cloned()
    }

    /// Every event of a room.
    pub fn events_in(&self, room: &RoomId) -> Vec<Seen> {
        self.lock()
            .events
            .iter()
            .filter(|seen| seen.room == room)
            .cloned()
            .collect()
    }

    /// Who said what in a room, in order, without the edits.
    pub fn texts_in(&self, room: &RoomId) -> Vec<(OwnedUserId, String)> {
        let inner = self.lock();
        let said = inner.events.iter().filter(|seen| seen.room == room);
        said.filter(|seen| seen.relates_to().is_none_or(|(how, _)| how != "m.replace"))
            .filter_map(|seen| Some((seen.sender.clone(), seen.text()?.to_owned())))
            .collect()
    }

    /// Every invite, also those answered since.
    pub fn invites(&self) -> Vec<Invite> {
        self.lock().invites.clone()
    }

    /// Rooms that the person has left or was removed from.
    pub fn left(&self) -> Vec<OwnedRoomId> {
        self.lock().left.clone()
    }

    /// Every receipt and who typed, in order.
    pub fn signs_in(&self, room: &RoomId) -> Vec<Sign> {
        let inner = self.lock();
        let all = inner.signs.iter().filter(|sign| sign.room == room);
        all.cloned().collect()
    }

    /// Events that show as "Unable to decrypt" now.
    pub fn undecryptable(&self) -> Vec<Seen> {
        let inner = self.lock();
        let closed = |seen: &&Seen| matches!(seen.trust, Trust::Undecryptable { .. });
        inner.events.iter().filter(closed).cloned().collect()
    }

    /// Events with a shield of whatever colour beside them, in Element's ordinary setting, or
    /// not encrypted where the room is.
    pub fn shields(&self) -> Vec<Seen> {
        let inner = self.lock();
        let shown = |seen: &&Seen| match &seen.trust {
            Trust::Decrypted { shield, .. } => *shield != ShieldState::None,
            Trust::Undecryptable { .. } => true,
            Trust::Clear => seen.event_type == "m.room.message",
        };
        inner.events.iter().filter(shown).cloned().collect()
    }

    /// The membership of somebody in a room, as far as this client knows.
    pub fn membership_of(&self, room: &RoomId, user: &UserId) -> Option<String> {
        let inner = self.lock();
        let of = inner.events.iter().rev().filter(|seen| seen.room == room);
        of.filter_map(Seen::membership)
            .find(|(who, _)| *who == user.as_str())
            .map(|(_, membership)| membership.to_owned())
    }

    /// Waits until `find` finds something; looks again after every change.
    pub async fn until<T>(
        &self,
        patience: Duration,
        what: &str,
        mut find: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = find(self) {
                    return found;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(found) => Ok(found),
            Err(_) => bail!(
                "{} waited {patience:?} for {what}, and saw instead:\n{}",
                self.owner,
                self.transcript()
            ),
        }
    }

    /// All of it, a line each, for people to read.
    pub fn transcript(&self) -> String {
        let inner = self.lock();
        let mut text = String::new();
        for invite in &inner.invites {
            let name = invite.sender_name.as_deref().unwrap_or("?");
            let _ = writeln!(
                text,
                "  {} invited by {} ({name}), direct: {}",
                invite.room, invite.sender, invite.is_direct
            );
        }
        for seen in &inner.events {
            let what = match (seen.text(), seen.membership()) {
                (Some(text), _) => format!("{text:?}"),
                (_, Some((who, membership))) => format!("{who} {membership}"),
                _ if seen.state_key.is_some() => continue,
                _ => seen.content.to_string().chars().take(120).collect(),
            };
            let trust = match &seen.trust {
                Trust::Clear if seen.state_key.is_some() => String::new(),
                Trust::Clear => " [IN CLEAR]".to_owned(),
                Trust::Decrypted {
                    shield: ShieldState::None,
                    late: false,
                    ..
                } => String::new(),
                Trust::Decrypted { shield, late, .. } => format!(" [{shield:?}, late: {late}]"),
                Trust::Undecryptable { reason } => format!(" [UNDECRYPTABLE: {reason}]"),
            };
            let _ = writeln!(
                text,
                "  {} {} {}: {what}{trust}",
                seen.room, seen.sender, seen.event_type
            );
        }
        text
    }

    /// Notes why a sync failed.
    pub(crate) fn note_failed_sync(&self, why: String) {
        let failed = &mut self.lock().failed_syncs;
        if failed.len() >= FAILED_SYNCS {
            failed.pop_front();
        }
        failed.push_back(why);
    }

    /// Why syncs failed lately, the newest last.
    pub fn failed_syncs(&self) -> Vec<String> {
        self.lock().failed_syncs.iter().cloned().collect()
    }

    /// Whether the client has shown an event.
    pub(crate) fn has(&self, event: &EventId) -> bool {
        self.lock().places.contains_key(event)
    }

    /// Notes what the client has shown late, unless the sync has brought it.
    pub(crate) fn note_missed(&self, events: Vec<Seen>) {
        self.lock().add(events);
        self.changed.send_modify(|n| *n += 1);
    }

    pub(crate) fn note_sync(
        &self,
        events: Vec<Seen>,
        invites: Vec<Invite>,
        left: Vec<OwnedRoomId>,
        signs: Vec<Sign>,
    ) {
        {
            let mut inner = self.lock();
            inner.syncs += 1;
            inner.add(events);
            for invite in invites {
                let known =
                    |known: &Invite| known.room == invite.room && known.sender == invite.sender;
                if !inner.invites.iter().any(known) {
                    inner.invites.push(invite);
                }
            }
            inner.left.extend(left);
            inner.signs.extend(signs);
        }
        self.changed.send_modify(|n| *n += 1);
    }

    /// What is shown of an event has changed.
    pub(crate) fn note_change(&self, seen: Seen) {
        {
            let mut inner = self.lock();
            let place = inner.places.get(&seen.event_id).copied();
            if let Some(known) = place.and_then(|place| inner.events.get_mut(place)) {
                *known = Seen {
                    at: known.at,
                    ..seen
                };
            }
        }
        self.changed.send_modify(|n| *n += 1);
    }
}
