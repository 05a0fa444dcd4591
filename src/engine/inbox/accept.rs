//! The inbox: writes down once what the homeserver pushes, before it is acknowledged.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use ruma::{OneTimeKeyAlgorithm, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt};
use serde_json::{Value, value::RawValue};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    clock::{self, Timestamp},
    engine::{
        Engine, EngineError,
        event::RoomEvent,
        inbox::{
            arrival_times::ArrivalTimes,
            dedup::{ToDeviceMessage, digest},
        },
        records::{InboxItem, Rooms, ToDevice, ToDeviceItem},
    },
    introduction::Phase,
    matrix::{
        Transaction,
        bounds::{DeadLetter, DeadLetterReason, parts_of},
    },
    metrics::catalogue::{EVENT_AGE, LAST_TRANSACTION, RECEIVED, TRANSACTION_TIME, TRANSACTIONS},
    store::{Batch, Digest, StoreError},
};

/// How many one-time keys the homeserver says it holds for one of our devices.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct OneTimeKeyCounts {
    pub one_time: Option<BTreeMap<OneTimeKeyAlgorithm, UInt>>,
    pub fallback: Option<Vec<OneTimeKeyAlgorithm>>,
}

/// Minimum time between two answers to transactions that hold only our own echoes. The homeserver
/// sends the next one as soon as it has the answer, so under load a short pause lets more events
/// share a transaction. A person who writes alone does not wait.
const ECHOES: Duration = Duration::from_millis(2);

/// When a transaction was last answered that held nothing to make durable: only our own messages,
/// receipts, typing, and one-time key counts.
#[derive(Default)]
pub(in crate::engine) struct EchoPacing(Mutex<Option<Instant>>);

impl EchoPacing {
    async fn pace(&self) {
        let mut answered = self.0.lock().await;
        let rest = answered.and_then(|answered| ECHOES.checked_sub(answered.elapsed()));
        if let Some(rest) = rest {
            clock::sleep(rest).await;
        }
        *answered = Some(Instant::now());
    }
}

/// The changes that a batch of arrivals makes, and the rooms to be woken.
#[derive(Default)]
pub(in crate::engine) struct InboxWrites {
    pub batch: Batch,
    pub rooms: Vec<ruma::OwnedRoomId>,
    pub to_device: bool,
    /// Whether an earlier call accepted part of it, and may not have made that durable yet.
    pub again: bool,
    /// The events and digests in this batch, which the store does not know of yet.
    events: HashSet<OwnedEventId>,
    digests: HashSet<Digest>,
    /// Upper bound of the numbers of its queued items.
    pub until: u64,
    /// What was set aside.
    pub dead_letters: Vec<DeadLetter>,
}

impl Engine {
    /// Accepts a transaction and counts it, with what was taken out of it before.
    pub(in crate::engine) async fn accept_measured(
        &self,
        body: Transaction,
        ephemeral: usize,
    ) -> Result<(), EngineError> {
        let began = Instant::now();
        let _accepting = self.0.progress.accepts();
        let brought = [
            ("event", body.events.len()),
            ("to_device", body.to_device.len()),
            ("ephemeral", ephemeral),
        ];
        let written = self.write_to_inbox(body).await;
        TRANSACTIONS.count([if written.is_ok() {
            "accepted"
        } else {
            "failed"
        }]);
        if written.is_ok() {
            TRANSACTION_TIME.observe([], began.elapsed());
            LAST_TRANSACTION.set([], self.now().0 / 1000);
            for (kind, count) in brought {
                RECEIVED.add([kind], count as u64);
            }
        }
        written
    }

    /// Looks at the events of a part of a transaction before they are written. Returns them, unless
    /// together they would take too much memory, and how old they are.
    async fn read_events(
        &self,
        events: &[Box<RawValue>],
    ) -> Result<(Option<Vec<Option<RoomEvent>>>, Vec<Duration>), EngineError> {
        if let Some(parsed) = parse_unless_dense(events) {
            let ages = self.ages_of(&parsed);
            self.expect_keys(&parsed).await?;
            return Ok((Some(parsed), ages));
        }
        let mut ages = Vec::new();
        for json in events {
            let event = [RoomEvent::parse(json.get(), None)];
            ages.extend(self.ages_of(&event));
            self.expect_keys(&event).await?;
        }
        Ok((None, ages))
    }

