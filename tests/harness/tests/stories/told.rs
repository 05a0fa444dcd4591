//! What stories have in common: who is in them, and how they usually go.

use anyhow::{Context, Result, ensure};
use harness::{
    Chat, ChatOptions, Invite, Person, PersonOptions, Seen, ServiceOptions, World, WorldOptions,
    checks,
    proxy::{Catch, Fate, Proxy},
};
use ruma::{OwnedUserId, UserId};

/// What Alice writes first, in most stories.
pub const LINE: &str = "the heron stands by the old lock again";

/// What most stories begin with: Sam holds `@sam`, and Alice knows that name.
pub struct Story {
    pub alice: Person,
    pub sam: Person,
    /// Sam's room with the bot.
    pub control_room: Chat,
    /// `@_dm_sam`.
    pub ghost: OwnedUserId,
    // Last: people go before their homeserver does.
    pub world: World,
}

/// A world with a network that stories can disturb.
pub fn with_network() -> WorldOptions {
    WorldOptions {
        network: true,
        ..WorldOptions::default()
    }
}

/// A world whose ghosts stay for a second only, for stories that see many of them.
pub fn quick() -> WorldOptions {
    WorldOptions {
        service: ServiceOptions::default().set("introductions.linger", "1s"),
        network: true,
        ..WorldOptions::default()
    }
}

impl Story {
    pub async fn begins() -> Result<Self> {
        Self::begins_with(WorldOptions::default(), PersonOptions::default()).await
    }

    /// The same in another world, with clients of another kind.
    pub async fn begins_with(options: WorldOptions, clients: PersonOptions) -> Result<Self> {
        let world = World::start_with(options).await?;
        let alice = world.person_with("alice", clients.clone()).await?;
        Self::goes_on(world, alice, clients).await
    }

    /// The same with a network before Alice's client.
    pub async fn begins_behind_a_proxy(clients: PersonOptions) -> Result<(Self, Proxy)> {
        let world = World::start().await?;
        let proxy = Proxy::start(&world.synapse.url()).await?;
        let through = PersonOptions {
            through: Some(proxy.url().clone()),
            ..clients.clone()
        };
        let alice = world.person_with("alice", through).await?;
        Ok((Self::goes_on(world, alice, clients).await?, proxy))
    }

    async fn goes_on(world: World, alice: Person, clients: PersonOptions) -> Result<Self> {
        let sam = world.person_with("sam", clients).await?;
        let control_room = world.control_room(&sam).await?;
        world.claims(&sam, &control_room, "sam").await?;
        Ok(Self {
            ghost: world.ghost("sam")?,
            alice,
            sam,
            control_room,
            world,
        })
    }

    /// What the service's requests go through.
    pub fn network(&self) -> Result<&Proxy> {
        network(&self.world)
    }

    /// Stops the next ghost at the door, before it has joined.
    pub fn waits_at_the_door(&self) -> Result<Catch> {
        let joining = |method: &str, path: &str| method == "POST" && place(path).ends_with("/join");
        let network = self.network()?;
        Ok(network.catches(Fate::Hold, "the ghost's joining", joining))
    }

    /// Lets it in.
    pub fn lets_in(&self) -> Result<()> {
        self.network()?.release();
        Ok(())
    }

    /// Alice starts a chat with `@sam` as Element does, and writes a first line at once.
    pub async fn alice_writes(&self, line: &str) -> Result<Chat> {
        let chat = self.alice.starts_chat(&[&self.ghost]).await?;
        chat.says(line).await?;
        Ok(chat)
    }

    /// Waits until Sam is invited into this room, checks what his invite says, and accepts.
    pub async fn sam_comes(&self, chat: &Chat) -> Result<Chat> {
        comes(&self.sam, chat, &self.ghost, "Alice (via @sam)").await
    }

