//! What an instance of another user sees of the machine: everything as it is, but for directories that others may not
//! pass and that something of its own lies below. In their place is an empty one that holds only what is its own, at the
//! same path; of the server's files it sees nothing.
//!
//! It is made on a thread that is then thrown away: mounts, and that nobody gains rights by running a program, are
//! inherited by what the thread starts.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change,
    move_mount, open_tree,
};
use rustix::process::umask;
use rustix::thread::{UnshareFlags, set_no_new_privs};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Options of what takes a directory's place.
const EMPTY: &std::ffi::CStr = c"mode=0755,size=1m";

/// The first directory on the way to `path` that others may not pass.
pub(super) fn closed(path: &Path) -> Option<PathBuf> {
    let place = path.parent().zip(path.file_name());
    let whole = place.map_or_else(|| path.to_owned(), |(above, name)| real(above).join(name));
    let mut ways: Vec<&Path> = whole.ancestors().skip(1).collect();
    ways.reverse();
    let shut = |dir: &&Path| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 == 0);
    ways.into_iter().find(shut).map(Path::to_owned)
}

/// Without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|it| Some((it, fs::canonicalize(it).ok()?)));
    match there {
        // Nothing to add: a file's path must not end as a directory's.
        Some((there, real)) if there == path => real,
        Some((there, real)) => real.join(path.strip_prefix(there).unwrap_or(Path::new(""))),
        None => path.to_owned(),
    }
}

/// Whether such a view can be made here at all.
pub(super) fn possible() -> bool {
    let tried = std::thread::spawn(|| {
        apart()?;
        mount("ligand", "/proc", "tmpfs", MountFlags::empty(), EMPTY)
    });
    tried.join().is_ok_and(|done| done.is_ok())
}

#[expect(
    deprecated,
    reason = "mounts alone are taken apart, no descriptors: what makes the call unsafe is not asked for"
)]
fn apart() -> rustix::io::Result<()> {
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Start `command` as another user, who sees of `own` what it would not reach by itself.
pub(super) fn start(command: Command, own: &[PathBuf]) -> io::Result<Child> {
    // A link is shown at its place and, as what it leads to, at that one's.
    let places = own.iter().flat_map(|path| {
        let place = path.parent().zip(path.file_name());
        let place = place.map_or_else(|| path.clone(), |(above, name)| real(above).join(name));
        [real(path), place]
    });
    // What is above comes first: it brings along what is below.
    let shown: BTreeSet<PathBuf> = places.collect();
    let ways: Vec<PathBuf> =
        own.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
    let runtime = Handle::current();
    let started = std::thread::Builder::new().name("start".to_owned()).spawn(move || {
        let _entered = runtime.enter();
        set_no_new_privs(true)?;
        show(&shown, &ways)?;
        let mut command = command;
        command.spawn()
    })?;
    started.join().map_err(|_| io::Error::other("the thread that starts instances panicked"))?
}

/// Put what is its own in place of directories that it cannot pass. `ways`: how it is called, roundabout ways included.
fn show(own: &BTreeSet<PathBuf>, ways: &[PathBuf]) -> io::Result<()> {
    let covers: Vec<(PathBuf, &PathBuf)> =
        own.iter().filter_map(|path| Some((closed(path)?, path))).collect();
    if covers.is_empty() {
        return Ok(());
    }
    apart()?;
    // The thread's own since it is apart: what is made here has to be passed by others.
    let usual = umask(Mode::from_raw_mode(0o022));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let taken: Vec<(OwnedFd, bool, &PathBuf)> = covers
        .iter()
        .map(|(_, path)| Ok((open_tree(CWD, path.as_path(), flags)?, path.is_dir(), *path)))
        .collect::<io::Result<_>>()?;
    let mut covered: Vec<&Path> = Vec::new();
    for (cover, _) in &covers {
        if !covered.contains(&cover.as_path()) {
            let hidden = MountFlags::NOSUID | MountFlags::NODEV;
            mount("ligand", cover.as_path(), "tmpfs", hidden, EMPTY)?;
            covered.push(cover);
        }
    }
    for (tree, dir, path) in taken {
        if path.exists() {
            continue;
        }
        let above = if dir { Some(path.as_path()) } else { path.parent() };
        if let Some(above) = above {
            DirBuilder::new().recursive(true).mode(0o755).create(above)?;
        }
        if !dir {
            File::create(path)?;
        }
        move_mount(&tree, "", CWD, path.as_path(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    for way in ways {
        DirBuilder::new().recursive(true).mode(0o755).create(way)?;
    }
    umask(usual);
    Ok(())
}
