//! The Python environment that Synapse runs in: made once, shared by every test and the demo.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The Synapse that the stories run on.
pub const SYNAPSE_VERSION: &str = "1.163.2";

/// The Synapse that the stories run on now: `STONECHAT_SYNAPSE_VERSION` names another one.
pub fn synapse_version() -> String {
    std::env::var("STONECHAT_SYNAPSE_VERSION").unwrap_or_else(|_| SYNAPSE_VERSION.to_owned())
}

/// Stonechat's module for Synapse, in the repository.
pub fn module_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../synapse-module")
}

/// About how many packages pip collects for it, for the progress bar.
const PACKAGES: u32 = 59;

/// What Synapse needs for PostgreSQL, and for Redis (its extra `redis`). `psycopg2` itself would have
/// to be compiled.
const DRIVERS: [&str; 3] = ["psycopg2_binary", "txredisapi", "hiredis"];

/// A Python environment with Synapse in it.
#[derive(Clone, Debug)]
pub struct Venv {
    folder: PathBuf,
}

/// How far the making of the environment is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done, of [`Progress::total`].
    pub done: u32,
    /// All steps.
    pub total: u32,
    /// What is being done, in a few words.
    pub what: String,
}

impl Venv {
    /// The environment, which is made if it is not there yet; `progress` hears how far that is.
    ///
    /// It lies in `STONECHAT_SYNAPSE_VENV`, or in `synapse-venv` in cargo's target folder. Several
    /// processes may ask at once: one makes it, the others wait.
    pub fn ready(mut progress: impl FnMut(Progress)) -> Result<Self> {
        let folder = match std::env::var_os("STONECHAT_SYNAPSE_VENV") {
            Some(folder) => PathBuf::from(folder),
            None => target_folder()?.join("synapse-venv"),
        };
        let venv = Self { folder };
        if venv.has_synapse() {
            return Ok(venv);
        }
        let parent = venv
            .folder
            .parent()
            .context("the Synapse environment needs a parent folder")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        let lock = File::create(venv.folder.with_extension("lock"))?;
        lock.lock().context("cannot lock the Synapse environment")?;
        // Somebody else may have made it while we waited.
        if !venv.has_synapse() {
            venv.make(&mut progress)?;
        }
        Ok(venv)
    }

    /// Its Python.
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin").join("python")
    }

    /// Whether the Synapse that we want is installed in it, with its drivers. pip writes these
    /// folders last.
    fn has_synapse(&self) -> bool {
        let Ok(libraries) = fs::read_dir(self.folder.join("lib")) else {
            return false;
        };
        let mut libraries = libraries.flatten().map(|python| python.path());
        self.python().exists()
            && libraries.any(|python| has_packages(&python.join("site-packages")))
    }

    fn make(&self, progress: &mut impl FnMut(Progress)) -> Result<()> {
        let total = PACKAGES + 3;
        let mut step = |done: u32, what: String| {
            progress(Progress {
                done: done.min(total),
                total,
                what,
            });
        };
        step(0, "making a Python environment".into());
        let python = std::env::var("STONECHAT_PYTHON").unwrap_or_else(|_| "python3".into());
        check_version(&python)?;
        if !self.python().exists() {
            let made = Command::new(&python)
                .args(["-m", "venv", "--clear"])
                .arg(&self.folder)
                .output()
                .with_context(|| no_python(&python))?;
            if !made.status.success() {
                let _ = fs::remove_dir_all(&self.folder);
                bail!(
                    "{python} -m venv failed; on Debian and Ubuntu: apt install python3-venv\n{}{}",
                    String::from_utf8_lossy(&made.stdout),
                    String::from_utf8_lossy(&made.stderr)
                );
            }
        }
        step(1, "asking PyPI for Synapse".into());
        let mut pip = Command::new(self.python())
            .args([
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
            ])
            .args(["--progress-bar", "off"])
            .arg(format!("matrix-synapse[redis]=={}", synapse_version()))
            .arg("psycopg2-binary")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start pip in the Synapse environment")?;
        let errors = pip.stderr.take().map(|mut from| {
            std::thread::spawn(move || std::io::read_to_string(&mut from).unwrap_or_default())
        });
        let mut collected = 0;
        if let Some(out) = pip.stdout.take() {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(package) = line.trim().strip_prefix("Collecting ") {
                    collected += 1;
                    let package = package.split([' ', '<', '>', '=', '!', '[']).next();
                    step(1 + collected, package.unwrap_or_default().to_owned());
                } else if line.starts_with("Installing collected") {
                    step(1 + PACKAGES, "installing".into());
                }
            }
        }
        let status = pip.wait()?;
        let errors = errors
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        if !status.success() || !self.has_synapse() {
            bail!(
                "pip could not install matrix-synapse {} into {}; is PyPI reachable?\n{errors}",
                synapse_version(),
                self.folder.display()
            );
        }
        step(total, "ready".into());
        Ok(())
    }
}

/// Whether all that we want is installed in this folder.
fn has_packages(site_packages: &Path) -> bool {
    let Ok(entries) = fs::read_dir(site_packages) else {
        return false;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let names: Vec<_> = names.flat_map(std::ffi::OsString::into_string).collect();
    let is_there = |wanted: &str| {
        let mut names = names.iter();
        names.any(|name| {
            let is_it = name.starts_with(wanted) && name.ends_with(".dist-info");
            is_it && site_packages.join(name).join("RECORD").exists()
        })
    };
    let mut drivers = DRIVERS.iter().map(|driver| format!("{driver}-"));
    is_there(&format!("matrix_synapse-{}.", synapse_version()))
        && drivers.all(|driver| is_there(&driver))
}

fn check_version(python: &str) -> Result<()> {
    let said = Command::new(python)
        .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        .output()
        .with_context(|| no_python(python))?;
    let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let minor = version
        .strip_prefix("3.")
        .and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 10) {
        bail!("{python} is Python {version:?}; Synapse needs 3.10 or newer (STONECHAT_PYTHON)");
    }
    Ok(())
}

fn no_python(python: &str) -> String {
    format!("cannot run {python}: install Python 3.10 or newer, or set STONECHAT_PYTHON to it")
}

/// Cargo's target folder, found from the program that runs.
pub fn target_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let program = std::env::current_exe()?;
    let tagged = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(tagged.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        Path::to_path_buf,
    ))
}
