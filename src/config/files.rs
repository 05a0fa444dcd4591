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

/// Writes a file of mode 0600 and makes the folders above it. The name appears only when the whole
/// content is on disk. A file that is there already is an error unless `replace`; then group and
/// group-readability stay as an admin set them (the homeserver may have to read the file), and
/// everybody else is still shut out.
pub fn write_private(path: &Path, content: &str, replace: bool) -> Result<(), ConfigError> {
    let failed = |reason| ConfigError::Write {
        path: path.to_owned(),
        reason,
    };
    let exists = || ConfigError::Exists {
        path: path.to_owned(),
    };
    let before = match fs::symlink_metadata(path) {
        Ok(_) if !replace => return Err(exists()),
        // Through a link, so that what is replaced is what the link names.
        Ok(_) => fs::metadata(path).ok(),
        Err(_) => None,
    };
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    let name = target
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let draft = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));

    let written = write_draft(&draft, content, before.as_ref()).and_then(|()| {
        if replace {
            fs::rename(&draft, &target)
        } else {
            // Unlike a rename, a link refuses a name that is taken since we looked.
            fs::hard_link(&draft, &target).and_then(|()| fs::remove_file(&draft))
        }
    });
    if let Err(reason) = written {
        // The draft is of no use to anybody; that it may be gone already is no news.
        let _ = fs::remove_file(&draft);
        return Err(if reason.kind() == io::ErrorKind::AlreadyExists {
            exists()
        } else {
            failed(reason)
        });
    }
    // The new name has to survive a power cut too; a file system that cannot do this says so.
    if let Ok(folder) = fs::File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn write_draft(draft: &Path, content: &str, before: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(content.as_bytes())?;
    if let Some(before) = before {
        // Only the group that the admin chose gets the group's bit: when the group cannot be
        // kept, neither is the bit.
        if before.mode() & 0o040 != 0
            && std::os::unix::fs::fchown(&file, None, Some(before.gid())).is_ok()
        {
            file.set_permissions(fs::Permissions::from_mode(0o640))?;
        }
    }
    file.sync_all()
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
