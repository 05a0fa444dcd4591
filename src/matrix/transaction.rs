//! What the homeserver pushes: `PUT /_matrix/app/v1/transactions/{txnId}`.
//!
//! A transaction that is not acknowledged is sent again, unchanged, for ever, and everything behind
//! it waits. So nothing that a stranger can put into one may make it unreadable: each item is taken
//! as it is or dropped and counted, and only a body that is no JSON object at all is an error.
//!
//! To-device messages, key counts and device lists exist under the names of open proposals (MSC3202,
//! MSC4203) and under the names they will have; both are read.

use std::collections::BTreeMap;

use ruma::{DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId, UInt, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Key counts: user, device, algorithm, number.
pub type OtkCounts =
    BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<OneTimeKeyAlgorithm, UInt>>>;

/// Unused fallback keys: user, device, algorithms.
pub type FallbackTypes = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Vec<OneTimeKeyAlgorithm>>>;

/// What one transaction carries.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Room events, in order.
    pub events: Vec<Box<RawValue>>,
    /// Receipts, typing and presence, without order.
    pub ephemeral: Vec<Box<RawValue>>,
    /// To-device messages, each with `to_user_id` and `to_device_id`, in order.
    pub to_device: Vec<Box<RawValue>>,
    /// Users whose devices changed. Synapse reports no changes of membership here.
    pub device_lists_changed: Vec<OwnedUserId>,
    /// How many one-time keys the homeserver holds. Complete for the devices listed, with an
    /// explicit 0 where it holds none, and silent about all others.
    ///
    /// Synapse also lists a user's cross-signing keys as if they were devices, so look up the
    /// device you know and ignore the rest.
    pub otk_counts: OtkCounts,
    /// For which algorithms it holds a fallback key that nobody has used.
    pub fallback_types: FallbackTypes,
    /// Something may have been lost between this transaction and the one before.
    pub after_gap: bool,
    /// How many items were dropped because they were malformed.
    pub dropped: u32,
}

/// A body that is no transaction.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The body is not a JSON object.
    #[error("the body is not a JSON object (line {line}, column {column})")]
    NotAnObject {
        /// Where reading stopped.
        line: usize,
        /// Where reading stopped.
        column: usize,
    },
}

const EPHEMERAL: &[&str] = &["ephemeral", "de.sorunome.msc2409.ephemeral"];
const TO_DEVICE: &[&str] = &["to_device", "de.sorunome.msc2409.to_device"];
const DEVICE_LISTS: &[&str] = &["device_lists", "org.matrix.msc3202.device_lists"];
const OTK_COUNTS: &[&str] = &[
    "device_one_time_keys_count",
    "org.matrix.msc3202.device_one_time_keys_count",
    // Synapse sends the same under this spelling too.
    "org.matrix.msc3202.device_one_time_key_counts",
];
const FALLBACK_TYPES: &[&str] = &[
    "device_unused_fallback_key_types",
    "org.matrix.msc3202.device_unused_fallback_key_types",
];

/// Its values stand in the body they were read from.
type Object<'a> = BTreeMap<String, &'a RawValue>;

impl Transaction {
    /// Reads a transaction's body.
    pub fn parse(body: &[u8]) -> Result<Self, TransactionError> {
        // Bytes that are no text would spoil the whole body, the replacement character only the
        // event they stand in.
        let text = String::from_utf8_lossy(body);
        let body: Object =
            serde_json::from_str(&text).map_err(|error| TransactionError::NotAnObject {
                line: error.line(),
                column: error.column(),
            })?;
        let mut dropped = 0;
        let lists = object(field(&body, DEVICE_LISTS), &mut dropped);
        Ok(Self {
            events: objects(field(&body, &["events"]), &mut dropped),
            ephemeral: objects(field(&body, EPHEMERAL), &mut dropped),
            to_device: objects(field(&body, TO_DEVICE), &mut dropped),
            device_lists_changed: user_ids(lists.get("changed").copied(), &mut dropped),
            otk_counts: per_device(field(&body, OTK_COUNTS), counts, &mut dropped),
            fallback_types: per_device(field(&body, FALLBACK_TYPES), algorithms, &mut dropped),
            after_gap: false,
            dropped,
        })
    }
}

