//! Where log lines go: a file that is rotated by size, or our own output.
//!
//! One thread writes; everybody else hands it lines and goes on. A disk that is full or a pipe that nobody
//! reads costs lines, which are counted, and never holds up a heartbeat or a turn.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A file that grows beyond this is set aside.
const LARGEST_FILE: u64 = 8 << 20;
/// Files set aside: `agent.log.1` (the latest) to `agent.log.3`.
const OLD_FILES: u32 = 3;
/// Bytes that wait for a slow disk before lines are dropped.
const LONGEST_QUEUE: usize = 4 << 20;
/// How long the end of the process waits for lines that are still queued.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Which of our outputs a line belongs to where there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

enum Job {
    Line(Stream, Vec<u8>),
    /// Everything handed over before this has been dealt with.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Shared {
    queued: AtomicUsize,
    lost: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// The log. Clones share it.
#[derive(Debug, Clone)]
pub struct Logs {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

impl Logs {
    /// Begin to write `agent.log` in `dir`, or to standard output and error where there is no directory.
    /// A directory that cannot be used is reported like any other failed write, and costs the lines only.
    #[must_use]
    pub fn start(dir: Option<&Path>) -> Self {
        let (jobs, queue) = channel();
        let shared = Arc::new(Shared::default());
        let writer =
            Writer { file: dir.map(Rotated::new), shared: Arc::clone(&shared), well: true };
        let thread =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&queue));
        if let Err(e) = thread {
            // Nobody takes the lines then: they are counted as lost, and the agent works.
            let _ = writeln!(io::stderr(), "warning: no log: {e}");
        }
        Self { jobs, shared }
    }

    /// Hand over one line without its end.
    pub(crate) fn line(&self, stream: Stream, mut line: Vec<u8>) {
        line.push(b'\n');
        let size = line.len();
        if self.shared.queued.fetch_add(size, Ordering::Relaxed) + size > LONGEST_QUEUE {
            self.shared.queued.fetch_sub(size, Ordering::Relaxed);
            self.shared.lose();
            self.shared.report("the log cannot keep up; lines are dropped".to_owned());
            return;
        }
        if self.jobs.send(Job::Line(stream, line)).is_err() {
            self.shared.lose();
        }
    }

    /// What went wrong with the log since the last call, for the next heartbeat.
    pub(crate) fn take_trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Lines that could not be written so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Wait, for a second at most, until the lines handed over so far are written.
    pub fn flush(&self) {
        let (done, wait) = channel();
        if self.jobs.send(Job::Flush(done)).is_ok() {
            // Too slow means that the last lines are lost, which is better than an agent that cannot end.
            let _ = wait.recv_timeout(LAST_WAIT);
        }
    }
}

/// Log events arrive here, one `write` for each.
impl io::Write for Logs {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.line(Stream::Err, event.trim_ascii_end().to_vec());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn report(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }
}

/// The thread that writes.
struct Writer {
    file: Option<Rotated>,
    shared: Arc<Shared>,
    /// The last write succeeded; a failure is reported when this changes.
    well: bool,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Line(stream, line) => {
                    let written = self.write(stream, &line);
                    self.shared.queued.fetch_sub(line.len(), Ordering::Relaxed);
                    self.account(written);
                }
                Job::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, stream: Stream, line: &[u8]) -> io::Result<()> {
        match (&mut self.file, stream) {
            (Some(file), _) => file.write(line),
            (None, Stream::Out) => io::stdout().write_all(line).and_then(|()| io::stdout().flush()),
            (None, Stream::Err) => io::stderr().write_all(line),
        }
    }

    fn account(&mut self, written: io::Result<()>) {
        let was_well = self.well;
        self.well = written.is_ok();
        let Err(e) = written else { return };
        self.shared.lose();
        if was_well {
            let place =
                self.file.as_ref().map_or("the log".into(), |file| file.path.display().to_string());
            let text = format!("cannot write {place}: {e}; lines are dropped until it works again");
            let _ = writeln!(io::stderr(), "warning: {text}");
            self.shared.report(text);
        }
    }
}

/// A log file that is set aside by renaming when it has grown enough.
struct Rotated {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl Rotated {
    fn new(dir: &Path) -> Self {
        Self { path: dir.join("agent.log"), open: None }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let (mut file, size) = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        if size > 0 && size + line.len() as u64 > LARGEST_FILE {
            self.set_aside()?;
            (file, _) = self.reopen()?;
            file.write_all(line)?;
            self.open = Some((file, line.len() as u64));
        } else {
            file.write_all(line)?;
            self.open = Some((file, size + line.len() as u64));
        }
        Ok(())
    }

    /// After any failure the file is opened anew, so that a directory that was mended is found again.
    fn reopen(&self) -> io::Result<(File, u64)> {
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    fn set_aside(&self) -> io::Result<()> {
        for nth in (1..OLD_FILES).rev() {
            match fs::rename(self.old(nth), self.old(nth + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.path, self.old(1))
    }

    fn old(&self, nth: u32) -> PathBuf {
        self.path.with_extension(format!("log.{nth}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn size(dir: &Scratch, name: &str) -> Option<u64> {
        fs::metadata(dir.path().join(name)).ok().map(|found| found.len())
    }

    #[test]
    fn files_are_set_aside_by_size_and_three_are_kept() {
        let dir = Scratch::new();
        let mut file = Rotated::new(dir.path());
        let line = vec![b'x'; (LARGEST_FILE / 2) as usize];
        for _ in 0..11 {
            file.write(&line).expect("written");
        }
        assert_eq!(size(&dir, "agent.log"), Some(LARGEST_FILE / 2));
        for nth in 1..=3 {
            assert_eq!(size(&dir, &format!("agent.log.{nth}")), Some(LARGEST_FILE), "{nth}");
        }
        assert_eq!(size(&dir, "agent.log.4"), None);
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_reported_once() {
        let dir = Scratch::new();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("agent.log")).expect("linked");
        let logs = Logs::start(Some(dir.path()));
        for _ in 0..3 {
            logs.line(Stream::Err, b"lost".to_vec());
        }
        logs.flush();
        assert_eq!(logs.lost(), 3);
        assert!(logs.take_trouble().is_some_and(|text| text.contains("agent.log")));
        logs.line(Stream::Err, b"lost".to_vec());
        logs.flush();
        assert_eq!((logs.lost(), logs.take_trouble()), (4, None));
    }

    #[test]
    fn a_directory_that_appears_later_is_used() {
        let dir = Scratch::new();
        let place = dir.path().join("logs");
        fs::write(&place, "in the way").expect("written");
        let logs = Logs::start(Some(&place));
        logs.line(Stream::Out, b"one".to_vec());
        logs.flush();
        assert_eq!(logs.lost(), 1);
        fs::remove_file(&place).expect("removed");
        logs.line(Stream::Out, b"two".to_vec());
        logs.flush();
        assert_eq!(fs::read_to_string(place.join("agent.log")).expect("there"), "two\n");
    }
}
