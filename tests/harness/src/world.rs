//! A homeserver, the service and its people together: where a story begins.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ruma::{OwnedUserId, UserId};

use crate::{
    Chat, PATIENCE, Person, PersonOptions, Service, ServiceOptions, Synapse, SynapseOptions,
    checks,
    proxy::Proxy,
    turn::Turn,
    venv::{self, Venv},
};

/// How a world is set up.
#[derive(Clone, Debug, Default)]
pub struct WorldOptions {
    /// The homeserver.
    pub synapse: SynapseOptions,
    /// The service.
    pub service: ServiceOptions,
    /// Put Stonechat's module into the homeserver.
    pub module: bool,
    /// Put a [`Proxy`] between the service and the homeserver, in both directions.
    pub network: bool,
    /// Give the homeserver a relay for calls.
    pub turn: bool,
}

/// A homeserver with the service installed and running.
pub struct World {
    /// The homeserver.
    pub synapse: Synapse,
    /// Stonechat.
    pub service: Service,
    /// What the service's requests go through, if the options asked for it.
    pub to_homeserver: Option<Proxy>,
    /// What the homeserver's transactions go through.
    pub to_service: Option<Proxy>,
    /// The homeserver's relay for calls.
    pub turn: Option<Turn>,
}

impl World {
    /// Starts a homeserver and the service on it.
    pub async fn start() -> Result<Self> {
        Self::start_with(WorldOptions::default()).await
    }

    /// The same with options.
    pub async fn start_with(options: WorldOptions) -> Result<Self> {
        let venv = Venv::ready(|_| {})?;
        let mut world = Self::prepare(&venv, options).await?;
        world.synapse.start().await?;
        world.service.start().await?;
        Ok(world)
    }

    /// Sets both up and starts neither.
    pub async fn prepare(venv: &Venv, options: WorldOptions) -> Result<Self> {
        let mut synapse = Synapse::prepare(venv, options.synapse).await?;
        let mut service = options.service;
        let (mut to_homeserver, mut to_service) = (None, None);
        let mut homeserver = synapse.url();
        if options.network {
            let port = crate::process::free_port()?;
            let own = format!("http://127.0.0.1:{port}/").parse()?;
            let pushed = Proxy::start(&own).await?;
            let asked = Proxy::start(&homeserver).await?;
            service.port = Some(port);
            service.public_url = Some(pushed.url().clone());
            homeserver = asked.url().clone();
            (to_homeserver, to_service) = (Some(asked), Some(pushed));
        }
        service.module |= options.module;
        let service = Service::init(&homeserver, synapse.server_name(), service).await?;
        synapse.install(&service.registration());
        if options.module {
            let settings = service.module_settings()?;
            let synapse = synapse.options_mut();
            let settings = settings.as_object().context("no settings of the module")?;
            synapse.further.extend(settings.clone());
            synapse.python_path = Some(venv::module_folder());
        }
        let turn = match options.turn {
            true => Some(Turn::start().await?),
            false => None,
        };
        if let Some(turn) = &turn {
            synapse.options_mut().further.extend(turn.settings());
        }
        Ok(Self {
            synapse,
            service,
            to_homeserver,
            to_service,
            turn,
        })
    }

    /// Somebody with an account and a client.
    pub async fn person(&self, localpart: &str) -> Result<Person> {
        Person::register(&self.synapse, localpart).await
    }

    /// The same with a client of another kind.
    pub async fn person_with(&self, localpart: &str, options: PersonOptions) -> Result<Person> {
        Person::register_with(&self.synapse, localpart, options).await
    }

    /// The bot.
    pub fn bot(&self) -> Result<OwnedUserId> {
        self.synapse.user("_dm_.bot")
    }

    /// The ghost of a handle.
    pub fn ghost(&self, handle: &str) -> Result<OwnedUserId> {
        self.synapse
            .user(&format!("_dm_{}", handle.to_ascii_lowercase()))
    }

    /// Starts a chat with the bot and waits for its greeting.
    pub async fn control_room(&self, person: &Person) -> Result<Chat> {
        let bot = self.bot()?;
        let chat = person.starts_chat(&[&bot]).await?;
        chat.sees_join(&bot).await?;
        chat.sees_where("the bot's greeting", |seen| {
            seen.sender == bot && seen.text().is_some()
        })
        .await?;
        Ok(chat)
    }

    /// Lets somebody claim a handle, in their control room, and waits until its ghost can be
    /// invited.
    pub async fn claims(&self, person: &Person, control_room: &Chat, handle: &str) -> Result<()> {
        let answer = control_room
            .asks(&self.bot()?, &format!("claim {handle}"))
            .await?;
        self.reachable(person, handle)
            .await
            .with_context(|| format!("the bot said {:?}", answer.text()))
    }

    /// Waits until a handle's ghost has keys, so that a chat with it is encrypted.
    pub async fn reachable(&self, asker: &Person, handle: &str) -> Result<()> {
        let ghost = self.ghost(handle)?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while asker.devices_of(&ghost).await?.is_empty() {
            if tokio::time::Instant::now() > deadline {
                bail!("{ghost} has no keys after {PATIENCE:?}");
            }
            // Nobody tells of the keys of somebody one shares no room with: ask again.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Somebody who holds a handle, with their control room.
    pub async fn owner(&self, handle: &str) -> Result<(Person, Chat)> {
        let person = self.person(handle).await?;
        let control_room = self.control_room(&person).await?;
        self.claims(&person, &control_room, handle).await?;
        Ok((person, control_room))
    }

    /// Waits until a chat's members are exactly these, all joined.
    pub async fn only_these_are_in(
        &self,
        chat: &Chat,
        as_seen_by: &Person,
        people: &[&UserId],
    ) -> Result<()> {
        let wanted = |members: &std::collections::BTreeMap<OwnedUserId, String>| {
            members.len() == people.len()
                && people
                    .iter()
                    .all(|who| members.get(*who).is_some_and(|is| is == "join"))
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut log = as_seen_by.changes();
        loop {
            let members = chat.present(as_seen_by).await?;
            if wanted(&members) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, log.changed())
                .await
                .is_err()
            {
                bail!("in {} are {members:?}, not {people:?}", chat.id());
            }
        }
    }

    /// The folders in which no text may ever be found: the homeserver's and the service's.
    pub fn folders(&self) -> Vec<PathBuf> {
        let database = self.synapse.postgres_folder();
        let folders = [self.synapse.folder(), self.service.folder()];
        let folders = folders.into_iter().chain(database);
        folders.map(Path::to_path_buf).collect()
    }

    /// An error if any of `texts` is in the homeserver's or the service's files.
    pub fn nothing_leaked(&self, texts: &[&str]) -> Result<()> {
        for folder in self.folders() {
            checks::holds_none_of(&folder, texts)?;
        }
        Ok(())
    }
}
