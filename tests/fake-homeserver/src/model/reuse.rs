//! What was sent twice and not the same: the sign of a store that went back.

use std::collections::BTreeMap;

use matrix_sdk_crypto::vodozemac::{base64_decode, olm};
use ruma::CanonicalJsonValue;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What was sent first, by what must never stand for anything else.
#[derive(Debug, Default)]
pub struct Firsts {
    /// Bodies of to-device messages by their transaction id, with whose it is.
    transactions: BTreeMap<String, [u8; 32]>,
    /// Messages by their place in an Olm session.
    places: BTreeMap<Place, [u8; 32]>,
}

/// Which message of an Olm session: who sends it, its ratchet key and its index in the chain. The
/// same place has the same message key.
type Place = (String, String, u64);

impl Firsts {
    /// Returns whether a transaction id has come with another body before.
    pub fn is_other_body(&mut self, transaction: &str, body: &[u8]) -> bool {
        // Its fields may come in another order.
        let canonical = serde_json::from_slice::<CanonicalJsonValue>(body);
        let hash = canonical.map_or_else(|_| hash(body), |body| hash(body.to_string().as_bytes()));
        let first = self.transactions.entry(transaction.to_owned());
        *first.or_insert(hash) != hash
    }

    /// Returns whether a to-device message holds an Olm message at whose place there was another
    /// one.
    pub fn is_other_message(&mut self, content: &Value) -> bool {
        let mut is_other = false;
        for (place, text) in olm_messages(content) {
            let hash = hash(&text);
            is_other |= *self.places.entry(place).or_insert(hash) != hash;
        }
        is_other
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns the Olm messages in the content of a to-device message, each with its place.
fn olm_messages(content: &Value) -> impl Iterator<Item = (Place, Vec<u8>)> {
    let sender = content["sender_key"].as_str();
    let messages = content["ciphertext"].as_object().into_iter().flatten();
    messages.filter_map(move |(_, message)| {
        let kind = message["type"].as_u64()?.try_into().ok()?;
        let text = base64_decode(message["body"].as_str()?).ok()?;
        let message = match olm::OlmMessage::from_parts(kind, &text).ok()? {
            olm::OlmMessage::Normal(message) => message,
            // What begins the session stands around the same message.
            olm::OlmMessage::PreKey(first) => first.message().clone(),
        };
        let key = message.ratchet_key().to_base64();
        let place = (sender?.to_owned(), key, message.chain_index());
        Some((place, message.to_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::vodozemac::olm::{Account, SessionConfig};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_id_stands_for_one_body() {
        let mut firsts = Firsts::default();
        assert!(!firsts.is_other_body("one", br#"{"a": 1, "b": 2}"#));
        assert!(!firsts.is_other_body("one", br#"{"b":2,"a":1}"#));
        assert!(firsts.is_other_body("one", br#"{"a": 1, "b": 3}"#));
        assert!(!firsts.is_other_body("two", br#"{"a": 1, "b": 3}"#));
    }

    /// As when a store went back: the session encrypts a second time from the same place.
    #[test]
    fn a_place_in_a_session_holds_one_message() {
        let (alice, mut sam) = (Account::new(), Account::new());
        sam.generate_one_time_keys(1);
        let key = *sam.one_time_keys().values().next().unwrap();
        let config = SessionConfig::version_1();
        let session = alice.create_outbound_session(config, sam.curve25519_key(), key);
        let mut session = session.unwrap();
        let backup = session.pickle();
        let content = |message: olm::OlmMessage| {
            let (kind, text) = message.to_parts();
            let text = matrix_sdk_crypto::vodozemac::base64_encode(text);
            let to = sam.curve25519_key().to_base64();
            let from = alice.curve25519_key().to_base64();
            json!({"sender_key": from, "ciphertext": {to: {"type": kind, "body": text}}})
        };
        let mut firsts = Firsts::default();
        let first = content(session.encrypt("first").unwrap());
        assert!(!firsts.is_other_message(&first));
        assert!(!firsts.is_other_message(&first), "the same again");
        let second = content(session.encrypt("second").unwrap());
        assert!(!firsts.is_other_message(&second));
        let mut back = olm::Session::from_pickle(backup);
        let again = content(back.encrypt("another one").unwrap());
        assert!(firsts.is_other_message(&again));
    }

    #[test]
    fn what_is_no_olm_message_has_no_place() {
        let mut firsts = Firsts::default();
        for content in [
            json!({}),
            json!({"sender_key": "A", "ciphertext": {"B": {}}}),
        ] {
            assert!(!firsts.is_other_message(&content));
        }
    }
}
