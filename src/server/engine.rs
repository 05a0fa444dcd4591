//! The engine, as the API sees it.

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};

use super::{Intake, IntakeError, ThirdPartyUser};
use crate::{
    directory::HandleRecord,
    engine::{Engine, EngineError},
    handle::Handle,
    matrix::transaction::Transaction,
};

impl Engine {
    fn shown(&self, record: HandleRecord) -> Option<ThirdPartyUser> {
        let server = &self.settings().server_name;
        let ghost = record.handle.ghost_id(server)?;
        // A handle is found once its ghost can be invited, with keys that clients can encrypt for.
        self.knows(&ghost).then(|| ThirdPartyUser {
            ghost,
            handle: record.handle.as_shown().to_owned(),
        })
    }

    fn found(&self, handle: &Handle) -> Vec<ThirdPartyUser> {
        let found = self.directory().discover(handle).unwrap_or_else(|error| {
            tracing::error!(%error, "a handle could not be looked up");
            None
        });
        found
            .and_then(|record| self.shown(record))
            .into_iter()
            .collect()
    }
}

#[async_trait]
impl Intake for Engine {
    async fn transaction(&self, _txn_id: &str, body: Transaction) -> Result<(), IntakeError> {
        Engine::transaction(self, body)
            .await
            .map_err(|error| match error {
                EngineError::Stopping => IntakeError::ShuttingDown,
                error => IntakeError::Store(error.to_string()),
            })
    }

    async fn ping(&self, _txn_id: Option<&str>) {}

    async fn user_exists(&self, user: &UserId) -> bool {
        self.knows(user)
    }

    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser> {
        match Handle::parse(
            handle.trim().trim_start_matches('@'),
            &self.directory().settings().rules,
        ) {
            Ok(handle) => self.found(&handle),
            Err(_) => Vec::new(),
        }
    }

    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser> {
        if !self.is_ours(user) {
            return Vec::new();
        }
        match Handle::of_ghost(user.localpart()) {
            Some(handle) => self.found(&handle),
            None => Vec::new(),
        }
    }

    async fn introduce(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, IntakeError> {
        let owners = Engine::owners_to_invite(self, asker, ghosts).await;
        owners.map_err(|error| IntakeError::Store(error.to_string()))
    }

    async fn blocked(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, IntakeError> {
        let blocked = self.directory().who_blocked(inviter, people);
        blocked.map_err(|error| IntakeError::Store(error.to_string()))
    }
}
