//! What an admin does to a handle.

use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::{
    ClaimedBy, DirectoryError, DirectoryTransaction,
    record::{ActingAdmin, AuditRecord, FreezeReason, HandleRecord, HandleState, Request},
    tables::{Handles, Reservation, Reservations},
    transaction::Read as _,
};
use crate::{
    clock::Timestamp,
    handle::{GHOST_PREFIX, Handle},
    ids::Person,
    store::StoreError,
    text::fit_to_show,
};

/// Maximum length of a reason, in characters. It is shown to the owner in a message.
pub const REASON_CHARS_MAX: usize = 500;

/// An act on a handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandleAct {
    /// Give it to somebody who does not hold it; nobody else does.
    Claim {
        /// Its owner to be.
        owner: OwnedUserId,
    },
    /// Let nobody claim it, nor what looks like it.
    Reserve,
    /// Take a reservation back.
    Unreserve,
    /// Let nobody reach its owner by it, who keeps it.
    Freeze,
    /// Take a freeze back, whatever its reason.
    Unfreeze,
    /// Mark it as verified.
    Verify,
    /// Take that mark back.
    Unverify,
    /// Take it from its owner, and give it to somebody else.
    Transfer {
        /// Its owner to be.
        owner: OwnedUserId,
    },
    /// Take it from its owner, and keep it from everybody for the time of the quarantine.
    Release,
}

impl HandleAct {
    /// Returns the word for it, as an admin types it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "claim",
            Self::Reserve => "reserve",
            Self::Unreserve => "unreserve",
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
            Self::Verify => "verify",
            Self::Unverify => "unverify",
            Self::Transfer { .. } => "transfer",
            Self::Release => "release",
        }
    }

    /// Returns whether it takes a handle, and all that depends on it, from its owner for good.
    pub fn is_destructive(&self) -> bool {
        matches!(self, Self::Transfer { .. } | Self::Release)
    }

    /// Returns the owner to be.
    pub fn new_owner(&self) -> Option<&OwnedUserId> {
        match self {
            Self::Claim { owner } | Self::Transfer { owner } => Some(owner),
            _ => None,
        }
    }
}

/// An act on a handle, by whom and why.
#[derive(Clone, Debug)]
pub struct HandleOrder<'a> {
    /// The handle.
    pub handle: &'a Handle,
    /// What is to be done.
    pub act: &'a HandleAct,
    /// Why, in words for the owner; may be empty.
    pub reason: &'a str,
    /// The admin.
    pub by: &'a ActingAdmin,
}

/// What an act has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandleChange {
    /// The handle before, if somebody held it.
    pub before: Option<HandleRecord>,
    /// The handle now, if it is held or in quarantine.
    pub after: Option<HandleRecord>,
    /// The requests that were closed. Those who asked still wait.
    pub closed: Vec<Request>,
    /// Whether its ghost needs a new device and identity before it can be used.
    pub replace_identity: bool,
    /// When it was changed.
    pub at: Timestamp,
}

/// Why an act was not done. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The directory refuses it, or the database failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Nobody holds the handle.
    #[error("nobody holds {0}")]
    NotHeld(Handle),
    /// Somebody holds the handle.
    #[error("{handle} belongs to {}; `transfer` gives it to somebody else", fit_to_show(owner.as_str()))]
    Held {
        /// The handle.
        handle: Handle,
        /// Its owner.
        owner: Person,
    },
    /// Another handle looks like it.
    #[error("{handle} looks too much like {other}, which belongs to {}", fit_to_show(owner.as_str()))]
    LooksLike {
        /// The handle.
        handle: Handle,
        /// The other one.
        other: Handle,
        /// Who holds or last held the other one.
        owner: Person,
    },
    /// It is the owner's already.
    #[error("{handle} belongs to {} already", fit_to_show(owner.as_str()))]
    TheirsAlready {
        /// The handle.
        handle: Handle,
        /// Its owner.
        owner: Person,
    },
    /// The owner to be is a ghost or the bot.
    #[error("{} is one of Stonechat's own users, and no person", fit_to_show(.0.as_str()))]
    NoPerson(OwnedUserId),
    /// It is in the state that the act leads to.
    #[error("{} is {state} already", fit_to_show(subject))]
    Already {
        /// The handle, person or server.
        subject: String,
        /// The state.
        state: &'static str,
    },
    /// It is not in the state that the act ends.
    #[error("{} is not {state}", fit_to_show(subject))]
    Not {
        /// The handle, person or server.
        subject: String,
        /// The state.
        state: &'static str,
    },
    /// The configuration reserves it, or the list that comes with Stonechat.
    #[error(
        "{0} is reserved by `handles.reserved` in the configuration or by Stonechat's own list; \
         `claim` gives it to somebody nevertheless"
    )]
    ReservedElsewhere(Handle),
    /// A restore could not find out who owns it.
    #[error(
        "who owns {0} is not known since the restore from a backup; `transfer` gives it to \
         somebody, `release` frees it"
    )]
    OwnerUnknown(Handle),
    /// The ban would be of everybody, or of this server.
    #[error(
        "what everybody, or everybody of this server, may do is said by `permissions` in the \
         configuration"
    )]
    WholeServer,
    /// The reason is too long.
    #[error("the reason is longer than {REASON_CHARS_MAX} characters")]
    LongReason,
}

