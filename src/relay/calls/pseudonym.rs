//! Pseudonyms for the ids that clients give themselves in calls.
//!
//! A client tells its own calls from those of other clients by a `party_id`, and some use their
//! device id for it. The other side has to see a stable id, and the client has to recognise it when
//! it comes back: the caller names the party that answered, by the id that the caller was shown,
//! and the client that answered looks for its own. So a pseudonym is the id itself, encrypted under
//! a key of the conversation and bound to its owner, with a nonce derived from both. It is
//! decrypted only for its owner: in a group the rooms of all others see it too.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    ChaCha20Poly1305, Key, Nonce,
    aead::{Aead as _, KeyInit as _, Payload},
};
use hkdf::Hkdf;
use ruma::UserId;
use sha2::Sha256;

use super::super::context::Context;

/// Size of a nonce, in bytes.
const NONCE_BYTES: usize = 12;
/// Size of an authentication tag, in bytes.
const TAG_BYTES: usize = 16;
/// Maximum length of an id, in bytes.
const ID_BYTES_MAX: usize = 255;
/// Maximum length of a pseudonym, in bytes: that of the longest id.
const PSEUDONYM_BYTES_MAX: usize = ((NONCE_BYTES + ID_BYTES_MAX + TAG_BYTES) * 4).div_ceil(3);

/// Returns the pseudonym of an id of the sender's client; `None` if the id is empty or too long.
pub(super) fn own(context: &Context<'_>, id: &str) -> Option<String> {
    fits(id, ID_BYTES_MAX).then(|| masked(context.pseudonym_key, context.sender, id))?
}

/// Returns the id in the target room for a pseudonym of another client: in its owner's room the id
/// itself, in all others an id that belongs to nobody.
pub(super) fn of_another(context: &Context<'_>, id: &str) -> Option<String> {
    if !fits(id, PSEUDONYM_BYTES_MAX) {
        return None;
    }
    let key = context.pseudonym_key;
    context
        .aliases
        .iter()
        .find_map(|alias| unmasked(key, &alias.target, id))
        .or_else(|| masked(key, context.sender, id))
}

fn fits(id: &str, longest: usize) -> bool {
    !id.is_empty() && id.len() <= longest
}

/// Returns a short string that is derived from another one and does not reveal it.
pub(super) fn digest(key: &[u8; 32], of: &str) -> Option<String> {
    let mut out = [0; 8];
    derived(key, b"digest", &[of], &mut out)?;
    Some(hex::encode(out))
}

fn masked(key: &[u8; 32], owner: &UserId, id: &str) -> Option<String> {
    let mut nonce = [0; NONCE_BYTES];
    derived(key, b"nonce", &[owner.as_str(), id], &mut nonce)?;
    let payload = Payload {
        msg: id.as_bytes(),
        aad: owner.as_bytes(),
    };
    let sealed = cipher(key)?.encrypt(Nonce::from_slice(&nonce), payload);
    let mut out = nonce.to_vec();
    out.extend(sealed.ok()?);
    Some(URL_SAFE_NO_PAD.encode(out))
}

fn unmasked(key: &[u8; 32], owner: &UserId, pseudonym: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(pseudonym).ok()?;
    let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
    let payload = Payload {
        msg: sealed,
        aad: owner.as_bytes(),
    };
    let id = cipher(key)?
        .decrypt(Nonce::from_slice(nonce), payload)
        .ok()?;
    String::from_utf8(id).ok()
}

fn cipher(key: &[u8; 32]) -> Option<ChaCha20Poly1305> {
    let mut own = [0; 32];
    derived(key, b"key", &[], &mut own)?;
    Some(ChaCha20Poly1305::new(Key::from_slice(&own)))
}

fn derived(key: &[u8; 32], what: &[u8], of: &[&str], out: &mut [u8]) -> Option<()> {
    let kdf = Hkdf::<Sha256>::new(Some(b"stonechat pseudonym"), key);
    let mut info = vec![what];
    for part in of {
        // No Matrix ID and no id of a client contains this separator.
        info.push(b"\0");
        info.push(part.as_bytes());
    }
    kdf.expand_multi_info(&info, out).ok()
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn a_pseudonym_is_always_the_same_and_opens_for_its_owner_alone() {
        let (alice, kim) = (user_id!("@alice:far.example"), user_id!("@kim:hs.test"));
        let shown = masked(&KEY, alice, "ALICESDEVICE").unwrap();
        assert_eq!(masked(&KEY, alice, "ALICESDEVICE").unwrap(), shown);
        assert!(!shown.contains("ALICE"));
        assert!(shown.len() < 255);
        assert_ne!(masked(&KEY, kim, "ALICESDEVICE").unwrap(), shown);
        assert_ne!(masked(&[8; 32], alice, "ALICESDEVICE").unwrap(), shown);
        assert_eq!(unmasked(&KEY, alice, &shown).unwrap(), "ALICESDEVICE");
        assert_eq!(unmasked(&KEY, kim, &shown), None);
        assert_eq!(unmasked(&[8; 32], alice, &shown), None);
        assert_eq!(unmasked(&KEY, alice, "ALICESDEVICE"), None);
        assert_eq!(unmasked(&KEY, alice, "not base64 äöü"), None);
    }

    #[test]
    fn an_empty_or_overlong_id_has_no_pseudonym() {
        assert!(!fits("", ID_BYTES_MAX));
        assert!(!fits(&"x".repeat(256), ID_BYTES_MAX));
        assert!(fits(&"x".repeat(255), ID_BYTES_MAX));
    }

    #[test]
    fn the_pseudonym_of_the_longest_id_is_not_too_long_to_come_back() {
        let (alice, longest) = (user_id!("@alice:far.example"), "x".repeat(ID_BYTES_MAX));
        let shown = masked(&KEY, alice, &longest).unwrap();
        assert_eq!(shown.len(), PSEUDONYM_BYTES_MAX);
        assert_eq!(unmasked(&KEY, alice, &shown).unwrap(), longest);
    }
}
