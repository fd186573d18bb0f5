//! The credential files: what [`Holdings`] says, on disk, so that no crash and no full disk loses it.
//!
//! A backend may write `.auth_token` before the agent starts and at any time after. The file is read at the
//! start and after a refusal, never in between: in a directory that two generations share, an old instance
//! that picked up its successor's credential early would take the successor's place. For the same reason a
//! file that somebody else has written is never written over.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::guards::Guards;
use crate::holdings::{Disk, Holdings, Passport, Slot, Write};
use crate::session::{Answer, Bearer, Facts};

/// A longer file is not a credential.
const LONGEST: u64 = 4096;
/// Random bytes in an `Idempotency-Key`.
pub(crate) const KEY_BYTES: usize = 32;

/// A credential. Its value is shown to the platform and to nobody else.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` for a text that cannot be a credential: empty, too long, or not printable ASCII.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = !text.is_empty() && text.len() as u64 <= LONGEST;
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The first characters, by which a credential may be named.
    pub(crate) fn prefix(&self) -> &str {
        &self.0[..self.0.len().min(8)]
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(crate) struct Unwritable {
    pub(crate) path: PathBuf,
    #[source]
    source: io::Error,
}

impl Slot {
    fn file(self) -> &'static str {
        match self {
            Self::Token => ".auth_token",
            Self::Next => ".auth_token.next",
            Self::Key => ".register_key",
            Self::Origin => ".auth_token.generation",
            Self::Aside => ".auth_token.previous",
        }
    }
}

/// What this agent proves itself with, and where it is kept.
#[derive(Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    holdings: Holdings<Token>,
}

impl Identity {
    /// Read what is there, and make sure that what is to come can be written: a directory that takes no
    /// files would lose the first credential at the next restart.
    ///
    /// # Errors
    /// When nothing can be written and no credential is there either. With one, the agent can work.
    pub(crate) fn open(
        dir: &Path,
        passport: Option<Passport<Token>>,
        guards: Guards,
    ) -> Result<Self, Unwritable> {
        let writable = prepare(dir);
        let file = |slot: Slot| read(&dir.join(slot.file())).unwrap_or_default();
        let disk = Disk {
            token: file(Slot::Token),
            next: file(Slot::Next),
            key: file(Slot::Key),
            origin: file(Slot::Origin),
            aside: file(Slot::Aside),
        };
        let holdings = Holdings::open(disk, passport, guards);
        let mut identity = Self { dir: dir.to_owned(), holdings };
        let known = identity.holdings.held().or(identity.holdings.next()).is_some();
        match writable.and_then(|()| identity.save()) {
            Err(unwritable) if !known => return Err(unwritable),
            Err(unwritable) => tracing::warn!("{unwritable}; new credentials will not be kept"),
            Ok(()) => {}
        }
        Ok(identity)
    }

    /// The value that a call presents.
    pub(crate) fn presented(&self, bearer: Bearer) -> Option<&Token> {
        self.holdings.presented(bearer)
    }

    /// Read the file again.
    pub(crate) fn reread(&mut self) {
        let path = self.dir.join(Slot::Token.file());
        let known = self.holdings.file().cloned();
        self.holdings.reread(|| read(&path).unwrap_or(known));
    }

    /// The key of the register that is about to be sent, written down before it is used. `random` is drawn
    /// upon only where there is none yet. A key that cannot be written is still used, and reported.
    pub(crate) fn key(
        &mut self,
        random: impl FnOnce() -> [u8; KEY_BYTES],
    ) -> (String, Result<(), Unwritable>) {
        let key = self.holdings.key_or(|| Token(URL_SAFE_NO_PAD.encode(random())));
        let key = key.reveal().to_owned();
        (key, self.save())
    }

    /// Take from an answer what must outlive it, and write it down. The facts are those after both.
    pub(crate) fn learn(
        &mut self,
        answer: &Answer<Token>,
        bearer: Bearer,
        jitter: f64,
    ) -> (Facts, Result<(), Unwritable>) {
        let path = self.dir.join(Slot::Token.file());
        // A file that cannot be read says nothing: it counts as unchanged.
        let known = self.holdings.file().cloned();
        let found = || read(&path).unwrap_or(known);
        let file_differs = self.holdings.learn(answer, bearer, found);
        let written = self.save();
        (self.holdings.facts(file_differs, jitter), written)
    }

    /// What the first decision depends on.
    pub(crate) fn facts(&self, jitter: f64) -> Facts {
        self.holdings.facts(false, jitter)
    }

    /// Write down what is not written yet; nothing to do otherwise.
    ///
    /// # Errors
    /// When that fails; the rest of it waits for the next attempt.
    pub(crate) fn save(&mut self) -> Result<(), Unwritable> {
        for write in self.holdings.plan() {
            match &write {
                Write::Put(Slot::Token, value) if self.overtaken(value) => continue,
                Write::Put(slot, value) => put(&self.dir, slot.file(), value)?,
                Write::Remove(slot) => remove(&self.dir.join(slot.file()))?,
            }
            self.holdings.done(&write);
        }
        Ok(())
    }

    /// Whether somebody else has written the token file since it was last looked at.
    fn overtaken(&mut self, value: &Token) -> bool {
        let found = read(&self.dir.join(Slot::Token.file())).unwrap_or_default();
        let ours = [self.holdings.file(), Some(value), None].contains(&found.as_ref());
        if !ours {
            tracing::warn!("another credential was put in the file meanwhile; it stays there");
            self.holdings.overtaken(found);
        }
        !ours
    }
}

/// Create the directory, and a file in it, as a trial.
fn prepare(dir: &Path) -> Result<(), Unwritable> {
    let trial = dir.join(".write_trial");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| create(&trial).map(drop))
        .and_then(|()| fs::remove_file(&trial))
        .map_err(|source| Unwritable { path: dir.to_owned(), source })
}

/// There is something in place of a file, and it is no credential.
#[derive(Debug)]
struct Unreadable;

/// The credential in a file; `None` where there is no file. Of anything else it is said, without its value, why
/// it is no credential.
fn read(path: &Path) -> Result<Option<Token>, Unreadable> {
    let mut text = String::new();
    // One byte more than allowed tells a file that is too long without reading all of it.
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 <= LONGEST => {
            if let Some(token) = Token::parse(&text) {
                return Ok(Some(token));
            }
            tracing::warn!("{} holds no usable value and is ignored", path.display());
        }
        Ok(_) => tracing::warn!("{} is longer than {LONGEST} bytes and is ignored", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => tracing::warn!("cannot read {}: {e}", path.display()),
    }
    Err(Unreadable)
}

/// Write `value` so that a reader sees the old file or the new one, and a power cut leaves one of them.
fn put(dir: &Path, name: &str, value: &Token) -> Result<(), Unwritable> {
    let path = dir.join(name);
    if matches!(fs::read(&path), Ok(found) if found == value.reveal().as_bytes()) {
        return Ok(());
    }
    let temporary = dir.join(format!("{name}.new"));
    let attempt = || -> io::Result<()> {
        let mut file = create(&temporary)?;
        file.write_all(value.reveal().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    attempt().map_err(|source| {
        // Half a credential is nobody's; that it may stay behind does no harm either.
        let _ = fs::remove_file(&temporary);
        Unwritable { path: path.clone(), source }
    })
}

/// A new file for our eyes only. What a crash left under that name may have other rights: it goes first.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The file is gone, for good when this returns. That it stays behind is no harm but has to be tried again.
fn remove(path: &Path) -> Result<(), Unwritable> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Unwritable { path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
