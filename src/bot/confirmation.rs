//! What waits for a confirmation.

use std::time::Duration;

use rand::{Rng, RngCore};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::NoticeText;
use crate::{
    clock::Timestamp,
    directory::{Change, DirectoryError, Read},
    handle::Handle,
    store::Table,
};

/// For how long a code holds.
const CODE_LIFE: Duration = Duration::from_secs(10 * 60);

/// How often somebody may get it wrong.
const CODE_TRIES_MAX: u8 = 3;

/// By person: the one thing of theirs that waits for a confirmation. Deleted when it is
/// confirmed, cancelled or run out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmations;

impl Table for Confirmations {
    const ID: u8 = 60;
    const NAME: &'static str = "pending_confirmations";
    const SECRET: bool = true;
    type Key = OwnedUserId;
    type Value = Confirmation;
}

/// When what waits runs out. Deleted then.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfirmationEnds;

impl Table for ConfirmationEnds {
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
pub(super) struct Confirmation {
    action: Action,
    code: String,
    ends: Timestamp,
    tries_left: u8,
}

/// Without the code.
impl std::fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Confirmation")
            .field("action", &self.action)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// What a code leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RedeemedCode {
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
pub(super) fn issue_code(
    change: &mut Change<'_>,
    person: &UserId,
    action: Action,
    now: Timestamp,
    rng: &mut dyn RngCore,
) -> Result<String, DirectoryError> {
    let code = format!("{:04}", rng.random_range(0..10_000_u32));
    let ends = now + CODE_LIFE;
    let confirmation = Confirmation {
        action,
        code: code.clone(),
        ends,
        tries_left: CODE_TRIES_MAX,
    };
    change.put::<Confirmations>(&person.to_owned(), &confirmation)?;
    change.put::<ConfirmationEnds>(&(ends, person.to_owned()), &())?;
    Ok(code)
}

/// Takes what waits for this code. A code works once.
pub(super) fn redeem_code(
    change: &mut Change<'_>,
    person: &UserId,
    code: &str,
    now: Timestamp,
) -> Result<RedeemedCode, DirectoryError> {
    let key = person.to_owned();
    let Some(mut confirmation) = current(change, person, now)? else {
        return Ok(RedeemedCode::Nothing);
    };
    if code == confirmation.code {
        change.delete::<Confirmations>(&key);
        return Ok(RedeemedCode::Do(confirmation.action));
    }
    confirmation.tries_left = confirmation.tries_left.saturating_sub(1);
    if confirmation.tries_left == 0 {
        change.delete::<Confirmations>(&key);
    } else {
        change.put::<Confirmations>(&key, &confirmation)?;
    }
    Ok(RedeemedCode::Wrong {
        tries_left: confirmation.tries_left,
    })
}

/// Drops what waits, and says whether anything did.
pub(super) fn cancel(
    change: &mut Change<'_>,
    person: &UserId,
    now: Timestamp,
) -> Result<bool, DirectoryError> {
    let waited = current(change, person, now)?.is_some();
    change.delete::<Confirmations>(&person.to_owned());
    Ok(waited)
}

/// What waits and has not run out.
pub(super) fn current(
    change: &Change<'_>,
    person: &UserId,
    now: Timestamp,
) -> Result<Option<Confirmation>, DirectoryError> {
    Ok(change
        .get::<Confirmations>(&person.to_owned())?
        .filter(|confirmation| now < confirmation.ends))
}

/// Deletes what has run out, at most `limit` records, and says how many it looked at: as many as
/// `limit` means that there may be more.
pub fn sweep_confirmations(
    change: &mut Change<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<usize, DirectoryError> {
    let due: Vec<_> = change
        .scan::<ConfirmationEnds>(&[], limit)?
        .into_iter()
        .take_while(|((when, _), ())| *when <= now)
        .collect();
    for (key, ()) in &due {
        change.delete::<ConfirmationEnds>(key);
        // A newer one has an end of its own.
        if change
            .get::<Confirmations>(&key.1)?
            .is_some_and(|confirmation| confirmation.ends <= now)
        {
            change.delete::<Confirmations>(&key.1);
        }
    }
    Ok(due.len())
}

/// How to confirm what waits for this code.
pub(super) fn code_text(code: &str) -> NoticeText {
    NoticeText::new("To do it, write ")
        .code(&format!("confirm {code}"))
        .and(&format!(
            " within {} minutes. To leave all as it is, do nothing, or write ",
            CODE_LIFE.as_secs() / 60
        ))
        .code("cancel")
        .and(".")
}