    /// Returns how old these events are, those of this server's people: other servers can date theirs
    /// as they like. One without an age counts for none.
    fn ages_of(&self, events: &[Option<RoomEvent>]) -> Vec<Duration> {
        let is_ours = |event: &&RoomEvent| {
            event.sender.server_name() == self.settings().server_name
                && !self.is_ours(&event.sender)
                && !event.age.is_zero()
        };
        let events = events.iter().flatten().filter(is_ours);
        events.map(|event| event.age).collect()
    }

    /// Returns when an item of the inbox arrived: to the second if it came in a transaction, otherwise
    /// when this was next asked.
    pub fn arrived_at(&self, number: u64) -> Timestamp {
        let now = self.now();
        let mut times = self.arrival_times();
        times.note(self.next(), now);
        times.of(number).unwrap_or(now)
    }

    fn arrival_times(&self) -> MutexGuard<'_, ArrivalTimes> {
        let times = self.0.arrival_times.lock();
        times.unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what came in a transaction to the inbox. When this returns, all of it is durable.
    ///
    /// Transaction ids cannot be used to find repeats, because they start again when the homeserver
    /// restarts. Events are recognised by their id, to-device messages by a digest; a transaction
    /// that comes twice, even twice at once, is accepted once.
    pub(in crate::engine) async fn write_to_inbox(
        &self,
        body: Transaction,
    ) -> Result<(), EngineError> {
        if body.after_gap {
            self.note_possible_gap();
        }
        let (parsed, ages) = self.read_events(&body.events).await?;
        // Last: what is taken and not written is lost.
        let mut dead_letters = body.dead_letters;
        dead_letters.extend(self.homeserver().take_dead_letters());
        let changed;
        let taken = {
            let _one_at_a_time = self.0.inbox_lock.lock().await;
            let mut taken = InboxWrites {
                dead_letters,
                ..InboxWrites::default()
            };
            for json in &body.to_device {
                self.accept_to_device(json, None, &mut taken)?;
            }
            let mut parsed = parsed.map(Vec::into_iter);
            for json in &body.events {
                let event = match &mut parsed {
                    Some(events) => events.next().flatten(),
                    None => RoomEvent::parse(json.get(), None),
                };
                self.accept_parsed(json, event, None, &mut taken)?;
            }
            self.stage_dead_letters(&taken.dead_letters, &mut taken.batch)?;
            let batch = std::mem::take(&mut taken.batch);
            changed = !batch.is_empty();
            self.store().apply(batch)?;
            self.pack_arrivals()?;
            taken.until = self.next();
            self.arrival_times().note(taken.until, self.now());
            taken
        };
        // The echoes of our own users' messages leave nothing to make durable.
        let echo = !changed && !taken.again;
        if !echo {
            self.store().flush().await?;
            self.mark_durable(taken.until);
        }
        // Not of a transaction that was accepted before.
        if changed {
            for age in ages {
                EVENT_AGE.observe([], age);
            }
        }
        if body.dropped > 0 {
            tracing::warn!(
                count = body.dropped,
                "malformed items of a transaction were set aside"
            );
        }
        self.backfill_after(&taken.dead_letters);
        self.machines()
            .mark_device_lists_outdated_for_all(&body.device_lists_changed);
        if body.all_device_lists_changed {
            self.machines().mark_all_device_lists_outdated();
        }
        let counted = self.note_counts(body.otk_counts, body.fallback_types).await;
        self.wake_after(taken, counted, body.more).await;
        if echo && !body.more {
            self.0.echoes.pace().await;
        }
        Ok(())
    }

    /// Wakes the rooms of a transaction, and handles its to-device messages. If further parts
    /// follow, the rooms wait for the last one: their keys come with it, and a room's first event
    /// may need them.
    async fn wake_after(&self, taken: InboxWrites, counted: bool, has_more: bool) {
        if has_more {
            self.0.held_rooms.lock().await.extend(taken.rooms);
            return;
        }
        let held = std::mem::take(&mut *self.0.held_rooms.lock().await);
        let engine = self.clone();
        // In a task, because the homeserver waits for its answer. Only after the transaction is
        // durable: a repeated transaction may differ, for example if a sender has redacted an event
        // in between.
        self.spawn(async move {
            // Rooms first: a room that needs a key of this transaction waits for it, and the others
            // need not wait for a slow server's keys.
            for room in held.into_iter().chain(taken.rooms) {
                engine.wake(&room);
            }
            if taken.to_device || counted {
                engine.start_processing_to_device().await;
            }
        });
    }

