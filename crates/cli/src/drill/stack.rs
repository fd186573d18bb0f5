//! A stack of real processes in a directory of its own: a server, the instances that it runs, and agents that
//! run elsewhere. Dropping it ends what it started, and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::api::Api;
use super::beside::Beside;
use super::moving;
use super::scene::{Outcome, PATIENCE};
use crate::{clock, output};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long whatever was killed may take to be gone.
const GONE: Duration = Duration::from_secs(5);
/// Lines of a log that are shown of a drill that failed.
const LAST_LINES: usize = 30;

/// See the module.
pub(super) struct Stack {
    pub(super) dir: PathBuf,
    exe: PathBuf,
    keep: bool,
    server: Option<Child>,
    /// A process that runs a backend for the server.
    pub(super) provider: Beside,
    /// The control plane that runs all of them.
    pub(super) fleet: Beside,
    pub(super) starts: u32,
    url: String,
    flags: Vec<String>,
    vars: Vec<(String, String)>,
    agents: BTreeMap<String, Child>,
}

impl Stack {
    /// An empty directory, and nothing that runs. `keep`: the directory stays.
    pub(super) fn prepare(drill: &str, keep: bool) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ligand-drill-{drill}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&dir).with_context(|| {
            format!("make the scratch directory {}; TMPDIR names another place", dir.display())
        })?;
        let exe = std::env::current_exe().context("find this program's own file")?;
        Ok(Self {
            dir,
            exe,
            keep,
            server: None,
            provider: Beside::default(),
            fleet: Beside::default(),
            starts: 0,
            url: String::new(),
            flags: Vec::new(),
            vars: Vec::new(),
            agents: BTreeMap::new(),
        })
    }

    /// Where the server listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Where its data is.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A flag of the server, from its next start on.
    pub(super) fn flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// A variable of every process that is started from now on.
    pub(super) fn variable(&mut self, name: &str, value: &str) {
        self.vars.push((name.to_owned(), value.to_owned()));
    }

    /// Start the server with these settings, and wait until it listens.
    pub(super) async fn serve(&mut self, settings: &str) -> Outcome<Api> {
        fs::write(self.dir.join("ligand.toml"), settings).context("write the settings file")?;
        self.serve_again().await
    }

    /// Start the server again, where it listened before.
    pub(super) async fn serve_again(&mut self) -> Outcome<Api> {
        self.starts += 1;
        let log = self.dir.join(format!("server-{}.log", self.starts));
        let data = self.data().display().to_string();
        let settings = self.dir.join("ligand.toml").display().to_string();
        let listen = self.url.strip_prefix("http://").unwrap_or("127.0.0.1:0");
        let mut command = self.own(&["serve", "platform", "--listen", listen]);
        command.args(["--data-dir", &data, "--config", &settings]).args(&self.flags);
        command.envs(self.fleet.identity());
        let mut server = start(&mut command, &log).context("start the server")?;
        let url = listening(&mut server, &log, "is listening at ").await;
        self.server = Some(server);
        self.url = url?;
        Ok(Api::new(&self.url, self.admin_token()?)?)
    }

    /// The administrator's: minted by the server, unless a fleet has to know it beforehand.
    fn admin_token(&self) -> Outcome<String> {
        if let Some((_, token)) = self.fleet.identity().into_iter().next() {
            return Ok(token.to_owned());
        }
        let token = fs::read_to_string(self.data().join("admin-token"));
        Ok(token.context("read the admin token")?.trim().to_owned())
    }

    /// `kill -9` of the server.
    pub(super) fn kill_server(&mut self) -> Outcome {
        let mut server = self.server.take().context("no server runs")?;
        end(&mut server);
        Ok(())
    }

    /// Whether the server has ended by itself.
    pub(super) fn server_ended(&mut self) -> Outcome<bool> {
        let Some(server) = &mut self.server else { return Ok(true) };
        let ended = server.try_wait().context("look at the server")?.is_some();
        if ended {
            self.server = None;
        }
        Ok(ended)
    }

    /// Where a build for proofs looks for the instant at which it ends itself.
    #[cfg(feature = "mutants")]
    pub(super) fn crash_file(&self) -> PathBuf {
        self.dir.join("crash")
    }

    /// This program, in an environment that is empty but for what it needs.
    #[expect(
        clippy::disallowed_methods,
        reason = "drills start real processes here, and only here"
    )]
    pub(super) fn own(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(args).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", &self.dir).env("XDG_STATE_HOME", self.dir.join("state"));
        command.env("LIGAND_LOG", "info");
        // Everybody here calls from one address, and some of them without pause.
        command.env("RATE_LIMIT", "1000000");
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        #[cfg(feature = "mutants")]
        if let Some(mutant) = crate::env::var(crate::mutant::VARIABLE) {
            command.env(crate::mutant::VARIABLE, mutant);
        }
        #[cfg(feature = "mutants")]
        command.env(crate::mutant::CRASH, self.crash_file());
        command
    }

    /// The directory of an agent's credential files.
    pub(super) fn configs(&self, agent: &str) -> PathBuf {
        self.dir.join("agents").join(agent).join("configs")
    }

    /// The credential file of an instance that the server runs.
    pub(super) fn credential_of(&self, workspace: &str) -> Outcome<String> {
        self.credential_at("process", workspace)
    }

    /// The directory of a workspace at a backend of this name.
    pub(super) fn tree(&self, backend: &str, workspace: &str) -> PathBuf {
        self.data().join(backend).join(workspace)
    }

    /// The credential file of an instance that the server runs at a backend of this name.
    pub(super) fn credential_at(&self, backend: &str, workspace: &str) -> Outcome<String> {
        let path = self.tree(backend, workspace).join("configs/.auth_token");
        let text = fs::read_to_string(&path);
        Ok(text.with_context(|| format!("read {}", path.display()))?.trim().to_owned())
    }

    /// What lies in the credential file of an agent.
    pub(super) fn credential(&self, agent: &str) -> Option<String> {
        let text = fs::read_to_string(self.configs(agent).join(".auth_token")).ok()?;
        Some(text.trim().to_owned())
    }

    /// Put a credential where an agent reads it, in one step.
    pub(super) fn deliver(&self, agent: &str, token: &str) -> Outcome {
        let dir = self.configs(agent);
        let put = || -> std::io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let new = dir.join(".delivered");
            let mut file = OpenOptions::new();
            let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(token.as_bytes())?;
            fs::rename(new, dir.join(".auth_token"))
        };
        Ok(put().context("deliver a credential")?)
    }

    /// Start an agent that runs elsewhere, or pretends to be one that a backend started.
    pub(super) fn agent(&mut self, name: &str, workspace: &str, platform: &str) -> Outcome {
        self.start_agent(name, workspace, platform, false)
    }

    /// The same, which believes that a backend started it and would replace it.
    pub(super) fn managed_agent(&mut self, name: &str, workspace: &str, platform: &str) -> Outcome {
        self.start_agent(name, workspace, platform, true)
    }

    fn start_agent(
        &mut self,
        name: &str,
        workspace: &str,
        platform: &str,
        managed: bool,
    ) -> Outcome {
        let configs = self.configs(name).display().to_string();
        fs::create_dir_all(self.dir.join("agents").join(name)).context("make its directory")?;
        let mut command = self.own(&["agent", "--workspace-id", workspace]);
        command.args(["--platform-url", platform, "--configs-dir", &configs]);
        command.env("LIGAND_AGENT_NAME", name);
        if managed {
            command.env("LIGAND_MANAGED", "1");
        }
        let child = start(&mut command, &self.log_of(name)).context("start an agent")?;
        if let Some(mut earlier) = self.agents.insert(name.to_owned(), child) {
            end(&mut earlier);
        }
        Ok(())
    }

    fn log_of(&self, agent: &str) -> PathBuf {
        self.dir.join("agents").join(format!("{agent}.log"))
    }

    /// `kill -9` of an agent.
    pub(super) fn kill_agent(&mut self, name: &str) -> Outcome {
        let mut agent = self.agents.remove(name).context("there is no such agent")?;
        end(&mut agent);
        Ok(())
    }

    /// Whether an agent has ended by itself, and with which code.
    pub(super) fn agent_ended(&mut self, name: &str) -> Outcome<Option<i32>> {
        let agent = self.agents.get_mut(name).context("there is no such agent")?;
        let status = agent.try_wait().context("look at an agent")?;
        Ok(status.map(|status| status.code().unwrap_or(-1)))
    }

    /// A signal to an agent.
    pub(super) fn signal_agent(&self, name: &str, signal: Signal) -> Outcome {
        let agent = self.agents.get(name).context("there is no such agent")?;
        Ok(kill_process(pid(agent.id())?, signal).context("signal an agent")?)
    }

    /// A signal to an instance that the server runs, and to all that it started.
    pub(super) fn signal_instance(&self, leader: u32, signal: Signal) -> Outcome {
        if !self.instances().contains(&leader) {
            return Err(anyhow::anyhow!("process {leader} is none of this drill").into());
        }
        Ok(kill_process_group(pid(leader)?, signal).context("signal an instance")?)
    }

    /// Every process of every instance that the server runs: those whose home lies in the data directory.
    pub(super) fn instances(&self) -> Vec<u32> {
        let label = format!("HOME={}/", self.data().display());
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let ours = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(label.as_bytes()))
        };
        numbers.filter(ours).collect()
    }

    /// This program's own file.
    pub(super) fn program(&self) -> String {
        self.exe.display().to_string()
    }

    fn log_files(&self) -> Vec<PathBuf> {
        let mut logs: Vec<PathBuf> = (1..=self.starts)
            .flat_map(|number| {
                ["server", "fleet", "provider"].map(|it| format!("{it}-{number}.log"))
            })
            .map(|name| self.dir.join(name))
            .filter(|log| log.exists())
            .chain(self.agents.keys().map(|name| self.log_of(name)))
            .collect();
        let trees = ["process", moving::EAST]
            .into_iter()
            .flat_map(|backend| fs::read_dir(self.data().join(backend)).into_iter().flatten())
            .flatten();
        let of = |tree: fs::DirEntry| {
            ["agent.log", "boot.log"].map(|it| tree.path().join("logs").join(it))
        };
        logs.extend(trees.flat_map(of));
        logs
    }

    /// Every log, whole.
    pub(super) fn logs(&self) -> String {
        let texts =
            self.log_files().into_iter().map(|log| fs::read_to_string(log).unwrap_or_default());
        texts.collect()
    }

    /// The end of every log, for somebody who wants to know why a drill failed.
    pub(super) fn last_words(&self) -> String {
        let mut words = String::new();
        for log in self.log_files() {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(LAST_LINES);
            words += &format!("-- {}\n{}\n", log.display(), lines[from..].join("\n"));
        }
        words
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // First whoever would replace what is killed next.
        if let Some(mut server) = self.server.take() {
            end(&mut server);
        }
        self.fleet.end();
        self.provider.end();
        for agent in self.agents.values_mut() {
            end(agent);
        }
        let until = clock::now().after(GONE);
        loop {
            let left = self.instances();
            if left.is_empty() || clock::now() >= until {
                break;
            }
            for process in left.into_iter().filter_map(|number| pid(number).ok()) {
                let _ = kill_process(process, Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
        if self.keep {
            output::note(&format!("kept: {}", self.dir.display()));
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

pub(super) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log).context("open its log")?;
    let other = log.try_clone().context("open its log twice")?;
    Ok(command.stdout(log).stderr(other).spawn()?)
}

pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The address that a server tells in its log once it listens.
pub(super) async fn listening(
    server: &mut Child,
    log: &Path,
    after: &str,
) -> anyhow::Result<String> {
    let until = clock::now().after(PATIENCE);
    loop {
        let said = fs::read_to_string(log).unwrap_or_default();
        let told = said.split_once(after).and_then(|(_, rest)| rest.split_once('\n'));
        if let Some((url, _)) = told {
            return Ok(url.trim().to_owned());
        }
        if let Some(status) = server.try_wait().context("look at the server")? {
            bail!("the server ended ({status}): {}", said.trim());
        }
        ensure!(clock::now() < until, "the server does not listen: {}", said.trim());
        clock::pause(LOOK).await;
    }
}

fn pid(number: u32) -> anyhow::Result<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw).context("no process has this number")
}
