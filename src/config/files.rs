//! Files with secrets: written whole or not at all, and for their owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use super::ConfigError;

/// Bits of the mode that nobody but owner and group may have.
pub(super) const OTHERS: u32 = 0o007;

/// A file with secrets whose new content is on disk, under another name. [`PrivateFile::commit`]
/// puts it in place; dropping it leaves everything as it was.
///
/// A new file has mode 0600. A file that is replaced keeps its owner, its group, its mode and its
/// access list, since an admin has set them so that the homeserver can read it; everybody else is
/// shut out all the same.
#[derive(Debug)]
#[must_use = "nothing changes without a commit"]
pub struct PrivateFile {
    /// The file as it was named.
    path: PathBuf,
    /// The file itself, where `path` is a link.
    target: PathBuf,
    draft: Draft,
    way: Way,
}

/// How the new content gets into its place.
#[derive(Debug)]
enum Way {
    /// It is there already.
    Unchanged,
    /// Under a name that must be free.
    Create,
    /// In one step that a crash cannot split.
    Rename,
    /// Into the file that is there, because a new one would have another owner, group or access
    /// list. A crash can cut it short; the draft is whole then.
    InPlace,
}

/// What has to stay when a file is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    owner: u32,
    group: u32,
    /// Whether it has an access list besides its mode.
    has_list: bool,
    /// How many names it has.
    names: u64,
}

impl Access {
    fn of(path: &Path, about: &fs::Metadata) -> Self {
        // A file system without access lists answers with an error, and so does one without this.
        let list = rustix::fs::getxattr_query(path, "system.posix_acl_access");
        Self {
            owner: about.uid(),
            group: about.gid(),
            has_list: list.is_ok(),
            names: about.nlink(),
        }
    }

    /// Returns `true` if nobody loses access when a draft takes the place of this file.
    fn survives_rename(self, draft: Self) -> bool {
        self == draft && !self.has_list && self.names == 1
    }
}

impl PrivateFile {
    /// Writes the content under another name and finds out whether it can be put in place. A file
    /// that is there already is an error unless `replace`.
    pub fn prepare(path: &Path, content: &str, replace: bool) -> Result<Self, ConfigError> {
        let failed = |reason| ConfigError::Write {
            path: path.to_owned(),
            reason,
        };
        let before = match fs::symlink_metadata(path) {
            Ok(_) if !replace => return Err(exists(path)),
            // Through a link, so that what is replaced is what the link names.
            Ok(_) => fs::metadata(path).ok(),
            Err(_) => None,
        };
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = folder_of(&target);
        fs::create_dir_all(&folder).map_err(failed)?;
        let (draft, way) = match before {
            Some(_) if fs::read(&target).is_ok_and(|now| now == content.as_bytes()) => {
                (Draft::default(), Way::Unchanged)
            }
            Some(before) => {
                let draft = Draft::write(&target, content, Some(&before)).map_err(failed)?;
                let way = replacement(&target, &draft, &before).ok_or_else(|| {
                    let access = Access::of(&target, &before);
                    ConfigError::NotOurs {
                        path: path.to_owned(),
                        owner: access.owner,
                        group: access.group,
                    }
                })?;
                (draft, way)
            }
            None => {
                let draft = Draft::write(&target, content, None).map_err(failed)?;
                (draft, if replace { Way::Rename } else { Way::Create })
            }
        };
        Ok(Self {
            path: path.to_owned(),
            target,
            draft,
            way,
        })
    }

    /// Puts the content in place. Returns whether anything changed.
    pub fn commit(mut self) -> Result<bool, ConfigError> {
        let done = match self.way {
            Way::Unchanged => return Ok(false),
            // Unlike a rename, a link refuses a name that is taken since we looked.
            Way::Create => fs::hard_link(&self.draft.0, &self.target),
            Way::Rename => match fs::rename(&self.draft.0, &self.target) {
                // A file that is mounted by itself, as containers do.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.overwrite(),
                done => done,
            },
            Way::InPlace => self.overwrite(),
        };
        done.map_err(|reason| {
            if reason.kind() == io::ErrorKind::AlreadyExists {
                exists(&self.path)
            } else {
                ConfigError::Write {
                    path: self.path.clone(),
                    reason,
                }
            }
        })?;
        sync_folder(&self.target);
        Ok(true)
    }

    /// Writes the content of the draft into the file that is there.
    fn overwrite(&mut self) -> io::Result<()> {
        let content = zeroize::Zeroizing::new(fs::read(&self.draft.0)?);
        let mut file = OpenOptions::new().write(true).open(&self.target)?;
        let mode = file.metadata()?.mode();
        if mode & OTHERS != 0 {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o770))?;
        }
        let length = content.len() as u64;
        let written = file
            .write_all(&content)
            .and_then(|()| file.set_len(length))
            .and_then(|()| file.sync_all());
        written.map_err(|error| {
            let draft = std::mem::take(&mut self.draft.0);
            let words = format!("{error}; its new content is whole in {}", draft.display());
            io::Error::new(error.kind(), words)
        })
    }
}

