//! Files that have to be uploaded again.
//!
//! What waits behind an event waits for its files together [`MEDIA_BEGINS_WITHIN`] at most, over all
//! attempts and all rooms that it goes to; a file that has begun to come may take as long as its
//! size needs.

use std::time::Duration;

use ruma::{MxcUri, OwnedEventId};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    conversation::Participant,
    engine::{
        EngineError,
        room::{FileFailure, Room, UploadedMedia},
    },
    matrix::{FileLimits, MEDIA_BEGINS_WITHIN, MatrixError},
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
            self.uploaded = UploadedMedia::of(event.clone());
        }
        if let Some(failure) = self.uploaded.failure {
            return Err(failure.into());
        }
        let mut missing = Vec::new();
        for media in media {
            let known = self.uploaded.addresses.get(&media.uri).cloned();
            let address = match (known, media.used_as) {
                (Some(Some(address)), _) => Some(address),
                (Some(None), MediaUse::Extra) => None,
                (_, MediaUse::Message) => Some(self.transfer_needed(sender, media).await?),
                (None, MediaUse::Extra) => self.transfer_extra(sender, media).await?,
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

    /// Transfers a file without which the event is nothing. If it is given up, it is given up for
    /// all rooms that the event goes to.
    async fn transfer_needed(
        &mut self,
        sender: &Participant,
        media: &MediaToReupload,
    ) -> Result<String, EngineError> {
        let begun = self.engine.now();
        let (error, is_waited_for) = match self.transfer(sender, media).await {
            (Ok(address), _) => {
                self.uploaded.failing_since = None;
                return Ok(address);
            }
            (Err(error), is_waited_for) => (error, is_waited_for),
        };
        let now = self.engine.now();
        let uploaded = &mut self.uploaded;
        let failure = match &error {
            EngineError::Matrix(MatrixError::MediaTooLarge { limit }) => {
                Some(FileFailure::TooLarge { limit: *limit })
            }
            // Once may be chance.
            EngineError::Matrix(MatrixError::MediaMissing) => {
                let before = uploaded.not_found.replace(media.uri.clone());
                (before.as_ref() == Some(&media.uri)).then_some(FileFailure::Unavailable)
            }
            EngineError::Matrix(MatrixError::MediaUnavailable { .. }) => {
                let since = *uploaded.failing_since.get_or_insert(begun);
                let is_over = !is_waited_for
                    || uploaded.wait_left.is_zero()
                    || now.since(since) >= MEDIA_BEGINS_WITHIN;
                if is_over && is_waited_for {
                    self.note_failing_media(sender, media, now.since(since));
                }
                is_over.then_some(FileFailure::Unavailable)
            }
            // That is not the file's fault.
            _ => {
                uploaded.failing_since = None;
                uploaded.wait_left = MEDIA_BEGINS_WITHIN;
                None
            }
        };
        self.uploaded.failure = failure;
        Err(failure.map_or(error, EngineError::from))
    }

    /// Transfers a file that the event can do without. Returns `None` if it cannot be had now.
    async fn transfer_extra(
        &mut self,
        sender: &Participant,
        media: &MediaToReupload,
    ) -> Result<Option<String>, EngineError> {
        let (begun, left) = (Instant::now(), self.uploaded.wait_left);
        let transferred = timeout(left, self.transfer(sender, media)).await;
        // All of it counts, not only what comes before it begins.
        self.uploaded.wait_left = left.saturating_sub(begun.elapsed());
        match transferred {
            Ok((Ok(address), _)) => Ok(Some(address)),
            // Then nothing can be sent either.
            Ok((
                Err(
                    error @ (EngineError::Stopping
                    | EngineError::Matrix(
                        MatrixError::Unreachable(_)
                        | MatrixError::NoSuchUser { .. }
                        | MatrixError::NoSuchDevice { .. },
                    )),
                ),
                _,
            )) => Err(error),
            Ok((Err(error), is_waited_for)) => {
                let unavailable = matches!(
                    error,
                    EngineError::Matrix(MatrixError::MediaUnavailable { .. })
                );
                if unavailable && is_waited_for {
                    self.note_failing_media(sender, media, begun.elapsed());
                }
                tracing::info!(room = %self.id, %error, "an event goes without a picture");
                Ok(None)
            }
            Err(_) => {
                self.note_failing_media(sender, media, begun.elapsed());
                tracing::info!(room = %self.id, "an event goes without a picture, which was too slow");
                Ok(None)
            }
        }
    }

    /// Notes that a file was given up after it was waited for. One that had little time left says
    /// nothing of its server.
    fn note_failing_media(&self, sender: &Participant, media: &MediaToReupload, waited: Duration) {
        if !self.uploaded.was_asked {
            return;
        }
        let uri: &MxcUri = media.uri.as_str().into();
        let server = uri.server_name().ok();
        let server = server.filter(|_| waited >= MEDIA_BEGINS_WITHIN / 2);
        let (failing, now) = (self.engine.failing_media(), self.engine.now());
        failing.note_failure(server, &sender.user, now);
    }

    /// Transfers a file. Returns also whether it was waited for as long as may be.
    async fn transfer(
        &mut self,
        sender: &Participant,
        media: &MediaToReupload,
    ) -> (Result<String, EngineError>, bool) {
        let uri: &MxcUri = media.uri.as_str().into();
        let server = match uri.server_name() {
            Ok(server) => server,
            Err(error) => return (Err(MatrixError::Request(error.to_string()).into()), true),
        };
        let (failing, now) = (self.engine.failing_media(), self.engine.now());
        let short = failing.short_wait(server, &sender.user, now);
        self.uploaded.was_asked = false;
        let left = self.uploaded.wait_left;
        let within = short.map_or(left, |short| short.min(left));
        let mut limits = FileLimits {
            begins_within: within,
            bytes_max: self.engine.settings().conversations.media_bytes_max,
        };
        let transferred = if within.is_zero() {
            Err(MatrixError::MediaUnavailable { retry_after: None }.into())
        } else {
            self.transfer_within(sender, uri, media, &mut limits).await
        };
        self.engine.0.progress.note_done();
        let waited = within.saturating_sub(limits.begins_within);
        self.uploaded.wait_left = left.saturating_sub(waited);
        if transferred.is_ok() {
            self.engine
                .failing_media()
                .note_success(server, &sender.user);
        }
        (transferred, short.is_none())
    }

    async fn transfer_within(
        &mut self,
        sender: &Participant,
        uri: &MxcUri,
        media: &MediaToReupload,
        limits: &mut FileLimits,
    ) -> Result<String, EngineError> {
        let engine = self.engine.clone();
        let acting = engine.as_user(&sender.ghost)?;
        let asked = Instant::now();
        let place = engine.place_for_media(uri, limits.begins_within).await;
        limits.begins_within = limits.begins_within.saturating_sub(asked.elapsed());
        let _place = place?;
        self.uploaded.was_asked = true;
        let kind = media.content_type.as_deref();
        let homeserver = engine.homeserver();
        let transfer = homeserver.transfer_media(acting.actor(), uri, kind, limits);
        let transferred = engine.unless_stopping(async { Some(transfer.await) });
        Ok(transferred.await??.to_string())
    }
}
