//! The transactions that the homeserver pushes: `PUT /_matrix/app/v1/transactions/{txnId}`.
//!
//! The homeserver sends a transaction again, unchanged, until it is acknowledged, and nothing else
//! before. So no content from strangers may make one unreadable. A [`TransactionReader`] reads a
//! body of any size as it arrives, and accepts each item or sets it aside as a [`DeadLetter`]. Only
//! a body that is not JSON is an error.
//!
//! To-device messages, key counts and device lists exist under the names of open proposals
//! (MSC3202, MSC4203) and under the names they will have; both are read.

use std::collections::BTreeMap;

use ruma::{DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId, UInt, UserId};
use serde_json::value::RawValue;

use super::{
    bounds::{DeadLetter, DeadLetterReason, ITEM_MAX, UNREDUCED_ITEM_MAX, bounded_event},
    json_stream::{
        Head, JsonStream, Match, MatchValue, NotJson,
        PathStep::{self, AnyKey, Each, Key},
        Selector,
    },
};

/// How many bytes of events are read before a part of the transaction is handed on.
const PART_BYTES: usize = 2 << 20;
/// Maximum size of the to-device messages that one transaction brings, in bytes. They are kept to
/// the end of the body, since a room key may come before the invite that it belongs to. Synapse
/// sends at most 100 messages at a time, and the homeserver keeps each for the ghost's next sync.
pub(super) const TO_DEVICE_BYTES: usize = 8 << 20;
/// What an item costs in memory besides its text, in bytes.
const OVERHEAD: usize = 64;
/// Maximum number of key counts, of fallback key types, and of users whose devices changed.
const LISTED_MAX: usize = 20_000;
/// Maximum size of one key count, or of one list of key types, in bytes.
const COUNT_MAX: usize = 4 << 10;
/// Maximum number of dead letters of one transaction; further ones are only counted as dropped.
const DEAD_LETTERS_MAX: usize = 1000;

/// Key counts: user, device, algorithm, number.
pub type OtkCounts =
    BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<OneTimeKeyAlgorithm, UInt>>>;

/// Unused fallback keys: user, device, algorithms.
pub type FallbackTypes = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Vec<OneTimeKeyAlgorithm>>>;

/// The content of a transaction, or of a part of a large one.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Room events, in order. Each has at most [`ITEM_MAX`] bytes.
    pub events: Vec<Box<RawValue>>,
    /// Receipts, typing and presence, without order.
    pub ephemeral: Vec<Box<RawValue>>,
    /// To-device messages, each with `to_user_id` and `to_device_id`, in order. Always in the last
    /// part.
    pub to_device: Vec<Box<RawValue>>,
    /// Users whose devices changed. Synapse reports no changes of membership here.
    pub device_lists_changed: Vec<OwnedUserId>,
    /// More users' devices changed than can be listed.
    pub all_device_lists_changed: bool,
    /// How many one-time keys the homeserver holds. Complete for the devices listed, with an
    /// explicit 0 where it holds none, and silent about all others.
    ///
    /// Synapse also lists a user's cross-signing keys as if they were devices, so look up the
    /// device you know and ignore the rest.
    pub otk_counts: OtkCounts,
    /// The algorithms for which the homeserver holds an unused fallback key.
    pub fallback_types: FallbackTypes,
    /// Something may have been lost between this transaction and the one before.
    pub after_gap: bool,
    /// Whether this is not the last part of the transaction.
    pub more: bool,
    /// The items that were set aside.
    pub dead_letters: Vec<DeadLetter>,
    /// How many items were dropped because they were malformed.
    pub dropped: u32,
}

/// Why a body is not a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The body is not JSON, or was cut short on its way.
    #[error(transparent)]
    NotJson(#[from] NotJson),
    /// The body is JSON of another form, without items.
    #[error("the body is not a JSON object")]
    NotAnObject,
}

/// What a selector of [`SELECTORS`] matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransactionItem {
    Event,
    Ephemeral,
    ToDevice,
    Changed,
    OtkCount,
    FallbackType,
}

const STABLE_TO_DEVICE: &[PathStep] = &[Key("to_device"), Each];
const TO_DEVICE: &[PathStep] = &[Key("de.sorunome.msc2409.to_device"), Each];

