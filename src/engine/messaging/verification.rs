//! Verification of keys, which none of our users takes part in: nobody is there to compare them.

use ruma::{OwnedEventId, OwnedUserId};
use serde_json::json;

use crate::engine::{
    EngineError,
    messaging::send::{Outgoing, Recipients},
    room::Room,
};

impl Room {
    /// Declines to verify one of our users. Otherwise the client that asked waits for ten minutes.
    pub(in crate::engine) async fn refuse_verification(
        &self,
        user: &OwnedUserId,
        request: &OwnedEventId,
    ) -> Result<(), EngineError> {
        let content = json!({
            "m.relates_to": { "rel_type": "m.reference", "event_id": request },
            "code": "m.user",
            "reason": "This user verifies nobody",
        });
        let declined = self.send(Outgoing {
            sender: user,
            event_type: "m.key.verification.cancel",
            content: &content,
            recipients: Recipients::Readable(&[]),
            transaction: self.transaction_id(user, "decline-verification", request.as_str()),
        });
        declined.await.map(drop)
    }
}
