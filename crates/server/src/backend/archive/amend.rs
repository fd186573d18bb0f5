//! Data that was unpacked, brought up to what it is by now: an archive of what changed, and what is gone.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Course, Item, Modes, Most, WIDE, put, sound};

/// Change what [`super::read`] unpacked below `into`, where nobody else changes anything meanwhile. What is `gone` is
/// taken away first. The archive has every directory of the data, and whatever else is not as it was: that is put in
/// place of what is there.
///
/// # Errors
/// As those of [`super::read`]; what cannot be taken away.
pub fn amend(archive: impl Read, into: &Path, gone: &[PathBuf], most: Most) -> io::Result<()> {
    for path in gone {
        take_away(into, &sound(path.as_os_str().as_bytes())?)?;
    }
    let mut modes = Modes::default();
    Course::new(most).through(archive, |path, meta, item| {
        let at = into.join(path);
        match kind(&at)? {
            // Whatever is in it that changed comes later, and what did not stays.
            Some(kind) if kind.is_dir() && matches!(item, Item::Dir) => {
                fs::set_permissions(&at, Permissions::from_mode(WIDE))?;
                modes.0.insert(at, meta.mode);
                return Ok(());
            }
            Some(kind) if kind.is_dir() => fs::remove_dir_all(&at)?,
            Some(_) => fs::remove_file(&at)?,
            None => {}
        }
        put(into, path, meta, item, &mut modes)
    })?;
    modes.set()
}

fn kind(at: &Path) -> io::Result<Option<fs::FileType>> {
    match fs::symlink_metadata(at) {
        Ok(found) => Ok(Some(found.file_type())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Nothing is reached through a link: what is behind one is no part of the data.
fn take_away(into: &Path, path: &Path) -> io::Result<()> {
    let mut above = into.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        above.push(part);
        if !kind(&above)?.is_some_and(|kind| kind.is_dir()) {
            return Ok(());
        }
    }
    let at = into.join(path);
    let Some(kind) = kind(&at)? else { return Ok(()) };
    // Its mode is one of those that come.
    fs::set_permissions(&above, Permissions::from_mode(WIDE))?;
    if kind.is_dir() { fs::remove_dir_all(&at) } else { fs::remove_file(&at) }
}
