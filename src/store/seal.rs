//! Sealing: XChaCha20-Poly1305 with a random nonce, bound to the place of the record, so that a
//! sealed value cannot be moved to the key of another record.

use chacha20poly1305::{
    AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

use super::{
    StoreError,
    key::{StoreKey, Subkey},
};

const SEAL_FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Number of bytes that sealing adds to a value.
#[cfg(test)]
const OVERHEAD_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;

/// A cipher for one key. The key is zeroized when it is dropped.
#[derive(Clone)]
pub(crate) struct Sealer(XChaCha20Poly1305);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    /// Returns the sealer of the records of tables.
    pub(super) fn of(key: &StoreKey) -> Result<Self, StoreError> {
        Ok(Self::new(&key.derive(&[], &[b"stonechat tables"])?))
    }

    pub(crate) fn new(key: &Subkey) -> Self {
        Self(XChaCha20Poly1305::new(key.as_slice().into()))
    }

    /// Seals `plain` for `place`. Returns version, nonce, ciphertext and tag.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce = nonce()?;
        let mut out = Vec::with_capacity(plain.len() + 1 + NONCE_BYTES + TAG_BYTES);
        out.push(SEAL_FORMAT);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag: Tag = self
            .0
            .encrypt_in_place_detached(&nonce, place, &mut out[1 + NONCE_BYTES..])
            .map_err(|_| StoreError::Seal("the value is too long"))?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens a value sealed for `place`. Returns `None` if it was not sealed for it with this key.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        let (version, rest) = sealed.split_first()?;
        if *version != SEAL_FORMAT || rest.len() < NONCE_BYTES + TAG_BYTES {
            return None;
        }
        let (nonce, text) = rest.split_at(NONCE_BYTES);
        let payload = Payload {
            msg: text,
            aad: place,
        };
        self.0
            .decrypt(XNonce::from_slice(nonce), payload)
            .ok()
            .map(Into::into)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a nonce that comes again would give the key away, so nobody chooses it"
)]
fn nonce() -> Result<XNonce, StoreError> {
    use rand::TryRngCore;
    let mut nonce = XNonce::default();
    rand::rng()
        .try_fill_bytes(&mut nonce)
        .map_err(|_| StoreError::Seal("the system returned no random bytes"))?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::{super::key::random, *};

    #[test]
    fn a_sealed_value_opens_only_where_it_was_put_and_only_unchanged() {
        let sealer = Sealer::new(&random().unwrap());
        let sealed = sealer.seal(b"place", b"value").unwrap();
        assert_eq!(sealed.len(), b"value".len() + OVERHEAD_BYTES);
        assert_eq!(sealer.open(b"place", &sealed).unwrap().as_slice(), b"value");
        assert!(sealer.open(b"elsewhere", &sealed).is_none());
        assert!(
            Sealer::new(&random().unwrap())
                .open(b"place", &sealed)
                .is_none()
        );
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open(b"place", &changed).is_none(), "byte {at}");
            assert!(
                sealer.open(b"place", &sealed[..at]).is_none(),
                "cut at {at}"
            );
        }
        assert_ne!(
            sealer.seal(b"place", b"value").unwrap(),
            sealed,
            "a nonce is never reused"
        );
    }
}
