//! Content that has to be uploaded anew.

use std::collections::HashMap;

use ruma::OwnedEventId;
use serde_json::{Value, json};

use crate::{
    conversation::Participant,
    engine::{EngineError, room::Room},
    matrix::Actor,
    relay::MediaToReupload,
};

/// What was uploaded anew for the event that is being carried: the new address by the old one.
pub(in crate::engine) type Uploaded = (Option<OwnedEventId>, HashMap<String, String>);

impl Room {
    /// A file of another homeserver would tell which: its bytes, which are encrypted as a rule and
    /// are not looked at, are given to ours.
    ///
    /// Once: a message may be tried again for days, and goes into several portals.
    pub(in crate::engine) async fn reupload(
        &mut self,
        event: &OwnedEventId,
        sender: &Participant,
        media: &MediaToReupload,
        content: &mut Value,
    ) -> Result<(), EngineError> {
        if self.uploaded.0.as_ref() != Some(event) {
            self.uploaded = (Some(event.clone()), HashMap::new());
        }
        let uri = match self.uploaded.1.get(&media.uri) {
            Some(uri) => uri.clone(),
            None => {
                let device = self.engine.device_of(&sender.ghost)?;
                let actor = Actor::device(&sender.ghost, &device);
                let homeserver = self.engine.homeserver();
                let bytes = homeserver.media(actor, media.uri.as_str().into()).await?;
                let uri = homeserver.give_media(actor, bytes).await?.to_string();
                self.uploaded.1.insert(media.uri.clone(), uri.clone());
                uri
            }
        };
        if let Some(place) = content.pointer_mut(&media.pointer) {
            *place = json!(uri);
        }
        Ok(())
    }
}
