//! Which of our users the homeserver did not have a moment ago.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedUserId, UserId};
use tokio::time::Instant;

/// How long that is remembered: longer than a request takes.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Maximum number of users that are remembered. Beyond it, those are forgotten that were missing first.
const USERS_MAX: usize = 1000;

/// When the homeserver last did not have a user.
#[derive(Default)]
pub(super) struct LatelyMissing(Mutex<HashMap<OwnedUserId, Instant>>);

impl LatelyMissing {
    /// Returns whether the homeserver did not have a user at this time or after it.
    pub(super) fn was_missing_since(&self, user: &UserId, since: Instant) -> bool {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing_at = users.get(user);
        missing_at.is_some_and(|at| *at >= since)
    }

    pub(super) fn insert(&self, user: &UserId, now: Instant) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, at| now.duration_since(*at) < REMEMBERED_FOR);
        if users.len() >= USERS_MAX
            && let Some((first, _)) = users.iter().min_by_key(|(_, at)| **at)
        {
            let first = first.clone();
            users.remove(&first);
        }
        users.insert(user.to_owned(), now);
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_user_was_missing_for_requests_that_began_before_and_the_number_is_bounded() {
        let missing = LatelyMissing::default();
        let (sam, now) = (user_id!("@_dm_sam:hs.test"), Instant::now());
        assert!(!missing.was_missing_since(sam, now));
        missing.insert(sam, now);
        assert!(missing.was_missing_since(sam, now));
        let later = now + REMEMBERED_FOR / 2;
        assert!(!missing.was_missing_since(sam, later));
        let user = |n: usize| OwnedUserId::try_from(format!("@_dm_{n}:hs.test")).unwrap();
        for n in 0..USERS_MAX {
            missing.insert(&user(n), later);
        }
        assert!(!missing.was_missing_since(sam, now), "it was the first");
        assert!(missing.was_missing_since(&user(0), now));
        missing.insert(sam, later + REMEMBERED_FOR);
        assert!(!missing.was_missing_since(&user(0), now));
    }
}