    /// Notes that inbox items with lower numbers are durable.
    pub(in crate::engine) fn mark_durable(&self, until: u64) {
        self.0.arrived.fetch_max(until, Ordering::AcqRel);
    }

    /// Returns whether the item with this number is durable. No item is handled before it is: if it
    /// comes again after a crash, it may differ.
    pub(in crate::engine) fn is_durable(&self, number: u64) -> bool {
        number < self.durable_until()
    }

    /// Returns the upper bound of the numbers of arrivals that are durable. No event is written below
    /// it from then on.
    pub(in crate::engine) fn durable_until(&self) -> u64 {
        self.0.arrived.load(Ordering::Acquire)
    }

    /// Prepares machines for the rooms of invites. Room keys are dropped on arrival unless their
    /// room is expected, and the first key may come in the same transaction as the invite.
    async fn expect_keys(&self, events: &[Option<RoomEvent>]) -> Result<(), EngineError> {
        for event in events.iter().flatten() {
            if let Some((user, "invite")) = event.membership()
                && self.is_ours(&user)
                && !self.has_arrived(&event.id)?
            {
                let expected = self.expect_room(&user, &event.room).await;
                go_on_unless_down(expected, &event.room)?;
            }
        }
        Ok(())
    }

    /// Prepares the machine of an invited user for the keys of the room. Returns `false` if it has
    /// left that room, to which it never comes back.
    pub(in crate::engine) async fn expect_room(
        &self,
        user: &OwnedUserId,
        room: &RoomId,
    ) -> Result<bool, EngineError> {
        let comes = !self.has_left(user, &room.to_owned())?;
        if comes {
            self.machines().expect_room(user, room).await?;
        }
        Ok(comes)
    }

    /// Returns whether a ghost has left this room, to which it never comes back.
    pub(in crate::engine) fn has_left(
        &self,
        user: &OwnedUserId,
        room: &OwnedRoomId,
    ) -> Result<bool, StoreError> {
        let record = self.store().get::<Rooms>(room)?.unwrap_or_default();
        let mut introductions = record.introductions.iter();
        Ok(introductions
            .any(|introduction| introduction.ghost == *user && introduction.phase == Phase::Over))
    }

    pub(in crate::engine) fn accept_event(
        &self,
        json: &RawValue,
        room: Option<&ruma::OwnedRoomId>,
        taken: &mut InboxWrites,
    ) -> Result<(), EngineError> {
        self.accept_parsed(json, RoomEvent::parse(json.get(), room), room, taken)
    }

    /// Accepts an event that has been parsed.
    fn accept_parsed(
        &self,
        json: &RawValue,
        event: Option<RoomEvent>,
        room: Option<&ruma::OwnedRoomId>,
        taken: &mut InboxWrites,
    ) -> Result<(), EngineError> {
        let Some(event) = event else {
            let mut letter = DeadLetter::of(DeadLetterReason::EventMalformed, json.get());
            letter.room = letter.room.or_else(|| room.cloned());
            taken.dead_letters.push(letter);
            return Ok(());
        };
        if event.state_key.is_some() {
            self.0.room_states.mark_outdated(&event.room);
        }
        // Messages of our own users are known already; changes of their membership are not.
        let own = self.is_ours(&event.sender) && event.kind != "m.room.member";
        if own {
            return Ok(());
        }
        if self.note_arrival(&event.id)? || !taken.events.insert(event.id.clone()) {
            taken.again = true;
            return Ok(());
        }
        self.mark_seen_as(&event.id, None, false, &mut taken.batch)?;
        let json = json_with_room(json, room);
        let after_gap = self.is_after_gap(&event).map_err(EngineError::from);
        let arrived = if go_on_unless_down(after_gap, &event.room)? {
            InboxItem::AfterGap(json)
        } else {
            InboxItem::Event(json)
        };
        self.stage(&event.room, &arrived, &mut taken.batch)?;
        if !taken.rooms.contains(&event.room) {
            taken.rooms.push(event.room);
        }
        Ok(())
    }

