//! What an instance may use, by its tier: limits of its processes everywhere, and a control group of its own below a
//! directory that the operator delegated (cgroup v2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::Process;
use crate::backend::{Key, Limits};

/// Sets limits and becomes another program.
const PRLIMIT: &str = "/usr/bin/prlimit";

/// What a tier gives.
struct Tier {
    memory_mb: u64,
    cpu_shares: u64,
    files: u64,
    processes: u64,
}

fn tier(limits: Limits) -> Tier {
    let (memory_mb, cpu_shares, files, processes) = match limits.tier {
        ..=2 => (512, 1024, 4096, 512),
        3 => (2048, 2048, 8192, 2048),
        _ => (4096, 4096, 16384, 4096),
    };
    Tier {
        memory_mb: limits.memory_mb.unwrap_or(memory_mb),
        cpu_shares: limits.cpu_shares.unwrap_or(cpu_shares),
        files,
        processes,
    }
}

/// What a process and all that it starts may have, with the name that `prlimit` has for it. Processes are counted by
/// user: their number is limited only where the user is its `own`. Nothing is ever raised.
fn wanted(limits: Limits, own: bool) -> Vec<(Resource, &'static str, u64)> {
    let tier = tier(limits);
    let mut wanted = vec![(Resource::Core, "core", 0), (Resource::Nofile, "nofile", tier.files)];
    if own {
        wanted.push((Resource::Nproc, "nproc", tier.processes));
    }
    if let Some(memory) = limits.memory_mb {
        wanted.push((Resource::Data, "data", memory.saturating_mul(1 << 20)));
    }
    for (resource, _, most) in &mut wanted {
        *most = getrlimit(*resource).maximum.map_or(*most, |there| there.min(*most));
    }
    wanted
}

/// Whether limits of another user's process can be set from outside.
fn from_outside(own: bool) -> bool {
    let may = CapabilitySet::SYS_RESOURCE;
    !own || capabilities(None).is_ok_and(|sets| sets.effective.contains(may))
}

/// What a command begins with, that it limits itself where it cannot be limited from outside.
pub(super) fn before(limits: Limits, own: bool) -> Vec<String> {
    if from_outside(own) || !Path::new(PRLIMIT).exists() {
        return Vec::new();
    }
    let words = wanted(limits, own);
    let words = words.into_iter().map(|(_, name, most)| format!("--{name}={most}"));
    [PRLIMIT.to_owned()].into_iter().chain(words).chain(["--".to_owned()]).collect()
}

/// Limit a process that did not limit itself.
pub(super) fn limit(pid: u32, limits: Limits, own: bool) -> io::Result<()> {
    if !from_outside(own) {
        let missing = format!("{PRLIMIT} (of util-linux) is not there");
        return if Path::new(PRLIMIT).exists() { Ok(()) } else { Err(io::Error::other(missing)) };
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    for (resource, _, most) in wanted(limits, own) {
        prlimit(pid, resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// The control group of an instance, below the delegated directory.
pub(super) struct Group(PathBuf);

impl Process {
    pub(super) fn group(&self, key: Key) -> Option<Group> {
        let name = format!("{}-{}", key.workspace, key.generation);
        self.0.settings.cgroup.as_ref().map(|dir| Group(dir.join(name)))
    }
}

/// What of a delegated directory can be used, in words; or why not.
pub(super) fn delegated(dir: &Path) -> Result<String, String> {
    let failed =
        |cause: io::Error| format!("cannot use the control group {}: {cause}", dir.display());
    let probe = dir.join(".probe");
    fs::create_dir(&probe).map_err(failed)?;
    let kills = probe.join("cgroup.kill").exists();
    let removed = fs::remove_dir(&probe);
    removed.map_err(failed)?;
    if !kills {
        return Err(format!("{} is no control group of version 2 (Linux 5.14)", dir.display()));
    }
    // Those of the directory are given on to what is below.
    for controller in ["memory", "cpu", "pids"] {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    let given = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let given = given.split_whitespace().collect::<Vec<_>>().join(", ");
    let given = if given.is_empty() { "nothing but the end of an instance" } else { &given };
    Ok(format!("control groups below {} for {given}", dir.display()))
}

impl Group {
    /// Put a process into it, with the limits of its tier as far as they can be set.
    pub(super) fn enter(&self, pid: u32, limits: Limits) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let tier = tier(limits);
        let cores = tier.cpu_shares.saturating_mul(100_000) / 1024;
        let wanted = [
            ("memory.max", (tier.memory_mb << 20).to_string()),
            ("cpu.weight", (tier.cpu_shares * 100 / 1024).clamp(1, 10_000).to_string()),
            ("cpu.max", format!("{} 100000", cores.max(1000))),
            ("pids.max", tier.processes.to_string()),
        ];
        for (file, value) in wanted {
            let path = self.0.join(file);
            if path.exists() {
                fs::write(path, value)?;
            }
        }
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// End whatever is in it, and say whether there was anything.
    pub(super) fn kill(&self) -> bool {
        let inside = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let any = !inside.trim().is_empty();
        if any {
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
        }
        any
    }

    /// Take it away, once it is empty.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}
