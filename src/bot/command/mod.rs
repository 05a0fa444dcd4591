//! The commands, and how what somebody typed finds its command.
//!
//! # Adding a command
//!
//! Write a file with a `COMMAND` and its `run`, and put it into [`ALL`]. A command changes things
//! only through [`Call::change`]; it says what happened, and what the person can do next.

mod appear;
mod block;
mod calls;
mod cancel;
mod claim;
mod confirm;
mod dm;
mod handles;
mod help;
mod mode;
mod policy;
mod release;
mod requests;
mod unblock;
mod whoami;

use rand::RngCore;
use ruma::{OwnedServerName, UserId};

use super::{Answer, BotContext, Say, pending, say::sentence};
use crate::{
    clock::Timestamp,
    directory::{DirectoryError, DirectoryTransaction, HandleRecord},
    handle::{Handle, HandleError, HandleRules, Typed},
};

/// In the order in which `help` shows them.
const ALL: [&Command; 17] = [
    &claim::COMMAND,
    &handles::COMMAND,
    &dm::COMMAND,
    &mode::COMMAND,
    &policy::COMMAND,
    &calls::COMMAND,
    &appear::COMMAND,
    &requests::LIST,
    &requests::ACCEPT,
    &requests::DECLINE,
    &block::COMMAND,
    &unblock::COMMAND,
    &release::COMMAND,
    &confirm::COMMAND,
    &cancel::COMMAND,
    &whoami::COMMAND,
    &help::COMMAND,
];

/// One command.
pub(super) struct Command {
    /// Its name.
    name: &'static str,
    /// What people type instead.
    aliases: &'static [&'static str],
    /// How it is typed, as `help` shows it.
    usage: &'static str,
    /// What it does, in a few words.
    about: &'static str,
    /// Whether `help` shows it to this person now. It can be typed in any case.
    offered: fn(&Standing) -> bool,
    /// Does it.
    run: fn(&mut Call<'_, '_>, &[&str]) -> Result<Answer, Fail>,
}

/// Where a person stands.
pub(super) struct Standing {
    handles: Vec<HandleRecord>,
    may_claim_more: bool,
    has_blocks: bool,
    is_asked: bool,
    is_requested: bool,
    can_mask: bool,
}

/// One call of a command.
pub(super) struct Call<'a, 'c> {
    pub person: &'a UserId,
    pub change: &'a mut DirectoryTransaction<'c>,
    pub context: &'a BotContext,
    pub now: Timestamp,
    pub rng: &'a mut dyn RngCore,
}

/// Why a command did nothing.
pub(super) enum Fail {
    /// The person is told this.
    Say(Say),
    /// The directory refused, in words for the person, or failed.
    Directory(DirectoryError),
}

impl From<DirectoryError> for Fail {
    fn from(error: DirectoryError) -> Self {
        Fail::Directory(error)
    }
}

impl From<HandleError> for Fail {
    fn from(error: HandleError) -> Self {
        Fail::Directory(error.into())
    }
}

/// Finds the command of these words and does it.
pub(super) fn run(mut call: Call<'_, '_>, words: &[String]) -> Result<Answer, Fail> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((first, arguments)) = words.split_first() else {
        return (help::COMMAND.run)(&mut call, &[]);
    };
    let name = first
        .trim_end_matches([':', '.', '!', ',', '?'])
        .to_lowercase();
    match ALL.iter().find(|command| command.is_called(&name)) {
        Some(command) => (command.run)(&mut call, arguments),
        None => Err(Fail::Say(unknown(first, &name))),
    }
}

impl Command {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// What to say to somebody who typed this command wrongly.
    fn wrong(&self, why: &str, example: &str) -> Fail {
        Fail::Say(
            Say::text(&sentence(why))
                .and(" For example: ")
                .code(example),
        )
    }
}

/// The answer to something that is no command.
fn unknown(typed: &str, name: &str) -> Say {
    let shown: String = typed.chars().take(40).collect();
    let say = Say::text("I do not know ")
        .code(&shown.replace('`', "'"))
        .and(". ");
    let say = match nearest(name) {
        Some(command) => say.and("Did you mean ").code(command.usage).and("? "),
        // Somebody who types nothing but a handle wants to reach it.
        None if typed.starts_with('@') => match Typed::parse_handle(typed, &HandleRules::WIDEST) {
            Ok((handle, _)) => say
                .and("To write to somebody, put ")
                .code("dm")
                .and(" before it: ")
                .code(&format!("dm {handle}"))
                .and(". "),
            Err(_) => say,
        },
        None => say,
    };
    say.code("help").and(" shows all I can do.")
}

/// The command that this is most likely a slip of. Aliases must be longer to count: a slip away
/// from a short word are too many words that mean something else.
fn nearest(name: &str) -> Option<&'static Command> {
    const LONGEST: usize = 12;
    if name.chars().count() > LONGEST {
        return None;
    }
    let names = ALL.iter().map(|command| (command.name, *command));
    let aliases = ALL.iter().flat_map(|command| {
        let long = command.aliases.iter().filter(|alias| alias.len() > 4);
        long.map(move |alias| (*alias, *command))
    });
    names
        .chain(aliases)
        .map(|(called, command)| {
            let slips = strsim::damerau_levenshtein(called, name);
            (slips, called.len(), command)
        })
        // A slip changes less than half of a word.
        .filter(|(slips, length, _)| *slips <= 2 && slips * 2 < *length)
        .min_by_key(|(slips, _, _)| *slips)
        .map(|(_, _, command)| command)
}

