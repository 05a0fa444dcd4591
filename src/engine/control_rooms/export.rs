//! Sends a person what is kept about them.

use std::io::{Cursor, Read as _};

use matrix_sdk_crypto::AttachmentEncryptor;
use ruma::api::client::media::create_content;
use serde_json::{Value, json};

use crate::{
    engine::{
        EngineError,
        messaging::send::{Outgoing, Recipients},
        room::Room,
    },
    ids::Person,
    introduction::Refusal,
};

/// The name of the file.
const FILE: &str = "stonechat-data.json";
/// What is said of it.
const CAPTION: &str = "All that I keep about you, as a file for programs (JSON). Of other people it \
                       holds only what you've seen of them. `forget me` deletes it.";

impl Room {
    /// Sends a person all that is kept about them, as an encrypted file, in their control room.
    pub(in crate::engine) async fn send_export(
        &self,
        person: &Person,
        number: u64,
    ) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let (asked, of) = (engine.clone(), person.clone());
        // It reads whole tables.
        let exported = tokio::task::spawn_blocking(move || asked.export_person(&of)).await;
        let exported = exported.map_err(|_| EngineError::Refused(Refusal::Impossible))??;
        let text = serde_json::to_vec_pretty(&exported)?;
        let size = text.len();
        let (sealed, mut file) = encrypt(text)?;

        let bot = engine.settings().bot.clone();
        let acting = engine.as_user(&bot)?;
        let upload = create_content::v3::Request::new(sealed);
        let uploaded = engine.homeserver().send(acting.actor(), upload).await?;
        file["url"] = json!(uploaded.content_uri);
        let content = json!({
            "msgtype": "m.file", "body": CAPTION, "filename": FILE, "file": file,
            "info": { "mimetype": "application/json", "size": size },
        });
        self.send(Outgoing {
            sender: &bot,
            event_type: "m.room.message",
            content: &content,
            recipients: Recipients::Only(person),
            transaction: self.transaction_id(&bot, "export", &number.to_string()),
        })
        .await?;
        Ok(())
    }
}

/// Encrypts a file ([attachments](https://spec.matrix.org/v1.19/client-server-api/#sending-encrypted-attachments)).
/// Returns its ciphertext, and what opens it: an `EncryptedFile` without its address.
fn encrypt(text: Vec<u8>) -> Result<(Vec<u8>, Value), EngineError> {
    let mut text = Cursor::new(text);
    let mut encryptor = AttachmentEncryptor::new(&mut text);
    let mut sealed = Vec::new();
    encryptor
        .read_to_end(&mut sealed)
        .map_err(|_| EngineError::Refused(Refusal::Impossible))?;
    Ok((sealed, serde_json::to_value(encryptor.finish())?))
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::AttachmentDecryptor;

    use super::*;

    #[test]
    fn a_file_is_opened_by_what_comes_with_it_and_by_nothing_else() {
        let (sealed, file) = encrypt(b"what is kept".to_vec()).unwrap();
        assert_eq!(file["v"], "v2");
        assert!(!sealed.windows(4).any(|part| part == b"kept"));
        let mut sealed = Cursor::new(sealed);
        let info = serde_json::from_value(file).unwrap();
        let mut opened = String::new();
        let mut decryptor = AttachmentDecryptor::new(&mut sealed, info).unwrap();
        decryptor.read_to_string(&mut opened).unwrap();
        assert_eq!(opened, "what is kept");
    }
}
