//! The engine as an application service.

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};

use super::{Appservice, AppserviceError, ThirdPartyUser};
use crate::{
    directory::HandleRecord,
    engine::{Engine, EngineError},
    handle::Handle,
    matrix::transaction::Transaction,
};

/// Returns the ghost of a handle whose owner lets it be found, or nothing.
fn find_by_handle(engine: &Engine, handle: &Handle) -> Vec<ThirdPartyUser> {
    let record = engine.directory().discover(handle).unwrap_or_else(|error| {
        tracing::error!(%error, "a handle could not be looked up");
        None
    });
    record
        .and_then(|record| to_third_party_user(engine, &record))
        .into_iter()
        .collect()
}

/// Returns a handle as a lookup shows it; `None` until its ghost can be invited and has keys that
/// clients can encrypt for.
fn to_third_party_user(engine: &Engine, record: &HandleRecord) -> Option<ThirdPartyUser> {
    let server = &engine.settings().server_name;
    let ghost = record.handle.ghost_id(server)?;
    engine.knows(&ghost).then(|| ThirdPartyUser {
        ghost,
        handle: record.handle.as_shown().to_owned(),
    })
}

#[async_trait]
impl Appservice for Engine {
    async fn accept_transaction(
        &self,
        _txn_id: &str,
        body: Transaction,
    ) -> Result<(), AppserviceError> {
        Engine::accept_transaction(self, body)
            .await
            .map_err(|error| match error {
                EngineError::Stopping => AppserviceError::ShuttingDown,
                error => AppserviceError::Store(error.to_string()),
            })
    }

    async fn note_ping(&self, _txn_id: Option<&str>) {}

    async fn user_exists(&self, user: &UserId) -> bool {
        self.knows(user)
    }

    async fn lookup_handle(&self, handle: &str) -> Vec<ThirdPartyUser> {
        match Handle::parse(
            handle.trim().trim_start_matches('@'),
            &self.directory().settings().rules,
        ) {
            Ok(handle) => find_by_handle(self, &handle),
            Err(_) => Vec::new(),
        }
    }

    async fn lookup_user(&self, user: &UserId) -> Vec<ThirdPartyUser> {
        if !self.is_ours(user) {
            return Vec::new();
        }
        match Handle::of_ghost(user.localpart()) {
            Some(handle) => find_by_handle(self, &handle),
            None => Vec::new(),
        }
    }

    async fn find_owners(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, AppserviceError> {
        let owners = Engine::owners_to_invite(self, asker, ghosts).await;
        owners.map_err(|error| AppserviceError::Store(error.to_string()))
    }

    async fn check_blocks(
        &self,
        inviter: &UserId,
        people: &[OwnedUserId],
    ) -> Result<Vec<bool>, AppserviceError> {
        let blocked = self.directory().who_blocked(inviter, people);
        blocked.map_err(|error| AppserviceError::Store(error.to_string()))
    }

    fn module_reported(&self) {
        self.note_module();
    }

    async fn user_deactivated(&self, user: &UserId) -> Result<(), AppserviceError> {
        let erased = self.erase_deactivated(user).await;
        erased.map_err(|error| AppserviceError::Store(error.to_string()))
    }
}
