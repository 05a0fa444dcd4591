//! Notices that the store was set back: an older copy of the data folder, or an older snapshot of
//! the machine, was put in its place.
//!
//! Nothing in the folder can tell, since all of it is set back together. So the store has a *stamp*,
//! which the homeserver holds as well, in the bot's account data. It is renewed at every start and
//! in every round of reconciliation: first in the store, durably, and then on the homeserver. The
//! homeserver can thus hold an older stamp than the store, after a crash between the two writes or
//! after its own database was set back. It can hold a newer one only if the store was set back, or if
//! another Stonechat runs on a copy of it.

use rand::distr::{Alphanumeric, SampleString as _};
use serde::{Deserialize, Serialize};

use crate::{
    crypto::ready_devices,
    engine::{
        Engine, EngineError,
        maintenance::restore::clear,
        records::{Stamps, SyncTokens},
    },
    store::{Batch, Store, StoreError},
};

/// The type of the bot's account data that holds the newest stamp.
pub const STAMP_TYPE: &str = "chat.stonechat.stamp";

/// Maximum number of stamps that the store remembers: those of some eight days, with one for each
/// hour.
const STAMPS_MAX: u64 = 200;
/// The length of a mark. It tells apart two stores that have counted on from the same copy.
const MARK_CHARS: usize = 16;

/// A stamp: the place of a state of the store among all its states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// How many there were before it, in this store or in the one from which it was restored.
    pub number: u64,
    /// Random characters.
    pub mark: String,
}

/// What a store knows about its stamps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampHistory {
    /// Whether the work after a restore is unfinished.
    pub is_restored: bool,
    /// Whether any user of ours is ready.
    pub has_users: bool,
    /// The newest stamps, oldest first.
    pub stamps: Vec<Stamp>,
}

impl StampHistory {
    /// Reads the history of a store.
    pub fn load(store: &Store) -> Result<Self, StoreError> {
        let mut stamps = Vec::new();
        for page in store.pages::<Stamps>(&[]) {
            let page = page?.into_iter();
            stamps.extend(page.map(|(number, mark)| Stamp { number, mark }));
        }
        Ok(Self {
            is_restored: store.is_restored()?,
            has_users: !ready_devices(store, 1)?.is_empty(),
            stamps,
        })
    }

    /// Returns whether the stamp that the homeserver holds shows that the store was set back.
    pub fn is_outdated_by(&self, held: &Stamp) -> bool {
        // A restore makes a new device of every user, so what the old ones have sent is no concern.
        if self.is_restored {
            return false;
        }
        let Some(newest) = self.stamps.last() else {
            // A store from before there were stamps. A store without users is a new one.
            return self.has_users;
        };
        let is_another = |known: &Stamp| known.number == held.number && known.mark != held.mark;
        held.number > newest.number || self.stamps.iter().any(is_another)
    }

    /// Returns whether the stamp that the homeserver holds shows that its database was set back. After
    /// a crash between the two writes it is one behind.
    pub fn outdates(&self, held: Option<&Stamp>) -> bool {
        let newest = self.stamps.last().map_or(0, |newest| newest.number);
        let held = held.map_or(0, |held| held.number);
        !self.is_restored && self.has_users && newest > held.saturating_add(1)
    }
}

impl Engine {
    /// Renews the stamp before anything is sent. An error that waiting does not cure is only logged:
    /// a homeserver without account data is no reason not to work.
    pub(in crate::engine) async fn renew_stamp_at_start(&self) -> Result<(), EngineError> {
        let mut renewed = self.renew_stamp().await;
        if let Err(error) = &renewed
            && error.missing_user().is_some()
        {
            self.restore_missing_user(error).await;
            renewed = self.renew_stamp().await;
        }
        match renewed {
            Err(EngineError::StoreSetBack) => Err(EngineError::StoreSetBack),
            Err(error) if error.is_transient() && error.missing_user().is_none() => Err(error),
            Err(error) => {
                tracing::error!(%error, "the homeserver does not keep the stamp of the store; it \
                    would not be noticed if the data folder were set back");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Renews the stamp while the service works, and logs what is wrong.
    pub(in crate::engine) async fn renew_stamp_in_operation(&self) {
        match self.renew_stamp().await {
            Ok(()) => {}
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the stamp of the store is not renewed; it is tried again");
            }
            Err(error) => tracing::error!(%error, "the stamp of the store is not renewed"),
        }
    }

    /// Gives the store a new stamp, and then the homeserver.
    ///
    /// # Errors
    ///
    /// [`EngineError::StoreSetBack`] if the homeserver holds a newer one.
    pub(in crate::engine) async fn renew_stamp(&self) -> Result<(), EngineError> {
        let Some(acting) = self.find_user(&self.settings().bot)? else {
            return Ok(());
        };
        let acting = acting.actor();
        let held: Option<Stamp> = self.homeserver().account_data(acting, STAMP_TYPE).await?;
        let history = StampHistory::load(self.store())?;
        if held
            .as_ref()
            .is_some_and(|held| history.is_outdated_by(held))
        {
            return Err(EngineError::StoreSetBack);
        }
        let was_set_back = history.outdates(held.as_ref());
        if was_set_back {
            tracing::warn!(
                "the homeserver's database was set back; it is asked for everything anew"
            );
            // They may be from its future: until it has caught up, it would show nothing, and delete
            // to-device messages unseen. Lost rooms are found by the round that follows.
            clear::<SyncTokens>(self.store())?;
        }
        let known = held.as_ref().map_or(0, |held| held.number);
        let newest = history.stamps.last();
        // The homeserver did not take it. With one more it would seem to have been set back.
        let unsent = newest.filter(|newest| !was_set_back && newest.number > known);
        let stamp = match unsent {
            Some(unsent) => unsent.clone(),
            None => {
                let newest = newest.map_or(0, |newest| newest.number).max(known);
                self.next_stamp(&history, newest).await?
            }
        };
        self.homeserver()
            .set_account_data(acting, STAMP_TYPE, &stamp)
            .await?;
        Ok(())
    }

    /// Makes the stamp after number `newest`, and keeps it.
    async fn next_stamp(&self, history: &StampHistory, newest: u64) -> Result<Stamp, EngineError> {
        let stamp = Stamp {
            number: newest.saturating_add(1),
            mark: Alphanumeric.sample_string(&mut *self.rng(), MARK_CHARS),
        };
        let mut batch = Batch::new();
        batch.put::<Stamps>(&stamp.number, &stamp.mark)?;
        let oldest = stamp.number.saturating_sub(STAMPS_MAX - 1);
        for old in history.stamps.iter().filter(|old| old.number < oldest) {
            batch.delete::<Stamps>(&old.number);
        }
        self.store().commit(batch).await?;
        Ok(stamp)
    }
}
