//! A server that others have made, PostgreSQL or Redis, on the loopback interface: it ends when we
//! do, and runs as another user where it refuses to be root.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::process::Process;

/// What `sh` is given: a signal and a program with its arguments. It runs the program, and sends it
/// the signal when its own standard input ends, which it does when we end, however that happens.
const KEEPER: &str = r#"
signal=$1
shift
exec 3<&0
"$@" </dev/null 3<&- &
program=$!
(while read -r _; do :; done; kill -s "$signal" "$program") <&3 >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$program"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"#;

/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends it.
pub struct Daemon(Process);

impl Daemon {
    /// Starts `program`, which ends orderly and soon at `signal`; what it prints goes to `log`.
    pub fn start(
        name: &str,
        program: &Path,
        signal: &str,
        arguments: &[&str],
        user: Option<&User>,
        folder: &Path,
    ) -> Result<Self> {
        let mut command = command_as(Path::new("sh"), user);
        command
            .args(["-c", KEEPER, "sh", signal])
            .arg(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .current_dir(folder);
        let log = folder.join(format!("{name}.log"));
        Ok(Self(Process::start(name, command, &log)?))
    }

    /// The process that keeps it.
    pub fn process(&self) -> &Process {
        &self.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its folder is removed next: it must be gone by then.
        self.0.lets_go(END);
    }
}

/// A user of this machine, by numbers.
#[derive(Clone, Debug)]
pub struct User {
    id: u32,
    group: u32,
}

impl User {
    /// The first of these users that there is, if we are root: some programs refuse to be.
    pub fn instead_of_root(names: &[&str]) -> Result<Option<Self>> {
        if std::fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd")?;
        let of = |name: &str| {
            let mut lines = users.lines().map(|line| line.split(':'));
            let mut fields = lines.find(|fields| fields.clone().next() == Some(name))?;
            let id = fields.nth(2)?.parse().ok()?;
            let group = fields.next()?.parse().ok()?;
            Some(Self { id, group })
        };
        let found = names.iter().find_map(|name| of(name));
        let found = found.with_context(|| format!("there is no user {}", names.join(" or ")))?;
        Ok(Some(found))
    }

    /// Gives them a file or folder.
    pub fn owns(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.id), Some(self.group))
            .with_context(|| format!("cannot give {} away", path.display()))
    }
}

/// A command that runs as `user`, or as ourselves.
pub fn command_as(program: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = user {
        command.uid(user.id).gid(user.group);
    }
    command
}

/// Finds a program in `PATH`, or in one of these folders.
pub fn find(name: &str, further: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(further.iter().cloned());
    let mut programs = folders.map(|folder| folder.join(name));
    programs.find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn shell(script: &str, folder: &Path) -> Daemon {
        let sh = find("sh", &[]).expect("a shell");
        let arguments = ["-c", script];
        Daemon::start("shell", &sh, "TERM", &arguments, None, folder).expect("a process")
    }

    #[tokio::test]
    async fn a_server_is_gone_when_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let daemon = shell("echo pid $$; exec sleep 600", folder.path());
        let id = |line: &str| line.strip_prefix("pid ").map(str::to_owned);
        let line = daemon.process().line_where("its id", PATIENCE, id);
        let running = Path::new("/proc").join(line.await.expect("its id"));
        assert!(running.exists());
        drop(daemon);
        assert!(!running.exists());
    }

    #[tokio::test]
    async fn a_server_that_ends_by_itself_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut daemon = shell("exit 3", folder.path());
        let status = daemon.0.wait(PATIENCE).await.expect("an end");
        assert_eq!(status.code(), Some(3));
    }
}
