//! Data on its way from one backend to another, through stores of every kind.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, PermissionsExt as _, symlink,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use ligand_domain::id::WorkspaceId;
use ligand_server::backend::process::{Process, Settings};
use ligand_server::backend::{Backend, Carried, ErrorKind, Place as At, Pushes, Root};
use ligand_server::config::Secret;
use ligand_server::db::{DatabaseUrl, Db};
use ligand_server::transfer::{self, Bucket, Copied, Place};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::engine::run;
use crate::support::s3::{KEY_ID, S3};
use crate::support::{TestApp, both};

const MIB: u64 = 1 << 20;

/// Directories of processes and a folder of snapshots, gone when dropped.
struct Disk {
    root: PathBuf,
    source: Process,
    target: Process,
    app: TestApp,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

const ID: Uuid = Uuid::from_u128(7);
fn who() -> WorkspaceId {
    WorkspaceId::from_random([3; 16])
}

fn quiet(_: u64, _: u64) {}

impl Disk {
    async fn new() -> Self {
        let root = scratch();
        let folder = root.join("transfers");
        Self::with(root, Place::Folder(folder)).await
    }

    async fn with(root: PathBuf, store: Place) -> Self {
        DirBuilder::new().recursive(true).mode(0o700).create(&root).unwrap();
        let backend = |name: &str| {
            let settings = Settings { uid_base: None, ..Settings::default() };
            Process::with(&root.join(name), settings, Pushes::channel().0)
        };
        let (source, target) = (backend("source"), backend("target"));
        let db = Db::open(&DatabaseUrl::Memory).await.unwrap();
        let app = TestApp::new(db, |config| config.migrations.store = store);
        let disk = Self { root, source, target, app };
        for backend in [&disk.source, &disk.target] {
            let at = At { root: Root::Configs, path: ".auth_token".into() };
            backend.write_file(who(), at, Bytes::from_static(b"the secret")).await.unwrap();
            fs::create_dir_all(disk.work()).unwrap();
        }
        disk
    }

    fn of(&self, end: &str) -> PathBuf {
        self.root.join(end).join(who().to_string())
    }

    /// The source's working directory.
    fn work(&self) -> PathBuf {
        self.of("source").join("workspace")
    }

    async fn copy(&self) -> Copied {
        transfer::copy(&self.app.app, ID, &self.source, who(), &quiet).await.unwrap()
    }

    async fn restore(&self, digest: &str) -> Result<Carried, transfer::Error> {
        transfer::restore(&self.app.app, ID, &self.target, who(), digest, &quiet).await
    }

    /// The files of the snapshot.
    fn kept(&self) -> Vec<PathBuf> {
        let chunks = self.root.join("transfers/migrations").join(ID.to_string()).join("chunks");
        let found = fs::read_dir(chunks).map(|found| found.map(|it| it.unwrap().path()).collect());
        found.unwrap_or_default()
    }

    fn manifest(&self) -> PathBuf {
        self.root.join("transfers/migrations").join(ID.to_string()).join("manifest")
    }

