//! A ghost's own `/sync`, which is reliable where transactions are only a hint.
//!
//! Strangers can make an answer as large as they like, so it is read as it arrives and handed on in
//! pages of whole rooms. An item that exceeds a bound is set aside (see [`super::bounds`]), and the
//! page continues: no content of rooms and messages makes a sync unreadable.

mod reader;

use std::{collections::BTreeMap, time::Duration};

use ruma::{OneTimeKeyAlgorithm, OwnedRoomId, OwnedUserId, UInt};
use serde_json::value::RawValue;

pub use reader::SyncReader;

use super::{Actor, Homeserver, MatrixError, answer::AnswerStream};

/// How many bytes of rooms are read before a page is handed on.
const PAGE_BYTES: usize = 2 << 20;
/// Maximum size of a sync that is read as a whole, in bytes.
const WHOLE_MAX: usize = 32 << 20;

/// The answer to a `/sync`, or some of its rooms.
#[derive(Debug, Default)]
pub struct SyncPage {
    /// To-device messages, 100 at most; more may be waiting. All of them come with the last page.
    pub to_device: Vec<Box<RawValue>>,
    /// How many to-device messages there were, including those that were set aside.
    pub to_device_count: usize,
    /// How many one-time keys the homeserver holds for this device, with an explicit 0 for none.
    pub otk_counts: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    /// For which algorithms a fallback key is held that nobody has used.
    pub fallback_types: Option<Vec<OneTimeKeyAlgorithm>>,
    /// Users whose devices changed.
    pub device_lists_changed: Vec<OwnedUserId>,
    /// Rooms the user is joined to and in which something happened.
    pub joined: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// Rooms the user is invited to, with the state shown to invited people. The homeserver puts
    /// the invite itself last.
    pub invited: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>,
    /// Rooms the user has left, with what happened before.
    pub left: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// The token for the next sync; on the last page only. A sync with this token deletes the
    /// messages up to here from the homeserver's inbox of the device, so the token is stored after
    /// them or together with them.
    pub next_batch: Option<String>,
}

/// A room's part of a sync.
#[derive(Debug, Default)]
pub struct JoinedRoom {
    /// The newest events, in order.
    pub timeline: Vec<Box<RawValue>>,
    /// Whether there are more events between the last sync and [`JoinedRoom::prev_batch`].
    pub limited: bool,
    /// The token from which `/messages` reads back into the gap. Without one, it reads back from
    /// the room's newest event.
    pub prev_batch: Option<String>,
}

impl Homeserver {
    /// Syncs one of our users on its device. `filter` is the JSON of a filter; `timeout` is how
    /// long the homeserver may wait for news.
    ///
    /// Implements `GET /_matrix/client/v3/sync` of the
    /// [client-server API](https://spec.matrix.org/v1.19/client-server-api/#syncing).
    pub async fn sync(
        &self,
        who: Actor<'_>,
        since: Option<&str>,
        filter: Option<&str>,
        timeout: Duration,
    ) -> Result<SyncStream, MatrixError> {
        let waiting = timeout.as_millis().to_string();
        let mut query = vec![("timeout", waiting.as_str()), ("set_presence", "offline")];
        query.extend(since.map(|since| ("since", since)));
        query.extend(filter.map(|filter| ("filter", filter)));
        let path = ["_matrix", "client", "v3", "sync"];
        let answer = self.stream(who, &path, &query, timeout).await?;
        Ok(SyncStream {
            homeserver: self.clone(),
            reader: Some(SyncReader::new(who.user)),
            answer,
        })
    }
}

/// An answer to a sync that is being read.
#[derive(Debug)]
pub struct SyncStream {
    homeserver: Homeserver,
    answer: AnswerStream,
    reader: Option<SyncReader>,
}

impl SyncStream {
    /// Returns the next page; `None` after the last one, which has the token for the next sync.
    pub async fn next_page(&mut self) -> Result<Option<SyncPage>, MatrixError> {
        loop {
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            if let Some(page) = reader.take_page() {
                return Ok(Some(page));
            }
            let Some(chunk) = self.answer.chunk().await? else {
                break;
            };
            reader.feed(&chunk);
            for letter in reader.take_dead_letters() {
                self.homeserver.set_aside(letter);
            }
        }
        let Some(reader) = self.reader.take() else {
            return Ok(None);
        };
        let (page, letters) = reader.finish()?;
        for letter in letters {
            self.homeserver.set_aside(letter);
        }
        Ok(Some(page))
    }

    /// Returns the whole answer as one page.
    ///
    /// # Errors
    ///
    /// [`MatrixError::TooLong`] over 32 MiB.
    pub async fn read_whole(mut self) -> Result<SyncPage, MatrixError> {
        let mut whole = SyncPage::default();
        let mut size = 0;
        while let Some(page) = self.next_page().await? {
            size += PAGE_BYTES;
            if size > WHOLE_MAX {
                return Err(MatrixError::TooLong { limit: WHOLE_MAX });
            }
            whole.joined.extend(page.joined);
            whole.invited.extend(page.invited);
            whole.left.extend(page.left);
            if page.next_batch.is_some() {
                whole = SyncPage {
                    joined: whole.joined,
                    invited: whole.invited,
                    left: whole.left,
                    ..page
                };
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests;
