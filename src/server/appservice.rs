//! The interface of the engine to the server.

use std::sync::Arc;

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};
use thiserror::Error;

use crate::{ids::Ghost, matrix::transaction::Transaction};

/// The engine as the server sees it.
#[async_trait]
pub trait Appservice: Send + Sync + 'static {
    /// Accepts a transaction. Returns once all of it is durable and no sooner: an acknowledged
    /// transaction is never sent again. May be called twice at once with the same transaction. The
    /// id does not identify the content: Synapse on SQLite counts from 1 again after a restart.
    async fn accept_transaction(
        &self,
        txn_id: &str,
        body: Transaction,
    ) -> Result<(), AppserviceError>;

    /// Notes that the homeserver answered a ping, whose transaction id we chose.
    async fn note_ping(&self, txn_id: Option<&str>);

    /// Returns whether one of our users exists. Must not create it: anybody can make the homeserver
    /// ask.
    async fn user_exists(&self, user: &UserId) -> bool;

    /// Returns the ghost of a handle. The homeserver does not say who asks, so everybody gets the
    /// same answer. The list is empty both for a handle that does not exist and for one whose owner
    /// does not want it found.
    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser>;

    /// Returns the handle of a ghost, by the rules of [`Appservice::lookup_handle`].
    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser>;

    /// Returns the owner to invite in place of each ghost into a room that `asker` is creating.
    async fn find_owners(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, AppserviceError>;

    /// Returns for each person whether they have blocked `inviter`.
    async fn check_blocks(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, AppserviceError>;

    /// Notes that the homeserver's module has reported.
    fn module_reported(&self) {}

    /// Erases a person of the homeserver whose account was deactivated. Returns once that is durable.
    async fn user_deactivated(&self, user: &UserId) -> Result<(), AppserviceError>;
}

#[async_trait]
impl<A: Appservice + ?Sized> Appservice for Arc<A> {
    async fn accept_transaction(
        &self,
        txn_id: &str,
        body: Transaction,
    ) -> Result<(), AppserviceError> {
        (**self).accept_transaction(txn_id, body).await
    }

    async fn note_ping(&self, txn_id: Option<&str>) {
        (**self).note_ping(txn_id).await;
    }

    async fn user_exists(&self, user: &UserId) -> bool {
        (**self).user_exists(user).await
    }

    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser> {
        (**self).lookup_handle(handle).await
    }

    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser> {
        (**self).lookup_user(user).await
    }

    async fn find_owners(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, AppserviceError> {
        (**self).find_owners(asker, ghosts).await
    }

    async fn check_blocks(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, AppserviceError> {
        (**self).check_blocks(inviter, people).await
    }

    fn module_reported(&self) {
        (**self).module_reported();
    }

    async fn user_deactivated(&self, user: &UserId) -> Result<(), AppserviceError> {
        (**self).user_deactivated(user).await
    }
}

/// A handle in the answer to a third-party lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThirdPartyUser {
    /// The ghost to invite.
    pub ghost: Ghost,
    /// The handle, spelled as its owner spells it.
    pub handle: String,
}

/// Why a transaction was not accepted, or a question not answered. The homeserver sends a refused
/// transaction again.
#[derive(Debug, Error)]
pub enum AppserviceError {
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// The service is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}