impl Call<'_, '_> {
    /// Where the person stands.
    pub fn standing(&self) -> Result<Standing, Fail> {
        let handles = self.handles()?;
        Ok(Standing {
            may_claim_more: handles.len() < self.change.settings().handles_per_person,
            has_blocks: !self.change.blocks_of(self.person)?.is_empty(),
            is_requested: !self.change.requests_of(self.person)?.is_empty(),
            can_mask: self.change.settings().capabilities.masked,
            is_asked: pending::waiting(self.change, self.person, self.now)?.is_some(),
            handles,
        })
    }

    /// The handles of the person.
    pub fn handles(&self) -> Result<Vec<HandleRecord>, Fail> {
        Ok(self.change.handles_of(self.person)?)
    }

    /// A handle that was typed, which has to be of this server.
    pub fn local_handle(&self, typed: &str) -> Result<Handle, Fail> {
        let (handle, server) = Typed::parse_handle(typed, &HandleRules::WIDEST)?;
        match self.elsewhere(server) {
            Some(_) => Err(Fail::Directory(DirectoryError::NotYours(handle))),
            None => Ok(handle),
        }
    }

    /// The server that was typed, unless it is ours.
    pub fn elsewhere(&self, server: Option<OwnedServerName>) -> Option<OwnedServerName> {
        server.filter(|server| *server != self.change.settings().server_name)
    }

    /// The handle that is meant, and what else was typed: people with one handle need not name
    /// it. `is_value` says whether a word is a value and no handle.
    pub fn own_handle<'w>(
        &self,
        command: &Command,
        example: &str,
        words: &'w [&'w str],
        is_value: impl Fn(&str) -> bool,
    ) -> Result<(HandleRecord, &'w [&'w str]), Fail> {
        let handles = self.handles()?;
        if let Some((first, rest)) = words.split_first()
            && let Ok((handle, _)) = Typed::parse_handle(first, &HandleRules::WIDEST)
            && let Some(record) = handles.iter().find(|record| record.handle == handle)
        {
            return Ok((record.clone(), rest));
        }
        match (handles.as_slice(), words) {
            ([], _) => Err(Fail::Say(no_handle())),
            ([only], []) => Ok((only.clone(), words)),
            ([only], [first, ..]) if is_value(&first.to_lowercase()) => Ok((only.clone(), words)),
            (_, [first, ..]) if !is_value(&first.to_lowercase()) => {
                let handle = self.local_handle(first)?;
                Err(Fail::Say(
                    Say::text(&sentence(&DirectoryError::NotYours(handle).to_string()))
                        .and(" You have ")
                        .then(names(&handles))
                        .and("."),
                ))
            }
            _ => Err(command.wrong(
                "you have several handles, so say which one you mean",
                example,
            )),
        }
    }

    /// The Matrix ID of a handle's ghost.
    pub fn ghost(&self, handle: &Handle) -> String {
        handle.ghost_address(&self.change.settings().server_name)
    }
}

/// What to say to somebody who has no handle and needs one.
fn no_handle() -> Say {
    Say::text("You have no handle yet. To get one, pick a name and write, for example, ")
        .code("claim sam")
        .and(".")
}

/// The handles of somebody, in words.
fn names(handles: &[HandleRecord]) -> Say {
    list(handles.iter().map(|record| record.handle.to_string()))
}

/// `a`, `a and b`, `a, b and c`, each standing out.
pub(super) fn list(items: impl Iterator<Item = String>) -> Say {
    let items: Vec<String> = items.collect();
    let mut say = Say::default();
    for (index, item) in items.iter().enumerate() {
        say = match index {
            0 => say,
            _ if index + 1 == items.len() => say.and(" and "),
            _ => say.and(", "),
        };
        say = say.strong(item);
    }
    say
}

/// The date of a time, as `3 November 2026`, in UTC.
fn date(time: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    // Years are counted from March, so that the leap day is the last one; eras have 400 years.
    let days = time.0 / 86_400_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let month = usize::try_from(month)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .unwrap_or(&"");
    format!("{day} {month} {year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_used_twice() {
        let mut names: Vec<&str> = ALL
            .iter()
            .flat_map(|c| std::iter::once(&c.name).chain(c.aliases))
            .copied()
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|name| *name == name.to_lowercase()));
    }

    #[test]
    fn every_usage_begins_with_its_command() {
        for command in ALL {
            assert!(command.usage.starts_with(command.name), "{}", command.usage);
        }
    }

    #[test]
    fn slips_find_their_command() {
        for (typed, expected) in [
            ("clam", Some("claim")),
            ("cliam", Some("claim")),
            ("relaese", Some("release")),
            ("hlep", Some("help")),
            ("polcy", Some("policy")),
            ("unblok", Some("unblock")),
            ("handels", Some("handles")),
            ("wohami", Some("whoami")),
            ("what", None),
            ("hm", None),
            ("x", None),
            ("weather", None),
            ("releasereleaserelease", None),
        ] {
            assert_eq!(
                nearest(typed).map(|command| command.name),
                expected,
                "{typed}"
            );
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1 January 1970"),
            (951_782_400, "29 February 2000"),
            (951_868_800, "1 March 2000"),
            (1_735_689_599, "31 December 2024"),
            (1_735_689_600, "1 January 2025"),
            (4_107_542_400, "1 March 2100"),
            (4_107_542_399, "28 February 2100"),
            (1_709_164_800, "29 February 2024"),
        ] {
            assert_eq!(date(Timestamp(seconds * 1000)), expected);
        }
    }
}
