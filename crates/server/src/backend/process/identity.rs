//! Which process it is, beyond doubt: a pid alone is given to somebody else sooner or later.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process: its number, when it began, and in which boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its number, which is also its group's.
    pub(super) pid: u32,
    /// Clock ticks from boot to its start (field 22 of `/proc/PID/stat`).
    start: u64,
    /// The kernel's id of this boot.
    boot: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} started at tick {}", self.pid, self.start)
    }
}

/// What `/proc/PID/stat` says, as far as it matters here.
struct Stat {
    state: char,
    group: u32,
    start: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from its end: field 3 is the next.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, group, start })
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Identity {
    /// The process that has this number now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: stat(pid)?.start, boot: boot() })
    }

    /// Whether it runs. A zombie does not.
    pub(super) fn alive(&self) -> bool {
        let same = stat(self.pid)
            .is_some_and(|stat| stat.start == self.start && !matches!(stat.state, 'Z' | 'X'));
        same && self.boot == boot()
    }
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

/// A descriptor that becomes readable when it ends. `None`: it has ended.
pub(super) fn pidfd(identity: &Identity) -> Option<OwnedFd> {
    let fd = pidfd_open(pid(identity.pid)?, PidfdFlags::NONBLOCK).ok()?;
    // Opened first and compared afterwards: the descriptor cannot turn into somebody else's.
    identity.alive().then_some(fd)
}

/// Signal its whole group, while it leads it.
pub(super) fn signal_group(identity: &Identity, signal: Signal) {
    if let Some(group) = pid(identity.pid)
        && identity.alive()
    {
        let _ = kill_process_group(group, signal);
    }
}

/// By what the processes of an instance are known, also those that left its group.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    /// An entry of every environment that the backend made for it.
    pub(super) label: String,
    /// One that what runs for its workspace has too, whichever instance it is of: its agent takes the label away.
    pub(super) tree: String,
    /// The user that nothing but its workspace runs as.
    pub(super) uid: Option<u32>,
    /// Whether no other instance of its workspace is there, that those two could mean.
    pub(super) alone: bool,
}

impl Marks {
    fn of(&self, member: u32, stat: &Stat, identity: &Identity) -> bool {
        let uid = || {
            let text = fs::read_to_string(format!("/proc/{member}/status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Uid:").map(str::to_owned));
            line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        };
        if self.uid.is_some() {
            // Nothing of it can become another user.
            if uid() != self.uid {
                return false;
            }
            if self.alone {
                return true;
            }
        }
        let in_group = stat.group == identity.pid && stat.start >= identity.start;
        let environment = fs::read(format!("/proc/{member}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| {
            entry == self.label.as_bytes()
                || (self.alone || in_group) && entry == self.tree.as_bytes()
        })
    }
}

/// Kill what is left of it, and say how many those were. The group's number may have been given away by then, and a
/// process may have left the group: so each must show that it belongs to the instance.
pub(super) fn kill_rest(identity: &Identity, marks: &Marks, group_only: bool) -> usize {
    let mut killed = 0;
    for member in numbers().filter(|member| *member != std::process::id()) {
        let Some(stat) = stat(member).filter(|stat| !matches!(stat.state, 'Z' | 'X')) else {
            continue;
        };
        if group_only && stat.group != identity.pid || stat.start < identity.start {
            continue;
        }
        // Opened before it is looked at, so that it is this one which is killed.
        let opened = pid(member).and_then(|member| pidfd_open(member, PidfdFlags::empty()).ok());
        if let Some(opened) = opened
            && marks.of(member, &stat, identity)
            && pidfd_send_signal(&opened, Signal::KILL).is_ok()
        {
            killed += 1;
        }
    }
    killed
}

/// The process, leader of its group, whose environment holds this entry.
pub(super) fn by_environment(entry: &str) -> Option<Identity> {
    let leads = |pid: &u32| stat(*pid).is_some_and(|stat| stat.group == *pid && stat.state != 'Z');
    let found = numbers().find(|pid| has_variable(*pid, entry) && leads(pid))?;
    Identity::of(found)
}

/// A variable of a process's environment.
pub(super) fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{name}=");
    let entry =
        environment.split(|byte| *byte == 0).find(|entry| entry.starts_with(prefix.as_bytes()))?;
    String::from_utf8(entry[prefix.len()..].to_vec()).ok()
}

fn has_variable(pid: u32, entry: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
}

fn numbers() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.alive());
        assert!(!Identity { start: own.start + 1, ..own.clone() }.alive());
        assert!(!Identity { boot: "another".to_owned(), ..own.clone() }.alive());
        assert!(pidfd(&own).is_some());
        assert!(pidfd(&Identity { start: own.start + 1, ..own }).is_none());
    }
}
