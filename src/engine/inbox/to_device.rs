//! To-device messages on their way from the inbox to the machines.
//!
//! Each ghost has a queue in order of arrival, and one task at a time hands its messages over.
//! Ghosts do not wait for each other: a machine may be busy, and anybody could cause that for some
//! ghost.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    crypto::{CryptoError, GhostKind, IncomingCrypto, NewRoomKey},
    engine::{
        Engine, EngineError,
        inbox::{accept::OneTimeKeyCounts, dedup::ToDeviceMessage},
        keyed::Keyed,
        records::{ActiveRoomsByGhost, InboxItem, Rooms, ToDevice},
    },
    ids::Ghost,
    store::{Batch, prefix},
};

/// Maximum number of messages that a machine is given at once.
const TO_DEVICE_BATCH_MAX: usize = 200;
/// Maximum number of ghosts whose messages are handed over at the same time. The work uses only the
/// processor and the disk, no other server.
const GHOSTS: usize = 16;

/// Maximum number of pushed messages of one server that wait for one ghost. A machine takes some 500
/// a second, and what people say to the ghost waits behind them.
const WAITING_OF_A_SERVER_MAX: usize = 5000;

/// The queues of all ghosts.
pub(in crate::engine) struct Queues {
    of: Keyed<OwnedUserId, Queue>,
    /// How many messages wait, by ghost and the host of their sender, of those that arrived since the
    /// start.
    waiting: std::sync::Mutex<HashMap<(OwnedUserId, String), usize>>,
    /// The ghosts for which messages were set aside, and that sync once their queue is empty.
    overflowed: std::sync::Mutex<BTreeSet<OwnedUserId>>,
    /// Permits, [`GHOSTS`] in all.
    places: Semaphore,
}

#[derive(Default)]
struct Queue {
    /// Held by the task that hands over.
    turn: Mutex<()>,
    /// Whether a task is waiting for its turn: it will find everything that has arrived by then.
    is_asked: AtomicBool,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            of: Keyed::default(),
            waiting: std::sync::Mutex::default(),
            overflowed: std::sync::Mutex::default(),
            places: Semaphore::new(GHOSTS),
        }
    }
}

impl Queues {
    fn of(&self, ghost: &OwnedUserId) -> Arc<Queue> {
        self.of.get(ghost.clone(), Queue::default)
    }

    /// Counts a message that is about to wait. Returns `false` if it was pushed and too many of that
    /// server wait for the ghost: the homeserver keeps it for the ghost's next sync.
    pub(in crate::engine) fn admit(
        &self,
        ghost: &OwnedUserId,
        host: String,
        is_pushed: bool,
    ) -> bool {
        let mut waiting = self.waiting();
        let count = waiting.entry((ghost.clone(), host)).or_default();
        if is_pushed && *count >= WAITING_OF_A_SERVER_MAX {
            drop(waiting);
            self.overflowed().insert(ghost.clone());
            return false;
        }
        *count += 1;
        true
    }

    /// Counts messages that wait no longer.
    fn release(&self, ghost: &OwnedUserId, hosts: Vec<String>) {
        let mut waiting = self.waiting();
        for host in hosts {
            let key = (ghost.clone(), host);
            match waiting.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(waiting.remove(&key)),
            }
        }
    }

    /// Notes that nothing waits for a ghost. Returns whether something was set aside meanwhile.
    fn drained(&self, ghost: &OwnedUserId) -> bool {
        // What was counted and then not written would count forever.
        self.waiting().retain(|(of, _), _| of != ghost);
        self.overflowed().remove(ghost)
    }

    fn overflowed(&self) -> MutexGuard<'_, BTreeSet<OwnedUserId>> {
        let overflowed = self.overflowed.lock();
        overflowed.unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<(OwnedUserId, String), usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a task is handing over messages of this ghost.
    #[cfg(test)]
    pub(in crate::engine) fn is_at_work(&self, ghost: &OwnedUserId) -> bool {
        self.of(ghost).turn.try_lock().is_err()
    }
}