    /// Copy, restore, and see that it is the same.
    async fn goes_over(&self) -> Copied {
        let copied = self.copy().await;
        let came = self.restore(&copied.digest).await.unwrap();
        let there = self.source.digest(who()).await.unwrap();
        assert_eq!((&came, &self.target.digest(who()).await.unwrap()), (&there, &there));
        assert_eq!((copied.entries, copied.bytes), (there.entries, there.bytes));
        copied
    }
}

fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("transfer-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Content that repeats nowhere.
fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = 2 * seed + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    let mut bytes: Vec<u8> = Vec::new();
    while (bytes.len() as u64) < length {
        bytes.extend_from_slice(&next()[..5]);
    }
    bytes.truncate(usize::try_from(length).unwrap());
    bytes
}

/// Data with what is lost easily.
fn furnish(work: &Path) {
    fs::create_dir_all(work.join("deep/".repeat(30))).unwrap();
    fs::write(work.join("empty"), "").unwrap();
    fs::write(work.join("run"), "#!/bin/sh").unwrap();
    fs::set_permissions(work.join("run"), Permissions::from_mode(0o751)).unwrap();
    symlink("../../../etc/passwd", work.join("link")).unwrap();
    symlink("nowhere/".repeat(40), work.join("far")).unwrap();
    fs::write(work.join("large"), noise(1, 9 * MIB + 17)).unwrap();
    fs::write(work.join("exact"), noise(2, 4 * MIB)).unwrap();
    for number in 0..50 {
        fs::write(work.join(format!("deep/{number}é")), noise(number + 3, 3000)).unwrap();
    }
    fs::set_permissions(work.join("deep"), Permissions::from_mode(0o500)).unwrap();
}

#[test]
fn what_is_restored_is_what_was_copied_wherever_it_lay() {
    run(async {
        let root = scratch();
        let folder = Place::Folder(root.join("transfers"));
        let s3 = S3::start().await;
        for place in [Place::memory(), folder, bucket(&s3, "some/prefix", KEY_ID)] {
            let disk = Disk::with(root.clone(), place).await;
            furnish(&disk.work());
            fs::create_dir_all(disk.of("target").join("workspace")).unwrap();
            fs::write(disk.of("target").join("workspace/older"), "older").unwrap();
            let copied = disk.goes_over().await;
            assert!(copied.whole && copied.sent == copied.bytes, "{copied:?}");
            let there = disk.of("target").join("workspace");
            assert!(!there.join("older").exists());
            assert_eq!(
                fs::read_link(there.join("link")).unwrap(),
                Path::new("../../../etc/passwd")
            );
            let token = fs::read(disk.of("target").join("configs/.auth_token")).unwrap();
            assert_eq!(token, b"the secret");
            assert_eq!(disk.copy().await.sent, 0, "nothing was changed");
            let kept = transfer::list(&disk.app.app).await.unwrap();
            assert!(kept.len() == 1 && kept[0].id == ID && kept[0].bytes > copied.bytes);
            for _ in 0..2 {
                transfer::forget(&disk.app.app, ID).await.unwrap();
            }
            assert_eq!(transfer::list(&disk.app.app).await.unwrap(), []);
            let missing = disk.restore(&copied.digest).await.unwrap_err();
            assert_eq!(missing.kind, ErrorKind::Missing);
        }
        assert_eq!(s3.names(), Vec::<String>::new());
        assert!(s3.asked("list") > 2 && s3.asked("refused") == 0);
    });
}

#[test]
fn a_folder_of_snapshots_is_its_owners_alone_and_holds_no_credential() {
    run(async {
        let disk = Disk::new().await;
        furnish(&disk.work());
        disk.copy().await;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&disk.root.join("transfers")), 0o700);
        for file in disk.kept().iter().chain([&disk.manifest()]) {
            assert_eq!(mode(file), 0o600, "{}", file.display());
            let content = fs::read(file).unwrap();
            for never in [&b"the secret"[..], b".auth_token"] {
                assert!(!content.windows(never.len()).any(|at| at == never), "{}", file.display());
            }
        }
    });
}

#[test]
fn a_second_copy_sends_what_changed_and_no_more() {
    run(async {
        let disk = Disk::new().await;
        furnish(&disk.work());
        fs::set_permissions(disk.work().join("deep"), Permissions::from_mode(0o700)).unwrap();
        let first = disk.copy().await;
        // At its end: its last piece. 9 MiB are two whole pieces and one of 1 MiB.
        let mut large = File::options().append(true).open(disk.work().join("large")).unwrap();
        large.write_all(&noise(99, 1000)).unwrap();
        assert_eq!(disk.goes_over().await.sent, MIB + 17 + 1000);
        // In its middle: that piece.
        large.flush().unwrap();
        let large = File::options().write(true).open(disk.work().join("large")).unwrap();
        large.write_all_at(b"other", 5 * MIB).unwrap();
        assert_eq!(disk.goes_over().await.sent, 4 * MIB);
        // One of many small ones: itself, not its neighbours.
        fs::write(disk.work().join("deep/7é"), noise(98, 2500)).unwrap();
        assert_eq!(disk.goes_over().await.sent, 2500);
        // What is moved, copied, or taken away: nothing.
        fs::rename(disk.work().join("large"), disk.work().join("deep/larger")).unwrap();
        fs::copy(disk.work().join("exact"), disk.work().join("twice")).unwrap();
        fs::remove_file(disk.work().join("run")).unwrap();
        assert_eq!(disk.goes_over().await.sent, 0);
        // Another server knows as much as the first.
        let db = Db::open(&DatabaseUrl::Memory).await.unwrap();
        let folder = Place::Folder(disk.root.join("transfers"));
        let other = TestApp::new(db, |config| config.migrations.store = folder);
        let again = transfer::copy(&other.app, ID, &disk.source, who(), &quiet).await.unwrap();
        assert!(again.sent == 0 && again.bytes > first.bytes);
    });
}

