//! A Unix socket in front of another one, which can be pulled away and put back, and which loses an answer when told to.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What to do about a request, which is given as text.
type Act = Box<dyn FnOnce(&str) + Send>;

/// See the module.
pub(crate) struct Socket {
    path: PathBuf,
    state: Arc<State>,
}

struct State {
    behind: PathBuf,
    away: AtomicBool,
    ended: AtomicBool,
    /// What a request holds whose answer is to be lost.
    lose: Mutex<Option<&'static str>>,
    /// What a request holds before which something is done.
    before: Mutex<Option<(&'static str, Act)>>,
    open: Mutex<Vec<UnixStream>>,
}

impl Socket {
    /// At `path`, in front of `behind`.
    pub(crate) fn new(path: &Path, behind: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(State {
            behind: behind.to_owned(),
            away: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            lose: Mutex::default(),
            before: Mutex::default(),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                accepting.connect(caller);
            }
        });
        Self { path: path.to_owned(), state }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Pull it away: what is connected is cut off, and nobody gets through.
    pub(crate) fn pull(&self) {
        self.state.away.store(true, Ordering::SeqCst);
        self.state.cut();
    }

    /// Put it back.
    pub(crate) fn put_back(&self) {
        self.state.away.store(false, Ordering::SeqCst);
    }

    /// The next request that holds this text gets through, and its answer is lost.
    pub(crate) fn lose_the_answer_to(&self, request: &'static str) {
        *self.state.lose.lock().unwrap() = Some(request);
    }

    /// Before the next request that holds this text gets through, do this.
    pub(crate) fn before(&self, request: &'static str, act: impl FnOnce(&str) + Send + 'static) {
        *self.state.before.lock().unwrap() = Some((request, Box::new(act)));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.state.cut();
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

impl State {
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn connect(self: &Arc<Self>, caller: UnixStream) {
        if self.away.load(Ordering::SeqCst) {
            return;
        }
        let Ok(engine) = UnixStream::connect(&self.behind) else { return };
        let twin = |stream: &UnixStream| stream.try_clone().unwrap();
        self.open.lock().unwrap().extend([twin(&caller), twin(&engine)]);
        let lost = Arc::new(AtomicBool::new(false));
        let (state, losing) = (Arc::clone(self), Arc::clone(&lost));
        let (from, to) = (twin(&caller), twin(&engine));
        thread::spawn(move || {
            pump(from, to, |bytes| {
                let text = String::from_utf8_lossy(bytes);
                let mut before = state.before.lock().unwrap();
                if let Some((_, act)) = before.take_if(|(request, _)| text.contains(*request)) {
                    act(&text);
                }
                drop(before);
                let mut lose = state.lose.lock().unwrap();
                if lose.is_some_and(|request| text.contains(request)) {
                    *lose = None;
                    losing.store(true, Ordering::SeqCst);
                }
                true
            });
        });
        thread::spawn(move || pump(engine, caller, |_| !lost.load(Ordering::SeqCst)));
    }
}

/// Pass on what comes, until it ends or may not pass.
fn pump(mut from: UnixStream, mut to: UnixStream, mut may: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    let whole = loop {
        match from.read(&mut buffer) {
            Ok(0) => break true,
            Ok(n) if may(&buffer[..n]) && to.write_all(&buffer[..n]).is_ok() => {}
            _ => break false,
        }
    };
    if whole {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    }
}
