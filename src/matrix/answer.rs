//! An answer of the homeserver, read as it arrives.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::MatrixError;

/// An answer that is read as it arrives.
#[derive(Debug)]
pub(super) struct AnswerStream {
    pub(super) response: reqwest::Response,
    /// How long the next chunk may take.
    pub(super) pause: Duration,
    /// When the whole answer has to be there.
    pub(super) deadline: Instant,
}

impl AnswerStream {
    /// Returns a header of the answer.
    pub(super) fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns the length that the answer says it has.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Returns the next chunk; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, MatrixError> {
        let latest = self.deadline.min(Instant::now() + self.pause);
        match timeout_at(latest, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(MatrixError::from_transport),
            Err(_) => Err(MatrixError::TimedOut),
        }
    }

    /// Returns the rest of the answer.
    pub(super) async fn read_rest(&mut self, limit: usize) -> Result<Vec<u8>, MatrixError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(MatrixError::TooLong { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
