//! What goes out comes in, and what was touched on the way is seen.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("archive-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(files: &[(String, Vec<u8>, u32)]) -> Self {
        let this = Self::new();
        for (path, content, mode) in files {
            let path = this.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
        }
        this
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn packed(base: &Path) -> (Vec<u8>, Carried) {
    let mut bytes = Vec::new();
    let carried = write(base, &mut bytes).unwrap();
    (bytes, carried)
}

/// Some files, each of a name of its own.
fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>, u32)>> {
    let long = "n".repeat(120);
    let names = prop_oneof!["[a-c]{1,3}", Just(long)];
    let path = (prop_oneof![Just("workspace"), Just("home"), Just("configs")], "[x-z]{1,2}", names);
    let path = path.prop_map(|(root, dir, name)| format!("{root}/{dir}.d/{name}"));
    let content = prop::collection::vec(any::<u8>(), 0..2000);
    let mode = prop_oneof![Just(0o600), Just(0o644), Just(0o755)];
    let some = prop::collection::btree_map(path, (content, mode), 1..8);
    some.prop_map(|map| map.into_iter().map(|(path, (bytes, mode))| (path, bytes, mode)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_goes_out_comes_in_and_any_change_is_seen(
        mut files in files(), which in any::<prop::sample::Index>(), how in 0..3
    ) {
        let (from, to) = (Scratch::with(&files), Scratch::new());
        let (bytes, sent) = packed(&from.0);
        prop_assert_eq!(&sent, &digest(&from.0).unwrap());
        prop_assert_eq!(&sent, &digest_of_archive(&bytes[..], Most::default()).unwrap());
        prop_assert_eq!(&sent, &read(&bytes[..], &to.0, Most::default()).unwrap());
        prop_assert_eq!(&sent, &digest(&to.0).unwrap());
        prop_assert!(bytes == packed(&from.0).0, "in the same order, to the byte");
        let at = which.index(files.len());
        let (path, content, mode) = &mut files[at];
        match how {
            0 => content.push(1),
            1 => *mode ^= 0o100,
            _ => path.push('!'),
        }
        let changed = Scratch::with(&files);
        prop_assert_ne!(sent.digest, digest(&changed.0).unwrap().digest);
    }
}

#[test]
fn a_flipped_bit_of_an_archive_is_seen() {
    let from = Scratch::with(&[("workspace/a".to_owned(), vec![7; 600], 0o644)]);
    let (mut bytes, sent) = packed(&from.0);
    let at = bytes.iter().rposition(|byte| *byte == 7).unwrap();
    bytes[at] ^= 1;
    let found = digest_of_archive(&bytes[..], Most::default()).unwrap();
    assert_ne!(sent.digest, found.digest);
    assert_eq!(sent.bytes, found.bytes);
}

#[test]
fn links_stay_links_and_credentials_stay_where_they_are() {
    let from = Scratch::with(&[
        ("configs/.auth_token".to_owned(), b"secret".to_vec(), 0o600),
        ("configs/.auth_token.next".to_owned(), b"secret".to_vec(), 0o600),
        ("configs/.register_key".to_owned(), b"secret".to_vec(), 0o600),
        ("configs/config.yaml".to_owned(), b"name: x".to_vec(), 0o600),
    ]);
    fs::create_dir(from.0.join("home")).unwrap();
    let targets = ["/etc/passwd", "../../x", "./a//b/", &"deep/".repeat(50)];
    for (number, target) in targets.iter().enumerate() {
        symlink(target, from.0.join(format!("home/{number}"))).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(from.0.join("home/socket")).unwrap();
    let (bytes, sent) = packed(&from.0);
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    assert_eq!(sent.entries, 5, "the file and four links");
    let to = Scratch::new();
    assert_eq!(read(&bytes[..], &to.0, Most::default()).unwrap(), sent);
    for (number, target) in targets.iter().enumerate() {
        let found = fs::read_link(to.0.join(format!("home/{number}"))).unwrap();
        assert_eq!(found.as_os_str().as_bytes(), target.as_bytes());
    }
    assert_eq!(digest(&to.0).unwrap(), sent);
}

/// An archive of these entries: path, kind, target or content.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, kind, text) in entries {
        let mut header = Header::new_old();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let content = if kind.is_file() { text } else { "" };
        if !kind.is_file() && !text.is_empty() {
            header.set_link_name_literal(text).unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn what_would_leave_the_tree_is_refused() {
    use EntryType::{Directory, Link, Regular, Symlink};
    let evil: [&[(&str, EntryType, &str)]; 9] = [
        &[("/workspace/a", Regular, "x")],
        &[("workspace/../../a", Regular, "x")],
        &[("elsewhere/a", Regular, "x")],
        &[("workspace/l", Symlink, "/tmp"), ("workspace/l/a", Regular, "x")],
        &[("workspace/l", Symlink, "/tmp"), ("workspace/l", Directory, "")],
        &[("workspace/a", Link, "/etc/passwd")],
        &[("workspace/l", Symlink, "/etc/passwd"), ("workspace/a", Link, "workspace/l")],
        &[("workspace/a", Regular, "x"), ("workspace/a", Regular, "y")],
        &[("workspace/a/b", Regular, "x")],
    ];
    for entries in evil {
        let bytes = archive(entries);
        let to = Scratch::new();
        let said = read(&bytes[..], &to.0, Most::default()).unwrap_err().to_string();
        assert!(said.starts_with("the archive's "), "{entries:?}: {said}");
        assert!(digest_of_archive(&bytes[..], Most::default()).is_err(), "{entries:?}");
    }
    let good = archive(&[
        ("workspace/", Directory, ""),
        ("./workspace/d/", Directory, ""),
        ("workspace/d/a", Regular, "x"),
        ("workspace/d/b", Link, "workspace/d/a"),
    ]);
    let to = Scratch::new();
    let came = read(&good[..], &to.0, Most::default()).unwrap();
    assert_eq!((came.entries, came.bytes), (3, 2), "the second name counts like a file");
    assert_eq!(digest(&to.0).unwrap(), came);
}

#[test]
fn more_than_was_allowed_is_refused() {
    let files = [("workspace/a", 600), ("workspace/b", 600)];
    let files = files.map(|(path, length)| (path.to_owned(), vec![1; length], 0o600));
    let (bytes, _) = packed(&Scratch::with(&files).0);
    for (most, fits) in [
        (Most { bytes: 1200, entries: 2 }, true),
        (Most { bytes: 1199, entries: 2 }, false),
        (Most { bytes: 1200, entries: 1 }, false),
    ] {
        assert_eq!(digest_of_archive(&bytes[..], most).is_ok(), fits, "{most:?}");
    }
    // A name without an end.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'n'));
    let said = digest_of_archive(endless, Most::default()).unwrap_err().to_string();
    assert!(said.contains("have no end"), "{said}");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_archive() {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let from = Scratch::with(&[("workspace/a".to_owned(), vec![3; 300_000], 0o600)]);
    let base = from.0.clone();
    let out = stream(move |out| write(&base, out).map(|_| ()));
    let pieces: Vec<bytes::Bytes> = out.try_collect().await.unwrap();
    let sent = digest(&from.0).unwrap();
    let whole = |pieces: Vec<bytes::Bytes>| futures_util::stream::iter(pieces).map(Ok);
    let summed = |source: &mut dyn Read| digest_of_archive(source, Most::default());
    assert_eq!(feed(whole(pieces.clone()).boxed(), summed).await.unwrap(), sent);
    let short = pieces[..1].to_vec();
    let broken = futures_util::stream::iter([Err(io::Error::other("cut"))]);
    let said = feed(whole(pieces.clone()).chain(broken).boxed(), summed).await.unwrap_err();
    assert_eq!(said.to_string(), "cut", "also behind the archive's own end");
    assert!(feed(whole(short).boxed(), summed).await.is_err());
}
