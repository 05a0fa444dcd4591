//! Actions that a person has to confirm with a code.

use std::time::Duration;

use rand::{Rng, RngCore};
use serde::{Deserialize, Serialize};

use super::NoticeText;
use crate::{
    clock::Timestamp,
    directory::{DirectoryError, DirectoryTransaction, HandleAct, Read},
    handle::Handle,
    ids::Person,
    store::Table,
};

/// How long a code is valid.
const CODE_LIFE: Duration = Duration::from_secs(10 * 60);

/// Maximum number of wrong codes before the action is dropped.
const CODE_TRIES_MAX: u8 = 3;

/// The one action that waits for a person's confirmation, by person. Deleted when it is confirmed
/// or cancelled, or when its code expires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmations;

impl Table for Confirmations {
    const ID: u8 = 60;
    const NAME: &'static str = "pending_confirmations";
    const SECRET: bool = true;
    type Key = Person;
    type Value = Confirmation;
}

/// The person whose code expires, by time. Deleted at that time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfirmationEnds;

impl Table for ConfirmationEnds {
    const ID: u8 = 61;
    const NAME: &'static str = "pending_confirmation_ends";
    const SECRET: bool = false;
    type Key = (Timestamp, Person);
    type Value = ();
}

/// An action that waits for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// Release this handle, if it has had no other owner since.
    Release {
        /// The handle.
        handle: Handle,
        /// The generation of the handle's owner.
        generation: u32,
    },
    /// Make this masked handle open or strict, if it has had no other owner since.
    Unmask {
        /// The handle.
        handle: Handle,
        /// The generation of the handle's owner.
        generation: u32,
        /// Whether it becomes strict.
        strict: bool,
    },
    /// Change the person's name in their conversation of two with the ghost of this handle.
    Rename {
        /// The handle.
        handle: Handle,
        /// The new name.
        name: String,
    },
    /// Do this to somebody's handle, if it has had no other owner since and the person is an admin.
    ActOnHandle {
        /// What is to be done.
        act: HandleAct,
        /// The handle.
        handle: Handle,
        /// The generation of the handle's owner.
        generation: u32,
        /// Why, in words for the owner; may be empty.
        reason: String,
    },
    /// Erase the person.
    Forget,
}

/// An action and its code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirmation {
    action: Action,
    code: String,
    ends: Timestamp,
    tries_left: u8,
}

/// Leaves the code out.
impl std::fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Confirmation")
            .field("action", &self.action)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// The result of a code that a person typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RedeemedCode {
    /// The code is right: carry out this action.
    Do(Action),
    /// No action waits, or its code has expired.
    Nothing,
    /// The code is wrong.
    Wrong {
        /// The number of tries left. At 0 the action has been dropped.
        tries_left: u8,
    },
}

/// Stores an action until it is confirmed, in place of an earlier one, and returns its code.
pub(super) fn issue_code(
    tx: &mut DirectoryTransaction<'_>,
    person: &Person,
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
    tx.put::<Confirmations>(&person.to_owned(), &confirmation)?;
    tx.put::<ConfirmationEnds>(&(ends, person.to_owned()), &())?;
    Ok(code)
}

/// Returns the action that waits for this code. A code works once.
pub(super) fn redeem_code(
    tx: &mut DirectoryTransaction<'_>,
    person: &Person,
    code: &str,
    now: Timestamp,
) -> Result<RedeemedCode, DirectoryError> {
    let key = person.to_owned();
    let Some(mut confirmation) = current(tx, person, now)? else {
        return Ok(RedeemedCode::Nothing);
    };
    if code == confirmation.code {
        tx.delete::<Confirmations>(&key);
        return Ok(RedeemedCode::Do(confirmation.action));
    }
    confirmation.tries_left = confirmation.tries_left.saturating_sub(1);
    if confirmation.tries_left == 0 {
        tx.delete::<Confirmations>(&key);
    } else {
        tx.put::<Confirmations>(&key, &confirmation)?;
    }
    Ok(RedeemedCode::Wrong {
        tries_left: confirmation.tries_left,
    })
}

/// Drops the waiting action. Returns `false` if there is none.
pub(super) fn cancel(
    tx: &mut DirectoryTransaction<'_>,
    person: &Person,
    now: Timestamp,
) -> Result<bool, DirectoryError> {
    let waited = current(tx, person, now)?.is_some();
    tx.delete::<Confirmations>(&person.to_owned());
    Ok(waited)
}

/// Deletes what waits for a person who is erased.
pub fn forget_confirmation(
    tx: &mut DirectoryTransaction<'_>,
    person: &Person,
) -> Result<(), DirectoryError> {
    for ((ends, whose), ()) in tx.scan::<ConfirmationEnds>(&[], usize::MAX)? {
        if whose == *person {
            tx.delete::<ConfirmationEnds>(&(ends, whose));
        }
    }
    tx.delete::<Confirmations>(person);
    Ok(())
}

/// Returns the waiting action whose code has not expired.
pub(super) fn current(
    tx: &DirectoryTransaction<'_>,
    person: &Person,
    now: Timestamp,
) -> Result<Option<Confirmation>, DirectoryError> {
    Ok(tx
        .get::<Confirmations>(&person.to_owned())?
        .filter(|confirmation| now < confirmation.ends))
}

/// Deletes the actions whose codes have expired. Returns the number of records that were due; if it
/// is `limit`, there may be more.
pub fn sweep_confirmations(
    tx: &mut DirectoryTransaction<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<usize, DirectoryError> {
    let due: Vec<_> = tx
        .scan::<ConfirmationEnds>(&[], limit)?
        .into_iter()
        .take_while(|((when, _), ())| *when <= now)
        .collect();
    for (key, ()) in &due {
        tx.delete::<ConfirmationEnds>(key);
        // A newer action has an expiry of its own.
        if tx
            .get::<Confirmations>(&key.1)?
            .is_some_and(|confirmation| confirmation.ends <= now)
        {
            tx.delete::<Confirmations>(&key.1);
        }
    }
    Ok(due.len())
}

/// Returns the instructions for a code.
pub(super) fn code_text(code: &str) -> NoticeText {
    NoticeText::new("To do it, write ")
        .code(&format!("confirm {code}"))
        .and(&format!(
            " within {} minutes. To leave everything as it is, do nothing or write ",
            CODE_LIFE.as_secs() / 60
        ))
        .code("cancel")
        .and(".")
}
