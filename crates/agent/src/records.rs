//! What is known of messages, on disk: one small file each, in `.turns` beside the credentials, so that it goes
//! wherever the workspace's data goes.
//!
//! A file is one line of JSON, the [`Head`], and then the answer as it was given. It is written beside and renamed, so
//! that a reader finds the old one or the new one, whenever the process is killed.
//!
//! Only one thing waits for the disk: that there is a file, before the turn is run. A power cut may empty it, or take
//! back an answer of the last seconds: what is found damaged is something that was begun, as is what says so. So one
//! look at the directory is synced for all turns that begin at a time, and an answer costs no more than its writing.
//!
//! An answer that cannot be written is kept in memory and tried again: it is lost with the process alone, and then
//! the record still says *begun*.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::turns::{self, Known};

/// The directory, below that of the credentials.
const DIRECTORY: &str = ".turns";
/// Bytes of an answer that are kept.
pub(crate) const LONGEST_ANSWER: usize = 1 << 20;
/// Bytes of a head, about.
const LONGEST_HEAD: usize = 16 << 10;
/// The platform's window of 24 h, and time for it to be late.
const KEPT_FOR: Duration = Duration::from_secs(26 * 3600);
/// Files and bytes that may lie there; beyond, the oldest go.
const MOST: (u64, u64) = (50_000, 256 << 20);
/// A draft older than this belongs to nobody any more.
const STALE_DRAFT: Duration = Duration::from_secs(600);
/// Answers that wait in memory for the disk.
const MOST_WAITING: usize = 16;

/// What stands in front of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Of the layout: 1.
    pub(crate) version: u8,
    /// The message's name, for a person.
    pub(crate) name: String,
    /// What tells it from another message of that name.
    pub(crate) digest: String,
    /// When its turn began, in milliseconds since 1970.
    pub(crate) started_ms: i64,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Ended>,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// HTTP status.
    pub(crate) status: u16,
    /// `Content-Type`.
    #[serde(default)]
    pub(crate) kind: Option<String>,
    /// `Content-Encoding`.
    #[serde(default)]
    pub(crate) encoding: Option<String>,
    /// The JSON-RPC id that the answer carries.
    #[serde(default)]
    pub(crate) id: Value,
    /// The answer was too long: of a stream its end is kept, of anything else nothing.
    #[serde(default)]
    pub(crate) cut: bool,
    /// Bytes that follow.
    pub(crate) length: u64,
}

/// A message's record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) head: Head,
    /// The answer; empty before there is one.
    pub(crate) body: Bytes,
}

/// What was found of a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    Nothing,
    Record(Arc<Record>),
    /// There is a file, and it is no record.
    Damaged,
}

impl Found {
    /// When its turn began, in milliseconds since 1970.
    pub(crate) fn started_ms(&self) -> Option<i64> {
        match self {
            Self::Record(record) => Some(record.head.started_ms),
            Self::Nothing | Self::Damaged => None,
        }
    }

    /// For the decision: what is known, and whether `digest` is that of the message.
    pub(crate) fn known(&self, digest: &str) -> (Known, bool) {
        match self {
            Self::Nothing => (Known::Nothing, true),
            Self::Damaged => (Known::Damaged, true),
            Self::Record(record) => {
                let ended = record.head.ended.as_ref();
                let known = ended.map_or(Known::Begun, |ended| Known::Ended {
                    failed: turns::failed(ended.status),
                });
                (known, record.head.digest == digest)
            }
        }
    }
}

/// The records of one workspace. Every call may wait for the disk.
#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
    settled: Settled,
    /// What lies there, as far as is known: files and bytes.
    held: (AtomicU64, AtomicU64),
    most: (u64, u64),
    waiting: Mutex<HashMap<String, Arc<Record>>>,
}

