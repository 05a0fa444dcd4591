//! Files with secrets: written whole or not at all, and for their owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use super::{ConfigError, free_name::give_free_name};

/// The mode bits of everybody but owner and group.
pub(super) const OTHERS: u32 = 0o007;

/// A file with secrets whose new content is on disk under another name. [`PrivateFile::commit`]
/// puts it in place. Dropping it leaves everything as it was.
///
/// A new file has mode 0600. A replaced file keeps its owner, group, mode and access list, which
/// the admin may have set so that the homeserver can read it. Everybody else loses access in any
/// case.
#[derive(Debug)]
#[must_use = "nothing changes without a commit"]
pub struct PrivateFile {
    /// The path as the caller named it.
    path: PathBuf,
    /// The path of the file itself, if `path` is a link.
    target: PathBuf,
    draft: DraftFile,
    placement: Placement,
}

/// The way in which the new content gets into its place.
#[derive(Debug)]
enum Placement {
    /// Nothing to do: the content is there already.
    Unchanged,
    /// A link to a name that must be free.
    Create,
    /// A rename, which a crash cannot split.
    Rename,
    /// A write into the existing file, because a new one would have another owner, group or access
    /// list. A crash can cut it short, and then the draft is whole.
    InPlace,
}

/// The access to a file, which has to stay when it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    owner: u32,
    group: u32,
    /// Whether it has an access list besides its mode.
    has_list: bool,
    /// The number of its names.
    names: u64,
}

impl Access {
    fn of(path: &Path, about: &fs::Metadata) -> Self {
        // An error means that there is no access list.
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
    /// Writes the content under another name and finds out whether it can be put in place. An
    /// existing file is an error unless `replace`.
    pub fn prepare(path: &Path, content: &str, replace: bool) -> Result<Self, ConfigError> {
        let failed = |reason| ConfigError::Write {
            path: path.to_owned(),
            reason,
        };
        let before = match fs::symlink_metadata(path) {
            Ok(_) if !replace => return Err(exists(path)),
            // Through a link, so that its target is replaced and not the link.
            Ok(_) => fs::metadata(path).ok(),
            Err(_) => None,
        };
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = folder_of(&target);
        fs::create_dir_all(&folder).map_err(failed)?;
        let (draft, placement) = match before {
            Some(_) if fs::read(&target).is_ok_and(|now| now == content.as_bytes()) => {
                (DraftFile::default(), Placement::Unchanged)
            }
            Some(before) => {
                let draft = DraftFile::write(&target, content, Some(&before)).map_err(failed)?;
                let placement = replacement(&target, &draft, &before).ok_or_else(|| {
                    let access = Access::of(&target, &before);
                    ConfigError::NotOurs {
                        path: path.to_owned(),
                        owner: access.owner,
                        group: access.group,
                    }
                })?;
                (draft, placement)
            }
            None => {
                let draft = DraftFile::write(&target, content, None).map_err(failed)?;
                (
                    draft,
                    if replace {
                        Placement::Rename
                    } else {
                        Placement::Create
                    },
                )
            }
        };
        Ok(Self {
            path: path.to_owned(),
            target,
            draft,
            placement,
        })
    }

    /// Puts the content in place. Returns whether anything changed.
    pub fn commit(mut self) -> Result<bool, ConfigError> {
        let done = match self.placement {
            Placement::Unchanged => return Ok(false),
            // Fails if the name has been taken in the meantime.
            Placement::Create => give_free_name(&self.draft.0, &self.target),
            Placement::Rename => match fs::rename(&self.draft.0, &self.target) {
                // The file is a mount of its own, as in containers.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.overwrite(),
                done => done,
            },
            Placement::InPlace => self.overwrite(),
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

    /// Writes the content of the draft into the existing file.
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

/// Returns the way to replace a file so that nobody loses access, or `None` if there is none.
fn replacement(target: &Path, draft: &DraftFile, before: &fs::Metadata) -> Option<Placement> {
    let fresh = fs::metadata(&draft.0).ok()?;
    if Access::of(target, before).survives_rename(Access::of(&draft.0, &fresh)) {
        return Some(Placement::Rename);
    }
    let opened = OpenOptions::new().write(true).open(target);
    opened.is_ok().then_some(Placement::InPlace)
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

/// Syncs the folder, so that a new name survives a power cut. Some file systems cannot do that, and
/// their error is ignored.
fn sync_folder(target: &Path) {
    if let Ok(folder) = fs::File::open(folder_of(target)) {
        let _ = folder.sync_all();
    }
}

/// A file beside the target. Removed when dropped.
#[derive(Debug, Default)]
struct DraftFile(PathBuf);

impl DraftFile {
    /// Writes a draft durably. It gets the access of the file that it may replace, as far as we can
    /// give it.
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
            // `replacement` compares the two, so a failure here is noticed there.
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

impl Drop for DraftFile {
    fn drop(&mut self) {
        if self.0 != Path::new("") {
            // After a rename the file no longer exists, and that is fine.
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// Writes a file with secrets, and creates the folders above it: see [`PrivateFile`]. Returns
/// whether anything changed.
pub fn write_private(path: &Path, content: &str, replace: bool) -> Result<bool, ConfigError> {
    PrivateFile::prepare(path, content, replace)?.commit()
}

/// Reads a file with secrets. Refuses it if a bit of its mode is set that is also in `shut`.
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

/// Resolves a path of the configuration, where relative paths begin at the configuration file.
pub fn absolute_beside(config: &Path, path: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_owned();
    }
    let folder = config.parent().unwrap_or(Path::new(""));
    tidy(&folder.join(path))
}

/// Returns the path by which a configuration file at `config` names the file at `path`: relative if
/// the two are near each other, so that the whole folder can be moved, and absolute otherwise.
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

/// Removes `.` and `x/..` from a path.
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
