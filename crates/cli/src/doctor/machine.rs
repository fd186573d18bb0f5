//! What this machine must offer.

use std::path::Path;

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};

use super::check::Check;

/// A server with a few hundred workspaces needs about so many open files.
const FILES: u64 = 4096;

/// All of them.
pub(crate) fn checks(state_dir: Option<&Path>) -> [Check; 2] {
    [files(getrlimit(Resource::Nofile).current), state(state_dir)]
}

/// `None` is no limit.
fn files(limit: Option<u64>) -> Check {
    match limit {
        None => Check::ok("open files", "no limit"),
        Some(limit) if limit >= FILES => Check::ok("open files", format!("up to {limit}")),
        Some(limit) => Check::warn("open files", format!("only up to {limit}"))
            .hint(format!("`ulimit -n {FILES}` before starting a server")),
    }
}

/// Where servers on this machine record themselves: it must be writable, or become so when it is made.
fn state(dir: Option<&Path>) -> Check {
    let Some(dir) = dir else {
        return Check::fail("state directory", "none: neither HOME nor XDG_STATE_HOME is set")
            .hint("set XDG_STATE_HOME to a directory of yours");
    };
    let there = dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(dir);
    let usable = there.is_dir() && rustix::fs::access(there, Access::WRITE_OK).is_ok();
    let detail = dir.display().to_string();
    if usable {
        Check::ok("state directory", detail)
    } else {
        Check::fail("state directory", format!("{detail} cannot be written"))
            .hint(format!("look at {}, or set XDG_STATE_HOME", there.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Level;
    use super::*;

    #[test]
    fn few_files_are_worth_a_warning() {
        let levels = [None, Some(FILES), Some(FILES - 1)].map(|limit| files(limit).level);
        assert_eq!(levels, [Level::Ok, Level::Ok, Level::Warn]);
    }

    #[test]
    fn the_state_directory_need_not_exist_yet() {
        assert_eq!(state(None).level, Level::Fail);
        assert_eq!(state(Some(&std::env::temp_dir().join("not/yet"))).level, Level::Ok);
        assert_eq!(state(Some(Path::new("/proc/version/x"))).level, Level::Fail);
    }
}
