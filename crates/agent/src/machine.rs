//! What is taken from the machine: time, randomness, the environment, processes.
//!
//! Everything else in this crate gets them from here or as arguments, so that decisions can be tested as
//! values and this file is the only one that sees the real world unasked.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads clock, environment and process table"
)]

use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant, SystemTime};

use rand::TryRng as _;
use rand::rngs::SysRng;

/// Variables with this prefix steer the agent itself and are kept from its program.
const PRIVATE: &str = "LIGAND_";

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The clock on the wall: it may be set.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// The same in milliseconds since 1970.
pub(crate) fn wall_ms() -> i64 {
    let since = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Sleep on the real clock.
pub(crate) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The value of an environment variable; one that is not UTF-8 counts as unset.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `N` bytes nobody can guess.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the kernel gives randomness once it has booted");
    bytes
}

/// Uniform in 0..1.
pub(crate) fn jitter() -> f64 {
    let bytes: [u8; 4] = random_bytes();
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// A command that inherits our environment without the variables that are ours alone.
pub(crate) fn command(program: &OsStr, args: &[OsString]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(PRIVATE) {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_fraction_and_varies() {
        let drawn: Vec<f64> = (0..64).map(|_| jitter()).collect();
        assert!(drawn.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(drawn.iter().any(|value| *value != drawn[0]));
    }
}
