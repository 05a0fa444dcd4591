//! Which of our users the homeserver has, as far as it was asked lately.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedUserId, UserId};
use tokio::time::Instant;

/// How long a user counts as there.
const THERE_FOR: Duration = Duration::from_secs(60);
/// Maximum number of users that are remembered.
const USERS_MAX: usize = 1000;

/// When the homeserver last said that it has a user.
#[derive(Default)]
pub(super) struct UsersThere(Mutex<HashMap<OwnedUserId, Instant>>);

impl UsersThere {
    pub(super) fn contains(&self, user: &UserId) -> bool {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(user).is_some_and(|at| at.elapsed() < THERE_FOR)
    }

    pub(super) fn insert(&self, user: &UserId) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS_MAX {
            users.clear();
        }
        users.insert(user.to_owned(), Instant::now());
    }
}
