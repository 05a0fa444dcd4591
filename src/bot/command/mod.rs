//! The commands, and how a typed word finds its command.
//!
//! # Adding a command
//!
//! Write a file with a `COMMAND` and its `run`, and put it into [`ALL`]. A command changes things
//! only through [`CommandContext::change`]; it says what happened, and what the person can do next.

mod admin;
mod appear;
mod block;
mod calls;
mod cancel;
mod claim;
mod confirm;
mod dm;
mod forget;
mod handles;
mod help;
mod mode;
mod my_data;
mod policy;
mod release;
mod requests;
mod unblock;
mod whoami;

pub(super) use claim::{decline_text, link_to};

use rand::RngCore;
use ruma::{OwnedServerName, ServerName};

use super::{Answer, NoticeText, Options, confirmation, notice_text::sentence};
use crate::{
    clock::Timestamp,
    directory::{DirectoryError, DirectoryTransaction, HandleRecord},
    handle::{Handle, HandleError, HandleRules, Typed},
    ids::{Ghost, Person},
    permissions::Permission,
};

/// All commands, in the order in which `help` shows them.
const ALL: [&Command; 20] = [
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
    &my_data::COMMAND,
    &forget::COMMAND,
    &admin::COMMAND,
    &help::COMMAND,
];

/// What people type behind a word without meaning anything by it.
const PUNCTUATION: [char; 5] = [':', '.', '!', ',', '?'];

/// One command.
pub(super) struct Command {
    /// Its name.
    name: &'static str,
    /// Other words for it.
    aliases: &'static [&'static str],
    /// An example of how to type it, shown by `help`.
    usage: &'static str,
    /// A short description, shown by `help`.
    about: &'static str,
    /// Whether `help` shows it to this person now. It works even when it is not shown.
    offered: fn(&PersonState) -> bool,
    /// Runs it.
    run: fn(&mut CommandContext<'_, '_>, &[&str]) -> Result<Answer, CommandError>,
}

/// The facts about a person that decide which commands `help` shows.
pub(super) struct PersonState {
    handles: Vec<HandleRecord>,
    can_claim_more: bool,
    has_blocks: bool,
    has_confirmation: bool,
    has_requests: bool,
    can_mask: bool,
    is_admin: bool,
}

/// The context in which a command runs.
pub(super) struct CommandContext<'a, 'c> {
    pub person: &'a Person,
    pub tx: &'a mut DirectoryTransaction<'c>,
    pub options: &'a Options,
    pub now: Timestamp,
    pub rng: &'a mut dyn RngCore,
    /// What the person may do.
    pub permission: Permission,
}

/// The reason why a command did nothing.
pub(super) enum CommandError {
    /// The command refuses, with this answer.
    Refused(NoticeText),
    /// The directory refuses, in words for the person, or fails.
    Directory(DirectoryError),
}

impl From<DirectoryError> for CommandError {
    fn from(error: DirectoryError) -> Self {
        CommandError::Directory(error)
    }
}

impl From<HandleError> for CommandError {
    fn from(error: HandleError) -> Self {
        CommandError::Directory(error.into())
    }
}

/// Returns whether somebody only says hello, as people do when they start a chat.
pub(super) fn is_greeting(words: &[String]) -> bool {
    let [word] = words else { return false };
    let word = word.trim_end_matches(PUNCTUATION).to_lowercase();
    matches!(word.as_str(), "hello" | "hi" | "hey" | "start")
}

/// Finds the command of these words and runs it.
pub(super) fn run(
    mut context: CommandContext<'_, '_>,
    words: &[String],
) -> Result<Answer, CommandError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((first, arguments)) = words.split_first() else {
        return (help::COMMAND.run)(&mut context, &[]);
    };
    let name = first.trim_end_matches(PUNCTUATION).to_lowercase();
    match ALL.iter().find(|command| command.is_called(&name)) {
        Some(command) => (command.run)(&mut context, arguments),
        None => Err(CommandError::Refused(unknown_command(first, &name))),
    }
}

impl Command {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// Returns the answer to a person who typed this command wrongly.
    fn usage_error(&self, why: &str, example: &str) -> CommandError {
        CommandError::Refused(sentence(why).and(" For example: ").code(example))
    }
}

/// Answers a word that is no command.
fn unknown_command(typed: &str, name: &str) -> NoticeText {
    let shown: String = typed.chars().take(40).collect();
    let text = NoticeText::new("I don't know ")
        .code(&shown.replace('`', "'"))
        .and(". ");
    let text = match nearest_command(name) {
        Some(command) => text.and("Did you mean ").code(command.usage).and("? "),
        // A person who types only a handle wants to reach it.
        None if typed.starts_with('@') => match Typed::parse_handle(typed, &HandleRules::WIDEST) {
            Ok((handle, _)) => text
                .and("To write to someone, put ")
                .code("dm")
                .and(" before it: ")
                .code(&format!("dm {handle}"))
                .and(". "),
            Err(_) => text,
        },
        None => text,
    };
    text.code("help").and(" shows all I can do.")
}

