//! As process 1 of a container the agent inherits every process whose parent died. Nobody else collects
//! them, and each one left keeps its place in the process table.
//!
//! Only children that are *listed* and are not the agent's own program are collected, one by one: a wait for
//! "any child" would take the program's exit status away from its supervisor.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

/// The program's process id while its supervisor waits for it.
#[derive(Debug, Default)]
pub(crate) struct Own(Mutex<Option<u32>>);

impl Own {
    /// Start a program that only its supervisor may collect. The lock is held over the start, so that
    /// nobody sees the new process before its id is known to be ours.
    pub(crate) fn start(&self, start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = start()?;
        *own = child.id();
        Ok(child)
    }

    /// The supervisor has its exit status.
    pub(crate) fn ended(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn collect_others(&self) {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in children().filter(|pid| Some(*pid) != *own) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // One that still runs gives nothing and is seen again when it ends.
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// Collect orphans for ever.
pub(crate) async fn orphans(own: Arc<Own>) {
    let mut deaths = match signal(SignalKind::child()) {
        Ok(deaths) => deaths,
        Err(e) => return tracing::warn!("orphaned processes will not be collected: {e}"),
    };
    // Once before the first signal: somebody may have died before we listened.
    loop {
        own.collect_others();
        if deaths.recv().await.is_none() {
            return;
        }
    }
}

/// The children of all our threads; none where the kernel does not list them.
fn children() -> impl Iterator<Item = u32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<u32>>())
        .collect();
    pids.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine;

    #[tokio::test]
    async fn others_are_collected_and_the_program_is_left_to_its_supervisor() {
        let own = Own::default();
        let start = || machine::command("false".as_ref(), &[]).spawn();
        let stray = start().expect("started");
        let mut program = own.start(start).expect("started");
        let stray_pid = stray.id().expect("not waited for");
        let program_pid = program.id().expect("not waited for");
        let ended = |pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("listed");
            stat.contains(") Z ")
        };
        while !(ended(stray_pid) && ended(program_pid)) {
            tokio::task::yield_now().await;
        }
        own.collect_others();
        assert!(!children().any(|pid| pid == stray_pid), "collected");
        assert!(children().any(|pid| pid == program_pid), "left alone");
        assert_eq!(program.wait().await.expect("its status is still there").code(), Some(1));
    }
}