#[test]
fn a_copy_that_is_given_up_is_gone_on_with() {
    run(async {
        let disk = Disk::new().await;
        fs::write(disk.work().join("large"), noise(5, 40 * MIB)).unwrap();
        let (far, read) = (Notify::new(), AtomicU64::new(0));
        let progress = |done: u64, total: u64| {
            assert!(done <= total);
            read.store(done, Ordering::Relaxed);
            if done >= 20 * MIB {
                far.notify_one();
            }
        };
        tokio::select! {
            _ = transfer::copy(&disk.app.app, ID, &disk.source, who(), &progress) => panic!("too fast"),
            () = far.notified() => {}
        }
        assert!(!disk.kept().is_empty() && !disk.manifest().exists());
        let nothing = disk.restore(&"0".repeat(64)).await.unwrap_err();
        assert_eq!(nothing.kind, ErrorKind::Missing, "there is no snapshot yet");
        let copied = disk.goes_over().await;
        assert!(copied.sent < copied.bytes, "{copied:?}");
        transfer::forget(&disk.app.app, ID).await.unwrap();
        assert!(!disk.root.join("transfers/migrations").join(ID.to_string()).exists());
    });
}

#[test]
fn what_is_given_up_at_the_target_changes_nothing_there() {
    run(async {
        let disk = Disk::new().await;
        fs::write(disk.work().join("large"), noise(5, 40 * MIB)).unwrap();
        let copied = disk.copy().await;
        let before = disk.target.digest(who()).await.unwrap();
        let far = Notify::new();
        let progress = |done: u64, _: u64| {
            if done >= 8 * MIB {
                far.notify_one();
            }
        };
        let digest = &copied.digest;
        tokio::select! {
            _ = transfer::restore(&disk.app.app, ID, &disk.target, who(), digest, &progress) => panic!("too fast"),
            () = far.notified() => {}
        }
        assert_eq!(disk.target.digest(who()).await.unwrap(), before);
        disk.restore(digest).await.unwrap();
        assert_eq!(disk.target.digest(who()).await.unwrap().digest, *digest);
    });
}

