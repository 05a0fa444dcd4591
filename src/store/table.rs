//! Tables, and the encoding of their keys as bytes of the same order.
//!
//! # Adding a table
//!
//! 1. Choose an unused id in the range of your folder (see [`Table::ID`]).
//! 2. Write an empty type and implement [`Table`] for it. Its doc comment says what a record is and
//!    when it is deleted.
//! 3. Decide [`Table::SECRET`]. Keys of records are *never* encrypted, values only if it is set.

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    clock::Timestamp,
    ids::{ConversationId, Ghost, Person},
};

/// The id of the table of the records that the store keeps about itself.
pub(super) const META_ID: u8 = 1;

/// A typed table.
pub trait Table: 'static {
    /// The first byte of every key of the table, unique among all tables: 1 to 9 for the store
    /// and the crypto store, 10 to 29 engine, 30 to 49 directory, 50 to 59 conversations, 60 to 69
    /// bot, 70 to 79 crypto. 255 is reserved for the backends.
    const ID: u8;
    /// The name of the table in messages and metrics.
    const NAME: &'static str;
    /// Whether values are encrypted at rest. Keys are not.
    const SECRET: bool;
    /// The key of a record.
    type Key: TableKey;
    /// A record.
    type Value: Serialize + DeserializeOwned;
}

/// A key whose encoded bytes have the order of the keys.
pub trait TableKey: Sized {
    /// Returns the bytes of the key.
    fn encode(&self) -> Vec<u8>;
    /// Returns the key of the bytes; `None` if they are not a key.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// One part of a key. It is self-delimiting, so parts can follow one another.
pub trait KeyPart: Sized {
    /// Appends the bytes of this part.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads this part and removes it from the front.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

/// Returns the bytes of one part. As a prefix they match every key that begins with exactly this
/// part.
pub fn prefix(part: &impl KeyPart) -> Vec<u8> {
    let mut out = Vec::new();
    part.write(&mut out);
    out
}

/// Encodes a zero byte as `00 FF` and the end as `00 00`, so that a string sorts before every
/// longer one that begins with it.
impl KeyPart for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self, out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut part = Vec::new();
        loop {
            let zero = bytes.iter().position(|b| *b == 0)?;
            part.extend_from_slice(&bytes[..zero]);
            let mark = *bytes.get(zero + 1)?;
            *bytes = &bytes[zero + 2..];
            match mark {
                0 => return Some(part),
                0xFF => part.push(0),
                _ => return None,
            }
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 2);
    let mut parts = bytes.split(|byte| *byte == 0);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&[0, 0xFF]);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0, 0]);
}

impl KeyPart for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        String::from_utf8(Vec::read(bytes)?).ok()
    }
}

macro_rules! number_part {
    ($($number:ty),*) => {$(
        impl KeyPart for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                let (number, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_be_bytes(*number))
            }
        }
    )*};
}
number_part!(u8, u32, u64);

impl KeyPart for [u8; 32] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (part, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*part)
    }
}

impl KeyPart for Timestamp {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes).map(Timestamp)
    }
}

macro_rules! id_part {
    ($($id:ty),*) => {$(
        impl KeyPart for $id {
            fn write(&self, out: &mut Vec<u8>) {
                write_bytes(self.as_str().as_bytes(), out);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                String::read(bytes)?.try_into().ok()
            }
        }
    )*};
}
id_part!(OwnedUserId, OwnedRoomId, OwnedEventId);

macro_rules! wrapped_part {
    ($($wrapper:ty: $id:ty),*) => {$(
        impl KeyPart for $wrapper {
            fn write(&self, out: &mut Vec<u8>) {
                write_bytes(self.as_str().as_bytes(), out);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                <$id as KeyPart>::read(bytes).map(Self::new)
            }
        }
    )*};
}
wrapped_part!(Ghost: OwnedUserId, Person: OwnedUserId, ConversationId: String);

impl KeyPart for OwnedDeviceId {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_str().as_bytes(), out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        String::read(bytes).map(Into::into)
    }
}

macro_rules! whole_key {
    ($($part:ty),*) => {$(
        impl TableKey for $part {
            fn encode(&self) -> Vec<u8> {
                prefix(self)
            }

            fn decode(mut bytes: &[u8]) -> Option<Self> {
                let key = <$part as KeyPart>::read(&mut bytes)?;
                bytes.is_empty().then_some(key)
            }
        }
    )*};
}
whole_key!(
    Vec<u8>,
    String,
    u8,
    u32,
    u64,
    [u8; 32],
    Timestamp,
    OwnedUserId,
    OwnedRoomId,
    OwnedEventId,
    OwnedDeviceId,
    Ghost,
    Person,
    ConversationId
);

macro_rules! tuple_key {
    ($($name:ident),+) => {
        impl<$($name: KeyPart),+> TableKey for ($($name,)+) {
            fn encode(&self) -> Vec<u8> {
                #[expect(non_snake_case, reason = "the parts are named as their types")]
                let ($($name,)+) = self;
                let mut out = Vec::new();
                $($name.write(&mut out);)+
                out
            }

            fn decode(mut bytes: &[u8]) -> Option<Self> {
                let key = ($($name::read(&mut bytes)?,)+);
                bytes.is_empty().then_some(key)
            }
        }
    };
}
tuple_key!(A, B);
tuple_key!(A, B, C);
tuple_key!(A, B, C, D);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decoded_key_is_the_encoded_one(a: Vec<u8>, b: String, c: u64) {
            let key = (a, b, c);
            prop_assert_eq!(<(Vec<u8>, String, u64)>::decode(&key.encode()), Some(key));
        }

        #[test]
        fn bytes_sort_as_keys_do(a: (Vec<u8>, u64), b: (Vec<u8>, u64)) {
            prop_assert_eq!(a.encode().cmp(&b.encode()), a.cmp(&b));
        }

        #[test]
        fn any_bytes_are_a_key_or_none(bytes: Vec<u8>) {
            if let Some(key) = <(String, Vec<u8>, u32)>::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_prefix_finds_its_part_and_no_longer_one() {
        let key = ("sam".to_owned(), 1u64).encode();
        assert!(key.starts_with(&prefix(&"sam".to_owned())));
        let longer = ("samuel".to_owned(), 1u64).encode();
        assert!(!longer.starts_with(&prefix(&"sam".to_owned())));
    }
}
