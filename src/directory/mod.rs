//! The directory: who owns which handle, and who may reach them.
//!
//! [`Directory`] reads. A [`DirectoryTransaction`] writes; there is one at a time. It decides on
//! the records that it reads, and its writes are one batch, to which the caller can add records of
//! their own.
//!
//! ```
//! use ruma::{owned_user_id, server_name};
//! use stonechat::{
//!     clock::Timestamp,
//!     directory::{ReachQuery, ClaimedBy, Directory, DirectorySettings, Verdict},
//!     handle::{Handle, HandleRules},
//!     ids::Person,
//!     store::Store,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let settings = DirectorySettings::new(server_name!("example.org").to_owned());
//! let directory = Directory::new(Store::in_memory(), settings);
//! let (sam, now) = (Handle::parse("sam", &HandleRules::default())?, Timestamp(1));
//!
//! let mut tx = directory.begin().await;
//! let samuel = Person::new(owned_user_id!("@samuel:example.org"));
//! tx.claim(&samuel, &sam, ClaimedBy::Person, now)?;
//! tx.commit().await?;
//!
//! let alice = Person::new(owned_user_id!("@alice:example.org"));
//! let query = ReachQuery { asker: &alice, handle: &sam, now };
//! assert!(matches!(directory.verdict(&query)?, Verdict::Introduce { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acts;
mod aliases;
mod audit;
mod bans;
mod block;
mod claim;
mod contacts;
mod erase;
mod error;
mod expiry;
mod export;
mod grantee_acts;
mod limits;
mod listing;
mod options;
mod pairs;
mod person;
mod prepaid;
mod reach;
mod record;
mod request;
mod settings;
mod tables;
mod transaction;
mod usage;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ruma::UserId;
use tokio::sync::Mutex;
use tracing::warn;

use self::tables::Handles;
pub(crate) use self::transaction::Read;

/// The id of the table of handles, by which a backup counts them.
pub const HANDLES_TABLE: u8 = <Handles as crate::store::Table>::ID;
pub use self::{
    acts::{ActError, HandleAct, HandleChange, HandleOrder, REASON_CHARS_MAX},
    aliases::{forget_alias, record_alias},
    audit::{AuditEntry, AuditPage, audit_log},
    bans::{BanEntry, BanPage, list_bans},
    block::BlockScope,
    claim::ClaimedBy,
    erase::ErasedPerson,
    error::DirectoryError,
    export::{
        DirectoryExport, ExportedAct, ExportedBlock, ExportedContact, ExportedPair, ExportedRequest,
    },
    grantee_acts::{GranteeAct, GranteeOrder},
    limits::CommandCount,
    listing::{HandleFilter, HandlePage, HandleSummary, StateFilter, list_handles, show_handle},
    options::ModeSet,
    pairs::PairAdvice,
    person::{LimitUse, PersonSummary},
    record::{
        ActingAdmin, AuditRecord, Discoverable, FreezeReason, HandleRecord, HandleState, Mode,
        Others, Policy, Reach, Request,
    },
    request::REQUESTS_PER_HANDLE_MAX,
    settings::{Capabilities, DAY, DirectorySettings, PAIR_MEMORY, PAIR_RETRY},
    tables::Ban,
    transaction::{DirectoryTransaction, OwnerNotice, WriteLock},
    usage::{Counted, Limit, Usage},
    verdict::{OpaqueReason, ReachQuery, Verdict},
};
use crate::{
    handle::Handle,
    ids::Person,
    store::{Store, StoreError},
};

/// Returns whether the handle of a ghost has frozen by itself, for those who have the store but no
/// directory.
pub fn is_in_doubt(store: &Store, ghost: &UserId) -> Result<bool, StoreError> {
    let Some(handle) = Handle::of_ghost(ghost.localpart()) else {
        return Ok(false);
    };
    let record = store.get_cached::<Handles>(&handle.key().to_owned())?;
    Ok(record.is_some_and(|record| record.is_in_doubt()))
}

/// The directory of handles. Clones share one.
#[derive(Clone, Debug)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    settings: DirectorySettings,
    writing: Mutex<transaction::DeferredWrites>,
    prepaid: prepaid::PrepaidQueries,
}

