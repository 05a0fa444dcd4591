//! `stonechat backup`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{CliError, admin::Running, open_store, store_key};
use crate::{
    clock::{Clock, SystemClock},
    config::{ConfigError, Setup, secrets::Environment},
    crypto::store::{GhostStores, SAVED_IDENTITIES},
    directory::HANDLES_TABLE,
    engine::{CONTROL_ROOMS_TABLE, NOT_IN_BACKUPS},
    store::{Contents, Made, Store, StoreError},
};

/// For how long a store that is in use may belong to a Stonechat that has no admin socket yet.
const STARTING: u32 = 40;

/// What is counted to say what is in a backup.
pub(super) const COUNTED: [u8; 3] = [HANDLES_TABLE, SAVED_IDENTITIES, CONTROL_ROOMS_TABLE];

/// Where to write a backup.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write. It appears when it is whole and was read back.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a file that is there already.
    #[arg(long)]
    force: bool,
}

impl Backup {
    /// Writes a backup, whether the service runs or not.
    pub async fn run(self, config: &Path, environment: Environment<'_>) -> Result<(), CliError> {
        let setup = Setup::load(config, environment)?;
        if self.file.symlink_metadata().is_ok() {
            if !self.force {
                return Err(ConfigError::Exists { path: self.file }.into());
            }
            if self.file.is_dir() {
                let words = format!("{} is a folder; name a file", self.file.display());
                return Err(CliError::Usage(words));
            }
        }
        let mut draft = Draft::beside(&self.file)?;
        let written = tokio::select! {
            written = write(&setup, environment, &mut draft) => written,
            _ = tokio::signal::ctrl_c() => {
                Err(CliError::Usage("interrupted; no backup was written".to_owned()))
            }
        };
        draft.end_line();
        written?;
        draft.sync()?;
        // What cannot be brought back is no backup.
        let key = store_key(&setup, environment)?;
        let file = File::open(&draft.path).map_err(|e| draft.failed("read", &e))?;
        let contents = Store::read_backup(&mut BufReader::new(file), &key, &COUNTED)?;
        let bytes = draft.bytes;
        draft.name(&self.file, self.force)?;
        say(&self.file, bytes, &contents, &setup);
        Ok(())
    }
}

async fn write(
    setup: &Setup,
    environment: Environment<'_>,
    draft: &mut Draft,
) -> Result<(), CliError> {
    let mut tries = 0;
    loop {
        if let Some(running) = Running::find(&setup.data).await? {
            eprintln!("asking the Stonechat that runs …");
            return running.backup(|bytes| draft.take(bytes)).await;
        }
        if !Store::is_in(&setup.data) {
            return Err(CliError::Check(format!(
                "there is no database in {} yet; has Stonechat ever run with this configuration?",
                setup.data.display()
            )));
        }
        match open_store(setup, environment) {
            // It may have been started a moment ago.
            Err(CliError::Store(StoreError::InUse { .. })) if tries < STARTING => {
                tries += 1;
                crate::clock::sleep(Duration::from_millis(250)).await;
            }
            Err(error) => return Err(error),
            Ok(store) => return export(store, draft).await,
        }
    }
}

/// The service is stopped: its store is opened here.
async fn export(store: Store, draft: &mut Draft) -> Result<(), CliError> {
    let stores = GhostStores::open(&store).map_err(|e| CliError::Check(e.to_string()))?;
    let made = Made {
        at: SystemClock.now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // Nothing else is going on in this process that could be held up.
    let exported = stores.export(draft, &NOT_IN_BACKUPS, &made);
    store.shut_down().await?;
    exported.map_err(|e| CliError::Check(e.to_string()))?;
    Ok(())
}

fn say(path: &Path, bytes: u64, contents: &Contents, setup: &Setup) {
    let [handles, ghosts, rooms] = COUNTED.map(|table| contents.count(table));
    println!(
        "{} is written ({}) and was read back whole.",
        path.display(),
        size(bytes)
    );
    println!();
    println!("In it:");
    println!("  handles: {handles}, held or kept for who had them; policies and blocks");
    println!("  identities of ghosts and the bot: {ghosts}, sealed");
    println!("  control rooms: {rooms}");
    println!("Not in it, and needed to bring it back; keep copies apart from it:");
    println!(
        "  {}   the key of the database (unless it comes from STONECHAT_STORE_KEY)",
        setup.key_file.display()
    );
    println!(
        "  {}   the tokens that homeserver and Stonechat show each other",
        setup.registration_path.display()
    );
    println!("  {}   the configuration", setup.config_path.display());
    println!(
        "Not in it on purpose: sessions and one-time keys. A restored service makes new ones."
    );
}

/// A number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A file without its name yet. Dropping it removes it.
struct Draft {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    shown: u64,
    named: bool,
}

impl Draft {
    fn beside(target: &Path) -> Result<Self, CliError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{:016x}", rand::random::<u64>()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| StoreError::io("create", &path, &e))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            bytes: 0,
            shown: 0,
            named: false,
        })
    }

    fn failed(&self, doing: &'static str, error: &io::Error) -> CliError {
        StoreError::io(doing, &self.path, error).into()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.write_all(bytes).map_err(|e| self.failed("write", &e))
    }

    fn sync(&mut self) -> Result<(), CliError> {
        let synced = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|e| self.failed("write", &e))
    }

    /// Gives it its name, when everything is on disk.
    fn name(mut self, target: &Path, replace: bool) -> Result<(), CliError> {
        let named = if replace {
            fs::rename(&self.path, target)
        } else {
            // Unlike a rename, a link refuses a name that is taken since we looked.
            fs::hard_link(&self.path, target).and_then(|()| fs::remove_file(&self.path))
        };
        match named {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let path = target.to_owned();
                return Err(ConfigError::Exists { path }.into());
            }
            Err(e) => return Err(self.failed("rename", &e)),
            Ok(()) => {}
        }
        self.named = true;
        crate::store::files::sync_parent(target)?;
        Ok(())
    }

    fn end_line(&self) {
        if self.shown > 0 {
            eprintln!();
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        // Every so often, and only where somebody looks.
        if self.bytes - self.shown > 1 << 20 && io::stderr().is_terminal() {
            eprint!("\r{}", size(self.bytes));
            self.shown = self.bytes;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.named {
            // It may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}
