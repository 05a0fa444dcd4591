//! `stonechat restore`

use std::{
    fs::File,
    io::{BufReader, Seek},
    path::{Path, PathBuf},
};

use clap::Args;
use ruma::UserId;

use super::{CliError, admin::RunningService, backup::COUNTED_TABLES, store_key, store_options};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    config::{Setup, secrets::Environment},
    crypto::store::SAVED_IDENTITIES,
    store::{BackupContents, REPLACED, Restored, Store, StoreError, TableKey},
};

/// The arguments of `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Move an existing database aside. It is never deleted.
    #[arg(long)]
    force: bool,
}

impl Restore {
    /// Replaces the database by the backup. The next `run` does the rest.
    pub async fn run(self, config: &Path, environment: Environment<'_>) -> Result<(), CliError> {
        let setup = Setup::load(config, environment)?;
        let key = store_key(&setup, environment)?;
        if let Some(running) = RunningService::find(&setup.data).await? {
            let version = running.status().await.map(|status| status.version);
            return Err(CliError::Check(format!(
                "Stonechat {}is running on {}; stop it first. Nothing was changed",
                version.map(|version| version + " ").unwrap_or_default(),
                setup.data.display()
            )));
        }
        let failed = |e| CliError::from(StoreError::io("read", &self.file, &e));
        let file = File::open(&self.file).map_err(failed)?;
        let mut reader = BufReader::new(file);
        // The whole file is read before anything changes.
        let contents = Store::read_backup(&mut reader, &key, &COUNTED_TABLES)?;
        check_server_name(&contents, &setup)?;
        let now = SystemClock.now();
        let aside = format!("{REPLACED}{}", folder_name(now));
        if Store::exists_in(&setup.data) && !self.force {
            return Err(CliError::Check(format!(
                "there is a database in {} already; --force moves it to {}. Nothing was changed",
                setup.data.display(),
                setup.data.join(&aside).display()
            )));
        }
        reader.rewind().map_err(failed)?;
        let replaced = Store::restore(
            &mut reader,
            &setup.data,
            &key,
            &store_options(&setup),
            self.force.then_some(aside.as_str()),
        )?;
        print_summary(&contents, &replaced, &setup);
        Ok(())
    }
}

/// Refuses a backup of another homeserver. Restored, it would look like a service all of whose
/// ghosts were taken over.
fn check_server_name(contents: &BackupContents, setup: &Setup) -> Result<(), CliError> {
    let ours = &setup.config.homeserver.server_name;
    let users = contents.keys.get(&SAVED_IDENTITIES).into_iter().flatten();
    for user in users.filter_map(|key| String::decode(key)) {
        if let Ok(user) = UserId::parse(&user)
            && user.server_name() != ours
        {
            return Err(CliError::Check(format!(
                "this is a backup of {}, and the configuration is for {ours}; nothing was changed",
                user.server_name()
            )));
        }
    }
    Ok(())
}

/// Returns a time as the name of a folder.
fn folder_name(now: Timestamp) -> String {
    let digits = |c: char| if c == ' ' { 'T' } else { c };
    let text = now.to_string().replace([':', '-'], "");
    text.trim_end_matches(" UTC").chars().map(digits).collect()
}

fn print_summary(contents: &BackupContents, replaced: &Restored, setup: &Setup) {
    let [handles, ghosts, rooms] = COUNTED_TABLES.map(|table| contents.count(table));
    let of = match &contents.info {
        Some(made) => format!("of {}, by version {}", made.at, made.version),
        None => "of an unknown time".to_owned(),
    };
    println!("Restored into {}: a backup {of}.", setup.data.display());
    if let Some(aside) = &replaced.aside {
        println!(
            "The previous database is in {}. Never start Stonechat on it again: once the next start is \
             done, the keys in its shred.keys are overwritten. Delete it when all is well.",
            aside.display()
        );
    }
    println!();
    println!("The next `stonechat run`, before it reports that it is ready:");
    println!(
        "  gives {ghosts} users (ghosts and the bot) new devices, signed by their identities;"
    );
    println!("    it deletes the old devices, and no key of theirs is used again");
    println!("  resumes introductions under way, or closes them with a message");
    println!("  freezes those of {handles} handles that have visibly changed since;");
    println!("    the log says which and why");
    println!("Then the bot tells {rooms} people that their later changes are undone.");
    println!("Messages that were sent before and not processed can no longer be read.");
    println!();
    println!("What Stonechat cannot know:");
    println!("  handles claimed since the backup, until somebody asks for one: then it is frozen");
    println!("  handles released since: they belong to their owners again");
    println!("  blocks, policies and modes changed since: they are as in the backup");
}
