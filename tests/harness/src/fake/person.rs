//! People on the [fake homeserver](super): clients that are a bare `OlmMachine` in memory, with a
//! device that its owner has signed. They live outside of the service's process, make requests
//! that nothing goes wrong with, and keep what they see as every other client of the harness does.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as StdMutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use fake_homeserver::Client;
use matrix_sdk_crypto::{EncryptionSettings, OlmMachine};
use ruma::{
    EventId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, TransactionId, UserId,
    api::{
        OutgoingRequest as MatrixRequest,
        auth_scheme::{AuthScheme, SendAccessToken},
        client::{
            membership::{join_room_by_id, leave_room},
            message::send_message_event,
            redact::redact_event,
        },
        path_builder::VersionHistory,
    },
    serde::Raw,
};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::Mutex;

use super::Fake;
use crate::{ChatOptions, Invite, Log, PATIENCE, Seen};

mod sync;

/// Somebody with a client.
pub struct Person {
    /// Who they are.
    pub user_id: OwnedUserId,
    client: Client,
    log: Log,
    syncing: Mutex<sync::State>,
    /// One request of the machine at a time, and one message.
    speaking: Mutex<()>,
    /// Whether the client syncs in the background.
    awake: AtomicBool,
    /// Whom each event was encrypted for, by its ciphertext.
    readers: StdMutex<HashMap<String, Vec<OwnedUserId>>>,
}

impl Person {
    /// Makes an account with a signed device, whose client syncs in the background: on our
    /// homeserver, or as `sam:far.test` on another.
    pub async fn register(fake: &Fake, name: &str) -> Result<Arc<Self>> {
        let person = Self::quiet(fake, name).await?;
        tokio::spawn(sync_on(Arc::downgrade(&person)));
        Ok(person)
    }

    /// The same, with a device that they have not signed.
    pub async fn unsigned(fake: &Fake, localpart: &str) -> Result<Arc<Self>> {
        let person = Arc::new(Self::new(fake, localpart).await?);
        tokio::spawn(sync_on(Arc::downgrade(&person)));
        Ok(person)
    }

    /// Somebody whose client syncs only when it is told to ([`Person::syncs`]).
    pub async fn quiet(fake: &Fake, localpart: &str) -> Result<Arc<Self>> {
        let person = Self::new(fake, localpart).await?;
        person.client.sign_device().await?;
        // Uploads a fallback key: then nobody who writes to them finds no key.
        person.syncs().await?;
        Ok(Arc::new(person))
    }

    /// Logs in on another device, which they sign with the identity that they have.
    pub async fn logs_in(&self, fake: &Fake, device: &str) -> Result<Arc<Self>> {
        let person = Self::on_device(fake, self.user_id.clone(), device).await?;
        person.client.sign_device_as(&self.client).await?;
        let person = Arc::new(person);
        tokio::spawn(sync_on(Arc::downgrade(&person)));
        Ok(person)
    }

    async fn new(fake: &Fake, name: &str) -> Result<Self> {
        let device = "PHONE";
        let user = fake.with(|server| server.add_person(name, device));
        Self::on_device(fake, OwnedUserId::try_from(user)?, device).await
    }

    async fn on_device(fake: &Fake, user_id: OwnedUserId, device: &str) -> Result<Self> {
        let device: OwnedDeviceId = device.into();
        let client = fake.log_in(user_id.clone(), device).await;
        let person = Self {
            log: Log::new(user_id.clone()),
            user_id,
            client,
            syncing: Mutex::default(),
            speaking: Mutex::default(),
            awake: AtomicBool::new(true),
            readers: StdMutex::default(),
        };
        person.errands().await?;
        Ok(person)
    }

    /// Puts the client to rest: it syncs only when it is told to, until it is woken.
    pub fn rests(&self) {
        self.awake.store(false, Ordering::SeqCst);
    }

    /// Lets the client sync in the background again.
    pub fn wakes(&self) {
        self.awake.store(true, Ordering::SeqCst);
        self.client.bell().notify_waiters();
    }

