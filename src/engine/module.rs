//! What the homeserver's module is told while a room is being created.

use ruma::{OwnedUserId, UserId};

use super::Engine;
use crate::{directory::DirectoryError, handle::Handle};

impl Engine {
    /// For each of these ghosts, whom to invite in its place; `None` leaves the ghost, which then
    /// answers its invite as without the module.
    ///
    /// Nothing is known of the room, nor kept of it.
    pub async fn owners_to_invite(
        &self,
        asker: &UserId,
        ghosts: &[OwnedUserId],
    ) -> Result<Vec<Option<OwnedUserId>>, DirectoryError> {
        let nobody = vec![None; ghosts.len()];
        // Whoever names more handles than this is looking for something else: of so many ghosts
        // all but the first decline.
        if self.is_ours(asker) || ghosts.len() > self.settings().handles_per_room {
            return Ok(nobody);
        }
        let mut places = Vec::new();
        let mut handles = Vec::new();
        for (place, ghost) in ghosts.iter().enumerate() {
            let handle = match self.is_ours(ghost) {
                true => Handle::of_ghost(ghost.localpart()),
                false => None,
            };
            if let Some(handle) = handle.filter(|handle| !handles.contains(handle)) {
                places.push(place);
                handles.push(handle);
            }
        }
        let answers = match handles.is_empty() {
            true => Vec::new(),
            false => {
                let directory = self.directory();
                directory.introduce(asker, &handles, self.now()).await?
            }
        };
        let mut owners = nobody;
        for (place, answer) in places.into_iter().zip(answers) {
            owners[place] = answer;
        }
        Ok(owners)
    }
}
