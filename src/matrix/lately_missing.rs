//! Which of our users the homeserver did not have a moment ago.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedUserId, UserId};
use tokio::time::Instant;

/// How long refusals of a user's requests may be from the time when it was missing: longer than a
/// request takes.
const DOUBTED_FOR: Duration = Duration::from_secs(60);
/// Maximum number of users that are remembered. Beyond it, those are forgotten that were missing first.
const USERS_MAX: usize = 1000;

/// When the homeserver last did not have a user.
#[derive(Default)]
pub(super) struct LatelyMissing(Mutex<HashMap<OwnedUserId, Instant>>);

impl LatelyMissing {
    pub(super) fn contains(&self, user: &UserId, now: Instant) -> bool {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing_at = users.get(user);
        missing_at.is_some_and(|at| now.duration_since(*at) < DOUBTED_FOR)
    }

    pub(super) fn insert(&self, user: &UserId, now: Instant) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, at| now.duration_since(*at) < DOUBTED_FOR);
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
    fn a_user_is_doubted_for_a_minute_and_the_number_is_bounded() {
        let missing = LatelyMissing::default();
        let (sam, now) = (user_id!("@_dm_sam:hs.test"), Instant::now());
        assert!(!missing.contains(sam, now));
        missing.insert(sam, now);
        let later = now + DOUBTED_FOR / 2;
        assert!(missing.contains(sam, later));
        let user = |n: usize| OwnedUserId::try_from(format!("@_dm_{n}:hs.test")).unwrap();
        for n in 0..USERS_MAX {
            missing.insert(&user(n), later);
        }
        assert!(!missing.contains(sam, later), "it was the first");
        assert!(missing.contains(&user(0), later));
        assert!(!missing.contains(&user(0), later + DOUBTED_FOR));
    }
}
