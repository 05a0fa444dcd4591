//! Servers that did not hand out a file, and people whose files could not be had.
//!
//! A room waits for a file once. For ten minutes after it was given up, other files of the same
//! server are tried for a moment only, and of each person who sends some one in a while: nobody waits
//! for them. A file that comes ends that. Anybody can name a file that a server never hands out, so
//! what one person sends costs no other person a try. The name of a server is easily made up, so the
//! same holds for a person after a second file, whatever server it was on, and until the time is over.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

use crate::{clock::Timestamp, engine::Engine};

/// How long a server counts as failing after one of its files was given up.
const FAILING_FOR: Duration = Duration::from_secs(10 * 60);
/// How long a file of a failing server or person may take to begin.
const SHORT_WAIT: Duration = Duration::from_secs(2);
/// How long no file of a person is tried after one was, if they or its server are failing.
const PAUSE: Duration = Duration::from_secs(20);
/// The number of a person's files that are given up within that time from which on their files are
/// not waited for.
const FILES_MAX: u32 = 2;
/// Maximum number of servers and people that are remembered. The one that failed longest ago goes.
const REMEMBERED_MAX: usize = 1000;

/// Whose files cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FileSource {
    /// A server, by its exact name.
    Server(OwnedServerName),
    /// A person who sends files.
    Person(OwnedUserId),
}

impl FileSource {
    fn both(server: &ServerName, sender: &UserId) -> [Self; 2] {
        [
            Self::Server(server.to_owned()),
            Self::Person(sender.to_owned()),
        ]
    }

    /// Returns how many files are given up before it counts as failing.
    fn files_max(&self) -> u32 {
        match self {
            Self::Server(_) => 1,
            Self::Person(_) => FILES_MAX,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct FailedFiles {
    /// When a file that was waited for was given up.
    last: Timestamp,
    /// How many there were.
    files: u32,
    /// When a file of the person was tried last.
    tried_at: Timestamp,
}

impl FailedFiles {
    fn is_recent(&self, now: Timestamp) -> bool {
        now.since(self.last) < FAILING_FOR
    }
}

/// Forgets those that failed longest ago, if too many are remembered.
fn forget_oldest(known: &mut HashMap<FileSource, FailedFiles>) {
    while known.len() > REMEMBERED_MAX
        && let Some(oldest) = known.iter().min_by_key(|(_, failed)| failed.last)
    {
        let oldest = oldest.0.clone();
        known.remove(&oldest);
    }
}

/// The servers and people whose files could not be had.
#[derive(Debug, Default)]
pub(in crate::engine) struct FailingMedia(Mutex<HashMap<FileSource, FailedFiles>>);

impl FailingMedia {
    /// Returns how long a file of this server and sender is waited for if one of them is failing,
    /// and notes that it is tried. Zero: it is not tried.
    pub(in crate::engine) fn short_wait(
        &self,
        server: &ServerName,
        sender: &UserId,
        now: Timestamp,
    ) -> Option<Duration> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = FileSource::both(server, sender);
        let is_failing = sources.iter().any(|source| {
            let failed = known.get(source);
            failed.is_some_and(|it| it.is_recent(now) && it.files >= source.files_max())
        });
        if !is_failing {
            return None;
        }
        let [_, sender] = sources;
        let last = known.get(&sender).map(|failed| failed.tried_at);
        if last.is_some_and(|at| now.since(at) < PAUSE) {
            return Some(Duration::ZERO);
        }
        let sender = known.entry(sender).or_insert(FailedFiles {
            last: now,
            files: 0,
            tried_at: now,
        });
        sender.tried_at = now;
        forget_oldest(&mut known);
        Some(SHORT_WAIT)
    }

    /// Notes that a file of this sender was given up, and that it was for its server to hand it out
    /// in time.
    pub(in crate::engine) fn note_failure(
        &self,
        server: Option<&ServerName>,
        sender: &UserId,
        now: Timestamp,
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, failed| failed.is_recent(now));
        let server = server.map(|server| FileSource::Server(server.to_owned()));
        let sender = FileSource::Person(sender.to_owned());
        for source in server.into_iter().chain([sender]) {
            let files = known.get(&source).map_or(0, |failed| failed.files);
            let failed = FailedFiles {
                last: now,
                files: files.saturating_add(1),
                tried_at: now,
            };
            known.insert(source, failed);
        }
        forget_oldest(&mut known);
    }

    /// Notes that a file of this server and sender has come. The sender's next one is tried at once,
    /// for a moment.
    pub(in crate::engine) fn note_success(&self, server: &ServerName, sender: &UserId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [server, sender] = FileSource::both(server, sender);
        known.remove(&server);
        if let Some(failed) = known.get_mut(&sender) {
            failed.tried_at = Timestamp(0);
        }
    }
}

impl Engine {
    pub(in crate::engine) fn failing_media(&self) -> &FailingMedia {
        &self.0.failing_media
    }
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Timestamp = Timestamp(1_795_376_395_450);

