//! Names for new files.

use std::{fs, io, path::Path};

/// Gives a file another name, and fails if that name is taken. Not every file system can do this in
/// one step; some know no hard links either, as vfat and some network file systems.
pub fn give_free_name(from: &Path, to: &Path) -> io::Result<()> {
    give_free_name_with(from, to, rename_if_free, |from, to| fs::hard_link(from, to))
}

fn give_free_name_with(
    from: &Path,
    to: &Path,
    rename_if_free: impl Fn(&Path, &Path) -> io::Result<()>,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, InvalidInput, PermissionDenied, TooManyLinks, Unsupported};
    match rename_if_free(from, to) {
        Err(e) if matches!(e.kind(), InvalidInput | Unsupported) => {}
        renamed => return renamed,
    }
    match link(from, to) {
        Err(e) if matches!(e.kind(), PermissionDenied | TooManyLinks | Unsupported) => {}
        linked => return linked.and_then(|()| fs::remove_file(from)),
    }
    if to.symlink_metadata().is_ok() {
        return Err(AlreadyExists.into());
    }
    fs::rename(from, to)
}

fn rename_if_free(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a system call returns with an error number of Linux.
    fn fails_with(number: i32) -> impl Fn(&Path, &Path) -> io::Result<()> {
        move |_, _| Err(io::Error::from_raw_os_error(number))
    }

    #[test]
    fn a_file_gets_its_name_on_every_file_system_and_takes_no_other() {
        const EPERM: i32 = 1;
        const EINVAL: i32 = 22;
        const EMLINK: i32 = 31;
        const ENOSYS: i32 = 38;
        const EOPNOTSUPP: i32 = 95;
        let link = |from: &Path, to: &Path| fs::hard_link(from, to);
        let folder = tempfile::tempdir().unwrap();
        let (draft, target) = (folder.path().join(".draft"), folder.path().join("backup"));
        for attempt in 0..6 {
            let name = || match attempt {
                0 => give_free_name_with(&draft, &target, rename_if_free, link),
                1 => give_free_name_with(&draft, &target, fails_with(EINVAL), link),
                2 => give_free_name_with(&draft, &target, fails_with(ENOSYS), fails_with(EPERM)),
                3 => give_free_name_with(&draft, &target, fails_with(EINVAL), fails_with(EMLINK)),
                4 => {
                    give_free_name_with(&draft, &target, fails_with(EOPNOTSUPP), fails_with(ENOSYS))
                }
                _ => {
                    give_free_name_with(&draft, &target, fails_with(EINVAL), fails_with(EOPNOTSUPP))
                }
            };
            fs::write(&draft, "new").unwrap();
            fs::write(&target, "old").unwrap();
            let error = name().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{attempt}");
            assert_eq!(fs::read_to_string(&target).unwrap(), "old");
            fs::remove_file(&target).unwrap();
            name().unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), "new", "{attempt}");
            assert!(!draft.exists(), "{attempt}");
            fs::remove_file(&target).unwrap();
        }
    }
}
