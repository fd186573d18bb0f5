//! An instance in a sandbox of bubblewrap: the system to read, its own directories at the places where a container has
//! them, a process table of its own, and nothing else of the machine. The network is the machine's.
//!
//! What is recorded is the sandbox's outer process, which leads the group; with its inner one all that is inside ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::tree::Tree;

/// The program.
pub(super) const PROGRAM: &str = "bwrap";
/// What of the machine's top is not shown as it is.
const APART: [&str; 10] =
    ["proc", "dev", "tmp", "run", "root", "home", "configs", "workspace", "plugins", "logs"];
/// A directory of the tree, and where it is seen.
const SEEN: [(&str, &str); 4] =
    [("configs", "/configs"), ("workspace", "/workspace"), ("home", "/home"), ("logs", "/logs")];

/// Whether it works here.
#[expect(
    clippy::disallowed_methods,
    reason = "whether a sandbox can be made is known by making one"
)]
pub(super) fn works() -> bool {
    let tried = std::process::Command::new(PROGRAM)
        .args(["--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// The command that runs `command` in a sandbox.
pub(super) fn around(command: &[String], tree: &Tree, work: Option<(&Path, bool)>) -> Vec<String> {
    let mut words = vec![PROGRAM.to_owned()];
    let mut say = |parts: &[&str]| words.extend(parts.iter().map(|part| (*part).to_owned()));
    say(&["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
    let mut top: Vec<PathBuf> =
        fs::read_dir("/").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    top.sort();
    for path in top {
        let (text, name) = (path.display().to_string(), path.file_name().unwrap_or_default());
        if APART.iter().any(|apart| *apart == name) {
            continue;
        }
        match fs::read_link(&path) {
            Ok(target) => say(&["--symlink", &target.display().to_string(), &text]),
            Err(_) if path.is_dir() => say(&["--ro-bind-try", &text, &text]),
            Err(_) => {}
        }
    }
    say(&[
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/run", "--dir", "/plugins",
    ]);
    // Names are resolved where the machine says, also if that is below /run.
    say(&["--ro-bind-try", "/run/systemd/resolve", "/run/systemd/resolve"]);
    // What lies beside: other workspaces, and the server's own files above them.
    if let Some(root) = tree.path().parent() {
        for hidden in [root.parent(), Some(root)].into_iter().flatten() {
            let apart = hidden.iter().nth(1).is_some_and(|top| APART.iter().any(|it| *it == top));
            if hidden.iter().count() > 2 && !apart {
                say(&["--tmpfs", &hidden.display().to_string()]);
            }
        }
    }
    for (dir, place) in SEEN {
        match work.filter(|_| dir == "workspace") {
            Some((path, true)) => say(&["--bind", &path.display().to_string(), place]),
            Some((path, false)) => say(&["--ro-bind", &path.display().to_string(), place]),
            None => say(&["--bind", &tree.path().join(dir).display().to_string(), place]),
        }
    }
    // The programs that its command names, wherever they are.
    for word in command.iter().filter(|word| word.starts_with('/')) {
        if Path::new(word).is_file() {
            say(&["--ro-bind", word, word]);
        }
    }
    say(&["--chdir", "/workspace", "--"]);
    words.extend_from_slice(command);
    words
}

/// What an environment says of directories, as they are seen inside.
pub(super) fn inside(env: &mut BTreeMap<String, String>) {
    let places = [
        ("HOME", "/home"),
        ("CONFIGS_DIR", "/configs"),
        ("WORKSPACE_CONFIG_PATH", "/configs"),
        ("WORKSPACE_DIR", "/workspace"),
        ("LIGAND_LOG_DIR", "/logs"),
        ("PLUGINS_DIR", "/plugins"),
    ];
    env.extend(places.map(|(name, place)| (name.to_owned(), place.to_owned())));
}