impl Engine {
    /// Starts handing all to-device messages that have arrived to their machines, and returns at
    /// once. A ghost never has more than one task that hands over and one that waits.
    pub(in crate::engine) async fn start_processing_to_device(&self) {
        for ghost in self.ghosts_with_messages().await {
            let queue = self.0.to_device.of(&ghost);
            if queue.is_asked.swap(true, Ordering::AcqRel) {
                continue;
            }
            let engine = self.clone();
            self.spawn(async move {
                let (_few_at_a_time, _turn) = loop {
                    let place = engine.0.to_device.places.acquire().await;
                    if let Ok(turn) = queue.turn.try_lock() {
                        break (place, turn);
                    }
                    // Waiting for a turn while holding a permit would take it from every other
                    // ghost; waiting for a permit while holding the turn would block those who need
                    // this ghost's messages now.
                    drop(place);
                    drop(queue.turn.lock().await);
                };
                queue.is_asked.swap(false, Ordering::AcqRel);
                engine.hand_over_all(&ghost).await;
            });
        }
    }

    /// Hands every to-device message that has arrived, and the key counts that came with it, to its
    /// machine, and waits until that is done.
    pub(in crate::engine) async fn process_to_device(&self) {
        for ghost in self.ghosts_with_messages().await {
            self.process_to_device_of(&ghost).await;
        }
    }

    /// Hands over the messages that have arrived for one ghost, and waits until that is done.
    pub(in crate::engine) async fn process_to_device_of(&self, ghost: &OwnedUserId) {
        let queue = self.0.to_device.of(ghost);
        let _turn = queue.turn.lock().await;
        self.hand_over_all(ghost).await;
    }

    /// Returns the ghosts for which to-device messages wait.
    async fn ghosts_with_messages(&self) -> BTreeSet<OwnedUserId> {
        let mut ghosts: BTreeSet<OwnedUserId> =
            self.0.counts.lock().await.keys().cloned().collect();
        let mut after = None;
        loop {
            match self.store().scan::<ToDevice>(&[], after.as_ref(), 1) {
                Ok(rows) => {
                    let Some(((ghost, _), _)) = rows.into_iter().next() else {
                        return ghosts;
                    };
                    after = Some((ghost.clone(), u64::MAX));
                    ghosts.insert(ghost);
                }
                Err(error) => {
                    tracing::error!(%error, "to-device messages could not be read; they wait for the next transaction");
                    return ghosts;
                }
            }
        }
    }