/// Returns the command that this is most likely a typing mistake of. Short aliases do not count:
/// too many other words are one mistake away from them.
fn nearest_command(name: &str) -> Option<&'static Command> {
    const TYPED_CHARS_MAX: usize = 12;
    if name.chars().count() > TYPED_CHARS_MAX {
        return None;
    }
    let names = ALL.iter().map(|command| (command.name, *command));
    let aliases = ALL.iter().flat_map(|command| {
        let long = command.aliases.iter().filter(|alias| alias.len() > 4);
        long.map(move |alias| (*alias, *command))
    });
    names
        .chain(aliases)
        // Nobody else learns of it.
        .filter(|(name, _)| *name != admin::COMMAND.name)
        .map(|(called, command)| {
            let slips = strsim::damerau_levenshtein(called, name);
            (slips, called.len(), command)
        })
        // A mistake changes less than half of the word.
        .filter(|(slips, length, _)| *slips <= 2 && slips * 2 < *length)
        .min_by_key(|(slips, _, _)| *slips)
        .map(|(_, _, command)| command)
}

impl CommandContext<'_, '_> {
    /// Returns the facts that decide which commands `help` shows.
    pub fn person_state(&self) -> Result<PersonState, CommandError> {
        let handles = self.handles()?;
        Ok(PersonState {
            can_claim_more: self.may_claim()
                && handles.len() < self.tx.settings().handles_per_person,
            has_blocks: !self.tx.blocks_of(self.person)?.is_empty(),
            has_requests: !self.tx.requests_of(self.person)?.is_empty(),
            can_mask: self.tx.settings().capabilities.masked,
            is_admin: self.is_admin(),
            has_confirmation: confirmation::current(self.tx, self.person, self.now)?.is_some(),
            handles,
        })
    }

    /// Returns whether the admin lets the person have handles.
    pub fn may_claim(&self) -> bool {
        self.permission >= Permission::Claim
    }

    /// Returns whether the person is an admin.
    pub fn is_admin(&self) -> bool {
        self.permission >= Permission::Admin
    }

    /// Returns the handles of the person.
    pub fn handles(&self) -> Result<Vec<HandleRecord>, CommandError> {
        Ok(self.tx.handles_of(self.person)?)
    }

    /// Reads a typed handle, which has to be one of this server.
    pub fn parse_local_handle(&self, typed: &str) -> Result<Handle, CommandError> {
        let (handle, server) = Typed::parse_handle(typed, &HandleRules::WIDEST)?;
        match self.foreign_server(server) {
            Some(_) => Err(CommandError::Directory(DirectoryError::NotYours(handle))),
            None => Ok(handle),
        }
    }

    /// Returns the typed server if it is not ours.
    pub fn foreign_server(&self, server: Option<OwnedServerName>) -> Option<OwnedServerName> {
        server.filter(|server| *server != self.tx.settings().server_name)
    }

    /// Returns the handle that is meant, and the other words. A person with one handle need not
    /// name it: `is_value` tells a value from a handle.
    pub fn find_own_handle<'w>(
        &self,
        command: &Command,
        example: &str,
        words: &'w [&'w str],
        is_value: impl Fn(&str) -> bool,
    ) -> Result<(HandleRecord, &'w [&'w str]), CommandError> {
        let handles = self.handles()?;
        if let Some((first, rest)) = words.split_first()
            && let Ok((handle, _)) = Typed::parse_handle(first, &HandleRules::WIDEST)
            && let Some(record) = handles.iter().find(|record| record.handle == handle)
        {
            return Ok((record.clone(), rest));
        }
        match (handles.as_slice(), words) {
            ([], _) => Err(CommandError::Refused(no_handle_text(self.may_claim()))),
            ([only], []) => Ok((only.clone(), words)),
            ([only], [first, ..]) if is_value(&first.to_lowercase()) => Ok((only.clone(), words)),
            (_, [first, ..]) if !is_value(&first.to_lowercase()) => {
                let handle = self.parse_local_handle(first)?;
                Err(CommandError::Refused(
                    sentence(&DirectoryError::NotYours(handle).to_string())
                        .and(" You have ")
                        .append(handle_names(&handles))
                        .and("."),
                ))
            }
            _ => Err(command.usage_error(
                "you have several handles, so say which one you mean",
                example,
            )),
        }
    }

    /// Returns the Matrix ID of a handle's ghost.
    pub fn ghost(&self, handle: &Handle) -> Result<Ghost, CommandError> {
        ghost_at(handle, &self.tx.settings().server_name)
    }
}

/// Returns the Matrix ID of the ghost of a handle on this server. Fails only if the server's name is
/// too long for a Matrix ID.
fn ghost_at(handle: &Handle, server: &ServerName) -> Result<Ghost, CommandError> {
    let ghost = handle.ghost_id(server);
    ghost.ok_or_else(|| HandleError::NotAHandle.into())
}

/// Returns what somebody without a handle is told, and how they get one if they can.
fn no_handle_text(may_claim: bool) -> NoticeText {
    if !may_claim {
        let text = "You don't have a handle. On this server the admin decides who can have one.";
        return NoticeText::new(text);
    }
    NoticeText::new("You don't have a handle yet. To get one, pick a name and write, for example, ")
        .code("claim sam")
        .and(".")
}

/// Returns the names of handles as a list in words.
fn handle_names(handles: &[HandleRecord]) -> NoticeText {
    NoticeText::names(handles.iter().map(|record| record.handle.to_string()))
}

/// Returns the date of a time as `3 November 2026`, in UTC.
fn format_date(time: Timestamp) -> String {
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
                nearest_command(typed).map(|command| command.name),
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
            assert_eq!(format_date(Timestamp(seconds * 1000)), expected);
        }
    }
}
