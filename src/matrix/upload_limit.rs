//! The size that a file may have, as the homeserver says.

use tokio::time::Instant;

/// The homeserver's limit of the size of a file in bytes, if it has one, and when we asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadLimit {
    pub(super) asked: Instant,
    pub(super) bytes: Option<u64>,
}
