//! A disk that is full.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use harness::{
    PATIENCE, ServiceOptions,
    fake::{Options, Person, World},
};
use ruma::OwnedRoomId;
use tokio::time::Instant;

/// How long the service may live after its store has failed.
const END: Duration = Duration::from_secs(10);

/// A small file system in memory. Dropping it unmounts it.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one; `None` if that is not allowed here.
    fn mount(folder: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs"])
            .arg(folder)
            .output()?;
        if mounted.status.success() {
            return Ok(Some(Self(folder.to_owned())));
        }
        let why = String::from_utf8_lossy(&mounted.stderr);
        println!("skipped: only root can mount a small disk ({})", why.trim());
        Ok(None)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no space.
    fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        for block in [1 << 20, 4096, 1] {
            let block = vec![1; block];
            loop {
                match filler.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Frees the space again.
    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Lets Sam write to the bot, so that there is something to be stored, until `done`.
async fn while_sam_writes<T>(
    sam: &Person,
    control: &OwnedRoomId,
    done: impl Future<Output = Result<T>>,
) -> Result<T> {
    let writing = async {
        let mut every = tokio::time::interval(Duration::from_millis(100));
        loop {
            every.tick().await;
            if let Err(error) = sam.says(control, &"a long story ".repeat(1000)).await {
                return error;
            }
        }
    };
    tokio::select! {
        done = done => done,
        error = writing => Err(error.context("Sam cannot write")),
    }
}

/// Waits for the service to fail, and returns its last lines.
async fn fails(world: &mut World) -> Result<String> {
    let process = world.service.process_mut().context("it does not run")?;
    let status = process.wait(END).await?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    let ready = world.service.ready().await;
    Ok(ready
        .err()
        .context("it has ended and is ready")?
        .to_string())
}

#[tokio::test]
async fn a_full_disk_ends_the_service_and_space_brings_it_back() -> Result<()> {
    let mut world = World::prepare(Options::default(), ServiceOptions::default()).await?;
    let Some(disk) = Disk::mount(&world.service.data())? else {
        return Ok(());
    };
    world.service.start().await?;
    let (sam, control) = world.owner("sam").await?;

    disk.fill()?;
    let ready = world.service.url().join("health/ready")?;
    let failed = async {
        let process = world.service.process().context("it does not run")?;
        process.line_with("the store has failed", PATIENCE).await?;
        let since = Instant::now();
        // It may have ended already.
        let status = reqwest::get(ready).await.map(|answer| answer.status());
        ensure!(
            !status.is_ok_and(|status| status.is_success()),
            "it is ready"
        );
        Ok(since)
    };
    let since = while_sam_writes(&sam, &control, failed).await?;
    let said = fails(&mut world).await?;
    ensure!(
        since.elapsed() < END,
        "it ended after {:?}",
        since.elapsed()
    );
    ensure!(said.contains("no space left"), "{said}");

    // Started again and again, as by systemd, it says why it cannot go on.
    world.service.launch()?;
    let said = fails(&mut world).await?;
    ensure!(said.contains("no space left"), "{said}");

    disk.free()?;
    world.service.start().await?;
    let answer = sam.asks(&control, &world.bot()?, "handles").await?;
    ensure!(answer.contains("@sam"), "{answer}");
    ensure!(world.service.stop().await?.success());
    Ok(())
}
