//! The end of an instance, as it is noticed.

use std::os::fd::OwnedFd;

use ligand_domain::instance::Exit;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// How the end of an instance is noticed.
pub(super) enum Watched {
    /// We started it: its exit status is ours to read.
    Child(Child, u32),
    /// An earlier server started it: only that it ended can be seen.
    Other(OwnedFd),
}

impl Watched {
    /// It ended.
    #[expect(
        deprecated,
        reason = "an owned descriptor keeps the promise that the unsafe replacement asks for"
    )]
    pub(super) async fn ended(self) -> Exit {
        use std::os::unix::process::ExitStatusExt as _;
        match self {
            Self::Child(mut child, pid) => match child.wait().await {
                Ok(status) => Exit { code: status.code(), signal: status.signal(), said: None },
                Err(cause) => {
                    tracing::warn!(pid, error = %cause, "an exit status could not be read");
                    Exit::default()
                }
            },
            // A pidfd becomes readable when its process ends.
            Self::Other(fd) => match AsyncFd::new(fd) {
                Ok(fd) => {
                    let _ = fd.readable().await;
                    Exit::default()
                }
                Err(cause) => {
                    tracing::warn!(error = %cause, "a process cannot be watched; its lease will tell");
                    std::future::pending().await
                }
            },
        }
    }
}
