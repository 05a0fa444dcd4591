//! What the directory refuses, in words that can be shown to the person who asked.

use ruma::OwnedServerName;

use crate::{
    clock::Timestamp,
    handle::{Handle, HandleError},
    store::StoreError,
};

/// The reason why the directory refused something, or failed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The database failed; everything else is a refusal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was asked for cannot be a handle here.
    #[error(transparent)]
    Syntax(#[from] HandleError),
    /// Nobody may have it.
    #[error("{0} is reserved, so nobody can claim it")]
    Reserved(Handle),
    /// Somebody has it.
    #[error("{0} is taken")]
    Taken(Handle),
    /// Something that looks like it is taken.
    #[error("{handle} looks too much like {}, which is taken", other.as_ref().map_or_else(|| "another handle".to_owned(), ToString::to_string))]
    LooksLike {
        /// What was asked for.
        handle: Handle,
        /// The handle it looks like, unless that one is not to be found.
        other: Option<Handle>,
    },
    /// The person has it already.
    #[error("{0} is yours already")]
    AlreadyYours(Handle),
    /// Something that looks like it is theirs already.
    #[error("{handle} looks like your own {other}, and one of them has to be enough")]
    LooksLikeYours {
        /// What was asked for.
        handle: Handle,
        /// The one they have.
        other: Handle,
    },
    /// Released not long ago, by somebody else.
    #[error("{handle} was given up not long ago, so nobody else can have it yet")]
    Quarantined {
        /// What was asked for.
        handle: Handle,
        /// From then on it can be claimed.
        until: Timestamp,
    },
    /// The person holds as many as they may.
    #[error("you have {limit} handles, and more are not allowed here; release one first")]
    TooManyHandles {
        /// How many a person may hold.
        limit: usize,
    },
    /// The person claimed many today.
    #[error("you claimed many handles today; try again tomorrow")]
    TooManyClaims,
    /// The people of the person's server claimed many today.
    #[error(
        "the people of {0} have claimed as many handles here today as one other server may; \
         please try again tomorrow, or ask the admin of this server"
    )]
    TooManyClaimsOfServer(OwnedServerName),
    /// Only its owner may do this. The same for handles of others and of nobody.
    #[error("{0} is not yours")]
    NotYours(Handle),
    /// The owner may not change a frozen handle: it would undo the freeze.
    #[error("{0} is frozen; ask the admin of this server about it")]
    Frozen(Handle),
    /// The types know it, the service does not offer it.
    #[error("{0} is not offered here yet")]
    NotYet(&'static str),
    /// Strict belongs to open handles.
    #[error("only an open handle can be strict")]
    StrictNeedsOpen,
    /// Nobody holds the handle that should be blocked.
    #[error("nobody holds {0} now, so there is nobody to block")]
    NobodyThere(Handle),
    /// A handle of another server.
    #[error("{0} belongs to another server; give the Matrix ID instead, like `@name:server`")]
    Elsewhere(Handle),
    /// People cannot block themselves.
    #[error("that is you")]
    Yourself,
    /// As many blocks as are kept.
    #[error("you have blocked {limit} people, and more are not kept; unblock somebody first")]
    TooManyBlocks {
        /// How many somebody may block.
        limit: usize,
    },
    /// There is no such block.
    #[error("{0} is not blocked")]
    NotBlocked(String),
}

impl DirectoryError {
    /// Whether the request was understood and refused, and the person can be told so. Otherwise
    /// it failed, and may be tried again.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, DirectoryError::Store(_))
    }
}
