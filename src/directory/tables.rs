//! The tables of the directory. Ids 30 to 49.

use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::{
    record::{AuditRecord, HandleRecord, Request},
    usage::Usage,
};
use crate::{
    clock::Timestamp,
    handle::Handle,
    ids::{Ghost, Person},
    store::Table,
};

/// Declares a table.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $id:literal, $text:literal, $secret:literal, $key:ty => $value:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Table for $name {
            const ID: u8 = $id;
            const NAME: &'static str = $text;
            const SECRET: bool = $secret;
            type Key = $key;
            type Value = $value;
        }
    };
}

table! {
    /// By handle key: a handle that is held or in quarantine. Replaced by the next claim.
    Handles, 30, "handles", true, String => HandleRecord
}
table! {
    /// By look-alike key: the key of the handle that has this look. Replaced when another handle
    /// takes it.
    Lookalikes, 31, "lookalikes", false, String => String
}
table! {
    /// By owner and handle key: the time of the claim. Deleted on release.
    Owned, 32, "owned", false, (Person, String) => Timestamp
}
table! {
    /// By handle key: the generation of its last owner. Never deleted, or a new owner would be
    /// mistaken for an earlier one.
    Generations, 33, "generations", false, String => u32
}
table! {
    /// By blocker, blocked person, handle key (empty for all handles) and label: a block. Deleted
    /// when the blocker unblocks.
    Blocks, 34, "blocks", true, (Person, Person, String, String) => Block
}
table! {
    /// By handle key, generation and contact: the time since when. Deleted when the handle gets a
    /// new owner.
    Contacts, 35, "contacts", true, (String, u32, Person) => Timestamp
}
table! {
    /// By counted thing and subject: how much of a limit is used. Deleted when that no longer
    /// matters.
    Usages, 36, "usages", false, (String, String) => StoredUsage
}
table! {
    /// By asker, handle key and generation: the room that an introduction led to. Deleted after
    /// 90 days.
    Pairs, 37, "pairs", true, (Person, String, u32) => Pair
}
table! {
    /// By time: a record to delete then. The second part of the key tells records of the same time
    /// apart.
    Expiries, 38, "expiries", true, (Timestamp, String) => Expiring
}

table! {
    /// By owner and number: an open request. Deleted when it is answered or withdrawn, or expires.
    Requests, 39, "requests", true, (Person, u32) => Request
}

table! {
    /// By owner: the number of their last request. Never deleted, so that no number is used again.
    RequestNumbers, 40, "request_numbers", false, Person => u32
}

table! {
    /// The name by which somebody appears to those who do not see their Matrix ID. Deleted when
    /// they choose none.
    Appearances, 41, "appearances", true, Person => String
}

table! {
    /// By ghost that was made for one conversation: the person behind it. Deleted with the
    /// conversation.
    Aliases, 42, "aliases", true, Ghost => Person
}

table! {
    /// By person: until when the bot ignores what they type. Deleted after that.
    Pauses, 43, "pauses", false, Person => Timestamp
}

table! {
    /// By look-alike key: a name that an admin has reserved. Deleted when an admin frees it.
    Reservations, 44, "reservations", true, String => Reservation
}

table! {
    /// By time and number: an act of an admin. Deleted after a year.
    AuditLog, 45, "audit_log", true, (Timestamp, u64) => AuditRecord
}

table! {
    /// By Matrix ID or server: a ban. Deleted when an admin takes it back.
    Bans, 46, "bans", true, String => Ban
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// The time of the ban, in milliseconds since 1970.
    pub since: Timestamp,
    /// Why; may be empty.
    pub reason: String,
}

/// A name that an admin has reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The name, as the admin typed it.
    pub handle: Handle,
    /// The time at which it was reserved.
    pub since: Timestamp,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The time of the block.
    pub since: Timestamp,
}

/// A usage, and the time at which it can be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredUsage {
    /// How much is used.
    pub usage: Usage,
    /// The time from which it no longer matters.
    pub expires: Timestamp,
}

/// The room of two people who were introduced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The room.
    pub room: OwnedRoomId,
    /// The time of the introduction.
    pub introduced_at: Timestamp,
    /// The time at which the asker was last led back to it.
    pub led_back_at: Option<Timestamp>,
}

/// A record that is deleted by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiring {
    /// A record of [`Pairs`].
    Pair {
        /// The asker.
        asker: Person,
        /// The handle's key.
        handle: String,
        /// The owner's generation.
        generation: u32,
    },
    /// A record of [`Usages`].
    Usage {
        /// The counted thing.
        counted: String,
        /// The person, server or handle that it is counted for.
        subject: String,
    },
    /// A record of [`Pauses`].
    Pause {
        /// The person.
        person: Person,
    },
}