    /// Waits until only the two are there, lets them say a word each, and looks at their clients.
    pub async fn ends_well(&self, chat: &Chat, sams: &Chat) -> Result<()> {
        ends_well(&self.world, (&self.alice, chat), (&self.sam, sams)).await
    }
}

/// What a world's service's requests go through.
pub fn network(world: &World) -> Result<&Proxy> {
    let network = world.to_homeserver.as_ref();
    network.context("this world has no network")
}

/// A path without its query, in which the names of ghosts stand.
pub fn place(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// Waits until the owner of a handle is invited into `chat`, checks the invite, and accepts it.
pub async fn comes(owner: &Person, chat: &Chat, ghost: &UserId, name: &str) -> Result<Chat> {
    let invite = invited_to(owner, chat).await?;
    ensure!(invite.sender == *ghost, "invited by {}", invite.sender);
    ensure!(invite.is_direct && invite.encrypted, "{invite:#?}");
    ensure!(invite.sender_name.as_deref() == Some(name), "{invite:#?}");
    owner.accepts(&invite).await
}

/// Waits until somebody is invited into this room.
pub async fn invited_to(person: &Person, chat: &Chat) -> Result<Invite> {
    person.invited(|invite| invite.room == chat.id()).await
}

/// Waits until only these two are in a room, lets them say a word each, and looks whether any
/// client warns.
pub async fn ends_well(
    world: &World,
    (asker, chat): (&Person, &Chat),
    (owner, owners): (&Person, &Chat),
) -> Result<()> {
    let two: [&UserId; 2] = [&asker.user_id, &owner.user_id];
    world.only_these_are_in(chat, asker, &two).await?;
    let asked = format!("can you read this, {}?", owner.user_id.localpart());
    chat.says(&asked).await?;
    owners.sees(&asked).await?;
    owners.says("every word of it").await?;
    chat.sees("every word of it").await?;
    checks::nothing_to_warn_of(&[asker, owner]).await
}

/// How a ghost passes a line on.
pub fn quoted(name: &str, line: &str) -> String {
    format!("{name} wrote:\n> {line}")
}

/// The name under which somebody was registered: `@alice:…` is called Alice.
pub fn shown(user: &UserId) -> String {
    let name = user.localpart();
    name[..1].to_uppercase() + &name[1..]
}

/// How often `who` has said something with `part` in it, as this client has shown the room.
pub fn times(chat: &Chat, who: &UserId, part: &str) -> usize {
    let said = chat.texts().into_iter();
    said.filter(|(by, text)| by == who && text.contains(part))
        .count()
}

/// Sends a command that waits for a code, and confirms it. Returns the bot's last answer.
pub async fn confirms(room: &Chat, bot: &UserId, command: &str) -> Result<Seen> {
    let asked = room.asks(bot, command).await?;
    let text = asked.text().unwrap_or_default();
    let code = text
        .split("`confirm ")
        .nth(1)
        .and_then(|rest| rest.split('`').next());
    let code = code.with_context(|| format!("no code in {text:?}"))?;
    room.asks(bot, &format!("confirm {code}")).await
}

/// Waits until a ghost has left or declined, and returns that event.
pub async fn goodbye(chat: &Chat, ghost: &UserId) -> Result<Seen> {
    chat.sees_where(&format!("{ghost} leave"), |seen| {
        seen.membership() == Some((ghost.as_str(), "leave"))
    })
    .await
}

/// The reason that a membership event gives.
pub fn reason(seen: &Seen) -> Option<&str> {
    seen.content["reason"].as_str()
}

/// An encrypted room with a history visibility of its own, else as Element's direct chats.
pub fn history(visibility: &str) -> ChatOptions {
    ChatOptions {
        history_visibility: visibility.into(),
        ..ChatOptions::default()
    }
}

/// A room in clear, else as Element's direct chats.
pub fn in_clear() -> ChatOptions {
    ChatOptions {
        encrypted: false,
        ..ChatOptions::default()
    }
}
