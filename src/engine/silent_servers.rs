//! Servers that did not say which devices their people have.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ruma::{OwnedServerName, ServerName};

use crate::clock::Timestamp;

/// How long no message waits again for a server that was waited for in vain.
const SILENT_FOR: Duration = Duration::from_secs(10 * 60);
/// Maximum number of servers that are remembered. The one noted first goes.
const SERVERS_MAX: usize = 1000;

/// The servers that were waited for in vain, and when.
#[derive(Debug, Default)]
pub(super) struct SilentServers(Mutex<HashMap<OwnedServerName, Timestamp>>);

impl SilentServers {
    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedServerName, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a server was waited for in vain a short while ago.
    pub(super) fn contains(&self, server: &ServerName, now: Timestamp) -> bool {
        let since = self.lock().get(server).copied();
        since.is_some_and(|since| now.since(since) < SILENT_FOR)
    }

    /// Notes that a server was waited for in vain.
    pub(super) fn note(&self, server: &ServerName, now: Timestamp) {
        let mut servers = self.lock();
        servers.retain(|_, since| now.since(*since) < SILENT_FOR);
        if servers.len() >= SERVERS_MAX
            && let Some(oldest) = servers.iter().min_by_key(|(_, since)| **since)
        {
            let oldest = oldest.0.clone();
            servers.remove(&oldest);
        }
        servers.insert(server.to_owned(), now);
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn named(n: usize) -> OwnedServerName {
        format!("s{n}.test").try_into().unwrap()
    }

    #[test]
    fn a_silent_server_is_remembered_for_ten_minutes() {
        let silent = SilentServers::default();
        let now = Timestamp(1000);
        silent.note(server_name!("silent.test"), now);
        assert!(silent.contains(server_name!("silent.test"), now + Duration::from_secs(599)));
        assert!(!silent.contains(server_name!("silent.test"), now + Duration::from_secs(600)));
        assert!(!silent.contains(server_name!("other.test"), now));
    }

    #[test]
    fn few_servers_are_remembered_and_the_first_goes() {
        let silent = SilentServers::default();
        for n in 0..=SERVERS_MAX {
            silent.note(&named(n), Timestamp(n as u64));
        }
        let now = Timestamp(SERVERS_MAX as u64);
        assert_eq!(silent.lock().len(), SERVERS_MAX);
        assert!(!silent.contains(&named(0), now));
        assert!(silent.contains(&named(1), now) && silent.contains(&named(SERVERS_MAX), now));
        silent.note(&named(7), now + 2 * SILENT_FOR);
        assert_eq!(silent.lock().len(), 1);
    }
}
