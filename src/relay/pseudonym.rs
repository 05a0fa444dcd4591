//! Names in the place of those that clients give themselves in calls.
//!
//! A client tells its calls from those of another by a `party_id`, and some take their device id
//! for it. The other side has to see one that is always the same, and what it says of it has to be
//! understood when it comes back: the caller names the party that answered, as it was shown to the
//! caller, and the client that answered looks for its own. So a pseudonym is the id itself,
//! encrypted under a key of the conversation with a nonce that follows from the id; what comes back
//! is decrypted, and whatever cannot be decrypted is somebody's own.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    ChaCha20Poly1305, Key, Nonce,
    aead::{Aead as _, KeyInit as _},
};
use hkdf::Hkdf;
use sha2::Sha256;

/// Bytes of a nonce.
const NONCE: usize = 12;
/// The longest id that is taken for one.
const LONGEST: usize = 255;

/// The pseudonym of an id, or the id of a pseudonym. `None` for what is too long, or empty.
pub(super) fn exchanged(key: &[u8; 32], id: &str) -> Option<String> {
    if id.is_empty() || id.len() > LONGEST {
        return None;
    }
    unmasked(key, id).or_else(|| masked(key, id))
}

/// A short word that follows from another one and does not show it.
pub(super) fn digest(key: &[u8; 32], of: &str) -> Option<String> {
    let mut out = [0; 8];
    derived(key, b"digest", of, &mut out)?;
    Some(hex::encode(out))
}

fn masked(key: &[u8; 32], id: &str) -> Option<String> {
    let mut nonce = [0; NONCE];
    derived(key, b"nonce", id, &mut nonce)?;
    let sealed = cipher(key)?.encrypt(Nonce::from_slice(&nonce), id.as_bytes());
    let mut out = nonce.to_vec();
    out.extend(sealed.ok()?);
    Some(URL_SAFE_NO_PAD.encode(out))
}

fn unmasked(key: &[u8; 32], pseudonym: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(pseudonym).ok()?;
    let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
    let id = cipher(key)?
        .decrypt(Nonce::from_slice(nonce), sealed)
        .ok()?;
    String::from_utf8(id).ok()
}

fn cipher(key: &[u8; 32]) -> Option<ChaCha20Poly1305> {
    let mut own = [0; 32];
    derived(key, b"key", "", &mut own)?;
    Some(ChaCha20Poly1305::new(Key::from_slice(&own)))
}

fn derived(key: &[u8; 32], what: &[u8], of: &str, out: &mut [u8]) -> Option<()> {
    let kdf = Hkdf::<Sha256>::new(Some(b"stonechat pseudonym"), key);
    kdf.expand_multi_info(&[what, of.as_bytes()], out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn a_pseudonym_is_always_the_same_shows_nothing_and_comes_back() {
        let shown = exchanged(&KEY, "ALICESDEVICE").unwrap();
        assert_eq!(exchanged(&KEY, "ALICESDEVICE").unwrap(), shown);
        assert!(!shown.contains("ALICE"));
        assert_eq!(exchanged(&KEY, &shown).unwrap(), "ALICESDEVICE");
        assert_ne!(exchanged(&[8; 32], "ALICESDEVICE").unwrap(), shown);
        assert_ne!(exchanged(&[8; 32], &shown).unwrap(), "ALICESDEVICE");
    }

    #[test]
    fn what_is_no_id_has_none() {
        assert_eq!(exchanged(&KEY, ""), None);
        assert_eq!(exchanged(&KEY, &"x".repeat(256)), None);
        assert!(exchanged(&KEY, "not base64 äöü").is_some());
    }
}
