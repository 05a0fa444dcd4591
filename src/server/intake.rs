//! What the server asks of whoever runs things.

use std::sync::Arc;

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};
use thiserror::Error;

use crate::matrix::transaction::Transaction;

/// The engine as the server sees it.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Takes a transaction. Returns when all of it is durable and no sooner: what is acknowledged
    /// never comes again. May be called twice at the same time with the same transaction, and the
    /// id says nothing about the content: Synapse on SQLite counts from 1 again after a restart.
    async fn transaction(&self, txn_id: &str, body: Transaction) -> Result<(), IntakeError>;

    /// The homeserver answers a ping, whose transaction id we chose.
    async fn ping(&self, txn_id: Option<&str>);

    /// Whether a user of ours exists. Must not make one: anybody can make the homeserver ask.
    async fn user_exists(&self, user: &UserId) -> bool;

    /// Who is reached by a handle. The homeserver does not say who asks, so this answers the same
    /// to everybody, and the same empty list for a handle that is not there and for one whose
    /// owner does not want it found.
    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser>;

    /// Which handle a ghost stands for, by the rules of [`Intake::lookup_handle`].
    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser>;

    /// Somebody is creating a room: for each of these ghosts, whom to invite in its place.
    async fn introduce(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, IntakeError>;

    /// For each of these people, whether they have blocked the one who invites them.
    async fn blocked(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, IntakeError>;

    /// The homeserver's module reported itself.
    fn module_reported(&self) {}
}

#[async_trait]
impl<I: Intake + ?Sized> Intake for Arc<I> {
    async fn transaction(&self, txn_id: &str, body: Transaction) -> Result<(), IntakeError> {
        (**self).transaction(txn_id, body).await
    }

    async fn ping(&self, txn_id: Option<&str>) {
        (**self).ping(txn_id).await;
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

    async fn introduce(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, IntakeError> {
        (**self).introduce(asker, ghosts).await
    }

    async fn blocked(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, IntakeError> {
        (**self).blocked(inviter, people).await
    }

    fn module_reported(&self) {
        (**self).module_reported();
    }
}

/// A handle as a third-party lookup shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThirdPartyUser {
    /// The ghost to invite.
    pub ghost: OwnedUserId,
    /// The handle as its owner writes it.
    pub handle: String,
}

/// Why a transaction could not be taken, or a question not answered. The homeserver sends a
/// transaction again after a while.
#[derive(Debug, Error)]
pub enum IntakeError {
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// We are going down.
    #[error("shutting down")]
    ShuttingDown,
}