const ITEMS: [(TransactionItem, Selector); 12] = [
    select(
        TransactionItem::Event,
        &[Key("events"), Each],
        UNREDUCED_ITEM_MAX,
    ),
    select(
        TransactionItem::Ephemeral,
        &[Key("ephemeral"), Each],
        ITEM_MAX,
    ),
    select(
        TransactionItem::Ephemeral,
        &[Key("de.sorunome.msc2409.ephemeral"), Each],
        ITEM_MAX,
    ),
    select(TransactionItem::ToDevice, STABLE_TO_DEVICE, ITEM_MAX),
    select(TransactionItem::ToDevice, TO_DEVICE, ITEM_MAX),
    select(
        TransactionItem::Changed,
        &[Key("device_lists"), Key("changed"), Each],
        COUNT_MAX,
    ),
    select(
        TransactionItem::Changed,
        &[Key("org.matrix.msc3202.device_lists"), Key("changed"), Each],
        COUNT_MAX,
    ),
    select(
        TransactionItem::OtkCount,
        &[Key("device_one_time_keys_count"), AnyKey, AnyKey],
        COUNT_MAX,
    ),
    select(
        TransactionItem::OtkCount,
        &[
            Key("org.matrix.msc3202.device_one_time_keys_count"),
            AnyKey,
            AnyKey,
        ],
        COUNT_MAX,
    ),
    // Synapse also sends the counts under this spelling.
    select(
        TransactionItem::OtkCount,
        &[
            Key("org.matrix.msc3202.device_one_time_key_counts"),
            AnyKey,
            AnyKey,
        ],
        COUNT_MAX,
    ),
    select(
        TransactionItem::FallbackType,
        &[Key("device_unused_fallback_key_types"), AnyKey, AnyKey],
        COUNT_MAX,
    ),
    select(
        TransactionItem::FallbackType,
        &[
            Key("org.matrix.msc3202.device_unused_fallback_key_types"),
            AnyKey,
            AnyKey,
        ],
        COUNT_MAX,
    ),
];

static SELECTORS: [Selector; ITEMS.len()] = {
    let mut selectors = [ITEMS[0].1; ITEMS.len()];
    let mut at = 0;
    while at < ITEMS.len() {
        selectors[at] = ITEMS[at].1;
        at += 1;
    }
    selectors
};

const fn select(
    item: TransactionItem,
    path: &'static [PathStep],
    limit: usize,
) -> (TransactionItem, Selector) {
    (item, Selector { path, limit })
}

/// A transaction's body that is being read. Holds at most some 15 MiB, whatever the size of the
/// body.
#[derive(Debug)]
pub struct TransactionReader {
    stream: JsonStream,
    partial: PartialTransaction,
}

/// The items that were read and not handed on yet.
#[derive(Debug, Default)]
struct PartialTransaction {
    part: Transaction,
    part_bytes: usize,
    to_device: Vec<Box<RawValue>>,
    to_device_bytes: usize,
    /// How many counts, types and users were listed.
    listed: usize,
}

impl Default for TransactionReader {
    fn default() -> Self {
        Self {
            stream: JsonStream::new(&SELECTORS),
            partial: PartialTransaction::default(),
        }
    }
}

impl TransactionReader {
    /// Reads the next bytes of the body. Call [`TransactionReader::take_part`] after each piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        let partial = &mut self.partial;
        self.stream.feed(bytes, &mut |found| partial.add(found));
    }

    /// Returns a part of the transaction once enough of it has been read.
    pub fn take_part(&mut self) -> Option<Transaction> {
        if self.partial.part_bytes < PART_BYTES {
            return None;
        }
        self.partial.part_bytes = 0;
        let mut part = std::mem::take(&mut self.partial.part);
        part.more = true;
        Some(part)
    }

    /// Returns how many bytes are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let dead_letters = self.partial.part.dead_letters.len() * size_of::<DeadLetter>();
        self.partial.part_bytes + self.partial.to_device_bytes + self.stream.held() + dead_letters
    }

    /// Ends the body and returns the last part.
    ///
    /// # Errors
    ///
    /// If the body is not a JSON object. The parts that were handed on before are still valid.
    pub fn finish(mut self) -> Result<Transaction, TransactionError> {
        let partial = &mut self.partial;
        self.stream.finish(&mut |found| partial.add(found))?;
        if !self.stream.is_object() {
            return Err(TransactionError::NotAnObject);
        }
        let mut last = self.partial.part;
        last.to_device = self.partial.to_device;
        last.device_lists_changed.sort();
        last.device_lists_changed.dedup();
        last.dropped = last.dropped.saturating_add(self.stream.mismatches());
        Ok(last)
    }
}

impl PartialTransaction {
    fn add(&mut self, found: Match<'_>) {
        let Some((item, _)) = ITEMS.get(found.selector) else {
            return;
        };
        match (item, found.value) {
            (_, MatchValue::TooLarge(head)) => self.add_too_large(*item, head),
            (TransactionItem::Event, MatchValue::Whole(json)) => self.add_event(json),
            (TransactionItem::Ephemeral, MatchValue::Whole(json)) => {
                if let Some(item) = self.parse_object(json) {
                    self.part_bytes += item.get().len() + OVERHEAD;
                    self.part.ephemeral.push(item);
                }
            }
            (TransactionItem::ToDevice, MatchValue::Whole(json)) => self.add_to_device(json),
            (TransactionItem::Changed, MatchValue::Whole(json)) => self.add_changed_user(json),
            (TransactionItem::OtkCount, MatchValue::Whole(json)) => {
                self.add_listed(found.names, parse_key_counts(json), |part| {
                    &mut part.otk_counts
                });
            }
            (TransactionItem::FallbackType, MatchValue::Whole(json)) => {
                self.add_listed(found.names, parse_algorithms(json), |part| {
                    &mut part.fallback_types
                });
            }
        }
    }

