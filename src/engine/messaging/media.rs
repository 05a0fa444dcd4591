//! Files that have to be uploaded again.

use std::collections::HashMap;

use ruma::OwnedEventId;
use serde_json::{Value, json};

use crate::{
    conversation::Participant,
    engine::{EngineError, room::Room},
    relay::MediaToReupload,
};

impl Room {
    /// Uploads a file to our homeserver, because its address would show the sender's server. The
    /// bytes, usually encrypted, are not inspected. Each file is uploaded once: a message may be
    /// retried for days, and goes to several portals.
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
                let acting = self.engine.as_user(&sender.ghost)?;
                let homeserver = self.engine.homeserver();
                let bytes = homeserver
                    .download_media(acting.actor(), media.uri.as_str().into())
                    .await?;
                let uri = homeserver
                    .upload_media(acting.actor(), bytes)
                    .await?
                    .to_string();
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
