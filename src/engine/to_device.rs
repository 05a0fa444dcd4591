//! To-device messages on their way from the inbox to the machines.

use ruma::OwnedUserId;
use serde_json::value::RawValue;

use super::{
    Engine, EngineError,
    intake::KeyCounts,
    tables::{Arrived, Inbox, OpenWork, Rooms, ToDevice},
};
use crate::{
    crypto::{GhostKind, IncomingCrypto},
    store::{Batch, prefix},
};

/// How many messages a machine is given at once.
const AT_ONCE: usize = 200;

impl Engine {
    /// Gives every to-device message that has arrived to its machine, and the counts that came
    /// with it. One at a time over the whole service: order matters, and it is quick, for what a
    /// machine has to ask other servers then is nobody else's business.
    pub(super) async fn drain_to_device(&self) {
        let _one_at_a_time = self.0.to_device.lock().await;
        // Until the machines have their new devices nobody can take anything in.
        if matches!(self.store().restored(), Ok(true)) {
            return;
        }
        loop {
            match self.drain_some().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "to-device messages wait for the next transaction");
                    return;
                }
            }
        }
    }

    async fn drain_some(&self) -> Result<bool, EngineError> {
        let waiting = self.store().scan::<ToDevice>(&[], None, AT_ONCE)?;
        let counts = std::mem::take(&mut *self.0.counts.lock().await);
        if waiting.is_empty() && counts.is_empty() {
            return Ok(false);
        }
        let mut users: Vec<(OwnedUserId, Vec<u64>, Vec<Box<RawValue>>, KeyCounts)> = Vec::new();
        for (user, counts) in counts {
            users.push((user, Vec::new(), Vec::new(), counts));
        }
        for (number, item) in waiting {
            let json = RawValue::from_string(item.json)?;
            match users.iter_mut().find(|(user, ..)| *user == item.user) {
                Some((_, numbers, messages, _)) => {
                    numbers.push(number);
                    messages.push(json);
                }
                None => users.push((item.user, vec![number], vec![json], KeyCounts::default())),
            }
        }
        for (user, numbers, messages, counts) in users {
            self.hand_over(&user, numbers, messages, counts).await?;
        }
        Ok(true)
    }

    async fn hand_over(
        &self,
        user: &OwnedUserId,
        numbers: Vec<u64>,
        messages: Vec<Box<RawValue>>,
        counts: KeyCounts,
    ) -> Result<(), EngineError> {
        let mut batch = Batch::new();
        for number in numbers {
            batch.delete::<ToDevice>(&number);
        }
        let messages = self.for_present_device(user, messages)?;
        let mut woken = Vec::new();
        if self.machines().kind_of(user)? == Some(GhostKind::Keyless) {
            self.note_keys_for_strict(user, &messages, &mut batch, &mut woken)?;
        } else {
            let incoming = IncomingCrypto {
                to_device: messages,
                otk_counts: counts.one_time,
                fallback_types: counts.fallback,
                device_lists_changed: Vec::new(),
            };
            match self.machines().take_in(user, incoming).await {
                Ok((keys, follows)) => {
                    if follows {
                        let (engine, user) = (self.clone(), user.clone());
                        self.spawn(async move { engine.machines().follow_up(&user).await });
                    }
                    for key in keys {
                        let arrived = Arrived::Key { user: user.clone() };
                        if self.store().contains::<Rooms>(&key.room_id)? {
                            batch.put::<Inbox>(&(key.room_id.clone(), self.next()), &arrived)?;
                            woken.push(key.room_id);
                        }
                    }
                }
                Err(error) if error.is_transient() => return Err(error.into()),
                // It would fail again for ever, and hold up everybody's keys.
                Err(error) => tracing::error!(%user, %error, "to-device messages are dropped"),
            }
        }
        self.store().apply(batch)?;
        for room in woken {
            self.wake(&room).await;
        }
        Ok(())
    }

    /// What was sent to a device that the ghost had before is for nobody: the homeserver may push
    /// such messages for a while after a restore.
    pub(super) fn for_present_device(
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
                // A sync does not say it: it is the present one's.
                None => true,
            };
            if meant {
                present.push(message);
            }
        }
        Ok(present)
    }

    /// A strict ghost cannot read what it is sent; that somebody sent it a key says that they
    /// encrypted a message before the owner was there to read it.
    fn note_keys_for_strict(
        &self,
        ghost: &OwnedUserId,
        messages: &[Box<RawValue>],
        batch: &mut Batch,
        woken: &mut Vec<ruma::OwnedRoomId>,
    ) -> Result<(), EngineError> {
        #[derive(serde::Deserialize)]
        struct Sender {
            sender: OwnedUserId,
            #[serde(rename = "type")]
            kind: String,
        }
        let rooms = self.store().scan::<OpenWork>(&prefix(ghost), None, 100)?;
        for message in messages {
            let Ok(Sender { sender, kind }) = serde_json::from_str(message.get()) else {
                continue;
            };
            if kind != "m.room.encrypted" {
                continue;
            }
            for ((_, room), ()) in &rooms {
                let arrived = Arrived::KeyForStrict {
                    ghost: ghost.clone(),
                    sender: sender.clone(),
                };
                batch.put::<Inbox>(&(room.clone(), self.next()), &arrived)?;
                woken.push(room.clone());
            }
        }
        Ok(())
    }
}
