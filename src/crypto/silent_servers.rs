//! Servers that did not say which devices their people have.
//!
//! The homeserver answers a query when all servers concerned have answered, and waits up to 40 s for
//! one that accepts connections and then says nothing. So such a server is asked in the background
//! for a while (`device_lists`), and nobody waits for it. When it answers, it is asked as before, but
//! not if it has fallen silent twice: it could answer whenever nobody waits.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use ruma::{OwnedServerName, OwnedUserId, UserId};

use super::locks::lock;
use crate::clock::Timestamp;

/// How long nobody waits for a server after it was last asked in vain.
const SILENT_FOR: Duration = Duration::from_secs(10 * 60);
/// The number of times that a server falls silent within that time from which on an answer changes
/// nothing.
const SILENCES_MAX: u32 = 2;
/// Maximum number of servers that are remembered. The one that was last asked longest ago goes.
const SERVERS_MAX: usize = 1000;

/// Who did not say which devices they have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Silent {
    /// A server: all of its people. By its exact name, since the name of another one with a port is
    /// easily made up, and nobody answers there.
    Server(OwnedServerName),
    /// A person for whom the answers make no sense.
    Person(OwnedUserId),
}

impl Silent {
    pub(super) fn server_of(user: &UserId) -> Self {
        Self::Server(user.server_name().to_owned())
    }

    fn reasons_for(user: &UserId) -> [Self; 2] {
        [Self::server_of(user), Self::Person(user.to_owned())]
    }
}

/// The servers and people that were asked in vain.
#[derive(Debug, Default)]
pub(super) struct SilentServers(Mutex<HashMap<Silent, Silence>>);

#[derive(Clone, Copy, Debug)]
struct Silence {
    /// When the last question was asked that had no answer.
    last: Timestamp,
    answered_at: Option<Timestamp>,
    /// How often the server fell silent.
    times: u32,
    /// When the first message could not be read because of that.
    unread_since: Option<Timestamp>,
    is_being_asked: bool,
}

impl Silence {
    fn is_recent(&self, now: Timestamp) -> bool {
        now.since(self.last) < SILENT_FOR
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.is_recent(now) && (self.answered_at.is_none() || self.times >= SILENCES_MAX)
    }
}

impl SilentServers {
    /// Returns why nobody waits for the devices of this person, if that is so.
    pub(super) fn concerning(&self, user: &UserId, now: Timestamp) -> Option<Silent> {
        let known = lock(&self.0);
        let mut reasons = Silent::reasons_for(user).into_iter();
        reasons.find(|silent| known.get(silent).is_some_and(|silence| silence.holds(now)))
    }

    /// Notes a message that cannot be read now because its sender's devices are unknown. Returns
    /// since when there have been such messages. If the server answers now and then, each counts for
    /// itself: the next answer may have come before it is tried again.
    pub(super) fn note_unread(&self, sender: &UserId, now: Timestamp) -> Timestamp {
        let mut known = lock(&self.0);
        for silent in Silent::reasons_for(sender) {
            if let Some(silence) = known.get_mut(&silent)
                && silence.holds(now)
                && silence.answered_at.is_none()
            {
                return *silence.unread_since.get_or_insert(now);
            }
        }
        now
    }

    /// Notes a question that had no answer.
    pub(super) fn note(&self, silent: Silent, asked_at: Timestamp) {
        let mut known = lock(&self.0);
        if let Some(silence) = known.get_mut(&silent)
            && silence.is_recent(asked_at)
        {
            match silence.answered_at {
                // It has answered a later question.
                Some(answered_at) if asked_at < answered_at => return,
                Some(_) => {
                    silence.answered_at = None;
                    silence.times += 1;
                    silence.unread_since = None;
                }
                None => {}
            }
            silence.last = silence.last.max(asked_at);
            return;
        }
        known.retain(|_, silence| silence.is_recent(asked_at));
        if known.len() >= SERVERS_MAX
            && let Some(oldest) = known.iter().min_by_key(|(_, silence)| silence.last)
        {
            let oldest = oldest.0.clone();
            known.remove(&oldest);
        }
        let silence = Silence {
            last: asked_at,
            answered_at: None,
            times: 1,
            unread_since: None,
            is_being_asked: false,
        };
        known.insert(silent, silence);
    }

    /// Notes an answer.
    pub(super) fn note_answer(&self, silent: &Silent, now: Timestamp) {
        if let Some(silence) = lock(&self.0).get_mut(silent) {
            silence.answered_at = Some(now);
        }
    }

    /// Returns `true` if nobody is asking in the background; then the caller does, and says when it
    /// has ended.
    pub(super) fn begin_asking(&self, silent: &Silent) -> bool {
        let mut known = lock(&self.0);
        let silence = known.get_mut(silent);
        silence.is_some_and(|silence| !std::mem::replace(&mut silence.is_being_asked, true))
    }

