//! A backend whose instances are as fake as ever, and whose files are on a disk. Its terminals echo.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use ligand_server::backend::fake::Fake;
use ligand_server::backend::process::Process;
use ligand_server::backend::{
    Answer, Backend, Bytestream, Found, Key, Place, Pushes, Spec, Started, Terminal,
};
use tokio::sync::mpsc;

use super::TestApp;

/// See the module.
#[derive(Clone)]
pub(crate) struct House {
    fake: Fake,
    disk: Process,
    root: Arc<Root>,
    /// Whether the last terminal ended.
    pub(crate) ended: Arc<AtomicBool>,
}

struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The server, with files on a disk.
pub(crate) fn housed(app: TestApp) -> (TestApp, House) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("house-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let disk = Process::new(&root, Pushes::channel().0);
    let root = Arc::new(Root(root));
    let house = House { fake: app.fake.clone(), disk, root, ended: Arc::default() };
    let backend = house.clone();
    (app.on(|_| Arc::new(backend)), house)
}

impl House {
    /// Where a workspace's directories are.
    pub(crate) fn of(&self, workspace: &str) -> PathBuf {
        self.root.0.join(workspace)
    }

    /// A place that is no workspace's.
    pub(crate) fn outside(&self) -> PathBuf {
        let outside = self.root.0.join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        outside
    }
}

struct Shell(Arc<AtomicBool>);

impl Drop for Shell {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Backend for House {
    fn kind(&self) -> &'static str {
        "house"
    }

    fn fingerprint(&self) -> Answer<'_, String> {
        self.fake.fingerprint()
    }

    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        self.fake.ensure(spec)
    }

    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        self.fake.find(key)
    }

    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        self.fake.inspect(key)
    }

    fn stop(&self, key: Key, grace: Duration) -> Answer<'_, ()> {
        self.fake.stop(key, grace)
    }

    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        self.fake.destroy(key)
    }

    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        self.disk.erase(workspace)
    }

    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        self.fake.list_owned()
    }

    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        self.disk.logs(workspace, lines)
    }

    fn recover(&self) -> Answer<'_, ()> {
        self.fake.recover()
    }

    fn follow(&self, workspace: WorkspaceId) -> Answer<'_, Bytestream> {
        self.disk.follow(workspace)
    }

    fn list_files(&self, workspace: WorkspaceId, at: Place, depth: u8) -> Answer<'_, Vec<Found>> {
        self.disk.list_files(workspace, at, depth)
    }

    fn read_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, Bytes> {
        self.disk.read_file(workspace, at)
    }

    fn write_file(&self, workspace: WorkspaceId, at: Place, content: Bytes) -> Answer<'_, ()> {
        self.disk.write_file(workspace, at, content)
    }

    fn remove_file(&self, workspace: WorkspaceId, at: Place) -> Answer<'_, ()> {
        self.disk.remove_file(workspace, at)
    }

    fn terminal(&self, _: Key, (cols, rows): (u16, u16)) -> Answer<'_, Terminal> {
        let (input, typed) = mpsc::channel::<Bytes>(4);
        let (size, sizes) = mpsc::channel::<(u16, u16)>(4);
        let shell = Shell(Arc::clone(&self.ended));
        let echo = stream::unfold((typed, sizes, shell), |(mut typed, mut sizes, shell)| async {
            let said = tokio::select! {
                input = typed.recv() => input?,
                size = sizes.recv() => {
                    let (cols, rows) = size?;
                    Bytes::from(format!("{cols}x{rows}"))
                }
            };
            (said != "exit").then_some((Ok(said), (typed, sizes, shell)))
        });
        let greeting = stream::iter([Ok(Bytes::from(format!("{cols}x{rows}")))]);
        let output = greeting.chain(echo).boxed();
        Box::pin(async { Ok(Terminal { output, input, size }) })
    }
}
