//! Other homeservers, while they do not reach ours.
//!
//! After such a cut the other server sends its newest event. Synapse fetches a few before it and
//! pushes those; the older ones it fetches when somebody reads the history, and no sync mentions
//! them.

use std::collections::HashMap;

use super::{
    device::Message,
    server::{Draft, Server, now},
};

/// How old what was said during a cut is when it arrives, by its times, at least. A cut in a test
/// is shorter.
const LATE: u64 = 15_000;

/// What the people of a server have done since it last reached ours.
#[derive(Debug, Default)]
pub struct Cut {
    events: Vec<Held>,
    /// To-device messages for users of the service, with their senders.
    messages: Vec<(String, Vec<Message>)>,
}

#[derive(Debug)]
struct Held {
    room: String,
    id: String,
    draft: Draft,
    sent: u64,
}

/// In which order events are pushed that arrive together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// As they were said.
    InOrder,
    /// The newest first.
    NewestFirst,
}

fn server_of(user: &str) -> &str {
    user.split_once(':').map_or("", |(_, server)| server)
}

impl Server {
    /// From now on nothing that people of this server do reaches ours, until [`Server::end_cut`].
    pub fn begin_cut(&mut self, server_name: &str) {
        self.cuts.insert(server_name.to_owned(), Cut::default());
    }

    /// The homeserver will accept this event of a cut for the sake of the room's history, and show
    /// it to nobody: its sender was no longer allowed to send it.
    pub fn soft_fail(&mut self, event: &str) {
        for cut in self.cuts.values_mut() {
            cut.events.retain(|held| held.id != event);
        }
    }

    /// Lets arrive what was done during a cut. Of each room only so many of the newest events are
    /// pushed, in this order.
    pub fn end_cut(&mut self, server_name: &str, newest: usize, arrival: Arrival) {
        let Some(cut) = self.cuts.remove(server_name) else {
            return;
        };
        let mut rooms: HashMap<String, Vec<String>> = HashMap::new();
        for Held {
            room,
            id,
            draft,
            sent,
        } in cut.events
        {
            rooms.entry(room.clone()).or_default().push(id.clone());
            self.insert(&room, id, draft, sent.saturating_sub(LATE));
        }
        for (room_id, mut came) in rooms {
            let mut pushed = came.split_off(came.len().saturating_sub(newest));
            if let Some(room) = self.rooms.get_mut(&room_id) {
                for id in came {
                    room.backfilled.insert(id);
                }
            }
            if arrival == Arrival::NewestFirst {
                pushed.reverse();
            }
            for id in pushed {
                self.announce(&room_id, &id);
            }
        }
        for (sender, messages) in cut.messages {
            self.send_to_service(&sender, messages);
        }
    }

    /// Keeps an event of somebody whose server does not reach ours, or gives it back.
    pub(super) fn hold(&mut self, room: &str, id: &str, draft: Draft) -> Option<Draft> {
        let Some(cut) = self.cuts.get_mut(server_of(&draft.sender)) else {
            return Some(draft);
        };
        cut.events.push(Held {
            room: room.to_owned(),
            id: id.to_owned(),
            draft,
            sent: now(),
        });
        None
    }

    /// Returns whether somebody has sent an event during a cut that lasts.
    pub(super) fn is_held(&self, sender: &str, event: &str) -> bool {
        let cut = self.cuts.get(server_of(sender));
        cut.is_some_and(|cut| cut.events.iter().any(|held| held.id == event))
    }

    /// Keeps messages for the service of somebody whose server does not reach ours, or gives them
    /// back.
    pub(super) fn hold_messages(
        &mut self,
        sender: &str,
        messages: Vec<Message>,
    ) -> Option<Vec<Message>> {
        let Some(cut) = self.cuts.get_mut(server_of(sender)) else {
            return Some(messages);
        };
        cut.messages.push((sender.to_owned(), messages));
        None
    }
}