impl Directory {
    /// Opens the directory that is kept in this store. Open only one: its lock guards against
    /// others.
    pub fn new(store: Store, settings: DirectorySettings) -> Self {
        Directory {
            inner: Arc::new(Inner {
                store,
                settings,
                writing: Mutex::default(),
                prepaid: prepaid::PrepaidQueries::default(),
            }),
        }
    }

    /// Returns the directory's configuration.
    pub fn settings(&self) -> &DirectorySettings {
        &self.inner.settings
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Begins a transaction. Waits until no other one is open.
    pub async fn begin(&self) -> DirectoryTransaction<'_> {
        let mut lock = self.inner.writing.lock().await;
        if let Err(error) = lock.apply(self.store()) {
            // The transaction will fail as well, and its caller reports that.
            warn!(%error, "the deferred counts could not be written");
        }
        DirectoryTransaction::new(self, lock)
    }

    /// Applies the writes that [`Directory::introduce`] has deferred. Every transaction applies
    /// them first; this is for times without transactions.
    pub async fn flush_deferred(&self) -> Result<(), DirectoryError> {
        Ok(self.inner.writing.lock().await.apply(self.store())?)
    }

    /// Returns the record of a handle that is held or in quarantine.
    pub fn lookup(&self, handle: &Handle) -> Result<Option<HandleRecord>, DirectoryError> {
        Ok(self.store().get::<Handles>(&handle.key().to_owned())?)
    }

    /// Returns the record of the handle whose ghost this is, or `None` if this is no ghost.
    pub fn by_ghost(&self, ghost: &UserId) -> Result<Option<HandleRecord>, DirectoryError> {
        Ok(self.cached_by_ghost(ghost)?.as_deref().cloned())
    }

    /// Returns the record of the handle whose ghost this is, like [`Directory::by_ghost`], but from
    /// the store's cache and without a copy.
    pub fn cached_by_ghost(
        &self,
        ghost: &UserId,
    ) -> Result<Option<Arc<HandleRecord>>, DirectoryError> {
        if ghost.server_name() != self.settings().server_name {
            return Ok(None);
        }
        match Handle::of_ghost(ghost.localpart()) {
            Some(handle) => Ok(self
                .store()
                .get_cached::<Handles>(&handle.key().to_owned())?),
            None => Ok(None),
        }
    }

    /// Returns a handle for somebody who knows its exact name: it is held, and can be found without
    /// a link. The answer does not depend on who asks.
    pub fn discover(&self, handle: &Handle) -> Result<Option<HandleRecord>, DirectoryError> {
        Ok(self.lookup(handle)?.filter(|record| {
            record.holder().is_some() && record.discoverable != Discoverable::Link
        }))
    }

    /// Returns the handles that this person holds, frozen ones too.
    pub fn handles_of(&self, owner: &Person) -> Result<Vec<HandleRecord>, DirectoryError> {
        Ok(reach::handles_of(self.store(), owner, self.most_handles())?)
    }

    /// Returns a page of all handles that are held or in quarantine, in order, after this key.
    pub fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<HandleRecord>, DirectoryError> {
        let after = after.map(ToOwned::to_owned);
        let page = self.store().scan::<Handles>(&[], after.as_ref(), limit)?;
        Ok(page.into_iter().map(|(_, record)| record).collect())
    }

    /// Returns the maximum number of handles to read of one person. Nobody has that many, even if the
    /// admin gave them some or lowered the limit.
    fn most_handles(&self) -> usize {
        self.settings().handles_per_person.saturating_add(1000)
    }
}

impl DirectoryTransaction<'_> {
    /// Returns the record of a handle, after this transaction's writes.
    pub fn lookup(&self, handle: &Handle) -> Result<Option<HandleRecord>, DirectoryError> {
        Ok(self.get::<Handles>(&handle.key().to_owned())?)
    }

    /// Returns the handles that this person holds, after this transaction's writes.
    pub fn handles_of(&self, owner: &Person) -> Result<Vec<HandleRecord>, DirectoryError> {
        Ok(reach::handles_of(
            self,
            owner,
            self.directory.most_handles(),
        )?)
    }
}