/// The way to replace a file without taking it from anybody; `None` if there is none.
fn replacement(target: &Path, draft: &Draft, before: &fs::Metadata) -> Option<Way> {
    let fresh = fs::metadata(&draft.0).ok()?;
    if Access::of(target, before).survives_rename(Access::of(&draft.0, &fresh)) {
        return Some(Way::Rename);
    }
    let opened = OpenOptions::new().write(true).open(target);
    opened.is_ok().then_some(Way::InPlace)
}

fn exists(path: &Path) -> ConfigError {
    ConfigError::Exists {
        path: path.to_owned(),
    }
}

fn folder_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A new name has to survive a power cut too; a file system that cannot do this says so.
fn sync_folder(target: &Path) {
    if let Ok(folder) = fs::File::open(folder_of(target)) {
        let _ = folder.sync_all();
    }
}

/// A file beside the one that is written, removed when dropped.
#[derive(Debug, Default)]
struct Draft(PathBuf);

impl Draft {
    /// Writes a draft, durably, with the access of the file that it may replace as far as that can
    /// be given.
    fn write(target: &Path, content: &str, before: Option<&fs::Metadata>) -> io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let name = format!(".{name}.{:016x}", rand::random::<u64>());
        let draft = Self(folder_of(target).join(name));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft.0)?;
        file.write_all(content.as_bytes())?;
        if let Some(before) = before {
            // What cannot be given shows when the two are compared.
            let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
            let about = file.metadata()?;
            if (about.uid(), about.gid()) == (before.uid(), before.gid()) {
                file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o770))?;
            }
        }
        file.sync_all()?;
        sync_folder(target);
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.0 != Path::new("") {
            // After a rename it is gone already.
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// Writes a file with secrets and makes the folders above it: see [`PrivateFile`]. Returns whether
/// anything changed.
pub fn write_private(path: &Path, content: &str, replace: bool) -> Result<bool, ConfigError> {
    PrivateFile::prepare(path, content, replace)?.commit()
}

/// Reads a file with secrets, unless more people than meant can read it: `shut` are the bits of
/// its mode that must be off.
pub(super) fn read_private(path: &Path, shut: u32, remedy: &str) -> Result<String, ConfigError> {
    let failed = |reason| ConfigError::Read {
        path: path.to_owned(),
        reason,
        remedy: remedy.to_owned(),
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & shut != 0 {
        let who = if mode & OTHERS != 0 {
            "others"
        } else {
            "its group"
        };
        return Err(ConfigError::Exposed {
            path: path.to_owned(),
            who,
            mode,
            want: mode & !shut & 0o640,
        });
    }
    io::read_to_string(file).map_err(failed)
}

/// A path of the configuration as seen from here: relative ones are beside the configuration file.
pub fn absolute_beside(config: &Path, path: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_owned();
    }
    let folder = config.parent().unwrap_or(Path::new(""));
    tidy(&folder.join(path))
}

/// How a configuration file at `config` names the file at `path`: relative when the two are near
/// each other, so that the whole folder can be moved, else absolute.
pub fn relative_to(config: &Path, path: &Path) -> PathBuf {
    let (Ok(config), Ok(path)) = (std::path::absolute(config), std::path::absolute(path)) else {
        return path.to_owned();
    };
    let (config, path) = (tidy(&config), tidy(&path));
    let folder: Vec<_> = config
        .parent()
        .unwrap_or(Path::new("/"))
        .components()
        .collect();
    let wanted: Vec<_> = path.components().collect();
    let shared = folder
        .iter()
        .zip(&wanted)
        .take_while(|(a, b)| a == b)
        .count();
    let up = folder.len() - shared;
    if up > 1 || shared < 2 {
        return path;
    }
    std::iter::repeat_n(Component::ParentDir, up)
        .chain(wanted.iter().skip(shared).copied())
        .collect()
}

/// Takes `.` and `x/..` out of a path.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidy.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_renamed_over_only_where_nobody_loses_access() {
        let before = Access {
            owner: 998,
            group: 997,
            has_list: false,
            names: 1,
        };
        assert!(before.survives_rename(before));
        for draft in [
            Access { owner: 0, ..before },
            Access {
                group: 998,
                ..before
            },
            Access {
                has_list: true,
                ..before
            },
        ] {
            assert!(!before.survives_rename(draft), "{draft:?}");
        }
        for before in [
            Access {
                has_list: true,
                ..before
            },
            Access { names: 2, ..before },
        ] {
            assert!(!before.survives_rename(before), "{before:?}");
        }
    }
}
