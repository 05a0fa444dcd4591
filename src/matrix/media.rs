//! Media, transferred from wherever they are to the homeserver, a chunk at a time.

use std::{
    io,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{
    Method, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use ruma::{MxcUri, OwnedMxcUri, api::client::authenticated_media::get_media_config};
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Actor, Homeserver, MatrixError, answer::AnswerStream, homeserver::parse_json,
    upload_limit::UploadLimit,
};

/// How long the homeserver may take until it begins to send a file, which it may have to fetch from
/// another server.
pub const MEDIA_BEGINS_WITHIN: Duration = Duration::from_secs(20);

/// The least rate of a file that has begun to come, in bytes per second, after as long as it may take
/// to begin.
const LEAST_RATE: u64 = 128 << 10;

/// Returns how long a file of this size, in bytes, may take to come once it was asked for.
pub fn longest_transfer(bytes: u64) -> Duration {
    MEDIA_BEGINS_WITHIN.saturating_mul(2) + Duration::from_secs(bytes / LEAST_RATE)
}

/// How long the homeserver's limit is taken for known.
const LIMIT_HOLDS_FOR: Duration = Duration::from_secs(60 * 60);

/// Maximum length of a media type, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 100;

#[derive(Deserialize)]
struct UploadAnswer {
    content_uri: OwnedMxcUri,
}

/// What a file may cost.
#[derive(Debug)]
pub struct FileLimits {
    /// How long it may take until it begins to come. What it takes is taken off.
    pub begins_within: Duration,
    /// Maximum size in bytes.
    pub bytes_max: u64,
}

const UNAVAILABLE: MatrixError = MatrixError::MediaUnavailable { retry_after: None };

impl Homeserver {
    /// Uploads a file that may be on any server to our homeserver, without a name. Only the chunks
    /// that are on their way are in memory.
    ///
    /// Without `content_type`, the file keeps the type with which it is downloaded.
    ///
    /// # Errors
    ///
    /// [`MatrixError::MediaTooLarge`] if it has more than the limit, or more than the homeserver
    /// takes; [`MatrixError::MediaMissing`] if there is no such file;
    /// [`MatrixError::MediaUnavailable`] if it cannot be had now.
    pub async fn transfer_media(
        &self,
        who: Actor<'_>,
        uri: &MxcUri,
        content_type: Option<&str>,
        limits: &mut FileLimits,
    ) -> Result<OwnedMxcUri, MatrixError> {
        let own = self.upload_bytes_max(who).await?;
        let limit = own.map_or(limits.bytes_max, |own| own.min(limits.bytes_max));
        let within = |length: u64| match length <= limit {
            true => Ok(length),
            false => Err(MatrixError::MediaTooLarge { limit: Some(limit) }),
        };
        let named = own.map(|_| limit);
        let waits = &mut limits.begins_within;
        let mut download = self.download(who, uri, named, waits).await?;
        let length = match download.answer.length() {
            Some(length) => within(length)?,
            // An upload has to begin with its length, so the file is read twice.
            None => {
                let mut length = 0;
                while let Some(chunk) = download.chunk().await? {
                    length = within(length + chunk.len() as u64)?;
                }
                download = self.download(who, uri, named, waits).await?;
                length
            }
        };
        let downloaded = download
            .answer
            .header(CONTENT_TYPE)
            .filter(|kind| is_media_type(kind));
        let content_type = content_type.or(downloaded);
        let content_type = content_type
            .unwrap_or("application/octet-stream")
            .to_owned();
        self.upload(who, download, length, &content_type).await
    }

    async fn download(
        &self,
        who: Actor<'_>,
        uri: &MxcUri,
        limit: Option<u64>,
        begins_within: &mut Duration,
    ) -> Result<Download, MatrixError> {
        let (server, id) = uri
            .parts()
            .map_err(|error| MatrixError::Request(error.to_string()))?;
        let path = ["_matrix", "client", "v1", "media", "download"];
        let path = [path.as_slice(), &[server.as_str(), id]].concat();
        let waits = begins_within.as_millis().to_string();
        let request = self.request(Method::GET, who, &path, &[("timeout_ms", &waits)])?;
        // A compressed answer would have no length.
        let request = request.header(ACCEPT_ENCODING, "identity");
        let asked = Instant::now();
        let opened = self.open(request, *begins_within).await;
        *begins_within = begins_within.saturating_sub(asked.elapsed());
        match opened {
            Ok(answer) => Ok(Download {
                answer,
                bytes: 0,
                waited: Duration::ZERO,
                slack: MEDIA_BEGINS_WITHIN.min(self.request_timeout()),
            }),
            // Synapse fetches no file that is larger than it would take itself.
            Err(error) if error.errcode() == Some("M_TOO_LARGE") => {
                Err(MatrixError::MediaTooLarge { limit })
            }
            Err(error) => match self.explain(who, error, asked).await {
                error if error.missing_user().is_some() => Err(error),
                error => Err(self.why_unavailable(error).await),
            },
        }
    }

    /// Tells a file that cannot be had from a homeserver that does not answer.
    async fn why_unavailable(&self, error: MatrixError) -> MatrixError {
        match &error {
            MatrixError::Unreachable(cause) if cause.is_connect() => error,
            MatrixError::Request(_) => error,
            MatrixError::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED => error,
            // A proxy answers like this when the homeserver is away, but also when only the part of
            // it is that has the media.
            MatrixError::TimedOut | MatrixError::Failing { errcode: None, .. }
                if !self.is_answering().await =>
            {
                error
            }
            _ if error.is_missing() => MatrixError::MediaMissing,
            _ => MatrixError::MediaUnavailable {
                retry_after: error.retry_after(),
            },
        }
    }

    /// Uploads what is being downloaded. At most two chunks wait here.
    async fn upload(
        &self,
        who: Actor<'_>,
        download: Download,
        length: u64,
        content_type: &str,
    ) -> Result<OwnedMxcUri, MatrixError> {
        let (chunks, taken) = mpsc::channel::<Bytes>(1);
        let body = stream::unfold(taken, |mut taken| async {
            let chunk = taken.recv().await?;
            Some((Ok::<_, io::Error>(chunk), taken))
        });
        let path = ["_matrix", "media", "v3", "upload"];
        let request = self
            .request(Method::POST, who, &path, &[])?
            .header(CONTENT_TYPE, content_type)
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(body));
        let began = Instant::now();
        let mut upload = std::pin::pin!(self.execute(request));
        // Dropping the upload ends it, so that nothing is left of a file that is cut off.
        let answer = tokio::select! {
            answer = &mut upload => answer,
            passed_on = pass_on(download, length, &chunks, self.request_timeout()) => {
                passed_on?;
                drop(chunks);
                timeout(self.request_timeout(), upload)
                    .await
                    .map_err(|_| MatrixError::TimedOut)?
            }
        };
        match answer {
            Ok(answer) => Ok(parse_json::<UploadAnswer>(&answer)?.content_uri),
            Err(MatrixError::Refused { status, .. }) if status == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(MatrixError::MediaTooLarge { limit: None })
            }
            // A proxy with a limit of its own may break the connection.
            Err(MatrixError::Unreachable(cause)) if !cause.is_connect() => Err(UNAVAILABLE),
            Err(error) => Err(self.explain(who, error, began).await),
        }
    }

    /// Returns the homeserver's limit of the size of a file, if it has one and says so.
    async fn upload_bytes_max(&self, who: Actor<'_>) -> Result<Option<u64>, MatrixError> {
        let known = *self.known_limit();
        if let Some(known) = known.filter(|known| known.asked.elapsed() < LIMIT_HOLDS_FOR) {
            return Ok(known.bytes);
        }
        let bytes = match self.send(who, get_media_config::v1::Request::new()).await {
            Ok(answer) => Some(answer.upload_size.into()),
            Err(error) if error.missing_user().is_some() => return Err(error),
            Err(error) if error.is_temporary() => return Ok(known.and_then(|known| known.bytes)),
            Err(_) => None,
        };
        let asked = Instant::now();
        *self.known_limit() = Some(UploadLimit { asked, bytes });
        Ok(bytes)
    }

    fn known_limit(&self) -> MutexGuard<'_, Option<UploadLimit>> {
        let known = self.upload_limit().lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is being downloaded, no slower than [`LEAST_RATE`].
