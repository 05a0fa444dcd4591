//! `stonechat backup`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{CliError, admin::RunningService, open_store, store_key};
use crate::{
    clock::{Clock, SystemClock},
    config::{ConfigError, Setup, give_free_name, secrets::Environment},
    crypto::store::{GhostStores, SAVED_IDENTITIES},
    directory::HANDLES_TABLE,
    engine::{CONTROL_ROOMS_TABLE, NOT_IN_BACKUPS},
    store::{BackupContents, BackupInfo, Store, StoreError},
};

/// Maximum number of tries to open a store that is in use: a Stonechat that is starting has no
/// admin socket yet.
const OPEN_TRIES_MAX: u32 = 40;

/// The tables whose records are counted to show what is in a backup.
pub(super) const COUNTED_TABLES: [u8; 3] = [HANDLES_TABLE, SAVED_IDENTITIES, CONTROL_ROOMS_TABLE];

/// The arguments of `backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write. It appears once it is complete and was read back.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

impl Backup {
    /// Writes a backup, whether the service is running or not.
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
        // A file that cannot be read back is not a backup.
        let key = store_key(&setup, environment)?;
        let file = File::open(&draft.path).map_err(|e| draft.failed("read", &e))?;
        let contents = Store::read_backup(&mut BufReader::new(file), &key, &COUNTED_TABLES)?;
        let bytes = draft.bytes;
        draft.publish(&self.file, self.force)?;
        print_summary(&self.file, bytes, &contents, &setup);
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
        if let Some(running) = RunningService::find(&setup.data).await? {
            eprintln!("asking the running Stonechat …");
            return running.backup(|bytes| draft.write_chunk(bytes)).await;
        }
        if !Store::exists_in(&setup.data) {
            return Err(CliError::Check(format!(
                "there is no database in {} yet; has Stonechat ever run with this configuration?",
                setup.data.display()
            )));
        }
        match open_store(setup, environment) {
            // The service may have just started.
            Err(CliError::Store(StoreError::InUse { .. })) if tries < OPEN_TRIES_MAX => {
                tries += 1;
                crate::clock::sleep(Duration::from_millis(250)).await;
            }
            Err(error) => return Err(error),
            Ok(store) => return export_stopped(store, draft).await,
        }
    }
}

/// Writes a backup of the store of a stopped service.
async fn export_stopped(store: Store, draft: &mut Draft) -> Result<(), CliError> {
    let stores = GhostStores::open(&store).map_err(|e| CliError::Check(e.to_string()))?;
    let made = BackupInfo {
        at: SystemClock.now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // This blocks the thread, which has nothing else to do.
    let exported = stores.export(draft, &NOT_IN_BACKUPS, &made);
    store.shut_down().await?;
    exported.map_err(|e| CliError::Check(e.to_string()))?;
    Ok(())
}

fn print_summary(path: &Path, bytes: u64, contents: &BackupContents, setup: &Setup) {
    let [handles, ghosts, rooms] = COUNTED_TABLES.map(|table| contents.count(table));
    println!(
        "{} was written ({}) and read back completely.",
        path.display(),
        format_size(bytes)
    );
    println!();
    println!("It contains:");
    println!("  handles: {handles}, owned or in quarantine; policies and blocks");
    println!("  identities of ghosts and the bot: {ghosts}, sealed");
    println!("  control rooms: {rooms}");
    println!(
        "It does not contain these files, which a restore needs; keep copies in another place:"
    );
    println!(
        "  {}   the key of the database (unless it comes from STONECHAT_STORE_KEY)",
        setup.key_file.display()
    );
    println!(
        "  {}   the tokens of the homeserver and Stonechat",
        setup.registration_path.display()
    );
    println!("  {}   the configuration", setup.config_path.display());
    println!("It leaves out sessions and one-time keys. A restored service makes new ones.");
}

/// Returns a number of bytes in a readable unit.
pub(super) fn format_size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A file under a temporary name. Removed when dropped before it is published.
struct Draft {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    shown: u64,
    is_published: bool,
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
            is_published: false,
        })
    }

    fn failed(&self, doing: &'static str, error: &io::Error) -> CliError {
        StoreError::io(doing, &self.path, error).into()
    }

    fn write_chunk(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.write_all(bytes).map_err(|e| self.failed("write", &e))
    }

    fn sync(&mut self) -> Result<(), CliError> {
        let synced = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|e| self.failed("write", &e))
    }

    /// Gives the file its name, once everything is on disk.
    fn publish(mut self, target: &Path, replace: bool) -> Result<(), CliError> {
        let named = if replace {
            fs::rename(&self.path, target)
        } else {
            give_free_name(&self.path, target)
        };
        match named {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let path = target.to_owned();
                return Err(ConfigError::Exists { path }.into());
            }
            Err(e) => return Err(self.failed("rename", &e)),
            Ok(()) => {}
        }
        self.is_published = true;
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
        // Once a MiB, and only on a terminal.
        if self.bytes - self.shown > 1 << 20 && io::stderr().is_terminal() {
            eprint!("\r{}", format_size(self.bytes));
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
        if !self.is_published {
            // The file may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}
