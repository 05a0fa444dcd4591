//! The key under which secret records are sealed. It is never stored in the database.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::StoreError;

/// 32 random bytes, written as 64 hexadecimal digits.
#[derive(Clone)]
pub struct StoreKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey(…)")
    }
}

impl StoreKey {
    /// Makes a new key.
    pub fn random() -> Result<Self, StoreError> {
        random().map(Self)
    }

    /// Makes a new key and writes it to a file, mode 0600, that must not exist yet.
    pub fn create_file(path: &Path) -> Result<Self, StoreError> {
        let key = Self::random()?;
        let mut file = match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
        {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(unusable(
                    path,
                    "it exists already; a new key could not read the store made with it",
                ));
            }
            Err(e) => return Err(StoreError::io("create", path, &e)),
        };
        let mut text = Zeroizing::new([0u8; 65]);
        text[64] = b'\n';
        hex::encode_to_slice(key.0.as_slice(), &mut text[..64])
            .map_err(|_| StoreError::Seal("the key could not be written as hexadecimal"))?;
        file.write_all(text.as_slice())
            .and_then(|()| file.sync_all())
            .map_err(|e| StoreError::io("write", path, &e))?;
        super::files::sync_parent(path)?;
        Ok(key)
    }

    /// Reads the key from a file that only its owner may read.
    pub fn from_file(path: &Path) -> Result<Self, StoreError> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(unusable(
                    path,
                    "there is no such file; `stonechat init` makes one",
                ));
            }
            Err(e) => return Err(unusable(path, &e.to_string())),
        };
        let about = file
            .metadata()
            .map_err(|e| unusable(path, &e.to_string()))?;
        if !about.is_file() {
            return Err(unusable(path, "it is not a file"));
        }
        if about.mode() & 0o077 != 0 {
            return Err(unusable(
                path,
                "others may read or write it; run `chmod 600` on it",
            ));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(256)
            .read_to_string(&mut text)
            .map_err(|e| unusable(path, &e.to_string()))?;
        Self::parse(&text).ok_or_else(|| unusable(path, KEY_FORMAT))
    }

    /// Parses the key from the value of an environment variable. Errors name the variable `name`.
    pub fn from_env(name: &str, value: &SecretString) -> Result<Self, StoreError> {
        Self::parse(value.expose_secret()).ok_or_else(|| StoreError::Key {
            place: format!("in {name}"),
            why: KEY_FORMAT.to_owned(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut key = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(text, key.as_mut_slice()).ok()?;
        // A lost disk block or an unset template consists of zeros.
        (*key != [0u8; 32]).then_some(Self(key))
    }

    /// Derives a key for one purpose from this key and further secret and public parts.
    pub(crate) fn derive(&self, secret: &[u8], purpose: &[&[u8]]) -> Result<Subkey, StoreError> {
        let mut input = Zeroizing::new(Vec::with_capacity(32 + secret.len()));
        input.extend_from_slice(self.0.as_slice());
        input.extend_from_slice(secret);
        let mut key = Zeroizing::new([0u8; 32]);
        Hkdf::<Sha256>::new(None, &input)
            .expand_multi_info(purpose, key.as_mut_slice())
            .map_err(|_| StoreError::Seal("a key could not be derived"))?;
        Ok(key)
    }
}

/// A key derived for one purpose.
pub(crate) type Subkey = Zeroizing<[u8; 32]>;

/// Returns 32 random bytes from the system.
pub(crate) fn random() -> Result<Subkey, StoreError> {
    use rand::TryRngCore;
    let mut bytes = Zeroizing::new([0u8; 32]);
    if rand::rngs::OsRng
        .try_fill_bytes(bytes.as_mut_slice())
        .is_err()
    {
        bytes.zeroize();
        return Err(StoreError::Seal("the system returned no random bytes"));
    }
    Ok(bytes)
}

/// What a key must look like.
const KEY_FORMAT: &str = "it must be 64 hexadecimal digits, as `stonechat init` writes them";

fn unusable(path: &Path, why: &str) -> StoreError {
    StoreError::Key {
        place: format!("file {}", path.display()),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        let made = StoreKey::create_file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(StoreKey::from_file(&path).unwrap().0, made.0);
        assert!(
            StoreKey::create_file(&path)
                .unwrap_err()
                .to_string()
                .contains("exists already")
        );
        assert_eq!(StoreKey::from_file(&path).unwrap().0, made.0);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.key");
        StoreKey::create_file(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(
            StoreKey::from_file(&path)
                .unwrap_err()
                .to_string()
                .contains("chmod 600")
        );
    }

    #[test]
    fn a_malformed_key_is_refused_without_showing_it() {
        let hex = "ab".repeat(32);
        assert!(StoreKey::from_env("K", &SecretString::from(format!(" {hex}\n"))).is_ok());
        for wrong in [
            "",
            "secretsecret",
            &hex[1..],
            &"00".repeat(32),
            &format!("{hex}ab"),
        ] {
            let error = StoreKey::from_env("KEY", &SecretString::from(wrong)).unwrap_err();
            assert!(error.to_string().contains("in KEY"), "{error}");
            assert!(
                wrong.is_empty() || !error.to_string().contains(wrong),
                "{error}"
            );
        }
        let key = StoreKey::from_env("K", &SecretString::from(hex)).unwrap();
        assert!(!format!("{key:?}").contains("ab"));
        assert!(StoreKey::from_file(Path::new("/")).is_err());
        assert!(StoreKey::from_file(Path::new("/nowhere")).is_err());
    }
}