struct Download {
    answer: AnswerStream,
    /// How much of it has come.
    bytes: u64,
    /// How long that was waited for.
    waited: Duration,
    /// How long it may lag behind.
    slack: Duration,
}

impl Download {
    /// Returns the next chunk; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, MatrixError> {
        let at_least = Duration::from_millis(self.bytes.saturating_mul(1000) / LEAST_RATE);
        let left = (self.slack + at_least).saturating_sub(self.waited);
        let asked = Instant::now();
        let chunk = timeout(left, self.answer.chunk()).await;
        self.waited += asked.elapsed();
        let Ok(Ok(chunk)) = chunk else {
            return Err(UNAVAILABLE);
        };
        self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }
}

/// Passes a download on to an upload, which may take each chunk as late as `pause`.
async fn pass_on(
    mut download: Download,
    length: u64,
    upload: &mpsc::Sender<Bytes>,
    pause: Duration,
) -> Result<(), MatrixError> {
    let mut passed = 0;
    while let Some(chunk) = download.chunk().await? {
        passed += chunk.len() as u64;
        if passed > length {
            return Err(UNAVAILABLE);
        }
        match timeout(pause, upload.send(chunk)).await {
            Ok(Ok(())) => {}
            // The upload has its answer already.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(MatrixError::TimedOut),
        }
    }
    if passed == length {
        Ok(())
    } else {
        Err(UNAVAILABLE)
    }
}

/// Returns whether a text is a media type without parameters.
pub fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-' | b'_');
        !part.is_empty() && part.bytes().all(known)
    };
    let parts = text.split_once('/');
    text.len() <= CONTENT_TYPE_BYTES_MAX
        && parts.is_some_and(|(kind, subtype)| name(kind) && name(subtype))
}
