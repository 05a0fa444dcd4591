//! Media, downloaded from and uploaded to the homeserver unchanged.

use ruma::{
    MxcUri, OwnedMxcUri,
    api::client::{authenticated_media::get_content, media::create_content},
};

use super::{Actor, Homeserver, MatrixError};

/// Maximum size of a file that is downloaded, in bytes.
pub const MEDIA_BYTES_MAX: usize = 100 << 20;

impl Homeserver {
    /// Downloads a file.
    pub async fn download_media(
        &self,
        who: Actor<'_>,
        uri: &MxcUri,
    ) -> Result<Vec<u8>, MatrixError> {
        let request = get_content::v1::Request::from_uri(uri)
            .map_err(|error| MatrixError::Request(error.to_string()))?;
        let answer = self.send(who, request).await?;
        if answer.file.len() > MEDIA_BYTES_MAX {
            return Err(MatrixError::Request("the file is too large".to_owned()));
        }
        Ok(answer.file)
    }

    /// Uploads a file, without a name and of no particular type.
    pub async fn upload_media(
        &self,
        who: Actor<'_>,
        bytes: Vec<u8>,
    ) -> Result<OwnedMxcUri, MatrixError> {
        let mut request = create_content::v3::Request::new(bytes);
        request.content_type = Some("application/octet-stream".to_owned());
        self.send(who, request)
            .await
            .map(|answer| answer.content_uri)
    }
}