impl Records {
    /// Those beside the credentials in `configs`. Nothing is touched yet.
    pub(crate) fn below(configs: &Path) -> Self {
        let held = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            dir: configs.join(DIRECTORY),
            settled: Settled::default(),
            held,
            most: MOST,
            waiting: Mutex::default(),
        }
    }

    /// What is known of the message in `file`.
    ///
    /// # Errors
    /// When that cannot be said: then nothing may be done with it.
    pub(crate) fn read(&self, file: &str) -> io::Result<Found> {
        if let Some(record) = locked(&self.waiting).get(file) {
            return Ok(Found::Record(Arc::clone(record)));
        }
        let path = self.dir.join(file);
        let mut bytes = Vec::new();
        let most = (LONGEST_ANSWER + LONGEST_HEAD) as u64;
        match File::open(&path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        Ok(understood(bytes).map_or_else(
            || {
                tracing::warn!("{} is no record of a turn: it counts as begun", path.display());
                Found::Damaged
            },
            |record| Found::Record(Arc::new(record)),
        ))
    }

    /// Write down that the turn begins. When this returns it outlives a power cut.
    ///
    /// # Errors
    /// When that fails: then the turn must not be run.
    pub(crate) fn begin(&self, file: &str, head: &Head) -> io::Result<()> {
        locked(&self.waiting).remove(file);
        self.put(file, head, &[])?;
        self.settled.settle(|| File::open(&self.dir)?.sync_all())
    }

    /// Write down the answer. A power cut may still undo it: then the record says *begun*.
    ///
    /// # Errors
    /// When that fails. The answer waits in memory then, if there is room.
    pub(crate) fn end(&self, file: &str, record: &Arc<Record>) -> io::Result<()> {
        let written = self.put(file, &record.head, &record.body);
        if written.is_err() {
            let mut waiting = locked(&self.waiting);
            if waiting.len() < MOST_WAITING {
                waiting.insert(file.to_owned(), Arc::clone(record));
            }
        }
        written
    }

    /// The message is as if it had not come.
    ///
    /// # Errors
    /// When the file stays: then it says *begun*.
    pub(crate) fn forget(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(file)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            // A count that is too high costs a look at the directory.
            _ => Ok(()),
        }
    }

    /// Whether it is time to [`tidy`](Self::tidy) before its time.
    pub(crate) fn crowded(&self) -> bool {
        let (files, bytes) = &self.held;
        files.load(Ordering::Relaxed) > self.most.0 || bytes.load(Ordering::Relaxed) > self.most.1
    }

    /// Try again to write what waits in memory.
    pub(crate) fn catch_up(&self) {
        let all: Vec<_> = locked(&self.waiting).clone().into_iter().collect();
        for (file, record) in all {
            if self.put(&file, &record.head, &record.body).is_err() {
                return;
            }
            locked(&self.waiting).remove(&file);
        }
    }

    /// Take away what is too old, and the oldest of what is too much.
    ///
    /// # Errors
    /// When the directory cannot be listed; none is no error.
    pub(crate) fn tidy(&self, now: SystemTime) -> io::Result<()> {
        let mut files = match self.list() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
        files.retain(|(path, at, _)| {
            let draft = path.extension().is_some();
            let old = age(*at) > if draft { STALE_DRAFT } else { KEPT_FOR };
            let gone = old && fs::remove_file(path).is_ok();
            !(gone || draft)
        });
        files.sort_by_key(|(_, at, _)| std::cmp::Reverse(*at));
        let (mut count, mut bytes, mut early) = (0, 0, 0_u64);
        // Room for a while, or each further turn would look through the directory again.
        let room = (self.most.0 / 10 * 9, self.most.1 / 10 * 9);
        let crowded = self.most.0 < files.len() as u64
            || self.most.1 < files.iter().map(|(.., size)| size).sum();
        for (path, _, size) in files {
            if crowded && (count >= room.0 || bytes + size > room.1) {
                early += u64::from(fs::remove_file(&path).is_ok());
            } else {
                (count, bytes) = (count + 1, bytes + size);
            }
        }
        if early > 0 {
            tracing::warn!("{early} records of turns went before their time: there were too many");
        }
        self.held.0.store(count, Ordering::Relaxed);
        self.held.1.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Path, time of the last change and size of each file.
    fn list(&self) -> io::Result<Vec<(PathBuf, SystemTime, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // One that went meanwhile is gone.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_file() {
                found.push((entry.path(), meta.modified()?, meta.len()));
            }
        }
        Ok(found)
    }

    fn put(&self, file: &str, head: &Head, body: &[u8]) -> io::Result<()> {
        let path = self.dir.join(file);
        let draft = path.with_extension("new");
        let mut content = serde_json::to_vec(head).map_err(io::Error::other)?;
        content.push(b'\n');
        content.extend_from_slice(body);
        let write = || {
            let mut file = create(&draft)?;
            file.write_all(&content)?;
            fs::rename(&draft, &path)
        };
        let written = match write() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                write()
            }
            written => written,
        };
        match &written {
            Ok(()) => {
                self.held.0.fetch_add(u64::from(body.is_empty()), Ordering::Relaxed);
                self.held.1.fetch_add(content.len() as u64, Ordering::Relaxed);
            }
            // Half a record is nobody's.
            Err(_) => drop(fs::remove_file(&draft)),
        }
        written
    }
}

/// One sync of the directory for all that wait for one.
#[derive(Debug, Default)]
struct Settled {
    /// How many have asked, and up to which of them all is on the disk.
    asked: AtomicU64,
    done: Mutex<u64>,
}

impl Settled {
    /// Returns when what was written before the call is on the disk. `sync` brings there all that there is.
    fn settle(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if *done < mine {
            // Whoever asked until now had written before.
            let all = self.asked.load(Ordering::SeqCst);
            sync()?;
            *done = all;
        }
        Ok(())
    }
}

fn understood(bytes: Vec<u8>) -> Option<Record> {
    let bytes = Bytes::from(bytes);
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(&bytes[..line]).ok()?;
    let body = bytes.slice(line + 1..);
    let length = head.ended.as_ref().map_or(0, |ended| ended.length);
    (head.version == 1 && length == body.len() as u64).then_some(Record { head, body })
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The holder of this lock only moves values.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
