//! How an instance is started: what its environment holds, as whom, with which limits.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::identity::Identity;
use super::tree::{Record, Tree};
use super::{LABEL, Process, Watched, given, limits, sandbox, view};
use crate::backend::{BackendError, Key, Limits, Spec, Started};

/// Programs that an instance finds without being told where they are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Process {
    pub(super) fn start(&self, spec: &Spec) -> Result<Started, BackendError> {
        let key = spec.key;
        let tree = self.tree(key.workspace);
        let owner = self.prepare(&tree)?;
        given::deliver(&tree.configs(), &spec.files)?;
        if spec.fresh_session {
            given::forget_sessions(&tree.home())?;
        }
        if let Some(credential) = &spec.credential {
            tree.deliver(credential, owner)?;
        }
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|cause| BackendError::io("cannot bind a loopback port", cause))?;
        let port = socket
            .local_addr()
            .map_err(|cause| BackendError::io("cannot read the bound port", cause))?;
        let address = format!("http://127.0.0.1:{}", port.port());
        let said_before = tree.boot_log_length();
        let child = self.spawn(spec, (&tree, owner), OwnedFd::from(socket), &address)?;
        let pid = child.id().ok_or_else(|| BackendError::broken("the instance ended at once"))?;
        self.restrain(key, pid, spec.limits, owner);
        // A zombie until it is waited for, so its identity is there even if it has exited already.
        let identity = Identity::of(pid)
            .ok_or_else(|| BackendError::broken(format!("process {pid} disappeared at once")))?;
        let record = Record { identity, address: Some(address.clone()), said_before };
        tree.record(key.generation, &record)?;
        self.watch(key, Watched::Child(child, pid), &record);
        Ok(Started { handle: record.identity.to_string(), address: Some(address) })
    }

    #[expect(clippy::disallowed_methods, reason = "this is where instances are started")]
    fn spawn(
        &self,
        spec: &Spec,
        (tree, owner): (&Tree, Option<u32>),
        socket: OwnedFd,
        address: &str,
    ) -> Result<Child, BackendError> {
        let work = spec.mount.as_ref().map(|mount| mount.path.as_path());
        let mut env = self.environment(spec, tree, address);
        let mut words = spec.command.clone();
        if self.sandboxed() {
            let work = spec.mount.as_ref().map(|mount| (mount.path.as_path(), mount.writable));
            words = sandbox::around(&spec.command, tree, work);
            sandbox::inside(&mut env);
        }
        let missing = || BackendError::broken("the runtime's command is empty");
        let first = words.first().filter(|_| !spec.command.is_empty()).ok_or_else(missing)?.clone();
        if first.starts_with('/') && !Path::new(&first).exists() {
            return Err(BackendError::broken(format!(
                "cannot start {first}: there is no such file"
            )));
        }
        words.splice(0..0, limits::before(spec.limits, owner.is_some()));
        let (program, arguments) = words.split_first().ok_or_else(missing)?;
        let (out, err) = tree.boot_log()?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(env)
            .current_dir(work.map_or_else(|| tree.workspace(), Path::to_owned))
            .stdin(Stdio::from(socket))
            .stdout(out)
            .stderr(err)
            .process_group(0);
        // Its own directories, and the files that its command names.
        let own = tree.of_instance().into_iter().chain(work.map(Path::to_owned));
        let own: Vec<PathBuf> =
            own.chain(spec.command.iter().flat_map(|word| named(word))).collect();
        self.launch(command, owner, &own).map_err(|cause| {
            if cause.kind() == std::io::ErrorKind::NotFound {
                BackendError::broken(format!("cannot start {program}: {cause}"))
            } else {
                BackendError::io(format!("cannot start {program}"), cause)
            }
        })
    }

    fn environment(&self, spec: &Spec, tree: &Tree, address: &str) -> BTreeMap<String, String> {
        let path = |path: PathBuf| path.display().to_string();
        let work = spec.mount.as_ref().map(|mount| mount.path.clone());
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        env.extend(spec.env.clone());
        env.extend([
            ("HOME".to_owned(), path(tree.home())),
            ("CONFIGS_DIR".to_owned(), path(tree.configs())),
            ("WORKSPACE_CONFIG_PATH".to_owned(), path(tree.configs())),
            ("WORKSPACE_DIR".to_owned(), path(work.unwrap_or_else(|| tree.workspace()))),
            ("LIGAND_LOG_DIR".to_owned(), path(tree.logs())),
            ("LIGAND_LISTEN_STDIN".to_owned(), "1".to_owned()),
            ("LIGAND_AGENT_URL".to_owned(), address.to_owned()),
            ("LIGAND_MANAGED".to_owned(), "1".to_owned()),
            (LABEL.to_owned(), self.label(spec.key)),
        ]);
        env
    }

    pub(super) fn shell_environment(&self, key: Key, tree: &Tree) -> BTreeMap<String, String> {
        let path = |path: PathBuf| path.display().to_string();
        BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TERM".to_owned(), "xterm-256color".to_owned()),
            ("WORKSPACE_ID".to_owned(), key.workspace.to_string()),
            ("HOME".to_owned(), path(tree.home())),
            ("CONFIGS_DIR".to_owned(), path(tree.configs())),
            ("WORKSPACE_DIR".to_owned(), path(tree.workspace())),
        ])
    }

    /// Start it as its user, if it has one, who is shown its `own` places of the machine.
    pub(super) fn launch(
        &self,
        mut command: Command,
        owner: Option<u32>,
        own: &[PathBuf],
    ) -> std::io::Result<Child> {
        match owner {
            // The server's other groups are dropped together with its user.
            Some(uid) => {
                command.uid(uid).gid(uid);
                view::start(command, own)
            }
            None => command.spawn(),
        }
    }

    /// Limit it. What cannot be limited runs all the same, and the log says so.
    pub(super) fn restrain(&self, key: Key, pid: u32, limits: Limits, owner: Option<u32>) {
        let limited = limits::limit(pid, limits, owner.is_some());
        let entered = self.group(key).map_or(Ok(()), |group| group.enter(pid, limits));
        if let Err(cause) = limited.and(entered) {
            tracing::warn!(workspace.id = %key.workspace, error = %cause, "an instance could not be limited");
        }
    }
}

/// What a word of a command means on disk: a file and, of a program of a virtual environment of Python, all of that.
fn named(word: &str) -> Vec<PathBuf> {
    let file = Path::new(word);
    if !file.is_absolute() || !file.is_file() {
        return Vec::new();
    }
    let prefix = file.parent().and_then(Path::parent);
    let prefix = prefix.filter(|prefix| prefix.join("pyvenv.cfg").is_file());
    [file].into_iter().chain(prefix).map(Path::to_owned).collect()
}