    /// Everything that the client has shown so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Their client's cryptography.
    pub fn machine(&self) -> &OlmMachine {
        &self.client.machine
    }

    /// Starts a chat as Element's "Start chat" does; returns at once.
    pub async fn starts_chat(&self, with: &[&UserId]) -> Result<OwnedRoomId> {
        let request = ChatOptions::default().request(with)?;
        Ok(self.asks_for(request).await?.room_id)
    }

    /// Makes a group as Element does; returns at once.
    pub async fn starts_group(&self, with: &[&UserId]) -> Result<OwnedRoomId> {
        let request = ChatOptions::group().request(with)?;
        Ok(self.asks_for(request).await?.room_id)
    }

    /// Joins a room.
    pub async fn joins(&self, room: &RoomId) -> Result<()> {
        let request = join_room_by_id::v3::Request::new(room.to_owned());
        self.asks_for(request).await.map(drop)
    }

    /// Leaves a room.
    pub async fn leaves(&self, room: &RoomId) -> Result<()> {
        let request = leave_room::v3::Request::new(room.to_owned());
        self.asks_for(request).await.map(drop)
    }

    /// Says something, encrypted for everybody who is in the room or invited at this moment.
    pub async fn says(&self, room: &RoomId, text: &str) -> Result<OwnedEventId> {
        let content = json!({"msgtype": "m.text", "body": text});
        self.sends(room, "m.room.message", &content).await
    }

    /// Sends any message event, encrypted.
    pub async fn sends(&self, room: &RoomId, kind: &str, content: &Value) -> Result<OwnedEventId> {
        let encrypted = self.encrypts(room, kind, content).await?;
        self.puts(room, encrypted).await
    }

    /// Reacts to a message: in clear, as every client does it.
    pub async fn reacts(&self, room: &RoomId, to: &EventId, emoji: &str) -> Result<()> {
        let relation = json!({"rel_type": "m.annotation", "event_id": to, "key": emoji});
        let content = serde_json::value::to_raw_value(&json!({"m.relates_to": relation}))?;
        let request = send_message_event::v3::Request::new_raw(
            room.to_owned(),
            TransactionId::new(),
            "m.reaction".into(),
            Raw::from_json(content),
        );
        self.asks_for(request).await.map(drop)
    }

    /// Deletes a message.
    pub async fn redacts(&self, room: &RoomId, event: &EventId) -> Result<()> {
        let (room, event) = (room.to_owned(), event.to_owned());
        let request = redact_event::v3::Request::new(room, event, TransactionId::new());
        self.asks_for(request).await.map(drop)
    }

    /// Encrypts without sending, so that many can be sent at once.
    pub async fn encrypts(
        &self,
        room: &RoomId,
        kind: &str,
        content: &Value,
    ) -> Result<Box<RawValue>> {
        let _one_at_a_time = self.speaking.lock().await;
        let members = self.client.with(|server| {
            let room = server.rooms.get(room.as_str());
            let (joined, invited) = ("join", "invite");
            let members = room.into_iter().flat_map(|room| {
                let joined = room.with_membership(joined);
                joined.chain(room.with_membership(invited))
            });
            members
                .map(OwnedUserId::try_from)
                .collect::<Result<Vec<_>, _>>()
        })?;
        let members: Vec<&UserId> = members.iter().map(|member| &**member).collect();
        let tracking = self.machine().update_tracked_users(members.clone());
        tracking.await?;
        self.run_errands().await?;
        // As Element in its ordinary setting: for every device.
        let settings = EncryptionSettings::default();
        let content = serde_json::value::to_raw_value(content)?;
        let encrypted = self.client.encrypt(room, &members, settings, kind, content);
        let encrypted = encrypted.await?;
        let sent: Value = serde_json::from_str(encrypted.get())?;
        if let Some(ciphertext) = sent["ciphertext"].as_str() {
            let members = members.into_iter().map(ToOwned::to_owned).collect();
            self.readers().insert(ciphertext.to_owned(), members);
        }
        Ok(encrypted)
    }

