//! A shell beside an instance: in its directories, as its user, with a terminal. It ends with whoever reads what it
//! says.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::{Process, limits};
use crate::backend::{BackendError, Key, Limits, Terminal};

/// Keys and sizes that may wait.
const WAITING: usize = 32;
/// Bytes that are read at once.
const PIECE: usize = 8 << 10;

struct Session {
    screen: AsyncFd<OwnedFd>,
    /// Held, that it ends with the session.
    _shell: Child,
    typed: mpsc::Receiver<Bytes>,
    sizes: mpsc::Receiver<(u16, u16)>,
    /// Typed, and not taken yet.
    rest: Bytes,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "a shell is a process of an instance")]
    #[expect(
        deprecated,
        reason = "an owned descriptor keeps the promise that the unsafe replacement asks for"
    )]
    pub(super) fn open_terminal(
        &self,
        key: Key,
        size: (u16, u16),
    ) -> Result<Terminal, BackendError> {
        let running = self.known(key)?.is_some_and(|record| record.identity.alive());
        if !running {
            let (workspace, generation) = (key.workspace, key.generation);
            let what = format!("generation {generation} of workspace {workspace} does not run");
            return Err(BackendError::missing(what));
        }
        if self.sandboxed() {
            return Err(BackendError::unsupported("no terminal leads into a sandbox"));
        }
        let tree = self.tree(key.workspace);
        let owner = self.prepare(&tree)?;
        let failed = |cause: io::Error| BackendError::io("cannot open a terminal", cause);
        let (screen, inner) = pair(size).map_err(|cause| failed(cause.into()))?;
        let again = || inner.try_clone().map(Stdio::from).map_err(failed);
        // `setsid -c` makes it the terminal of its session, so that Ctrl-C and hanging up reach what runs there.
        let mut words = limits::before(Limits::default(), owner.is_some());
        words.extend(["setsid", "--ctty", "--wait", "/bin/sh", "-i"].map(str::to_owned));
        let mut command = Command::new(&words[0]);
        let home = tree.home();
        command
            .args(&words[1..])
            .env_clear()
            .envs(self.shell_environment(key, &tree))
            .current_dir(if tree.workspace().is_dir() { tree.workspace() } else { home })
            .stdin(again()?)
            .stdout(again()?)
            .stderr(again()?)
            .kill_on_drop(true);
        let shell = self.launch(command, owner, &tree.of_instance()).map_err(|cause| {
            BackendError::io("cannot start a shell with setsid (of util-linux)", cause)
        })?;
        if let Some(pid) = shell.id() {
            self.restrain(key, pid, Limits::default(), owner);
        }
        let (input, typed) = mpsc::channel(WAITING);
        let (resize, sizes) = mpsc::channel(WAITING);
        let screen = AsyncFd::new(screen).map_err(failed)?;
        let session = Session { screen, _shell: shell, typed, sizes, rest: Bytes::new() };
        let output = futures_util::stream::unfold(session, |mut session| async move {
            let said = session.next().await?;
            Some((said, session))
        });
        Ok(Terminal { output: output.boxed(), input, size: resize })
    }
}

/// Both ends of a new terminal; ours does not block.
fn pair(size: (u16, u16)) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outer = openpt(flags)?;
    grantpt(&outer)?;
    unlockpt(&outer)?;
    let name = ptsname(&outer, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inner = open(name.as_c_str(), flags, Mode::empty())?;
    resize(&outer, size)?;
    fcntl_setfl(&outer, OFlags::RDWR | OFlags::NONBLOCK)?;
    Ok((outer, inner))
}

fn resize(outer: &OwnedFd, (columns, rows): (u16, u16)) -> Result<(), Errno> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(outer.as_fd(), size)
}

impl Session {
    /// What is said next; `None` once the shell has ended.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            tokio::select! {
                ready = self.screen.readable() => {
                    let mut ready = match ready {
                        Ok(ready) => ready,
                        Err(cause) => return Some(Err(cause)),
                    };
                    let mut buffer = vec![0; PIECE];
                    let read = ready.try_io(|screen| {
                        Ok(rustix::io::read(screen.get_ref(), &mut buffer)?)
                    });
                    match read {
                        Err(_not_yet) => {}
                        // Nobody holds the other end any more.
                        Ok(Ok(0)) => return None,
                        Ok(Err(cause)) if cause.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                            return None;
                        }
                        Ok(Err(cause)) => return Some(Err(cause)),
                        Ok(Ok(length)) => {
                            buffer.truncate(length);
                            return Some(Ok(Bytes::from(buffer)));
                        }
                    }
                }
                ready = self.screen.writable(), if !self.rest.is_empty() => {
                    let mut ready = match ready {
                        Ok(ready) => ready,
                        Err(cause) => return Some(Err(cause)),
                    };
                    let rest = &self.rest;
                    let written = ready.try_io(|screen| {
                        Ok(rustix::io::write(screen.get_ref(), rest)?)
                    });
                    match written {
                        Ok(Ok(length)) => self.rest.advance(length),
                        Ok(Err(cause)) => return Some(Err(cause)),
                        Err(_not_yet) => {}
                    }
                }
                Some(typed) = self.typed.recv(), if self.rest.is_empty() => self.rest = typed,
                Some(size) = self.sizes.recv() => {
                    let _ = resize(self.screen.get_ref(), size);
                }
            }
        }
    }
}
