//! Processes that a measurement starts: this program again, as a server. Each ends with whoever holds it, by
//! its own id.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::clock;

/// Longest wait until a server listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// A running server of ours.
pub(super) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Runs this program with these arguments and nothing but these variables, and waits until it says where
    /// it listens. What it says goes to `log`.
    pub(super) async fn start(args: &[&str], vars: &[(&str, &str)], log: &Path) -> Result<Self> {
        let said = File::create(log).with_context(|| format!("write {}", log.display()))?;
        let child = command(args, vars)?.stderr(said).spawn().context("start a server")?;
        let mut started = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let begun = clock::instant();
        loop {
            let said = fs::read_to_string(log).unwrap_or_default();
            if let Some(address) = listening(&said) {
                started.address = address;
                return Ok(started);
            }
            if let Some(ended) = started.child.try_wait()? {
                bail!("a server did not start ({ended}): {}", said.trim());
            }
            ensure!(begun.elapsed() < PATIENCE, "a server did not listen in time: {}", said.trim());
            clock::pause(LOOK).await;
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// User and system time that it has taken, in seconds.
    pub(super) fn cpu(&self) -> Result<f64> {
        cpu(&self.child.id().to_string())
    }

    /// Resident memory, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        resident(&status).with_context(|| format!("find VmRSS in {path}"))
    }

    /// `kill -9`.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a measurement runs servers of its own, each ended by its id"
)]
fn command(args: &[&str], vars: &[(&str, &str)]) -> Result<Command> {
    let own = std::env::current_exe().context("find this program's own file")?;
    let mut command = Command::new(own);
    command.args(args).env_clear().envs(vars.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// User and system time that we have taken ourselves, in seconds.
pub(super) fn own_cpu() -> Result<f64> {
    cpu("self")
}

fn cpu(of: &str) -> Result<f64> {
    let path = format!("/proc/{of}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = ticks(&stat).with_context(|| format!("understand {path}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// User and system time. The program's name, which may hold anything, stands in the last parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let after = &stat[stat.rfind(')')? + 1..];
    let mut fields = after.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn listening(said: &str) -> Option<SocketAddr> {
    let (_, url) = said.split_once("is listening at http://")?;
    url.split_once('\n')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 3 0 99 1 2";
        assert_eq!(ticks(stat), Some(12));
        assert_eq!(resident("Name:\ta\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert!(own_cpu().unwrap() >= 0.0);
    }

    #[test]
    fn a_server_says_where_it_listens() {
        let said = "warning: x\nligand 1 is listening at http://127.0.0.1:81\nmore";
        assert_eq!(listening(said), Some(SocketAddr::from(([127, 0, 0, 1], 81))));
        assert_eq!(listening("ligand 1 is listening at http://127.0.0.1:8"), None, "half a line");
    }
}
