//! How a server on this machine is found: the server writes where it listens and where its admin token
//! lies, client verbs read it. The token itself is never in this file.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Local {
    /// Where the server answers: `http://127.0.0.1:8080`.
    pub(crate) server: String,
    /// The file that holds its admin token; absolute. None where the server asks for no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_path: Option<PathBuf>,
    /// The organisation that calls have to name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) organisation: Option<String>,
}

/// The file, below [`crate::env::Env::state_dir`].
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("local.json")
}

/// What the file says; `None` where there is none.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Local>> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
}

/// Records a server. The last one that starts is the one that is found.
pub(crate) fn write(path: &Path, local: &Local) -> anyhow::Result<()> {
    let dir = path.parent().context("the state directory has no path")?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let put = || -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(local)?)?;
        file.sync_all()?;
        // A reader sees the old file or the new one, never half of one.
        fs::rename(&temporary, path)
    };
    let written = put().with_context(|| format!("write {}", path.display()));
    if written.is_err() {
        // What matters is the first failure.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes the record of `server`; another server's is left alone.
pub(crate) fn forget(path: &Path, server: &str) -> anyhow::Result<()> {
    match read(path)? {
        Some(local) if local.server == server => {
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory that goes when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = format!("ligand-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(dir))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn local(server: &str) -> Local {
        let token_path = Some("/data/admin-token".into());
        Local { server: server.to_owned(), token_path, organisation: Some("acme".to_owned()) }
    }

    #[test]
    fn says_what_was_written_to_its_owner_only() {
        let scratch = Scratch::new("local-write");
        let path = path(&scratch.0.join("ligand"));
        assert_eq!(read(&path).unwrap(), None);
        write(&path, &local("http://a")).unwrap();
        write(&path, &local("http://b")).unwrap();
        assert_eq!(read(&path).unwrap(), Some(local("http://b")));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn forgets_only_the_server_it_names() {
        let scratch = Scratch::new("local-forget");
        let path = path(&scratch.0);
        forget(&path, "http://a").unwrap();
        write(&path, &local("http://b")).unwrap();
        forget(&path, "http://a").unwrap();
        assert!(read(&path).unwrap().is_some());
        forget(&path, "http://b").unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}
