//! Running the program, and what came of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fake::Fake;

/// The token that tests give to the program. No output may contain it.
pub(crate) const TOKEN: &str = "a-token-nobody-may-see";

/// A home directory that goes when the test ends.
pub(crate) struct Home(PathBuf);

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a file there.
    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What came of a run.
pub(crate) struct Ran {
    /// Exit code.
    pub(crate) code: i32,
    /// Data.
    pub(crate) stdout: String,
    /// Talk.
    pub(crate) stderr: String,
}

impl Ran {
    /// All of it, for a snapshot.
    pub(crate) fn transcript(&self) -> String {
        let Self { code, stdout, stderr } = self;
        format!("{stdout}-- stderr\n{stderr}-- exit {code}\n")
    }
}

/// Runs `ligand ARGS` (split at blanks) against a server, as somebody who has set `LIGAND_TOKEN`.
pub(crate) fn ligand(fake: &Fake, args: &str) -> Ran {
    let args: Vec<&str> = args.split_whitespace().collect();
    run(&Home::new(), &[("LIGAND_SERVER", &fake.url()), ("LIGAND_TOKEN", TOKEN)], &args)
}

/// Runs the program in an environment that holds nothing but what is given.
pub(crate) fn run(home: &Home, vars: &[(&str, &str)], args: &[&str]) -> Ran {
    let output = command(home, vars, args).output().unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains(TOKEN), "the token is shown: {text}");
        redact(&text, home, vars)
    };
    Ran {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The command that [`run`] runs.
pub(crate) fn command(home: &Home, vars: &[(&str, &str)], args: &[&str]) -> Command {
    binary(env!("CARGO_BIN_EXE_ligand"), home, vars, args)
}

/// The same for another build of the program.
#[expect(clippy::disallowed_methods, reason = "the one place where tests start the program")]
pub(crate) fn binary(path: &str, home: &Home, vars: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .envs([("HOME", home.0.as_os_str())])
        .envs([("COLUMNS", "100"), ("LANG", "C.UTF-8")])
        .envs(vars.iter().copied())
        .args(args)
        .stdin(Stdio::null());
    command
}

/// Replaces what differs from run to run.
fn redact(text: &str, home: &Home, vars: &[(&str, &str)]) -> String {
    let server = vars.iter().find(|(name, _)| *name == "LIGAND_SERVER").map(|(_, url)| *url);
    let text = text.replace(home.0.to_str().unwrap(), "HOME");
    match server {
        Some(url) => text.replace(url, "http://SERVER"),
        None => text,
    }
}
