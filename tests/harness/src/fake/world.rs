//! The fake homeserver with the real service on it, as a child process.

use anyhow::{Context, Result};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use std::sync::Arc;

use super::{Fake, Options, Person};
use crate::{PATIENCE, Service, ServiceOptions};

/// A fake homeserver with the service installed.
pub struct World {
    /// The homeserver.
    pub fake: Fake,
    /// Stonechat.
    pub service: Service,
}

impl World {
    /// Starts both.
    pub async fn start(options: Options, service: ServiceOptions) -> Result<Self> {
        let mut world = Self::prepare(options, service).await?;
        world.service.start().await?;
        Ok(world)
    }

    /// Starts the homeserver, and sets the service up without starting it.
    pub async fn prepare(options: Options, service: ServiceOptions) -> Result<Self> {
        let fake = Fake::start(options).await?;
        let service = Service::init(fake.url(), fake.server_name(), service).await?;
        fake.install(&service.registration())?;
        Ok(Self { fake, service })
    }

    /// The bot.
    pub fn bot(&self) -> Result<OwnedUserId> {
        self.user("_dm_.bot")
    }

    /// The ghost of a handle.
    pub fn ghost(&self, handle: &str) -> Result<OwnedUserId> {
        self.user(&format!("_dm_{}", handle.to_ascii_lowercase()))
    }

    /// A user of this homeserver.
    pub fn user(&self, localpart: &str) -> Result<OwnedUserId> {
        let id = format!("@{localpart}:{}", self.fake.server_name());
        Ok(OwnedUserId::try_from(id)?)
    }

    /// Lets somebody claim a handle in their control room, and waits until its ghost has keys.
    pub async fn claims(&self, person: &Person, room: &OwnedRoomId, handle: &str) -> Result<()> {
        let bot = self.bot()?;
        let said = person.asks(room, &bot, &format!("claim {handle}")).await?;
        let ghost = self.ghost(handle)?;
        self.has_keys(&ghost)
            .await
            .with_context(|| format!("the bot said {said:?}"))
    }

    /// Waits until somebody has published a device and an identity that signs it.
    pub async fn has_keys(&self, user: &UserId) -> Result<()> {
        let is_signed = || self.fake.with(|server| server.is_signed(user.as_str()));
        let signed = self.fake.until(PATIENCE, is_signed).await;
        signed.with_context(|| format!("{user} has no keys after {PATIENCE:?}"))
    }

    /// Somebody who holds a handle, with their control room. `sam:far.test` is of another server,
    /// and holds `@sam`.
    pub async fn owner(&self, name: &str) -> Result<(Arc<Person>, OwnedRoomId)> {
        let person = Person::register(&self.fake, name).await?;
        let handle = person.user_id.localpart();
        let room = person.control_room(&self.bot()?).await?;
        self.claims(&person, &room, handle).await?;
        Ok((person, room))
    }
}
