//! The credential files: what this agent is, kept so that no crash and no full disk loses it.
//!
//! | file | what | lives |
//! | --- | --- | --- |
//! | `.auth_token` | the credential in hand | for ever |
//! | `.auth_token.previous` | the one it replaced | until the new one has worked |
//! | `.register_key` | `Idempotency-Key` of a register that may mint | until what it brought has worked |
//!
//! A backend may write `.auth_token` before the agent starts and at any time after. The file is read at the
//! start and after a refusal, never in between: in a directory that two generations share, an old instance
//! that picked up its successor's credential early would take the successor's place.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const TOKEN: &str = ".auth_token";
const PREVIOUS: &str = ".auth_token.previous";
const KEY: &str = ".register_key";
/// A longer file is not a credential.
const LONGEST: u64 = 4096;
/// Random bytes in an `Idempotency-Key`.
pub(crate) const KEY_BYTES: usize = 32;

/// A credential. Its value is shown to the platform and to nobody else.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

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

/// What this agent proves itself with.
#[derive(Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    held: Option<Token>,
    previous: Option<Token>,
    key: Option<Token>,
    /// `held` is newer than the file.
    unsaved: bool,
}

impl Identity {
    /// Read what is there, and make sure that what is to come can be written: a directory that takes no
    /// files would lose the first credential at the next restart.
    ///
    /// # Errors
    /// When nothing can be written and no credential is there either. With one, the agent can work.
    pub(crate) fn open(dir: &Path) -> Result<Self, Unwritable> {
        let writable = prepare(dir);
        let held = read(&dir.join(TOKEN));
        match writable {
            Err(unwritable) if held.is_none() => return Err(unwritable),
            Err(unwritable) => tracing::warn!("{unwritable}; new credentials will not be kept"),
            Ok(()) => {}
        }
        let previous = read(&dir.join(PREVIOUS)).filter(|token| Some(token) != held.as_ref());
        let key = read(&dir.join(KEY));
        Ok(Self { dir: dir.to_owned(), held, previous, key, unsaved: false })
    }

    pub(crate) fn held(&self) -> Option<&Token> {
        self.held.as_ref()
    }

    pub(crate) fn previous(&self) -> Option<&Token> {
        self.previous.as_ref()
    }

    /// Read the file again. A missing file means no credential. While a credential could not be written,
    /// a file that is missing or holds its predecessor changes nothing: the newer one exists nowhere else.
    pub(crate) fn reread(&mut self) {
        let found = read(&self.dir.join(TOKEN));
        let known_older = found.is_none() || found == self.previous;
        if !(self.unsaved && known_older) {
            self.unsaved = false;
            self.held = found;
        }
    }

    /// The key of the register that is about to be sent, written down before it is used. `random` is drawn
    /// upon only where there is none yet. A key that cannot be written is still used, and reported.
    pub(crate) fn key(
        &mut self,
        random: impl FnOnce() -> [u8; KEY_BYTES],
    ) -> (&str, Result<(), Unwritable>) {
        let mut written = Ok(());
        let dir = &self.dir;
        let key = self.key.get_or_insert_with(|| {
            let key = Token(URL_SAFE_NO_PAD.encode(random()));
            written = write(dir, KEY, &key);
            key
        });
        (key.reveal(), written)
    }

    /// Take up a credential that was just minted. It is in use from now on whether or not it can be
    /// written; the one before it is kept beside it.
    ///
    /// # Errors
    /// When it could not be written; [`Self::save`] tries again.
    pub(crate) fn adopt(&mut self, token: Token) -> Result<(), Unwritable> {
        if self.held.as_ref() == Some(&token) {
            return self.save();
        }
        self.previous = self.held.replace(token);
        self.unsaved = true;
        self.save()
    }

    /// Write down what is not written yet; nothing to do otherwise.
    ///
    /// # Errors
    /// When that fails again.
    pub(crate) fn save(&mut self) -> Result<(), Unwritable> {
        let Some(held) = self.held.as_ref().filter(|_| self.unsaved) else { return Ok(()) };
        // The old value first: at every instant one of the two files holds something usable.
        if let Some(previous) = &self.previous {
            write(&self.dir, PREVIOUS, previous)?;
        }
        write(&self.dir, TOKEN, held)?;
        self.unsaved = false;
        Ok(())
    }

    /// The previous credential turned out to be the good one.
    ///
    /// # Errors
    /// When it could not be written; [`Self::save`] tries again.
    pub(crate) fn fall_back(&mut self) -> Result<(), Unwritable> {
        let Some(previous) = self.previous.take() else { return Ok(()) };
        self.held = Some(previous);
        self.unsaved = true;
        self.save()?;
        remove(&self.dir.join(PREVIOUS));
        Ok(())
    }

    /// The credential in hand has worked: its predecessor and the key that brought it have done their duty.
    /// Until it is written down both stay.
    pub(crate) fn confirm(&mut self) {
        if self.unsaved {
            return;
        }
        if self.previous.take().is_some() {
            remove(&self.dir.join(PREVIOUS));
        }
        if self.key.take().is_some() {
            remove(&self.dir.join(KEY));
        }
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

/// The credential in a file. What is not one is said, without its value, and counts as none.
fn read(path: &Path) -> Option<Token> {
    let mut text = String::new();
    // One byte more than allowed tells a file that is too long without reading all of it.
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 <= LONGEST => {
            let token = Token::parse(&text);
            if token.is_none() {
                tracing::warn!("{} holds no usable value and is ignored", path.display());
            }
            token
        }
        Ok(_) => {
            tracing::warn!("{} is longer than {LONGEST} bytes and is ignored", path.display());
            None
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => {
            tracing::warn!("cannot read {}: {e}", path.display());
            None
        }
    }
}

/// Write `value` so that a reader sees the old file or the new one, and a power cut leaves one of them.
fn write(dir: &Path, name: &str, value: &Token) -> Result<(), Unwritable> {
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

fn remove(path: &Path) {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {e}", path.display());
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
