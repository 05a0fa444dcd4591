//! What must never be found in a file, and what no client may ever show.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ruma::serde::{
    Base64,
    base64::{Standard, UrlSafe},
};

use crate::{Log, Person};

/// Where a secret was found, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// The file.
    pub file: PathBuf,
    /// What was looked for.
    pub secret: String,
    /// `plain`, `hex`, `base64`, `utf-16`.
    pub form: &'static str,
}

/// Looks through every file below `folder` (database, write-ahead log, log, media) for `secrets`,
/// as they are and in the forms in which programs write bytes.
///
/// A secret has to be longer than 8 bytes: a shorter one is found by chance.
pub fn search(folder: &Path, secrets: &[&str]) -> Result<Vec<Find>> {
    let mut patterns = Vec::new();
    for secret in secrets {
        if secret.len() <= 8 {
            bail!("{secret:?} is too short to look for");
        }
        patterns.extend(
            forms(secret)
                .into_iter()
                .map(|(form, bytes)| (*secret, form, searchable(&bytes))),
        );
    }
    let mut finds = Vec::new();
    walk(folder, &mut |file| {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            // Gone since the folder was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let text = searchable(&bytes);
        for (secret, form, pattern) in &patterns {
            if text.contains(pattern) {
                finds.push(Find {
                    file: file.to_owned(),
                    secret: (*secret).to_owned(),
                    form,
                });
            }
        }
        Ok(())
    })?;
    Ok(finds)
}

/// An error if any of `secrets` is anywhere below `folder`.
pub fn holds_none_of(folder: &Path, secrets: &[&str]) -> Result<()> {
    let finds = search(folder, secrets)?;
    if !finds.is_empty() {
        bail!("found in clear: {finds:#?}");
    }
    Ok(())
}

/// The bytes of all files below a folder.
pub fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    walk(folder, &mut |file| {
        sum += fs::metadata(file).map(|data| data.len()).unwrap_or(0);
        Ok(())
    })?;
    Ok(sum)
}

/// How long a client may show a shield or "Unable to decrypt" before it counts: Element, too, waits
/// about this long, while it asks for the sender's device.
const GRACE: Duration = Duration::from_secs(4);

/// An error if any of these clients shows a shield, a message in clear or "Unable to decrypt".
pub async fn nothing_to_warn_of(people: &[&Person]) -> Result<()> {
    for person in people {
        let calm = |log: &Log| log.shields().is_empty().then_some(());
        person
            .until_within(GRACE, "the shields to go", calm)
            .await
            .with_context(|| format!("the client of {} warns", person.user_id))?;
    }
    Ok(())
}

/// The forms of a secret: itself, hex, UTF-16, and base64 at each of the three places where it
/// can lie within a longer run of bytes.
fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let mut forms = vec![
        ("plain", bytes.to_vec()),
        ("hex", hex::encode(bytes).into_bytes()),
        ("hex", hex::encode_upper(bytes).into_bytes()),
        (
            "utf-16",
            secret.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
    ];
    for before in 0..3 {
        let mut padded = vec![0; before];
        padded.extend_from_slice(bytes);
        // What depends on the bytes before and after is cut off: 0, 2 or 3 letters in front
        // and the last, unfinished group.
        let front = [0, 2, 3][before];
        let back = padded.len() / 3 * 4;
        let standard = Base64::<Standard, _>::new(padded.clone()).encode();
        let url_safe = Base64::<UrlSafe, _>::new(padded).encode();
        for text in [standard, url_safe] {
            forms.push(("base64", text.as_bytes()[front..back].to_vec()));
        }
    }
    forms
}

/// Bytes as a text in which the standard library searches fast, also in a build without
/// optimization: what is not ASCII becomes a question mark, on both sides.
fn searchable(bytes: &[u8]) -> String {
    let ascii = bytes.iter().map(|&b| if b < 0x80 { b } else { b'?' });
    String::from_utf8(ascii.collect()).unwrap_or_default()
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, visit)?;
        } else if path.is_file() {
            visit(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "meet me at the fountain at nine";

    fn found_in(bytes: &[u8]) -> Vec<&'static str> {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("below");
        fs::create_dir(&below).expect("a folder");
        fs::write(below.join("file"), bytes).expect("a file");
        let finds = search(folder.path(), &[SECRET]).expect("a search");
        finds.into_iter().map(|find| find.form).collect()
    }

    #[test]
    fn a_text_is_found_in_every_form_and_at_every_offset() {
        assert_eq!(found_in(format!("xx{SECRET}yy").as_bytes()), ["plain"]);
        assert_eq!(found_in(hex::encode(SECRET).as_bytes()), ["hex"]);
        for before in 0..5 {
            let text = format!("{}{SECRET}, it says", "?".repeat(before));
            let base64 = Base64::<Standard, _>::new(text.into_bytes()).encode();
            assert!(
                found_in(base64.as_bytes()).contains(&"base64"),
                "after {before} bytes"
            );
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert!(found_in(b"meet me at the mountain at nine").is_empty());
        assert!(search(Path::new("/nowhere"), &[SECRET]).is_err());
        assert!(search(Path::new("/"), &["short"]).is_err());
    }
}
