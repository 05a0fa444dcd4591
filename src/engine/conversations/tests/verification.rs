//! Requests to verify a ghost.

use super::*;

fn request() -> Value {
    json!({
        "body": "@alice:hs.test is requesting to verify your key, but your client does not \
            support in-chat key verification.",
        "from_device": "PHONE", "methods": ["m.sas.v1"], "to": sam(),
        "msgtype": "m.key.verification.request",
    })
}

/// Clients send it like this into encrypted rooms too.
#[tokio::test]
async fn an_unencrypted_request_to_verify_a_ghost_is_declined_at_once_and_explained() {
    let mut it = TwoPeople::begin(true).await;
    let events = EventFactory::room(&origin());
    let request = events.event("m.room.message", "$request", request());
    it.push(&[request]).await;
    it.go_on().await;
    it.is_declined().await;
}

#[tokio::test]
async fn an_encrypted_request_to_verify_a_ghost_is_declined_and_explained_too() {
    let mut it = TwoPeople::begin(true).await;
    let request = it.alice_sends(&request()).await;
    it.push(&[request]).await;
    it.go_on().await;
    it.is_declined().await;
}

impl TwoPeople {
    async fn is_declined(&self) {
        let words = Notice::Verification.text();
        let told = self.told_to_alice().await;
        assert_eq!(told, ["m.key.verification.cancel", &words]);
        assert_eq!(self.talk.fake.sent(&portal()), 0);
    }
}
