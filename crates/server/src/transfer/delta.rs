//! What has to change in data that was put somewhere ahead of time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::manifest::{Entry, Manifest, What};

/// From what lies there to what is to lie there: what of the latter has to come, and what of the former is gone. Every
/// directory comes, as what is in it needs it; so does whatever has several names.
pub(super) fn delta(lies: &Manifest, now: &Manifest) -> (Manifest, Vec<PathBuf>) {
    let before: BTreeMap<&[u8], &Entry> =
        lies.entries.iter().map(|entry| (entry.path.as_slice(), entry)).collect();
    let shared: BTreeSet<&[u8]> =
        lies.entries.iter().chain(&now.entries).filter_map(first).collect();
    let stays = |entry: &&Entry| {
        let several = matches!(entry.what, What::Dir | What::Same(_))
            || shared.contains(entry.path.as_slice());
        !several && before.get(entry.path.as_slice()).is_some_and(|then| same(then, entry))
    };
    let entries = now.entries.iter().filter(|entry| !stays(entry)).cloned().collect();
    let here: BTreeSet<&[u8]> = now.entries.iter().map(|entry| entry.path.as_slice()).collect();
    let gone = lies.entries.iter().filter(|entry| !here.contains(entry.path.as_slice()));
    let gone = gone.map(|entry| PathBuf::from(OsStr::from_bytes(&entry.path))).collect();
    let (whole, carried, chunks) = (now.whole, now.carried.clone(), now.chunks.clone());
    (Manifest { whole, carried, chunks, entries }, gone)
}

/// The first name of what has several.
fn first(entry: &Entry) -> Option<&[u8]> {
    match &entry.what {
        What::Same(first) => Some(first),
        What::Dir | What::File(_) | What::Link(_) => None,
    }
}

/// Whether nothing of it is other than it was, wherever its content lies in the store.
fn same(one: &Entry, other: &Entry) -> bool {
    let about = |entry: &Entry| (entry.mode, entry.changed, entry.owner);
    let what = match (&one.what, &other.what) {
        (What::File(one), What::File(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.hash == b.hash)
        }
        (one, other) => one == other,
    };
    what && about(one) == about(other)
}
