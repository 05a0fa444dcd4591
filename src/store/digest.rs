//! Digests that stand for long ids in keys and values, where the id itself is never read back.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use super::table::{KeyPart, TableKey, prefix};

/// Size of a digest in bytes.
const DIGEST_BYTES: usize = 16;

/// The first 16 bytes of a SHA-256. To find other input with the digest of given input takes 2¹²⁸
/// attempts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// Returns the digest of an id.
    pub fn of(id: impl AsRef<[u8]>) -> Self {
        Self::of_hash(Sha256::new_with_prefix(id))
    }

    /// Returns the digest of everything that a hash has been given.
    pub fn of_hash(hash: Sha256) -> Self {
        let (mut digest, whole) = ([0; DIGEST_BYTES], hash.finalize());
        digest.copy_from_slice(&whole[..DIGEST_BYTES]);
        Self(digest)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl KeyPart for Digest {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self(*digest))
    }
}

impl TableKey for Digest {
    fn encode(&self) -> Vec<u8> {
        prefix(self)
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let digest = Self::read(&mut bytes)?;
        bytes.is_empty().then_some(digest)
    }
}

/// As bytes: an array would take up to two bytes for each.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{DIGEST_BYTES} bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Digest, E> {
                let digest = bytes.try_into();
                digest
                    .map(Digest)
                    .map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_16_bytes_in_keys_and_18_in_values() {
        let digest = Digest::of("$event");
        assert_ne!(digest, Digest::of("$other"));
        assert_eq!(Digest::decode(&digest.encode()), Some(digest));
        assert_eq!(digest.encode().len(), 16);
        let value = rmp_serde::to_vec_named(&digest).unwrap();
        assert_eq!(value.len(), 18);
        assert_eq!(rmp_serde::from_slice::<Digest>(&value).unwrap(), digest);
        assert!(rmp_serde::from_slice::<Digest>(&value[..17]).is_err());
        assert!(Digest::decode(&[0; 15]).is_none() && Digest::decode(&[0; 17]).is_none());
    }
}