/// The first of these names that is there, and not null.
fn field<'a>(body: &Object<'a>, names: &[&str]) -> Option<&'a RawValue> {
    names
        .iter()
        .find_map(|name| body.get(*name))
        .copied()
        .filter(|raw| raw.get() != "null")
}

fn object<'a>(json: Option<&'a RawValue>, dropped: &mut u32) -> Object<'a> {
    parse_or_drop(json, dropped).unwrap_or_default()
}

/// An array's elements that are objects.
fn objects(json: Option<&RawValue>, dropped: &mut u32) -> Vec<Box<RawValue>> {
    let items: Vec<&RawValue> = parse_or_drop(json, dropped).unwrap_or_default();
    let before = items.len();
    let items: Vec<_> = items
        .into_iter()
        .filter(|item| item.get().starts_with('{'))
        .map(ToOwned::to_owned)
        .collect();
    add(dropped, before - items.len());
    items
}

/// An array's elements that are user ids, each once.
pub(super) fn user_ids(json: Option<&RawValue>, dropped: &mut u32) -> Vec<OwnedUserId> {
    let items: Vec<&RawValue> = parse_or_drop(json, dropped).unwrap_or_default();
    let mut users: Vec<OwnedUserId> = Vec::new();
    for item in items {
        let id = serde_json::from_str::<String>(item.get()).ok();
        match id.and_then(|id| UserId::parse(id).ok()) {
            Some(user) => users.push(user),
            None => add(dropped, 1),
        }
    }
    users.sort();
    users.dedup();
    users
}

fn per_device<T>(
    json: Option<&RawValue>,
    read: impl Fn(&RawValue) -> Option<T>,
    dropped: &mut u32,
) -> BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, T>> {
    let mut all: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, T>> = BTreeMap::new();
    for (user, devices) in object(json, dropped) {
        let Ok(user) = UserId::parse(user) else {
            add(dropped, 1);
            continue;
        };
        for (device, value) in object(Some(devices), dropped) {
            match read(value) {
                Some(value) => {
                    let device: &DeviceId = device.as_str().into();
                    all.entry(user.clone())
                        .or_default()
                        .insert(device.to_owned(), value);
                }
                None => add(dropped, 1),
            }
        }
    }
    all
}

/// The key counts of one device.
///
/// A device that is listed without a number has no keys left: Synapse leaves the algorithm out
/// then. Whoever took that for "no change" would never upload keys again.
pub(super) fn counts(json: &RawValue) -> Option<BTreeMap<OneTimeKeyAlgorithm, UInt>> {
    let mut counts: BTreeMap<OneTimeKeyAlgorithm, UInt> =
        serde_json::from_str::<BTreeMap<String, UInt>>(json.get())
            .ok()?
            .into_iter()
            .map(|(algorithm, count)| (algorithm.into(), count))
            .collect();
    counts
        .entry(OneTimeKeyAlgorithm::SignedCurve25519)
        .or_default();
    Some(counts)
}

/// The algorithms of one device's unused fallback keys.
pub(super) fn algorithms(json: &RawValue) -> Option<Vec<OneTimeKeyAlgorithm>> {
    let names: Vec<String> = serde_json::from_str(json.get()).ok()?;
    Some(names.into_iter().map(Into::into).collect())
}

fn parse_or_drop<'a, T: Deserialize<'a>>(
    json: Option<&'a RawValue>,
    dropped: &mut u32,
) -> Option<T> {
    let parsed = serde_json::from_str(json?.get()).ok();
    if parsed.is_none() {
        add(dropped, 1);
    }
    parsed
}

fn add(dropped: &mut u32, more: usize) {
    *dropped = dropped.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
