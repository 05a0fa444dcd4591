//! What is left of a room in the service's files.
//!
//! A copy of its folder is opened with the service's own code and its own keys, and asked to
//! decrypt what the homeserver keeps of the room. If that is not enough, nobody who takes the
//! files can.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use harness::{Person, World, process::temporary_folder};
use ruma::{
    OwnedRoomId, RoomId, UserId,
    api::{Direction, client::message::get_message_events},
};
use serde_json::value::RawValue;
use stonechat::{
    config::{Setup, secrets::process_environment},
    crypto::{DecryptError, MachineSettings, Machines},
    matrix::{Homeserver, HomeserverOptions},
    store::{Store, StoreKey, StoreOptions},
};
use tempfile::TempDir;

/// What the service could still do with a copy of its folder.
pub struct Remains {
    pub machines: Machines,
    pub store: Store,
    _folder: TempDir,
}

impl Remains {
    /// Copies the folder of a service that does not run, and opens the copy.
    pub async fn of(world: &World) -> Result<Self> {
        ensure!(
            world.service.process().is_none(),
            "a running service still changes its files"
        );
        let folder = temporary_folder("remains")?;
        copy(world.service.folder(), folder.path())?;
        let config = folder.path().join("config").join("stonechat.yaml");
        let setup = Setup::load(&config, &process_environment)?;
        let key = StoreKey::from_file(&setup.key_file)?;
        let store = Store::open(&setup.data, &key, &StoreOptions::default())?;
        let token = world.service.token("as_token")?.into();
        let options = HomeserverOptions::default();
        let homeserver = Homeserver::connect(&world.synapse.url(), token, options).await?;
        let machines = Machines::new(store.clone(), homeserver, MachineSettings::default())?;
        Ok(Self {
            machines,
            store,
            _folder: folder,
        })
    }

    /// Whether a ghost's keys still open this event.
    pub async fn reads(&self, ghost: &UserId, room: &RoomId, event: &RawValue) -> Result<bool> {
        match self.machines.decrypt(ghost, room, event).await {
            Ok(_) => Ok(true),
            Err(DecryptError::NoKey { .. }) => Ok(false),
            Err(error) => bail!("neither read nor unreadable: {error}"),
        }
    }
}

/// Stops the service, and wants that a copy of its folder opens none of these events for the
/// ghost.
///
/// A ghost forgets after it has left, and nobody can see when it is done; so a service that was
/// stopped before that may go on for a moment.
pub async fn read_nothing(
    world: &mut World,
    ghost: &UserId,
    rooms: &[(OwnedRoomId, Vec<Box<RawValue>>)],
) -> Result<()> {
    let mut moments = 3;
    loop {
        world.service.stop().await?;
        let Some(readable) = readable(world, ghost, rooms).await? else {
            return Ok(());
        };
        moments -= 1;
        ensure!(moments > 0, "the files still hold the key of {readable}");
        world.service.start().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn readable(
    world: &World,
    ghost: &UserId,
    rooms: &[(OwnedRoomId, Vec<Box<RawValue>>)],
) -> Result<Option<String>> {
    let remains = Remains::of(world).await?;
    for (room, events) in rooms {
        ensure!(!events.is_empty(), "nothing to read in {room}");
        for event in events {
            if remains.reads(ghost, room, event).await? {
                return Ok(Some(event.to_string()));
            }
        }
    }
    Ok(None)
}

/// Every encrypted event of a room as the homeserver keeps it, the newest first.
pub async fn ciphertexts(person: &Person, room: &RoomId) -> Result<Vec<Box<RawValue>>> {
    let mut request = get_message_events::v3::Request::new(room.to_owned(), Direction::Backward);
    request.limit = 100u32.into();
    let page = person.client.send(request).await?;
    let mut events = Vec::new();
    for event in page.chunk {
        if event.get_field::<String>("type")?.as_deref() == Some("m.room.encrypted") {
            events.push(event.into_json());
        }
    }
    Ok(events)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, entry.metadata()?.permissions())?;
            copy(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            // The modes come along: keys that others could read are refused. (What is no file is
            // the socket of a service that was killed.)
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
