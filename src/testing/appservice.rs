//! An application service that answers what a test tells it to, and records what it was asked.
//!
//! Names modules by `super::`, so that the benchmark of the module can include this file as well.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};
use tokio::sync::{Semaphore, watch};

use super::{
    clock::Timestamp,
    directory::Directory,
    handle::Handle,
    ids::{Ghost, Person},
    matrix::Transaction,
    server::{Appservice, AppserviceError, ThirdPartyUser},
};

/// An application service without an engine. Clones share what was recorded.
#[derive(Clone, Default)]
pub(crate) struct FakeAppservice {
    handles: Vec<ThirdPartyUser>,
    directory: Option<Directory>,
    /// A permit for each transaction that may become durable; without it, all may at once.
    gate: Option<Arc<Semaphore>>,
    failing: Arc<AtomicBool>,
    requests: Arc<Mutex<Requests>>,
    counts: Arc<watch::Sender<Counts>>,
}

#[derive(Default)]
struct Requests {
    transactions: Vec<RecordedTransaction>,
    pings: Vec<Option<String>>,
    lookups: Vec<String>,
    deactivated: Vec<OwnedUserId>,
    owner_queries: usize,
}

/// How many transactions came and how many became durable.
#[derive(Clone, Copy, Default)]
struct Counts {
    arrived: usize,
    accepted: usize,
}

/// A transaction, or a part of one, that became durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedTransaction {
    pub(crate) id: String,
    /// How many events it held.
    pub(crate) events: usize,
    /// How many to-device messages it held.
    pub(crate) to_device: usize,
    /// Whether something may have been lost before it.
    pub(crate) after_gap: bool,
}

impl FakeAppservice {
    /// Returns a service that accepts every transaction and knows no handle.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a handle, which its own name and its ghost's id find.
    pub(crate) fn with_handle(mut self, handle: &str, ghost: &UserId) -> Self {
        self.handles.push(ThirdPartyUser {
            ghost: Ghost::new(ghost.to_owned()),
            handle: handle.to_owned(),
        });
        self
    }

    /// Answers what the module asks from a directory. Without one the service is shutting down for
    /// the module.
    pub(crate) fn with_directory(mut self, directory: Directory) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Holds every transaction back until [`FakeAppservice::release`].
    pub(crate) fn with_gate(mut self) -> Self {
        self.gate = Some(Arc::new(Semaphore::new(0)));
        self
    }

    /// Lets `count` transactions become durable that are held back.
    pub(crate) fn release(&self, count: usize) {
        if let Some(gate) = &self.gate {
            gate.add_permits(count);
        }
    }

    /// Makes the store fail, or work again.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// Waits until `count` transactions have come in all, durable or held back.
    pub(crate) async fn wait_for_arrivals(&self, count: usize) {
        let mut counts = self.counts.subscribe();
        counts.wait_for(|it| it.arrived >= count).await.unwrap();
    }

    /// Waits until `count` transactions have become durable in all.
    pub(crate) async fn wait_for_accepted(&self, count: usize) {
        let mut counts = self.counts.subscribe();
        counts.wait_for(|it| it.accepted >= count).await.unwrap();
    }

    /// Returns the transactions that became durable.
    pub(crate) fn transactions(&self) -> Vec<RecordedTransaction> {
        self.requests().transactions.clone()
    }

    /// Returns the transactions that became durable since the last call.
    pub(crate) fn take_transactions(&self) -> Vec<RecordedTransaction> {
        std::mem::take(&mut self.requests().transactions)
    }

    /// Returns the transaction ids of the pings.
    pub(crate) fn pings(&self) -> Vec<Option<String>> {
        self.requests().pings.clone()
    }

    /// Returns the handles and user ids that were looked up since the last call.
    pub(crate) fn take_lookups(&self) -> Vec<String> {
        std::mem::take(&mut self.requests().lookups)
    }

    /// Returns the accounts that the homeserver has reported to be deactivated.
    pub(crate) fn deactivated(&self) -> Vec<OwnedUserId> {
        self.requests().deactivated.clone()
    }

    /// Returns how often owners were asked for.
    pub(crate) fn owner_queries(&self) -> usize {
        self.requests().owner_queries
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap()
    }

    fn check_store(&self) -> Result<(), AppserviceError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(AppserviceError::Store("the disk is full".to_owned()));
        }
        Ok(())
    }

    fn look_up(
        &self,
        text: &str,
        matches: impl Fn(&ThirdPartyUser) -> bool,
    ) -> Vec<ThirdPartyUser> {
        self.requests().lookups.push(text.to_owned());
        let found = self.handles.iter().filter(|user| matches(user));
        found.cloned().collect()
    }
}

#[async_trait]
impl Appservice for FakeAppservice {
    async fn accept_transaction(
        &self,
        txn_id: &str,
        body: Transaction,
    ) -> Result<(), AppserviceError> {
        self.counts.send_modify(|counts| counts.arrived += 1);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.check_store()?;
        self.requests().transactions.push(RecordedTransaction {
            id: txn_id.to_owned(),
            events: body.events.len(),
            to_device: body.to_device.len(),
            after_gap: body.after_gap,
        });
        self.counts.send_modify(|counts| counts.accepted += 1);
        Ok(())
    }

    async fn note_ping(&self, txn_id: Option<&str>) {
        self.requests().pings.push(txn_id.map(str::to_owned));
    }

    async fn user_exists(&self, user: &UserId) -> bool {
        self.handles.iter().any(|known| known.ghost == user)
    }

    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser> {
        self.look_up(handle, |user| user.handle.eq_ignore_ascii_case(handle))
    }

    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser> {
        self.look_up(user.as_str(), |known| known.ghost == user)
    }

    async fn user_deactivated(&self, user: &UserId) -> Result<(), AppserviceError> {
        self.check_store()?;
        self.requests().deactivated.push(user.to_owned());
        Ok(())
    }

    async fn find_owners(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, AppserviceError> {
        self.check_store()?;
        let directory = self
            .directory
            .as_ref()
            .ok_or(AppserviceError::ShuttingDown)?;
        self.requests().owner_queries += 1;
        let handles: Vec<_> = ghosts
            .iter()
            .filter_map(|ghost| Handle::of_ghost(ghost.localpart()))
            .collect();
        directory
            .introduce(&Person::new(asker.to_owned()), &handles, Timestamp(5))
            .await
            .map(|owners| {
                owners
                    .into_iter()
                    .map(|owner| owner.map(Into::into))
                    .collect()
            })
            .map_err(|error| AppserviceError::Store(error.to_string()))
    }

    async fn check_blocks(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, AppserviceError> {
        let directory = self
            .directory
            .as_ref()
            .ok_or(AppserviceError::ShuttingDown)?;
        directory
            .who_blocked(inviter, people)
            .map_err(|error| AppserviceError::Store(error.to_string()))
    }
}
