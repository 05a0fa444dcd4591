//! What the directory keeps. Ids 30 to 49.

use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::{
    record::{HandleRecord, Request},
    usage::Usage,
};
use crate::{clock::Timestamp, store::Table};

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
    /// By handle key: every handle that is held or in quarantine. Replaced by the next claim.
    Handles, 30, "handles", true, String => HandleRecord
}
table! {
    /// By look-alike key: the key of the handle that has this look. Deleted when another takes it.
    Lookalikes, 31, "lookalikes", false, String => String
}
table! {
    /// The handles that somebody holds, with the time of their claim. Deleted on release.
    Owned, 32, "owned", false, (OwnedUserId, String) => Timestamp
}
table! {
    /// By handle key: the generation of its last owner. Never deleted, or a new owner would be
    /// taken for an old one.
    Generations, 33, "generations", false, String => u32
}
table! {
    /// Whom somebody blocked: (blocker, blocked, handle key or nothing for all, how it was
    /// named). Deleted when they unblock.
    Blocks, 34, "blocks", true, (OwnedUserId, OwnedUserId, String, String) => Block
}
table! {
    /// The contacts of (handle key, generation). Deleted when the handle gets a new owner.
    Contacts, 35, "contacts", true, (String, u32, OwnedUserId) => Timestamp
}
table! {
    /// How much of a limit is used, by what is counted and for whom. Deleted when it says nothing
    /// any more.
    Usages, 36, "usages", false, (String, String) => StoredUsage
}
table! {
    /// By asker, handle key and generation: the room that an introduction led to. Deleted after
    /// 90 days.
    Pairs, 37, "pairs", true, (OwnedUserId, String, u32) => Pair
}
table! {
    /// What is to be deleted when. The second part of the key tells two of the same time apart.
    Expiries, 38, "expiries", true, (Timestamp, String) => Expiring
}

table! {
    /// The open requests of an owner, by their numbers. Deleted when they are answered, withdrawn
    /// or run out.
    Requests, 39, "requests", true, (OwnedUserId, u32) => Request
}

table! {
    /// The number of the last request of an owner. Never deleted, so that none is used again.
    RequestNumbers, 40, "request_numbers", false, OwnedUserId => u32
}

table! {
    /// The name by which somebody appears to those who do not see their Matrix ID. Deleted when
    /// they choose none.
    Appearances, 41, "appearances", true, OwnedUserId => String
}

table! {
    /// By ghost that was made for one conversation: the person behind it. Deleted with the
    /// conversation.
    Aliases, 42, "aliases", true, OwnedUserId => OwnedUserId
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Since when.
    pub since: Timestamp,
}

/// A usage and when it can be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredUsage {
    /// How much is used.
    pub usage: Usage,
    /// From then on it says nothing.
    pub expires: Timestamp,
}

/// Two people who were introduced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The room they have.
    pub room: OwnedRoomId,
    /// Since when.
    pub introduced_at: Timestamp,
    /// When the asker was last led back to it.
    pub led_back_at: Option<Timestamp>,
}

/// A record that is deleted by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiring {
    /// A record of [`Pairs`].
    Pair {
        /// The asker.
        asker: OwnedUserId,
        /// The handle's key.
        handle: String,
        /// The owner's generation.
        generation: u32,
    },
    /// A record of [`Usages`].
    Usage {
        /// What is counted.
        counted: String,
        /// For whom.
        subject: String,
    },
}