impl ActError {
    /// Returns whether the handle is not there to be acted on.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotHeld(_))
    }

    /// Returns whether the act was refused, and will be again. Anything else is a failure.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Directory(error) if !error.is_refusal())
    }
}

impl From<StoreError> for ActError {
    fn from(error: StoreError) -> Self {
        Self::Directory(error.into())
    }
}

impl DirectoryTransaction<'_> {
    /// Does what an admin orders, and notes it in the audit log. After an error the transaction
    /// holds no writes of it.
    pub fn act_on_handle(
        &mut self,
        order: &HandleOrder<'_>,
        now: Timestamp,
    ) -> Result<HandleChange, ActError> {
        if order.reason.chars().count() > REASON_CHARS_MAX {
            return Err(ActError::LongReason);
        }
        let handle = order.handle;
        let mut change = match order.act {
            HandleAct::Claim { owner } => self.claim_for(handle, self.person_of(owner)?, now)?,
            HandleAct::Transfer { owner } => self.transfer(handle, &self.person_of(owner)?, now)?,
            HandleAct::Reserve => self.reserve(handle, now)?,
            HandleAct::Unreserve => self.unreserve(handle)?,
            HandleAct::Freeze => self.freeze_by_admin(handle, order.reason, now)?,
            HandleAct::Unfreeze => self.unfreeze_by_admin(handle)?,
            HandleAct::Verify => self.mark_verified(handle, Some(now))?,
            HandleAct::Unverify => self.mark_verified(handle, None)?,
            HandleAct::Release => self.release_by_admin(handle, now)?,
        };
        let shown = change.after.as_ref().or(change.before.as_ref());
        let record = AuditRecord {
            by: order.by.clone(),
            act: order.act.as_str().to_owned(),
            subject: shown.map_or(handle, |record| &record.handle).to_string(),
            to: order.act.new_owner().cloned().map(Person::new),
            reason: order.reason.to_owned(),
        };
        self.note_act(&record, now)?;
        change.at = now;
        Ok(change)
    }

    pub(super) fn person_of(&self, user: &OwnedUserId) -> Result<Person, ActError> {
        if self.is_ours(user) {
            return Err(ActError::NoPerson(user.clone()));
        }
        Ok(Person::new(user.clone()))
    }

    /// Returns whether this is a ghost or the bot.
    fn is_ours(&self, user: &UserId) -> bool {
        *user.server_name() == self.settings().server_name
            && user.localpart().starts_with(GHOST_PREFIX)
    }

    fn claim_for(
        &mut self,
        handle: &Handle,
        owner: Person,
        now: Timestamp,
    ) -> Result<HandleChange, ActError> {
        // A name beyond the rules of this server could not be looked up.
        let handle = &Handle::parse(handle.as_shown(), &self.settings().rules)
            .map_err(DirectoryError::from)?;
        let had_owner = self.had_owner(handle)?;
        match self.claim(&owner, handle, ClaimedBy::Admin, now) {
            Ok(record) => Ok(HandleChange {
                replace_identity: had_owner,
                after: Some(record),
                ..HandleChange::default()
            }),
            Err(refusal) => Err(self.explain_claim(handle, owner, refusal)?),
        }
    }

    /// Returns the refusal of a claim with what only an admin may know.
    fn explain_claim(
        &self,
        handle: &Handle,
        owner: Person,
        refusal: DirectoryError,
    ) -> Result<ActError, StoreError> {
        let handle = handle.clone();
        Ok(match refusal {
            DirectoryError::AlreadyYours(handle) => ActError::TheirsAlready { handle, owner },
            DirectoryError::Taken(_) => match self.get::<Handles>(&handle.key().to_owned())? {
                Some(record) => ActError::Held {
                    handle,
                    owner: record.owner,
                },
                None => ActError::Directory(refusal),
            },
            DirectoryError::LooksLike { .. } | DirectoryError::LooksLikeYours { .. } => {
                match self.lookalike_of(&handle)? {
                    Some(other) => ActError::LooksLike {
                        handle,
                        other: other.handle,
                        owner: other.owner,
                    },
                    None => ActError::Directory(refusal),
                }
            }
            refusal => ActError::Directory(refusal),
        })
    }

    fn transfer(
        &mut self,
        handle: &Handle,
        to: &Person,
        now: Timestamp,
    ) -> Result<HandleChange, ActError> {
        let before = self.held_for_act(handle)?;
        if before.owner == *to {
            return Err(ActError::TheirsAlready {
                handle: before.handle,
                owner: before.owner,
            });
        }
        let after = self.hand_over(before.clone(), to, now)?;
        Ok(HandleChange {
            before: Some(before),
            after: Some(after),
            replace_identity: true,
            ..HandleChange::default()
        })
    }

    fn reserve(&mut self, handle: &Handle, now: Timestamp) -> Result<HandleChange, ActError> {
        let look = handle.lookalike_key();
        if self.settings().reserved.contains(handle) {
            return Err(ActError::ReservedElsewhere(handle.clone()));
        }
        if self.get::<Reservations>(&look)?.is_some() {
            return Err(ActError::Already {
                subject: handle.to_string(),
                state: "reserved",
            });
        }
        let reservation = Reservation {
            handle: handle.clone(),
            since: now,
        };
        self.put::<Reservations>(&look, &reservation)?;
        self.unchanged(handle)
    }

    /// Returns a change that does nothing to a handle, held or not.
    fn unchanged(&self, handle: &Handle) -> Result<HandleChange, ActError> {
        let record = self.get::<Handles>(&handle.key().to_owned())?;
        let held = record.filter(|record| record.holder().is_some());
        Ok(HandleChange {
            before: held.clone(),
            after: held,
            ..HandleChange::default()
        })
    }

    fn unreserve(&mut self, handle: &Handle) -> Result<HandleChange, ActError> {
        let look = handle.lookalike_key();
        if self.get::<Reservations>(&look)?.is_none() {
            return Err(match self.settings().reserved.contains(handle) {
                true => ActError::ReservedElsewhere(handle.clone()),
                false => ActError::Not {
                    subject: handle.to_string(),
                    state: "reserved",
                },
            });
        }
        self.delete::<Reservations>(&look);
        self.unchanged(handle)
    }

    fn freeze_by_admin(
        &mut self,
        handle: &Handle,
        note: &str,
        now: Timestamp,
    ) -> Result<HandleChange, ActError> {
        let before = self.held_for_act(handle)?;
        if !before.is_active() {
            return Err(ActError::Already {
                subject: before.handle.to_string(),
                state: "frozen",
            });
        }
        let note = note.to_owned();
        self.freeze(handle, FreezeReason::Admin { note }, now)?;
        let is_by_it = |_, request: &Request| request.handle == before.handle;
        let closed = self.close_requests(&before.owner, is_by_it)?;
        Ok(HandleChange {
            after: self.lookup(handle)?,
            before: Some(before),
            closed,
            ..HandleChange::default()
        })
    }

    fn unfreeze_by_admin(&mut self, handle: &Handle) -> Result<HandleChange, ActError> {
        let before = self.held_for_act(handle)?;
        let HandleState::Frozen { reason, .. } = &before.state else {
            return Err(ActError::Not {
                subject: before.handle.to_string(),
                state: "frozen",
            });
        };
        if self.is_ours(&before.owner) {
            return Err(ActError::OwnerUnknown(before.handle));
        }
        // What froze it by itself was about the keys of its ghost.
        let replace_identity = !matches!(reason, FreezeReason::Admin { .. });
        self.unfreeze(handle)?;
        Ok(HandleChange {
            after: self.lookup(handle)?,
            before: Some(before),
            replace_identity,
            ..HandleChange::default()
        })
    }

    fn mark_verified(
        &mut self,
        handle: &Handle,
        verified_at: Option<Timestamp>,
    ) -> Result<HandleChange, ActError> {
        let before = self.held_for_act(handle)?;
        let (subject, state) = (before.handle.to_string(), "verified");
        match (before.verified_at, verified_at) {
            (Some(_), Some(_)) => return Err(ActError::Already { subject, state }),
            (None, None) => return Err(ActError::Not { subject, state }),
            _ => self.set_verified(handle, verified_at)?,
        };
        Ok(HandleChange {
            after: self.lookup(handle)?,
            before: Some(before),
            ..HandleChange::default()
        })
    }

    fn release_by_admin(
        &mut self,
        handle: &Handle,
        now: Timestamp,
    ) -> Result<HandleChange, ActError> {
        let record = self.get::<Handles>(&handle.key().to_owned())?;
        // Its owner may have given it up a moment ago, to take it back later.
        if let Some(mut record) = record
            && record.holder().is_none()
            && !record.is_free(now)
            && !record.is_revoked()
            && let HandleState::Quarantined { until, .. } = record.state
        {
            let revoked = true;
            record.state = HandleState::Quarantined { until, revoked };
            self.put::<Handles>(&record.handle.key().to_owned(), &record)?;
            return Ok(HandleChange {
                after: Some(record),
                ..HandleChange::default()
            });
        }
        let before = self.held_for_act(handle)?;
        Ok(HandleChange {
            after: self.revoke(handle, now)?,
            before: Some(before),
            ..HandleChange::default()
        })
    }

    /// Returns the record of a handle that somebody holds.
    fn held_for_act(&self, handle: &Handle) -> Result<HandleRecord, ActError> {
        let record = self.get::<Handles>(&handle.key().to_owned())?;
        let held = record.filter(|record| record.holder().is_some());
        held.ok_or_else(|| ActError::NotHeld(handle.clone()))
    }
}
