//! What waits for a confirmation.

use std::time::Duration;

use rand::{Rng, RngCore};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    directory::{DirectoryError, DirectoryTransaction, Read},
    handle::Handle,
    store::Table,
};

/// For how long a code holds.
pub(super) const CODE_LIFE: Duration = Duration::from_secs(10 * 60);

/// How often somebody may get it wrong.
const TRIES: u8 = 3;

/// By person: the one thing of theirs that waits for a confirmation. Deleted when it is
/// confirmed, cancelled or run out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pendings;

impl Table for Pendings {
    const ID: u8 = 60;
    const NAME: &'static str = "pending_confirmations";
    const SECRET: bool = true;
    type Key = OwnedUserId;
    type Value = Pending;
}

/// When what waits runs out. Deleted then.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingEnds;

impl Table for PendingEnds {
    const ID: u8 = 61;
    const NAME: &'static str = "pending_confirmation_ends";
    const SECRET: bool = false;
    type Key = (Timestamp, OwnedUserId);
    type Value = ();
}

/// What is done when it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// Give up this handle, if it is still of this owner's generation.
    Release {
        /// The handle.
        handle: Handle,
        /// Which owner of it.
        generation: u32,
    },
}

/// Something that waits for its code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    action: Action,
    code: String,
    ends: Timestamp,
    tries_left: u8,
}

/// Without the code.
impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("action", &self.action)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// What a code leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// Do it.
    Do(Action),
    /// Nothing waits, or it has run out.
    Nothing,
    /// The code is wrong.
    Wrong {
        /// How many tries are left; with none left nothing waits any more.
        tries_left: u8,
    },
}

/// Lets an action wait for a code, and gives the code. What waited before is dropped.
pub(super) fn ask(
    change: &mut DirectoryTransaction<'_>,
    person: &UserId,
    action: Action,
    now: Timestamp,
    rng: &mut dyn RngCore,
) -> Result<String, DirectoryError> {
    let code = format!("{:04}", rng.random_range(0..10_000_u32));
    let ends = now + CODE_LIFE;
    let pending = Pending {
        action,
        code: code.clone(),
        ends,
        tries_left: TRIES,
    };
    change.put::<Pendings>(&person.to_owned(), &pending)?;
    change.put::<PendingEnds>(&(ends, person.to_owned()), &())?;
    Ok(code)
}

/// Takes what waits for this code. A code works once.
pub(super) fn confirm(
    change: &mut DirectoryTransaction<'_>,
    person: &UserId,
    code: &str,
    now: Timestamp,
) -> Result<Confirmed, DirectoryError> {
    let key = person.to_owned();
    let Some(mut pending) = waiting(change, person, now)? else {
        return Ok(Confirmed::Nothing);
    };
    if code == pending.code {
        change.delete::<Pendings>(&key);
        return Ok(Confirmed::Do(pending.action));
    }
    pending.tries_left = pending.tries_left.saturating_sub(1);
    if pending.tries_left == 0 {
        change.delete::<Pendings>(&key);
    } else {
        change.put::<Pendings>(&key, &pending)?;
    }
    Ok(Confirmed::Wrong {
        tries_left: pending.tries_left,
    })
}

/// Drops what waits, and says whether anything did.
pub(super) fn cancel(
    change: &mut DirectoryTransaction<'_>,
    person: &UserId,
    now: Timestamp,
) -> Result<bool, DirectoryError> {
    let waited = waiting(change, person, now)?.is_some();
    change.delete::<Pendings>(&person.to_owned());
    Ok(waited)
}

/// What waits and has not run out.
pub(super) fn waiting(
    change: &DirectoryTransaction<'_>,
    person: &UserId,
    now: Timestamp,
) -> Result<Option<Pending>, DirectoryError> {
    Ok(change
        .get::<Pendings>(&person.to_owned())?
        .filter(|pending| now < pending.ends))
}

/// Deletes what has run out, at most `limit` records, and says how many it looked at: as many as
/// `limit` means that there may be more.
pub fn sweep(
    change: &mut DirectoryTransaction<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<usize, DirectoryError> {
    let due: Vec<_> = change
        .scan::<PendingEnds>(&[], limit)?
        .into_iter()
        .take_while(|((when, _), ())| *when <= now)
        .collect();
    for (key, ()) in &due {
        change.delete::<PendingEnds>(key);
        // A newer one has an end of its own.
        if change
            .get::<Pendings>(&key.1)?
            .is_some_and(|pending| pending.ends <= now)
        {
            change.delete::<Pendings>(&key.1);
        }
    }
    Ok(due.len())
}