    /// Hands over all messages of a user to its machine. The caller holds the user's turn.
    async fn hand_over_all(&self, ghost: &OwnedUserId) {
        // Until the machines have their new devices, no message can be accepted.
        if matches!(self.store().is_restored(), Ok(true)) {
            return;
        }
        loop {
            match self.hand_over_some(ghost).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%ghost, %error, "to-device messages could not be handed over; they wait for the next transaction");
                    return;
                }
            }
        }
    }

    async fn hand_over_some(&self, ghost: &OwnedUserId) -> Result<bool, EngineError> {
        let first = prefix(ghost);
        let waiting = self
            .store()
            .scan::<ToDevice>(&first, None, TO_DEVICE_BATCH_MAX)?;
        let counts = self.0.counts.lock().await.remove(ghost);
        if waiting.is_empty() && self.0.to_device.drained(ghost) {
            self.backfill(ghost);
        }
        if waiting.is_empty() && counts.is_none() {
            return Ok(false);
        }
        let (mut numbers, mut messages, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        for ((_, number), item) in waiting {
            let message = serde_json::from_str::<ToDeviceMessage<'_>>(&item.json);
            hosts.push(message.map_or_else(|_| String::new(), |it| it.sender_host()));
            numbers.push(number);
            messages.push(RawValue::from_string(item.json)?);
        }
        self.hand_over(ghost, numbers, messages, counts.unwrap_or_default())
            .await?;
        self.0.to_device.release(ghost, hosts);
        Ok(true)
    }

    async fn hand_over(
        &self,
        user: &OwnedUserId,
        numbers: Vec<u64>,
        messages: Vec<Box<RawValue>>,
        counts: OneTimeKeyCounts,
    ) -> Result<(), EngineError> {
        let mut batch = Batch::new();
        for number in numbers {
            batch.delete::<ToDevice>(&(user.clone(), number));
        }
        let messages = self.for_present_device(user, messages)?;
        let mut woken = Vec::new();
        if self.machines().kind_of(user)? == Some(GhostKind::Keyless) {
            let ghost = Ghost::new(user.clone());
            self.note_keys_for_strict(&ghost, &messages, &mut batch, &mut woken)?;
        } else {
            let incoming = IncomingCrypto {
                to_device: messages,
                otk_counts: counts.one_time,
                fallback_types: counts.fallback,
                device_lists_changed: Vec::new(),
            };
            let receive = |incoming| self.machines().receive(user, incoming);
            let (keys, follows) = receive_what_can_be(user, incoming, receive).await?;
            if follows {
                let (engine, user) = (self.clone(), user.clone());
                self.spawn(async move { engine.machines().respond(&user).await });
            }
            // Each item makes the room try all that waits for a key, so there is one for all keys.
            let rooms: BTreeSet<OwnedRoomId> = keys.into_iter().map(|key| key.room_id).collect();
            for room in rooms {
                let arrived = InboxItem::RoomKeyArrived { user: user.clone() };
                if self.store().contains::<Rooms>(&room)? {
                    self.stage(&room, &arrived, &mut batch)?;
                    woken.push(room);
                }
            }
        }
        self.store().apply(batch)?;
        for room in woken {
            self.wake(&room);
        }
        Ok(())
    }

    /// Drops messages that were sent to a former device of the ghost: the homeserver may push them
    /// for a while after a restore.
    pub(in crate::engine) fn for_present_device(
        &self,
        user: &OwnedUserId,
        mut messages: Vec<Box<RawValue>>,
    ) -> Result<Vec<Box<RawValue>>, EngineError> {
        #[derive(serde::Deserialize)]
        struct To {
            to_device_id: Option<String>,
        }
        let mut present = Vec::with_capacity(messages.len());
        for message in messages.drain(..) {
            let to = serde_json::from_str::<To>(message.get()).ok();
            let meant = match to.and_then(|to| to.to_device_id) {
                Some(device) => self.machines().is_device(user, &device)?,
                // A sync does not name the device: it is the present one.
                None => true,
            };
            if meant {
                present.push(message);
            }
        }
        Ok(present)
    }

    /// Notes keys that were sent to strict ghosts. Such a ghost cannot read them, but a key means
    /// that its sender encrypted a message before the owner was there to read it.
    fn note_keys_for_strict(
        &self,
        ghost: &Ghost,
        messages: &[Box<RawValue>],
        batch: &mut Batch,
        woken: &mut Vec<OwnedRoomId>,
    ) -> Result<(), EngineError> {
        #[derive(serde::Deserialize)]
        struct Sender {
            sender: OwnedUserId,
            #[serde(rename = "type")]
            kind: String,
        }
        let rooms = self
            .store()
            .scan::<ActiveRoomsByGhost>(&prefix(ghost), None, 100)?;
        let mut senders = BTreeSet::new();
        for message in messages {
            if let Ok(Sender { sender, kind }) = serde_json::from_str(message.get())
                && kind == "m.room.encrypted"
            {
                senders.insert(sender);
            }
        }
        for sender in senders {
            for ((_, room), ()) in &rooms {
                let arrived = InboxItem::KeyForStrict {
                    ghost: ghost.clone(),
                    sender: sender.clone(),
                };
                self.stage(room, &arrived, batch)?;
                woken.push(room.clone());
            }
        }
        Ok(())
    }
}

