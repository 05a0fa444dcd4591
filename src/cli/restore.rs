//! `stonechat restore`

use std::{
    fs::File,
    io::{BufReader, Seek},
    path::{Path, PathBuf},
};

use clap::Args;
use ruma::UserId;

use super::{CliError, admin::Running, backup::COUNTED, store_key, store_options};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    config::{Setup, secrets::Environment},
    crypto::store::SAVED_IDENTITIES,
    store::{BackupContents, Restored, Store, StoreError, TableKey},
};

/// Which backup to bring back.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Move a database that is there already aside. It is never deleted.
    #[arg(long)]
    force: bool,
}

impl Restore {
    /// Puts the backup in the place of the database. The rest is done by the next `run`.
    pub async fn run(self, config: &Path, environment: Environment<'_>) -> Result<(), CliError> {
        let setup = Setup::load(config, environment)?;
        let key = store_key(&setup, environment)?;
        if let Some(running) = Running::find(&setup.data).await? {
            let version = running.status().await.map(|status| status.version);
            return Err(CliError::Check(format!(
                "Stonechat {}runs on {}; stop it first. Nothing was changed",
                version.map(|version| version + " ").unwrap_or_default(),
                setup.data.display()
            )));
        }
        let failed = |e| CliError::from(StoreError::io("read", &self.file, &e));
        let file = File::open(&self.file).map_err(failed)?;
        let mut reader = BufReader::new(file);
        // All of it, before anything is touched.
        let contents = Store::read_backup(&mut reader, &key, &COUNTED)?;
        of_this_homeserver(&contents, &setup)?;
        let now = SystemClock.now();
        let aside = format!("replaced-{}", folder_name(now));
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
        say(&contents, &replaced, &setup);
        Ok(())
    }
}

/// A backup of one homeserver's handles is of no use to another, and could not be told from a
/// service all of whose ghosts were taken.
fn of_this_homeserver(contents: &BackupContents, setup: &Setup) -> Result<(), CliError> {
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

/// A time as the name of a folder.
fn folder_name(now: Timestamp) -> String {
    let digits = |c: char| if c == ' ' { 'T' } else { c };
    let text = now.to_string().replace([':', '-'], "");
    text.trim_end_matches(" UTC").chars().map(digits).collect()
}

fn say(contents: &BackupContents, replaced: &Restored, setup: &Setup) {
    let [handles, ghosts, rooms] = COUNTED.map(|table| contents.count(table));
    let of = match &contents.info {
        Some(made) => format!("of {}, by version {}", made.at, made.version),
        None => "of an unknown time".to_owned(),
    };
    println!("Restored into {}: a backup {of}.", setup.data.display());
    if let Some(aside) = &replaced.aside {
        println!(
            "The database that was there lies in {}. Never start Stonechat on it again; delete it \
             when all is well.",
            aside.display()
        );
    }
    println!();
    println!("At the next `stonechat run`, before it says that it is ready:");
    println!(
        "  {ghosts} users (ghosts and the bot) get new devices, signed by the identities they have;"
    );
    println!("    the old devices are deleted, and no key of them is used again");
    println!("  introductions that were under way are taken up again, or closed with a word");
    println!("  of {handles} handles those that changed since, as far as can be seen, are frozen;");
    println!("    the log says which, and why");
    println!("and after that the bot tells {rooms} people that what they changed since is undone.");
    println!("What was sent before and not answered cannot be read any more.");
    println!();
    println!("What cannot be known:");
    println!("  handles claimed since the backup, until somebody asks for one: then it is frozen");
    println!("  handles released since: they are their owners' again");
    println!("  blocks, policies and modes changed since: they are as the backup has them");
}
