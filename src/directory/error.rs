//! Refusals of the directory, in words that can be shown to the person.

use ruma::OwnedServerName;

use crate::{
    clock::Timestamp,
    handle::{Handle, HandleError},
    store::StoreError,
};

/// The reason why the directory refused something, or failed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The database failed. All other variants are refusals.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name cannot be a handle here.
    #[error(transparent)]
    Syntax(#[from] HandleError),
    /// The admin does not let the person have handles.
    #[error("you can't have a handle here; ask the admin of this server for one")]
    NotPermitted,
    /// Nobody may claim the handle.
    #[error("{0} is reserved, so nobody can claim it")]
    Reserved(Handle),
    /// Somebody holds the handle.
    #[error("{0} is taken")]
    Taken(Handle),
    /// A handle that looks like it is taken.
    #[error("{handle} looks too much like {}, which is taken", other.as_ref().map_or_else(|| "another handle".to_owned(), ToString::to_string))]
    LooksLike {
        /// The handle that was to be claimed.
        handle: Handle,
        /// The handle that it looks like, unless nobody may find that one.
        other: Option<Handle>,
    },
    /// The person holds the handle already.
    #[error("{0} is yours already")]
    AlreadyYours(Handle),
    /// The person holds a handle that looks like it.
    #[error("{handle} looks too much like your own {other}: you can have only one of the two")]
    LooksLikeYours {
        /// The handle that was to be claimed.
        handle: Handle,
        /// The handle that they hold.
        other: Handle,
    },
    /// The handle is in quarantine after another owner.
    #[error("{handle} was given up not long ago, so nobody else can have it yet")]
    Quarantined {
        /// The handle that was to be claimed.
        handle: Handle,
        /// The time from which it can be claimed.
        until: Timestamp,
    },
    /// The person holds the maximum number of handles.
    #[error("you have {limit} handles, and more are not allowed here; release one first")]
    TooManyHandles {
        /// That maximum.
        limit: usize,
    },
    /// The person has claimed the maximum number today.
    #[error("you claimed many handles today; try again tomorrow")]
    TooManyClaims,
    /// The people of the person's server have claimed the maximum number today.
    #[error(
        "the people of {0} have claimed as many handles here today as one other server may; \
         please try again tomorrow, or ask the admin of this server"
    )]
    TooManyClaimsOfServer(OwnedServerName),
    /// The people of all other servers have claimed the maximum number today.
    #[error(
        "the people of other servers have claimed as many handles here today as they may \
         together; please try again tomorrow, or ask the admin of this server"
    )]
    TooManyClaimsFromElsewhere,
    /// The person does not hold the handle. Handles of others and of nobody get the same answer.
    #[error("{0} is not yours")]
    NotYours(Handle),
    /// The owner may not change a frozen handle: it would undo the freeze.
    #[error("{0} is frozen; ask the admin of this server about it")]
    Frozen(Handle),
    /// The service does not offer this yet.
    #[error("{0} is not offered here yet")]
    NotYet(&'static str),
    /// Only an open handle can be strict.
    #[error("only an open handle can be strict")]
    StrictNeedsOpen,
    /// Nobody holds the handle that should be blocked.
    #[error("nobody holds {0} now, so there is nobody to block")]
    NobodyThere(Handle),
    /// The handle belongs to another server.
    #[error("{0} belongs to another server; give the Matrix ID instead, like `@name:server`")]
    Elsewhere(Handle),
    /// People cannot block themselves.
    #[error("that is you")]
    Yourself,
    /// The person has blocked the maximum number of people.
    #[error("you have blocked {limit} people, and more are not kept; unblock somebody first")]
    TooManyBlocks {
        /// That maximum.
        limit: usize,
    },
    /// There is no such block.
    #[error("{0} is not blocked")]
    NotBlocked(String),
}

impl DirectoryError {
    /// Returns whether this is a refusal, whose words the person can be told. Anything else is a
    /// failure, and may be tried again.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, DirectoryError::Store(_))
    }
}