/// Lets a machine receive messages. If it refuses them for good, gives it one half after the other,
/// down to single messages, so that only those are dropped that it cannot take: they would fail
/// every time, and hold up everybody's keys.
async fn receive_what_can_be<F>(
    user: &OwnedUserId,
    incoming: IncomingCrypto,
    receive: impl Fn(IncomingCrypto) -> F,
) -> Result<(Vec<NewRoomKey>, bool), CryptoError>
where
    F: Future<Output = Result<(Vec<NewRoomKey>, bool), CryptoError>>,
{
    let (mut keys, mut follows) = (Vec::new(), false);
    let mut parts = vec![incoming];
    while let Some(part) = parts.pop() {
        let messages = part.to_device.clone();
        let counts = (part.otk_counts.clone(), part.fallback_types.clone());
        match receive(part).await {
            Ok((new, more)) => {
                keys.extend(new);
                follows |= more;
            }
            Err(error) if error.is_transient() => return Err(error),
            // Without its keys, a ghost receives nothing.
            Err(error @ CryptoError::Olm(_)) if messages.len() > 1 => {
                tracing::warn!(%user, %error, "to-device messages are received one by one");
                let (first, second) = messages.split_at(messages.len() / 2);
                let (otk_counts, fallback_types) = counts;
                // The last part is next.
                parts.push(IncomingCrypto {
                    to_device: second.to_vec(),
                    otk_counts,
                    fallback_types,
                    ..IncomingCrypto::default()
                });
                parts.push(IncomingCrypto {
                    to_device: first.to_vec(),
                    ..IncomingCrypto::default()
                });
            }
            Err(error) => {
                let count = messages.len();
                tracing::error!(%user, %error, count, "to-device messages are dropped");
            }
        }
    }
    Ok((keys, follows))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn one_server_cannot_fill_the_queue_of_a_ghost_with_what_it_sends() {
        let queues = Queues::default();
        let sam = ruma::owned_user_id!("@_dm_sam:hs.test");
        let admit = |host: &str, pushed| queues.admit(&sam, host.to_owned(), pushed);
        for _ in 0..WAITING_OF_A_SERVER_MAX {
            assert!(admit("evil.test", true));
        }
        assert!(!admit("evil.test", true), "the homeserver keeps it");
        assert!(admit("evil.test", false), "nobody else has it");
        assert!(admit("far.test", true), "another server is not held up");
        queues.release(&sam, vec!["evil.test".to_owned(); 2]);
        assert!(admit("evil.test", true));
        assert!(!admit("evil.test", true));
        queues.release(&sam, vec!["far.test".to_owned(); 3]);
        assert_eq!(queues.waiting().len(), 1);
    }

    #[tokio::test]
    async fn one_message_that_cannot_be_received_takes_no_other_with_it() {
        let received = Mutex::new(Vec::new());
        let counts = Mutex::new(0);
        let receive = async |incoming: IncomingCrypto| {
            let bad = |message: &RawValue| message.get() == "7";
            if incoming.to_device.iter().any(|message| bad(message)) {
                return Err(CryptoError::Olm("it cannot be received".to_owned()));
            }
            *counts.lock().unwrap() += usize::from(incoming.otk_counts.is_some());
            let messages = incoming.to_device.iter();
            let messages = messages.map(|message| message.get().to_owned());
            received.lock().unwrap().extend(messages);
            Ok((Vec::new(), true))
        };
        let all = (0..20).map(|n| RawValue::from_string(n.to_string()).unwrap());
        let incoming = IncomingCrypto {
            to_device: all.collect(),
            otk_counts: Some(Default::default()),
            ..IncomingCrypto::default()
        };
        let user = OwnedUserId::try_from("@_dm_sam:hs.test").unwrap();
        let outcome = receive_what_can_be(&user, incoming, receive).await.unwrap();
        assert!(outcome.1);
        let expected: Vec<_> = (0..20).filter(|n| *n != 7).map(|n| n.to_string()).collect();
        assert_eq!(*received.lock().unwrap(), expected, "in order");
        assert_eq!(*counts.lock().unwrap(), 1);
    }
}
