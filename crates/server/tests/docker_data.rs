//! A workspace's data on Docker, where more is at stake than what every backend must do.

use bollard::query_parameters::{ListContainersOptions, ListVolumesOptions};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ligand_domain::instance::Seen;
use ligand_server::backend::docker::Docker;
use ligand_server::backend::process::Process;
use ligand_server::backend::{Backend, Bytestream, ErrorKind, Key, Pushes, Root, Spec};

use crate::docker::{GRACE, WAITS, at, key, on_docker, spec, until};
use crate::support::docker::{Bench, open};

/// A directory of processes, gone when dropped.
struct Disk(PathBuf, Process);

impl Disk {
    fn new(bench: &Bench) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&bench.setup.owner);
        let process = Process::new(&root, Pushes::channel().0);
        Self(root, process)
    }

    fn of(&self, key: Key) -> PathBuf {
        self.0.join(key.workspace.to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn again(archive: &[Bytes]) -> Bytestream {
    stream::iter(archive.to_vec()).map(Ok).boxed()
}

async fn archive(backend: &dyn Backend, of: Key) -> Vec<Bytes> {
    backend.export(of.workspace).await.unwrap().try_collect().await.unwrap()
}

async fn put(backend: &dyn Backend, of: Key, path: &str, content: &'static str) {
    let content = Bytes::from_static(content.as_bytes());
    backend.write_file(of.workspace, at(Root::Workspace, path), content).await.unwrap();
}

async fn read(backend: &dyn Backend, of: Key, path: &str) -> Result<Bytes, ErrorKind> {
    let read = backend.read_file(of.workspace, at(Root::Workspace, path)).await;
    read.map_err(|cause| cause.kind)
}

/// Run a script with a workspace's data, and give what it said.
async fn told(backend: &Docker, of: Key, script: &str) -> String {
    backend.ensure(spec(of, script)).await.unwrap();
    until("it ended", || async { backend.inspect(of).await.unwrap() != Seen::Running }).await;
    let log = backend.logs(of.workspace, 100).await.unwrap();
    backend.destroy(of).await.unwrap();
    String::from_utf8(log.to_vec()).unwrap()
}

#[test]
fn data_goes_from_processes_to_containers_and_back_under_one_digest() {
    on_docker(|bench| async move {
        let (disk, backend) = (Disk::new(&bench), &bench.backend);
        let (from, to, back) = (key(20, 1), key(21, 1), key(22, 1));
        put(&disk.1, from, "bin/run", "#!/bin/sh").await;
        let work = disk.of(from).join("workspace");
        fs::set_permissions(work.join("bin/run"), fs::Permissions::from_mode(0o751)).unwrap();
        let deep = work.join("deep/".repeat(40));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("n".repeat(200)), vec![7; 1 << 20]).unwrap();
        let targets = ["/etc/passwd", "../../../x", "bin/run", &"far/".repeat(40)];
        for (number, target) in targets.iter().enumerate() {
            symlink(target, work.join(format!("link{number}"))).unwrap();
        }
        fs::set_permissions(work.join("bin"), fs::Permissions::from_mode(0o500)).unwrap();
        let digest = disk.1.digest(from.workspace).await.unwrap();
        let sent = archive(&disk.1, from).await;
        let expected = Some(digest.digest.clone());
        let came = backend.import(to.workspace, again(&sent), expected.clone()).await.unwrap();
        assert_eq!((&came, &backend.digest(to.workspace).await.unwrap()), (&digest, &digest));
        let script = "cd /workspace; stat -c '%a %u' bin bin/run; readlink link0; readlink link1; \
            touch /workspace/mine; chown 1234:77 /workspace/mine";
        let expected_words = "500 0\n751 0\n/etc/passwd\n../../../x\n";
        assert_eq!(told(backend, to, script).await, expected_words);
        let (changed, sent) =
            (backend.digest(to.workspace).await.unwrap(), archive(backend, to).await);
        assert_eq!(changed.entries, digest.entries + 1);
        let expected = Some(changed.digest.clone());
        let came = disk.1.import(back.workspace, again(&sent), expected.clone()).await.unwrap();
        assert_eq!((&came, &disk.1.digest(back.workspace).await.unwrap()), (&changed, &changed));
        for (number, target) in targets.iter().enumerate() {
            let link = disk.of(back).join(format!("workspace/link{number}"));
            assert_eq!(fs::read_link(link).unwrap().as_os_str(), *target);
        }
        // From container to container, who owns a file stays.
        backend.import(back.workspace, again(&sent), expected).await.unwrap();
        assert_eq!(told(backend, back, "stat -c '%u %g' /workspace/mine").await, "1234 77\n");
        bench.clear().await;
    });
}

#[test]
fn a_workspace_without_data_has_none_to_export() {
    on_docker(|bench| async move {
        let nobody = key(23, 1).workspace;
        let kinds = (
            bench.backend.export(nobody).await.err().map(|cause| cause.kind),
            bench.backend.digest(nobody).await.err().map(|cause| cause.kind),
        );
        assert_eq!(kinds, (Some(ErrorKind::Missing), Some(ErrorKind::Missing)));
        bench.clear().await;
    });
}

#[test]
fn an_import_whose_server_dies_changes_nothing_and_the_next_one_ends_it() {
    on_docker(|bench| async move {
        let (backend, from, to) = (&bench.backend, key(24, 1), key(25, 1));
        put(backend, from, "new", "new").await;
        put(backend, to, "old", "old").await;
        let (sent, before) =
            (archive(backend, from).await, backend.digest(to.workspace).await.unwrap());
        let importer = format!("ws-{}-import", to.workspace);
        // By the list: whoever inspects a container waits until nothing is unpacked in it any more.
        let there = async || {
            let filters = Some([("name".to_owned(), vec![importer.clone()])].into());
            let options = ListContainersOptions { all: true, filters, ..Default::default() };
            bench.engine().list_containers(Some(options)).await.is_ok_and(|found| !found.is_empty())
        };
        // The archive came, and its end did not: the server is gone.
        let endless = again(&sent).chain(stream::pending()).boxed();
        tokio::select! {
            _ = backend.import(to.workspace, endless, None) => panic!("it does not end"),
            () = until("it is begun", there) => {}
        }
        assert_eq!(backend.digest(to.workspace).await.unwrap(), before);
        assert_eq!(read(backend, to, "old").await.unwrap(), "old");
        // Another server, which knows nothing of the first.
        let (later, _) = open(&bench.setup);
        let came = later.import(to.workspace, again(&sent), None).await.unwrap();
        assert_eq!(later.digest(to.workspace).await.unwrap(), came);
        assert_eq!(read(backend, to, "new").await.unwrap(), "new");
        assert_eq!(read(backend, to, "old").await, Err(ErrorKind::Missing));
        let names = volumes(&bench, to).await;
        assert_eq!(names.len(), 5, "what counts, and that it is whole: {names:?}");
        assert!(!there().await);
        bench.clear().await;
    });
}

async fn volumes(bench: &Bench, of: Key) -> Vec<String> {
    let filter = ("label".to_owned(), vec![format!("ligand.workspace={}", of.workspace)]);
    let options = ListVolumesOptions { filters: Some([filter].into()) };
    let found = bench.engine().list_volumes(Some(options)).await.unwrap();
    let volumes = found.volumes.unwrap_or_default().into_iter();
    let mut names: Vec<_> = volumes.map(|volume| volume.name).collect();
    names.sort();
    names
}

#[test]
fn an_instance_that_runs_sees_what_is_imported_and_keeps_its_credential() {
    on_docker(|bench| async move {
        let (backend, from, old, new) = (&bench.backend, key(26, 1), key(27, 1), key(27, 2));
        put(backend, from, "note", "new").await;
        put(backend, from, "deep/er", "deeper").await;
        let turn = at(Root::Configs, ".turns/one");
        let said = Bytes::from_static(b"answered");
        backend.write_file(from.workspace, turn.clone(), said.clone()).await.unwrap();
        let (sent, digest) =
            (archive(backend, from).await, backend.digest(from.workspace).await.unwrap());
        let sees = "until test -e /workspace/deep/er; do sleep 0.05; done; cat /workspace/note; \
            test -e /workspace/old || echo .; sleep 1000";
        backend.ensure(spec(old, sees)).await.unwrap();
        put(backend, old, "note", "old").await;
        put(backend, old, "old", "old").await;
        let passport = at(Root::Configs, ".passport");
        let mine = Bytes::from_static(b"mine");
        backend.write_file(old.workspace, passport.clone(), mine.clone()).await.unwrap();
        let token = at(Root::Configs, ".auth_token");
        let token = || backend.read_file(old.workspace, token.clone());
        let before = (token().await.unwrap(), volumes(&bench, old).await);
        // With another digest, what is there stays.
        let wrong = Some("0".repeat(64));
        let refused = backend.import(old.workspace, again(&sent), wrong).await.unwrap_err();
        assert!(refused.what.contains("what was there stays"), "{}", refused.chain());
        assert_eq!(read(backend, old, "note").await.unwrap(), "old");
        for _ in 0..2 {
            let expected = Some(digest.digest.clone());
            let came = backend.import(old.workspace, again(&sent), expected).await.unwrap();
            assert_eq!((&came, &backend.digest(old.workspace).await.unwrap()), (&digest, &digest));
        }
        assert_eq!(backend.inspect(old).await.unwrap(), Seen::Running);
        until("it saw them", || async {
            backend.logs(old.workspace, 10).await.unwrap().starts_with(b"new")
        })
        .await;
        assert_eq!(backend.logs(old.workspace, 10).await.unwrap(), "new.\n");
        assert_eq!((token().await.unwrap(), volumes(&bench, old).await), before);
        assert_eq!(backend.read_file(old.workspace, passport).await.unwrap(), mine);
        assert_eq!(backend.read_file(old.workspace, turn).await.unwrap(), said);
        assert_eq!(read(backend, old, "old").await, Err(ErrorKind::Missing));
        // What the source loses, the target keeps.
        backend.erase(from.workspace).await.unwrap();
        assert_eq!(backend.digest(old.workspace).await.unwrap(), digest);
        // Ended, and not yet forgotten: its container still holds the old volumes.
        backend.stop(old, GRACE).await.unwrap();
        backend.import(old.workspace, again(&sent), None).await.unwrap();
        assert_eq!(read(backend, old, "note").await.unwrap(), "new");
        backend.destroy(old).await.unwrap();
        assert_eq!(told(backend, new, "cat /workspace/note").await, "new");
        backend.import(old.workspace, again(&sent), None).await.unwrap();
        assert_eq!(volumes(&bench, old).await.len(), 5, "now the first ones go, too");
        bench.clear().await;
    });
}

#[test]
fn what_came_ahead_is_amended_beneath_an_instance_that_runs() {
    on_docker(|bench| async move {
        let (disk, backend) = (Disk::new(&bench), &bench.backend);
        let (source, from, to) = (&disk.1, key(60, 1), key(61, 1));
        for (path, content) in [("same", "same"), ("other", "old"), ("lost", "x"), ("dir/in", "x")]
        {
            put(source, from, path, content).await;
        }
        let ahead = (archive(source, from).await, source.digest(from.workspace).await.unwrap());
        backend.ensure(spec(to, WAITS)).await.unwrap();
        put(backend, to, "mine", "mine").await;
        let before = (backend.digest(to.workspace).await.unwrap(), volumes(&bench, to).await);
        let came = backend.import_ahead(to.workspace, again(&ahead.0)).await.unwrap();
        assert_eq!(came, ahead.1);
        assert_eq!(backend.digest(to.workspace).await.unwrap(), before.0, "it does not count yet");
        put(source, from, "other", "new").await;
        for path in ["lost", "dir"] {
            source.remove_file(from.workspace, at(Root::Workspace, path)).await.unwrap();
        }
        put(source, from, "dir", "a file now").await;
        let now = (archive(source, from).await, source.digest(from.workspace).await.unwrap());
        let gone = ["workspace/lost", "workspace/dir/in"].map(PathBuf::from).to_vec();
        let digest = now.1.digest.clone();
        let amend = async |digest: &str| {
            let (changes, gone) = (again(&now.0), gone.clone());
            backend.amend(to.workspace, changes, gone, digest.to_owned()).await
        };
        let came = amend(&digest).await.unwrap();
        assert_eq!((&came, &backend.digest(to.workspace).await.unwrap()), (&now.1, &now.1));
        assert_eq!(read(backend, to, "dir").await.unwrap(), "a file now");
        assert_eq!(backend.inspect(to).await.unwrap(), Seen::Running);
        assert_eq!(volumes(&bench, to).await, before.1, "what waited is gone");
        assert_eq!(amend(&digest).await.unwrap_err().kind, ErrorKind::Missing);
        // What comes out as something else is told, and an import makes up for it.
        backend.import_ahead(to.workspace, again(&ahead.0)).await.unwrap();
        assert_eq!(amend(&"0".repeat(64)).await.unwrap_err().kind, ErrorKind::Broken);
        let came = backend.import(to.workspace, again(&ahead.0), None).await.unwrap();
        assert_eq!((&came, &backend.digest(to.workspace).await.unwrap()), (&ahead.1, &ahead.1));
        assert_eq!(volumes(&bench, to).await, before.1);
        bench.clear().await;
    });
}

#[test]
fn what_came_half_beneath_an_instance_comes_whole_the_next_time() {
    on_docker(|bench| async move {
        let (backend, from, to) = (&bench.backend, key(28, 1), key(29, 1));
        let large = Bytes::from(vec![7; 8 << 20]);
        for name in ["one", "two"] {
            let place = at(Root::Workspace, name);
            backend.write_file(from.workspace, place, large.clone()).await.unwrap();
        }
        let (sent, digest) =
            (archive(backend, from).await, backend.digest(from.workspace).await.unwrap());
        // The agent's own image, which has no program to take files away.
        let env = [
            ("WORKSPACE_ID".to_owned(), to.workspace.to_string()),
            ("PLATFORM_URL".to_owned(), "http://127.0.0.1:1".to_owned()),
        ];
        let runtime = "echo".to_owned();
        let agent = Spec { runtime, command: Vec::new(), env: env.into(), ..spec(to, WAITS) };
        backend.ensure(agent).await.unwrap();
        assert_eq!(backend.inspect(to).await.unwrap(), Seen::Running);
        // The server dies while what came is poured: beside the instance there is a container with its volumes.
        let pours = async || {
            let filters = [("name".to_owned(), vec![format!("ws-{}-pour", to.workspace)])];
            let filters = Some(filters.into());
            let options = ListContainersOptions { all: true, filters, ..Default::default() };
            bench.engine().list_containers(Some(options)).await.is_ok_and(|found| !found.is_empty())
        };
        let dies = async |moment| {
            until("it is poured", pours).await;
            crate::support::a_moment(moment).await;
        };
        for moment in [0, 100] {
            let (dying, _) = open(&bench.setup);
            tokio::select! {
                _ = dying.import(to.workspace, again(&sent), None) => {}
                () = dies(moment) => {}
            }
        }
        let (later, _) = open(&bench.setup);
        let expected = Some(digest.digest.clone());
        // The engine may be at what the dead one asked for last; then it says so, and whoever imports comes again.
        until("it is imported", async || {
            match later.import(to.workspace, again(&sent), expected.clone()).await {
                Err(cause) if cause.kind == ErrorKind::Transient => false,
                came => came.map(|_| true).unwrap(),
            }
        })
        .await;
        assert_eq!(later.digest(to.workspace).await.unwrap(), digest);
        assert_eq!(later.inspect(to).await.unwrap(), Seen::Running);
        bench.clear().await;
    });
}