/// What a file is, whatever it is called.
fn node(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Change everything that can be changed of what was furnished.
fn change(work: &Path) {
    fs::set_permissions(work.join("deep"), Permissions::from_mode(0o700)).unwrap();
    fs::write(work.join("deep/7é"), noise(98, 2500)).unwrap();
    fs::set_permissions(work.join("run"), Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(work.join("far")).unwrap();
    fs::create_dir(work.join("far")).unwrap();
    fs::write(work.join("far/in"), "in").unwrap();
    fs::rename(work.join("exact"), work.join("moved")).unwrap();
    fs::hard_link(work.join("moved"), work.join("twice")).unwrap();
    fs::remove_dir_all(work.join("deep/deep")).unwrap();
    symlink("../run", work.join("deep/deep")).unwrap();
    fs::remove_file(work.join("link")).unwrap();
    fs::set_permissions(work.join("deep"), Permissions::from_mode(0o500)).unwrap();
}

#[test]
fn what_was_put_there_ahead_is_amended_and_the_rest_of_it_stays() {
    run(async {
        let disk = Disk::new().await;
        furnish(&disk.work());
        disk.copy().await;
        let before = disk.target.digest(who()).await.unwrap();
        transfer::restore_ahead(&disk.app.app, ID, &disk.target, who(), &quiet).await;
        assert_eq!(disk.target.digest(who()).await.unwrap(), before, "it does not count yet");
        let (ahead, there) =
            (disk.of("target").join(".ahead/workspace"), disk.of("target").join("workspace"));
        let nodes = ["large", "deep/6é", "deep/7é"].map(|name| node(&ahead.join(name)));
        change(&disk.work());
        disk.goes_over().await;
        let now = ["large", "deep/6é", "deep/7é"].map(|name| node(&there.join(name)));
        assert_eq!(
            (now[0], now[1]),
            (nodes[0], nodes[1]),
            "what did not change was not sent again"
        );
        assert_ne!(now[2], nodes[2]);
        assert!(!ahead.exists() && !there.join("link").exists());
        let token = fs::read(disk.of("target").join("configs/.auth_token")).unwrap();
        assert_eq!(token, b"the secret");
        // There is nothing of the kind any more: then all of it comes.
        disk.goes_over().await;
        // What lies there is not what was put there.
        transfer::restore_ahead(&disk.app.app, ID, &disk.target, who(), &quiet).await;
        fs::write(ahead.join("large"), "spoilt").unwrap();
        fs::write(disk.work().join("more"), "more").unwrap();
        disk.goes_over().await;
        assert!(!ahead.exists());
    });
}

#[test]
fn what_cannot_be_read_whole_is_copied_as_far_as_possible() {
    run(async {
        let disk = Disk::new().await;
        fs::write(disk.work().join("large"), noise(6, 6 * MIB)).unwrap();
        fs::write(disk.work().join("small"), noise(7, 1000)).unwrap();
        // Deeper than an export goes: it breaks off there, after all the rest.
        fs::create_dir_all(disk.work().join("z/".repeat(230))).unwrap();
        let refused = transfer::copy(&disk.app.app, ID, &disk.source, who(), &quiet).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Transient);
        assert!(refused.what.contains("nested too deeply"), "{refused}");
        let ahead =
            async || transfer::copy_ahead(&disk.app.app, ID, &disk.source, who(), &quiet).await;
        let copied = ahead().await.unwrap();
        assert!(!copied.whole && copied.digest.is_empty());
        let refused = disk.restore("").await.unwrap_err();
        assert!(refused.what.ends_with("is not whole"), "{refused}");
        fs::remove_dir_all(disk.work().join("z")).unwrap();
        assert_eq!(disk.goes_over().await.sent, 0, "all of it is there");
        // What is known is kept, when a later one cannot be read.
        fs::create_dir_all(disk.work().join("a/".repeat(230))).unwrap();
        assert!(!ahead().await.unwrap().whole);
        fs::remove_dir_all(disk.work().join("a")).unwrap();
        assert_eq!(disk.goes_over().await.sent, 0);
    });
}

#[test]
fn a_snapshot_that_is_damaged_is_refused_and_the_target_keeps_what_it_has() {
    run(async {
        let disk = Disk::new().await;
        furnish(&disk.work());
        let copied = disk.copy().await;
        let before = disk.target.digest(who()).await.unwrap();
        let refused = async |digest: &str, why: &str| {
            let refused = disk.restore(digest).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Broken, "{refused}");
            assert!(refused.what.contains(why), "{refused}");
            assert_eq!(disk.target.digest(who()).await.unwrap(), before);
        };
        refused(&"0".repeat(64), &copied.digest).await;
        let flip = |path: &Path| {
            let mut file = File::options().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.seek(SeekFrom::End(-40)).unwrap();
            file.read_exact(&mut byte).unwrap();
            file.seek(SeekFrom::End(-40)).unwrap();
            file.write_all(&[byte[0] ^ 1]).unwrap();
        };
        let chunk = disk.kept().pop().unwrap();
        flip(&chunk);
        refused(&copied.digest, "is damaged").await;
        fs::remove_file(&chunk).unwrap();
        refused(&copied.digest, "is missing").await;
        assert!(disk.copy().await.sent > 0, "what is missing is sent again");
        flip(&disk.manifest());
        refused(&copied.digest, "it is not what was written").await;
        disk.goes_over().await;
    });
}