    /// Returns whether this client encrypted an event before it knew that somebody was invited, so
    /// that their client cannot decrypt it although it may come after their invite.
    pub fn left_out(&self, reader: &UserId, seen: &Seen) -> bool {
        let ciphertext = seen.content["ciphertext"].as_str().unwrap_or_default();
        let readers = self.readers();
        let readers = readers
            .get(ciphertext)
            .filter(|_| seen.sender == self.user_id);
        readers.is_some_and(|readers| readers.iter().all(|it| it != reader))
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<OwnedUserId>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what was encrypted.
    pub async fn puts(&self, room: &RoomId, encrypted: Box<RawValue>) -> Result<OwnedEventId> {
        let request = send_message_event::v3::Request::new_raw(
            room.to_owned(),
            TransactionId::new(),
            "m.room.encrypted".into(),
            Raw::from_json(encrypted),
        );
        Ok(self.asks_for(request).await?.event_id)
    }

    /// Waits until `find` finds what it looks for among what the client has shown.
    pub async fn until<T>(&self, what: &str, find: impl FnMut(&Log) -> Option<T>) -> Result<T> {
        self.log.until(PATIENCE, what, find).await
    }

    /// Waits for an event in a room that `wanted` says yes to.
    pub async fn sees(
        &self,
        room: &RoomId,
        what: &str,
        mut wanted: impl FnMut(&Seen) -> bool,
    ) -> Result<Seen> {
        self.until(&format!("{what} in {room}"), |log| {
            log.find(|seen| seen.room == room && wanted(seen))
        })
        .await
    }

    /// Waits for an invite that `wanted` says yes to.
    pub async fn invited(&self, mut wanted: impl FnMut(&Invite) -> bool) -> Result<Invite> {
        self.until("an invite", |log| {
            log.invites().into_iter().find(&mut wanted)
        })
        .await
    }

    /// Says something to somebody and waits for what they say next.
    pub async fn asks(&self, room: &RoomId, who: &UserId, text: &str) -> Result<String> {
        let asked = self.says(room, text).await?;
        self.until(&format!("an answer by {who} to {text:?}"), |log| {
            let mut after = false;
            let events = log.events_in(room).into_iter();
            let answer = events.filter_map(|seen| {
                let heard = after && seen.sender == who;
                after |= seen.event_id == asked;
                heard.then(|| seen.text().map(str::to_owned)).flatten()
            });
            { answer }.next()
        })
        .await
    }

    /// Starts a chat with the bot and waits for its greeting.
    pub async fn control_room(&self, bot: &UserId) -> Result<OwnedRoomId> {
        let room = self.starts_chat(&[bot]).await?;
        let greeting = |seen: &Seen| seen.sender == bot && seen.text().is_some();
        self.sees(&room, "the bot's greeting", greeting).await?;
        Ok(room)
    }

    /// Makes any request.
    pub async fn asks_for<R>(&self, request: R) -> Result<R::IncomingResponse>
    where
        R: MatrixRequest<PathBuilder = VersionHistory>,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
    {
        self.client.request(request).await
    }

    async fn errands(&self) -> Result<()> {
        let _one_at_a_time = self.speaking.lock().await;
        self.run_errands().await
    }

    async fn run_errands(&self) -> Result<()> {
        self.client.run_errands(|_| true).await
    }
}

/// Syncs whenever there may be news, as long as there is somebody to show it to.
async fn sync_on(person: Weak<Person>) {
    let bell = match person.upgrade() {
        Some(person) => person.client.bell(),
        None => return,
    };
    let mut rings = true;
    loop {
        let mut rung = std::pin::pin!(bell.notified());
        rung.as_mut().enable();
        let Some(somebody) = person.upgrade() else {
            return;
        };
        if rings
            && somebody.awake.load(Ordering::SeqCst)
            && let Err(error) = somebody.syncs().await
        {
            tracing::warn!(user = %somebody.user_id, %error, "a sync failed");
        }
        drop(somebody);
        // Looks up now and then whether anybody is still there.
        let while_away = std::time::Duration::from_secs(2);
        rings = tokio::time::timeout(while_away, rung).await.is_ok();
    }
}
