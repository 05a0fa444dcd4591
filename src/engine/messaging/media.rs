//! Files that have to be uploaded again.

use ruma::{MxcUri, OwnedEventId};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::{
    conversation::Participant,
    engine::{
        EngineError,
        room::{Room, UploadedMedia},
    },
    matrix::{MEDIA_BEGINS_WITHIN, MatrixError},
    relay::{MediaToReupload, MediaUse, remove_media},
};

impl Room {
    /// Uploads the files of an event to our homeserver, because their addresses would show the
    /// sender's server. The bytes, usually encrypted, are not inspected.
    ///
    /// What the event can do without is taken out of `content` if it cannot be had soon: it never
    /// holds up what is said.
    pub(in crate::engine) async fn reupload(
        &mut self,
        event: &OwnedEventId,
        sender: &Participant,
        media: &[MediaToReupload],
        content: &mut Value,
    ) -> Result<(), EngineError> {
        if self.uploaded.event.as_ref() != Some(event) {
            self.uploaded = UploadedMedia {
                event: Some(event.clone()),
                ..UploadedMedia::default()
            };
        }
        let mut missing = Vec::new();
        // All extras together have this long.
        let mut extras_until = None;
        for media in media {
            let known = self.uploaded.addresses.get(&media.uri).cloned();
            let address = match (known, media.used_as) {
                (Some(Some(address)), _) => Some(address),
                (_, MediaUse::Message) => Some(self.transfer(sender, media).await?),
                (Some(None), MediaUse::Extra) => None,
                (None, MediaUse::Extra) => {
                    let until =
                        *extras_until.get_or_insert_with(|| Instant::now() + MEDIA_BEGINS_WITHIN);
                    match timeout_at(until, self.transfer(sender, media)).await {
                        Ok(Ok(address)) => Some(address),
                        // Then nothing can be sent either.
                        Ok(Err(error @ EngineError::Stopping)) => return Err(error),
                        Ok(Err(error @ EngineError::Matrix(MatrixError::Unreachable(_)))) => {
                            return Err(error);
                        }
                        Ok(Err(error)) => {
                            tracing::info!(room = %self.id, %error, "an event goes without a picture");
                            None
                        }
                        Err(_) => {
                            tracing::info!(room = %self.id, "an event goes without a picture, which was too slow");
                            None
                        }
                    }
                }
            };
            match &address {
                Some(address) => {
                    if let Some(place) = content.pointer_mut(&media.pointer) {
                        *place = json!(address);
                    }
                }
                None => missing.push(media),
            }
            self.uploaded.addresses.insert(media.uri.clone(), address);
        }
        for media in missing.into_iter().rev() {
            remove_media(content, media);
        }
        Ok(())
    }

    async fn transfer(
        &self,
        sender: &Participant,
        media: &MediaToReupload,
    ) -> Result<String, EngineError> {
        let engine = &self.engine;
        let acting = engine.as_user(&sender.ghost)?;
        let uri: &MxcUri = media.uri.as_str().into();
        let _place = engine.place_for_media(uri).await?;
        let transfer = engine.homeserver().transfer_media(
            acting.actor(),
            uri,
            media.content_type.as_deref(),
            engine.settings().conversations.media_bytes_max,
        );
        let transferred = engine.unless_stopping(async { Some(transfer.await) });
        Ok(transferred.await??.to_string())
    }
}