#[test]
fn many_small_files_share_chunks() {
    run(async {
        let disk = Disk::new().await;
        for dir in 0..100 {
            let dir = disk.work().join(format!("{dir:03}"));
            fs::create_dir(&dir).unwrap();
            for number in 0..100 {
                fs::write(dir.join(number.to_string()), format!("{} {number}", dir.display()))
                    .unwrap();
            }
        }
        #[expect(clippy::disallowed_methods, reason = "it is measured")]
        let begun = std::time::Instant::now();
        let copied = disk.copy().await;
        let copy = begun.elapsed();
        disk.restore(&copied.digest).await.unwrap();
        println!(
            "10 000 small files: copied in {copy:?}, restored in {:?}",
            begun.elapsed() - copy
        );
        assert_eq!(
            (copied.entries, disk.target.digest(who()).await.unwrap().digest),
            (10_100, copied.digest)
        );
        let chunks = disk.kept().len() as u64;
        assert!(chunks <= copied.bytes / MIB + 1, "{chunks}");
        // Something new in front of all others: what comes after it is found again, without a manifest too.
        fs::write(disk.work().join("000/-"), "new").unwrap();
        assert_eq!(disk.copy().await.sent, 3);
    });
}

both! {
    async fn data_goes_from_one_backend_in_memory_to_itself(app: TestApp) {
        let other = WorkspaceId::from_random([4; 16]);
        for (root, path) in [(Root::Workspace, "a/b/note"), (Root::Home, "h"), (Root::Configs, "c.yaml"), (Root::Configs, ".auth_token")] {
            let at = At { root, path: path.into() };
            app.fake.write_file(who(), at, Bytes::from(path)).await.unwrap();
        }
        let digest = app.fake.digest(who()).await.unwrap();
        let ahead = transfer::copy_ahead(&app.app, ID, &app.fake, who(), &quiet).await.unwrap();
        let copied = transfer::copy(&app.app, ID, &app.fake, who(), &quiet).await.unwrap();
        assert_eq!((&ahead.digest, &copied.digest, copied.sent), (&digest.digest, &digest.digest, 0));
        // The server starts again, and its store is as it was.
        let app = app.reborn();
        let came = transfer::restore(&app.app, ID, &app.fake, other, &copied.digest, &quiet).await;
        assert_eq!((&came.unwrap(), &app.fake.digest(other).await.unwrap()), (&digest, &digest));
        let token = At { root: Root::Configs, path: ".auth_token".into() };
        assert!(app.fake.read_file(other, token).await.is_err());
    }
}

fn bucket(s3: &S3, prefix: &str, key_id: &str) -> Place {
    let said = [
        ("aws_access_key_id", key_id.to_owned()),
        ("aws_secret_access_key", "the secret key".to_owned()),
        ("aws_region", "eu-test-1".to_owned()),
        ("aws_endpoint_url", s3.url()),
    ];
    let said = said.map(|(name, value)| (name, Secret::new(value))).into();
    Place::Bucket(Bucket { url: format!("s3://bucket/{prefix}"), said })
}

#[test]
fn a_bucket_is_asked_seldom_and_one_that_refuses_is_told_of() {
    run(async {
        let s3 = S3::start().await;
        let disk = Disk::with(scratch(), bucket(&s3, "", KEY_ID)).await;
        for number in 0..2000 {
            fs::write(disk.work().join(number.to_string()), number.to_string()).unwrap();
        }
        let copied = disk.goes_over().await;
        assert_eq!(s3.asked("put"), 2, "2000 small files are a chunk and a manifest");
        assert_eq!(
            s3.asked("get"),
            4,
            "the manifest twice, whether anything came ahead, the chunk once"
        );
        let named = |name: &String| name.starts_with(&format!("/bucket/migrations/{ID}/"));
        assert!(s3.names().iter().all(named), "{:?}", s3.names());
        let stranger = Disk::with(scratch(), bucket(&s3, "", "SOMEBODY")).await;
        let refused = stranger.restore(&copied.digest).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Broken, "{refused}");
        assert!(refused.what.contains("InvalidAccessKeyId"), "{refused}");
        assert!(!refused.what.contains("the secret key"), "{refused}");
    });
}