    pub(in crate::engine) fn accept_to_device(
        &self,
        json: &RawValue,
        synced_for: Option<&OwnedUserId>,
        taken: &mut InboxWrites,
    ) -> Result<(), StoreError> {
        let malformed = || DeadLetter::of(DeadLetterReason::ToDeviceMalformed, json.get());
        let Ok(message) = serde_json::from_str::<ToDeviceMessage<'_>>(json.get()) else {
            taken.dead_letters.push(malformed());
            return Ok(());
        };
        let named = message.to_user_id.and_then(|user| {
            let user = serde_json::from_str::<String>(user.get()).ok()?;
            OwnedUserId::try_from(user).ok()
        });
        let Some(user) = synced_for.cloned().or(named) else {
            taken.dead_letters.push(malformed());
            return Ok(());
        };
        // Nothing else concerns a machine, and anybody can send it in any number.
        if !message.is_encrypted() {
            return Ok(());
        }
        let digest = digest(&user, &message);
        if self.has_arrived_to_device(digest)? || !taken.digests.insert(digest) {
            taken.again = true;
            return Ok(());
        }
        // A sync brings only as much as was asked for, and nobody else has it.
        let is_pushed = synced_for.is_none();
        if !self
            .0
            .to_device
            .admit(&user, message.sender_host(), is_pushed)
        {
            let letter = DeadLetter::of(DeadLetterReason::ToDeviceOverflow, json.get());
            // The ghost syncs once it has handled what waits.
            let letter = DeadLetter {
                user: None,
                ..letter
            };
            taken.dead_letters.push(letter);
            return Ok(());
        }
        self.mark_seen_to_device(digest, &mut taken.batch)?;
        let item = ToDeviceItem {
            user: user.clone(),
            json: json.get().to_owned(),
        };
        taken.batch.put::<ToDevice>(&(user, self.next()), &item)?;
        taken.to_device = true;
        Ok(())
    }

    async fn note_counts(
        &self,
        one_time: crate::matrix::transaction::OtkCounts,
        fallback: crate::matrix::transaction::FallbackTypes,
    ) -> bool {
        let mut counts = self.0.counts.lock().await;
        let mut noted = false;
        for (user, devices) in one_time {
            // Synapse lists a user's cross-signing keys as if they were devices.
            let Ok(Some(device)) = self.machines().device_of(&user) else {
                continue;
            };
            let Some(held) = devices.get(&device) else {
                continue;
            };
            let unused = fallback.get(&user).and_then(|devices| devices.get(&device));
            let known = OneTimeKeyCounts {
                one_time: Some(held.clone()),
                fallback: unused.cloned(),
            };
            counts.insert(user, known);
            noted = true;
        }
        noted
    }
}

/// Maximum number of objects and lists in a part of a transaction whose events are parsed together.
/// Each takes some 600 bytes, and two bytes of text.
const PARTS_TOGETHER_MAX: usize = 20_000;

/// Returns the parsed events of a part of a transaction, unless they would take too much memory.
pub(in crate::engine) fn parse_unless_dense(
    events: &[Box<RawValue>],
) -> Option<Vec<Option<RoomEvent>>> {
    let parts: usize = events.iter().map(|json| parts_of(json.get())).sum();
    let events = events.iter();
    (parts <= PARTS_TOGETHER_MAX).then(|| {
        events
            .map(|json| RoomEvent::parse(json.get(), None))
            .collect()
    })
}

/// Goes on as if there were nothing, if a record cannot be read: the homeserver would repeat what
/// was not accepted without end, and nobody in any room would be heard. A store that is down is an
/// error.
pub(in crate::engine) fn go_on_unless_down<T: Default>(
    read: Result<T, EngineError>,
    room: &RoomId,
) -> Result<T, EngineError> {
    match read {
        Err(error) if !error.is_store_down() => {
            tracing::error!(%room, %error, "something is accepted although a record cannot be read");
            Ok(T::default())
        }
        read => read,
    }
}

/// Returns the event with its room, which events in a `/sync` do not name.
fn json_with_room(json: &RawValue, room: Option<&ruma::OwnedRoomId>) -> String {
    let Some(room) = room else {
        return json.get().to_owned();
    };
    match serde_json::from_str::<Value>(json.get()) {
        Ok(Value::Object(mut fields)) => {
            fields.insert("room_id".to_owned(), Value::String(room.to_string()));
            Value::Object(fields).to_string()
        }
        _ => json.get().to_owned(),
    }
}