    /// Notes that nobody is asking in the background.
    pub(super) fn end_asking(&self, silent: &Silent) {
        if let Some(silence) = lock(&self.0).get_mut(silent) {
            silence.is_being_asked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Timestamp = Timestamp(1_795_376_395_450);

    fn named(n: usize) -> OwnedUserId {
        format!("@mallory:s{n}.test").try_into().unwrap()
    }

    fn mallory() -> &'static UserId {
        user_id!("@mallory:silent.test")
    }

    fn silent() -> Silent {
        Silent::server_of(mallory())
    }

    #[test]
    fn a_silent_server_is_remembered_for_ten_minutes() {
        let servers = SilentServers::default();
        servers.note(silent(), NOW);
        let why = servers.concerning(user_id!("@other:silent.test"), NOW + 599 * SECOND);
        assert_eq!(why, Some(silent()));
        // Anybody can make up a port where nobody answers.
        for other in ["@m:other.test", "@m:silent.test:8448"] {
            let other = <&UserId>::try_from(other).unwrap();
            assert_eq!(servers.concerning(other, NOW), None, "{other}");
        }
        // It is still silent.
        servers.note(silent(), NOW + 599 * SECOND);
        let later = NOW + 1198 * SECOND;
        assert!(servers.concerning(mallory(), later).is_some());
        assert!(servers.concerning(mallory(), later + SECOND).is_none());
    }

    #[test]
    fn a_person_whose_keys_make_no_sense_stands_for_nobody_else() {
        let servers = SilentServers::default();
        servers.note(Silent::Person(mallory().to_owned()), NOW);
        assert!(servers.concerning(mallory(), NOW).is_some());
        let bob = user_id!("@bob:silent.test");
        assert!(servers.concerning(bob, NOW).is_none());
    }

    #[test]
    fn a_server_that_answers_again_is_waited_for_but_only_once() {
        let servers = SilentServers::default();
        servers.note(silent(), NOW);
        servers.note_answer(&silent(), NOW + 20 * SECOND);
        let is_silent = |at: u32| servers.concerning(mallory(), NOW + at * SECOND).is_some();
        assert!(!is_silent(20));
        servers.note(silent(), NOW + 10 * SECOND);
        assert!(!is_silent(20), "that was asked before");
        servers.note(silent(), NOW + 30 * SECOND);
        assert!(is_silent(30));
        servers.note_answer(&silent(), NOW + 31 * SECOND);
        assert!(is_silent(40), "it does so whenever nobody waits");
        assert!(is_silent(629));
        assert!(!is_silent(630));
    }

    #[test]
    fn messages_are_unread_since_the_first_of_a_silence() {
        let servers = SilentServers::default();
        let unread = |at: u32| servers.note_unread(mallory(), NOW + at * SECOND);
        servers.note(silent(), NOW);
        assert_eq!(unread(10), NOW + 10 * SECOND);
        assert_eq!(unread(20), NOW + 10 * SECOND);
        servers.note_answer(&silent(), NOW + 25 * SECOND);
        servers.note(silent(), NOW + 30 * SECOND);
        assert_eq!(unread(40), NOW + 40 * SECOND);
        servers.note(silent(), NOW + 500 * SECOND);
        assert_eq!(unread(900), NOW + 40 * SECOND);
        servers.note_answer(&silent(), NOW + 901 * SECOND);
        assert_eq!(unread(902), NOW + 902 * SECOND, "it answers now and then");
        assert_eq!(unread(1100), NOW + 1100 * SECOND, "all is forgotten");
    }

    #[test]
    fn a_server_is_asked_once_at_a_time() {
        let servers = SilentServers::default();
        assert!(!servers.begin_asking(&silent()));
        servers.note(silent(), NOW);
        assert!(servers.begin_asking(&silent()));
        assert!(!servers.begin_asking(&silent()));
        servers.end_asking(&silent());
        assert!(servers.begin_asking(&silent()));
    }

    #[test]
    fn few_servers_are_remembered_and_the_first_goes() {
        let servers = SilentServers::default();
        for n in 0..=SERVERS_MAX {
            servers.note(Silent::server_of(&named(n)), Timestamp(NOW.0 + n as u64));
        }
        let now = NOW + 2 * SECOND;
        assert_eq!(lock(&servers.0).len(), SERVERS_MAX);
        assert!(servers.concerning(&named(0), now).is_none());
        assert!(servers.concerning(&named(1), now).is_some());
        assert!(servers.concerning(&named(SERVERS_MAX), now).is_some());
        servers.note(Silent::server_of(&named(7)), now + 2 * SILENT_FOR);
        assert_eq!(lock(&servers.0).len(), 1);
    }
}