    fn add_event(&mut self, json: &str) {
        if !json.starts_with('{') {
            self.note_dropped();
            return;
        }
        match bounded_event(json) {
            Ok(event) => {
                self.part_bytes += event.get().len() + OVERHEAD;
                self.part.events.push(event);
            }
            Err(letter) => self.add_dead_letter(letter),
        }
    }

    fn add_to_device(&mut self, json: &str) {
        if self.to_device_bytes + json.len() + OVERHEAD > TO_DEVICE_BYTES {
            self.add_dead_letter(DeadLetter::of(DeadLetterReason::ToDeviceOverflow, json));
        } else if let Some(message) = self.parse_object(json) {
            self.to_device_bytes += json.len() + OVERHEAD;
            self.to_device.push(message);
        }
    }

    fn add_changed_user(&mut self, json: &str) {
        let id = serde_json::from_str::<String>(json).ok();
        match id.and_then(|id| UserId::parse(id).ok()) {
            None => self.note_dropped(),
            Some(_) if self.listed >= LISTED_MAX => self.part.all_device_lists_changed = true,
            Some(user) => {
                self.listed += 1;
                self.part.device_lists_changed.push(user);
            }
        }
    }

    /// Adds a value that belongs to a device. Beyond the limit nothing is added: the next
    /// transaction or sync repeats it.
    fn add_listed<T>(
        &mut self,
        names: &[String],
        value: Option<T>,
        list: impl Fn(&mut Transaction) -> &mut BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, T>>,
    ) {
        let [user, device] = names else { return };
        let (Ok(user), Some(value)) = (UserId::parse(user), value) else {
            self.note_dropped();
            return;
        };
        if self.listed < LISTED_MAX {
            self.listed += 1;
            let device: &DeviceId = device.as_str().into();
            let devices = list(&mut self.part).entry(user).or_default();
            devices.insert(device.to_owned(), value);
        }
    }

    fn parse_object(&mut self, json: &str) -> Option<Box<RawValue>> {
        let object = if json.starts_with('{') {
            RawValue::from_string(json.to_owned()).ok()
        } else {
            None
        };
        if object.is_none() {
            self.note_dropped();
        }
        object
    }

    fn add_too_large(&mut self, item: TransactionItem, head: &Head) {
        let reason = match item {
            TransactionItem::Event => DeadLetterReason::EventTooLarge,
            TransactionItem::ToDevice => DeadLetterReason::ToDeviceTooLarge,
            TransactionItem::Ephemeral => DeadLetterReason::EphemeralTooLarge,
            // These are asked for when they are needed.
            TransactionItem::Changed
            | TransactionItem::OtkCount
            | TransactionItem::FallbackType => {
                self.note_dropped();
                return;
            }
        };
        self.add_dead_letter(DeadLetter::too_large(reason, head));
    }

    fn add_dead_letter(&mut self, letter: DeadLetter) {
        if self.part.dead_letters.len() < DEAD_LETTERS_MAX {
            self.part.dead_letters.push(letter);
        } else {
            self.note_dropped();
        }
    }

    fn note_dropped(&mut self) {
        self.part.dropped = self.part.dropped.saturating_add(1);
    }
}

impl Transaction {
    /// Reads a whole body.
    pub fn parse(body: &[u8]) -> Result<Self, TransactionError> {
        let mut reader = TransactionReader::default();
        reader.feed(body);
        reader.finish()
    }
}

/// Returns the key counts of one device.
///
/// A device that is listed without a number has no keys left: Synapse leaves the algorithm out
/// then. Read as "no change", this would keep new keys from ever being uploaded.
pub(super) fn parse_key_counts(json: &str) -> Option<BTreeMap<OneTimeKeyAlgorithm, UInt>> {
    let mut counts: BTreeMap<OneTimeKeyAlgorithm, UInt> =
        serde_json::from_str::<BTreeMap<String, UInt>>(json)
            .ok()?
            .into_iter()
            .map(|(algorithm, count)| (algorithm.into(), count))
            .collect();
    counts
        .entry(OneTimeKeyAlgorithm::SignedCurve25519)
        .or_default();
    Some(counts)
}

/// Returns the algorithms of one device's unused fallback keys.
pub(super) fn parse_algorithms(json: &str) -> Option<Vec<OneTimeKeyAlgorithm>> {
    let names: Vec<String> = serde_json::from_str(json).ok()?;
    Some(names.into_iter().map(Into::into).collect())
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
