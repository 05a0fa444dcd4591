//! Limits on what people and servers do, and the counting against them.

use std::time::Duration;

use super::{
    Counted, DAY, Directory, DirectoryError, DirectoryTransaction, Limit, ReachQuery, Usage,
    tables::{Expiring, Pauses, StoredUsage, Usages},
    transaction::Read as _,
};
use crate::{
    clock::Timestamp,
    ids::{Person, host_of},
    store::StoreError,
};

/// How long the bot ignores a person who has typed too much.
const COMMAND_PAUSE: Duration = Duration::from_secs(60);

/// The result of counting a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandCount {
    /// It is within the limit.
    Counted,
    /// It is one too many: the bot ignores the person from now on, for a while.
    PauseBegins,
    /// The bot ignores the person at the moment.
    Paused,
}

impl Directory {
    /// Returns whether a query is within its limits, without counting it.
    pub(super) fn within_limits(&self, query: &ReachQuery<'_>) -> Result<bool, StoreError> {
        for (counted, subject, limit) in self.limits_of(query.asker) {
            let key = (counted.name().to_owned(), subject);
            if let Some(StoredUsage { usage, .. }) = self.store().get::<Usages>(&key)?
                && !usage.allows(limit, query.now)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the limits that a query of this person counts against, their server's first.
    pub(super) fn limits_of(&self, asker: &Person) -> Vec<(Counted, String, Limit)> {
        let settings = self.settings();
        let mut limits = Vec::with_capacity(2);
        // Our own homeserver may be of any size, so only its people's own limits hold.
        if asker.server_name() != settings.server_name {
            let limit = Limit {
                most: settings.new_conversations_per_server,
                window: DAY,
            };
            limits.push((
                Counted::RequestsOfServer,
                host_of(asker.server_name()),
                limit,
            ));
        }
        let limit = Limit {
            most: settings.new_conversations_per_sender,
            window: DAY,
        };
        limits.push((Counted::RequestsOfSender, asker.to_string(), limit));
        limits
    }
}

impl DirectoryTransaction<'_> {
    /// Counts one attempt of `subject` if it is within the limit. Returns whether it is.
    pub fn count(
        &mut self,
        counted: Counted,
        subject: &str,
        limit: Limit,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        self.count_in(counted, subject, limit, now, |usage, _, _| usage)
    }

    /// Counts like [`Self::count`], on what `counts` leaves of an earlier usage.
    fn count_in(
        &mut self,
        counted: Counted,
        subject: &str,
        limit: Limit,
        now: Timestamp,
        counts: impl FnOnce(Usage, Limit, Timestamp) -> Usage,
    ) -> Result<bool, DirectoryError> {
        let key = (counted.name().to_owned(), subject.to_owned());
        let stored = self.get::<Usages>(&key)?;
        let before = stored.map(|stored| stored.usage).unwrap_or_default();
        let (usage, allowed) = counts(before, limit, now).attempt(limit, now);
        if stored.is_none() || usage != before {
            let expires = usage.expires(limit.window);
            self.put::<Usages>(&key, &StoredUsage { usage, expires })?;
            if stored.is_none() {
                let (counted, subject) = key;
                self.expire(expires, Expiring::Usage { counted, subject })?;
            }
        }
        Ok(allowed)
    }

    /// Returns whether an attempt would be within the limit, without counting it.
    pub fn is_within_limit(
        &self,
        counted: Counted,
        subject: &str,
        limit: Limit,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        let key = (counted.name().to_owned(), subject.to_owned());
        let stored = self.get::<Usages>(&key)?;
        let usage = stored.map(|stored| stored.usage).unwrap_or_default();
        Ok(usage.allows(limit, now))
    }

    /// Counts a command of a person if the bot listens to them. Too many begin a pause, in which it
    /// ignores everything, so that a flood does not lead to some of its commands being run and
    /// others not. After the pause the count begins anew.
    pub fn count_command(
        &mut self,
        person: &Person,
        limit: Limit,
        now: Timestamp,
    ) -> Result<CommandCount, DirectoryError> {
        let paused = self.get::<Pauses>(person)?;
        // A clock that was set back must not prolong a pause.
        if paused.is_some_and(|until| now < until && until.since(now) <= COMMAND_PAUSE) {
            return Ok(CommandCount::Paused);
        }
        if self.count_in(
            Counted::Commands,
            person.as_str(),
            limit,
            now,
            Usage::within_window,
        )? {
            return Ok(CommandCount::Counted);
        }
        let until = now + COMMAND_PAUSE;
        let person = person.to_owned();
        self.put::<Pauses>(&person, &until)?;
        self.delete::<Usages>(&(Counted::Commands.name().to_owned(), person.to_string()));
        self.expire(until, Expiring::Pause { person })?;
        Ok(CommandCount::PauseBegins)
    }

    /// Counts a chat that this person starts with the bot. Returns whether it is within the limits
    /// of the person and of their server.
    pub fn count_bot_invite(
        &mut self,
        person: &Person,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        let settings = self.settings();
        let per_day = |most| Limit { most, window: DAY };
        let mut limits = Vec::with_capacity(2);
        if person.server_name() != settings.server_name {
            let (server, limit) = (
                host_of(person.server_name()),
                settings.new_conversations_per_server,
            );
            limits.push((Counted::BotInvitesOfServer, server, per_day(limit)));
        }
        let limit = per_day(settings.bot_invites_per_sender);
        limits.push((Counted::BotInvitesOfSender, person.to_string(), limit));
        self.count_all(limits, now)
    }

    /// Counts an invite of a ghost whose name is misspelt, as a new conversation. Returns whether
    /// its sender is told, which is once a day.
    pub fn count_misspelt(
        &mut self,
        asker: &Person,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        let mut limits = self.directory.limits_of(asker);
        let limit = Limit {
            most: 1,
            window: DAY,
        };
        limits.push((Counted::Misspelt, asker.to_string(), limit));
        self.count_all(limits, now)
    }

    /// Counts an attempt under each of these limits if it is within all of them, and returns
    /// whether it is. An attempt over one limit counts under none: a person who is over their own
    /// limit must not use up that of their server, and a server over its own could make up any
    /// number of people, who leave no record.
    pub(super) fn count_all(
        &mut self,
        limits: Vec<(Counted, String, Limit)>,
        now: Timestamp,
    ) -> Result<bool, DirectoryError> {
        for (counted, subject, limit) in &limits {
            if !self.is_within_limit(*counted, subject, *limit, now)? {
                return Ok(false);
            }
        }
        for (counted, subject, limit) in limits {
            self.count(counted, &subject, limit, now)?;
        }
        Ok(true)
    }
}
