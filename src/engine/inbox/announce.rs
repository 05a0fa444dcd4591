//! Announces room keys to the rooms that wait for one.

use ruma::UserId;

use crate::{
    engine::{
        Engine, EngineError,
        records::{ActiveRoomsByGhost, InboxItem, RoomRecord, Rooms},
    },
    store::Batch,
};

impl Engine {
    /// Announces a key to every room that waits for one, as after a start: a machine saves a key
    /// before its room is told, and a crash may have come in between. A room whose key is not there
    /// waits on.
    pub(in crate::engine) fn announce_keys_again(&self) -> Result<(), EngineError> {
        for page in self.store().pages::<ActiveRoomsByGhost>(&[]) {
            let mut batch = Batch::new();
            for ((user, room), ()) in page? {
                let record = self.store().get::<Rooms>(&room)?;
                if record.is_some_and(|record| self.waits_for_key(&record, &user)) {
                    let arrived = InboxItem::RoomKeyArrived { user };
                    self.stage(&room, &arrived, &mut batch)?;
                }
            }
            self.store().apply(batch)?;
        }
        Ok(())
    }

    /// Returns whether something in a room waits for a key that is sent to this user. (Messages of a
    /// conversation look for their key by themselves.)
    fn waits_for_key(&self, record: &RoomRecord, user: &UserId) -> bool {
        if *user == self.settings().bot {
            let control = record.control.as_ref();
            return control.is_some_and(|control| !control.waiting.is_empty());
        }
        record.introductions.iter().any(|introduction| {
            let mut pending = introduction.pending.iter();
            *introduction.ghost == *user && pending.any(|pending| pending.unreadable)
        })
    }
}