    fn far() -> &'static ServerName {
        server_name!("far.example")
    }

    fn bob() -> &'static UserId {
        user_id!("@bob:hs.test")
    }

    fn alice() -> &'static UserId {
        user_id!("@alice:hs.test")
    }

    #[test]
    fn a_failing_server_is_tried_now_and_then_and_not_waited_for() {
        let failing = FailingMedia::default();
        assert_eq!(failing.short_wait(far(), bob(), NOW), None);
        failing.note_failure(Some(far()), bob(), NOW);
        let wait = |at: u32| failing.short_wait(far(), alice(), NOW + at * SECOND);
        let bobs = failing.short_wait(far(), bob(), NOW + SECOND);
        assert_eq!(bobs, Some(Duration::ZERO), "his was just tried");
        assert_eq!(wait(1), Some(SHORT_WAIT));
        assert_eq!(wait(2), Some(Duration::ZERO), "hers was just tried");
        assert_eq!(wait(21), Some(SHORT_WAIT));
        assert_eq!(wait(599), Some(SHORT_WAIT));
        assert_eq!(wait(600), None, "that was long ago");
        failing.note_failure(Some(far()), bob(), NOW);
        failing.note_success(far(), alice());
        assert_eq!(wait(1), None);
        let other = server_name!("other.example");
        assert_eq!(failing.short_wait(other, alice(), NOW + SECOND), None);
    }

    #[test]
    fn nobody_makes_a_room_wait_by_naming_one_server_after_the_other() {
        let failing = FailingMedia::default();
        let named = |n: u32| OwnedServerName::try_from(format!("s{n}.test")).unwrap();
        let wait = |n| failing.short_wait(&named(n), bob(), NOW + SECOND);
        failing.note_failure(Some(&named(1)), bob(), NOW);
        assert_eq!(wait(2), None, "it may be chance");
        failing.note_failure(Some(&named(2)), bob(), NOW);
        assert_eq!(wait(3), Some(Duration::ZERO));
        failing.note_success(&named(4), bob());
        assert_eq!(wait(3), Some(SHORT_WAIT), "it may come like the last one");
        assert_eq!(wait(5), Some(Duration::ZERO));
        let others = failing.short_wait(&named(3), alice(), NOW + SECOND);
        assert_eq!(others, None);
    }

    #[test]
    fn a_file_that_had_little_time_says_nothing_of_its_server() {
        let failing = FailingMedia::default();
        for _ in 0..2 {
            failing.note_failure(None, bob(), NOW);
        }
        let wait = |who| failing.short_wait(far(), who, NOW + SECOND);
        assert_eq!(wait(bob()), Some(Duration::ZERO));
        assert_eq!(wait(alice()), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_first_goes() {
        let failing = FailingMedia::default();
        let named = |n: usize| OwnedServerName::try_from(format!("s{n}.test")).unwrap();
        for n in 0..=REMEMBERED_MAX {
            let at = Timestamp(NOW.0 + n as u64);
            failing.note_failure(Some(&named(n)), bob(), at);
        }
        assert_eq!(failing.0.lock().unwrap().len(), REMEMBERED_MAX);
        let now = NOW + 2 * SECOND;
        assert_eq!(failing.short_wait(&named(0), alice(), now), None);
        let last = failing.short_wait(&named(REMEMBERED_MAX), alice(), now);
        assert_eq!(last, Some(SHORT_WAIT));
    }
}
