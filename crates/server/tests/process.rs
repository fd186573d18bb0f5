//! What the process backend does with a machine: users, limits, the end of everything that an instance started, its data
//! as a whole, terminals, sandboxes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Seen;
use ligand_server::backend::process::{Process, Sandbox, Settings};
use ligand_server::backend::{Backend as _, ErrorKind, Key, Limits, Mount, Pushes, Spec};

/// A directory that nobody else may pass, as a server's own is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ligand-process-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        fs::write(path.join("secret"), "of the server").unwrap();
        Self(path)
    }

    fn process(&self, settings: Settings) -> Process {
        Process::with(&self.0.join("process"), settings, Pushes::channel().0)
    }

    fn tree(&self, key: Key) -> PathBuf {
        self.0.join("process").join(key.workspace.to_string())
    }

    fn record(&self, key: Key) -> PathBuf {
        self.tree(key).join(format!("run/{}.json", key.generation))
    }

    fn pid(&self, key: Key) -> i32 {
        let text = fs::read(self.record(key)).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        i32::try_from(record["identity"]["pid"].as_i64().unwrap()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether instances can be users of their own below a directory that these cannot pass.
fn root() -> bool {
    let mounts = u64::from_str_radix(&status("self", "CapEff"), 16).unwrap() & 1 << 21 != 0;
    rustix::process::geteuid().is_root() && mounts
}

fn shared() -> Settings {
    Settings { uid_base: None, ..Settings::default() }
}

/// All ways in which instances can be kept apart here.
fn ways() -> Vec<Settings> {
    let mut ways = vec![shared()];
    if root() {
        ways.push(Settings::default());
    }
    ways
}

fn key(n: u8, generation: i64) -> Key {
    Key { workspace: WorkspaceId::from_random([n; 16]), generation: Generation::new(generation) }
}

fn spec(key: Key, script: &str) -> Spec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let env = BTreeMap::from([("WORKSPACE_ID".to_owned(), key.workspace.to_string())]);
    Spec { env, ..Spec::bare(key, command, Token::from_entropy([9; 32])) }
}

fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn status(pid: impl std::fmt::Display, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Poll until there is something, for ten seconds at most.
#[expect(clippy::disallowed_methods, reason = "real processes take real time")]
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within ten seconds");
}

async fn said(file: &Path) -> String {
    until(|| fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))).await
}

#[tokio::test]
async fn as_root_every_workspace_is_a_user_of_its_own_and_sees_nothing_of_others() {
    if !root() {
        return;
    }
    let scratch = Scratch::new();
    let process = scratch.process(Settings::default());
    assert!(process.fingerprint().await.unwrap().contains("a user of its own"));
    let (one, two) = (key(1, 1), key(2, 1));
    process.ensure(spec(one, "sleep 1000")).await.unwrap();
    let (first, second) = (scratch.tree(one), scratch.tree(two));
    let mut looks = format!(
        "(cat $CONFIGS_DIR/.auth_token >/dev/null && echo own; cat {}; ls {};",
        scratch.0.join("secret").display(),
        scratch.0.display()
    );
    looks += &format!(
        "ls {}; cat {}; rm -r {}; echo > {}; id -u; id -G; echo end) > out.new 2>&1; mv out.new out; sleep 1000",
        first.join("configs").display(),
        first.join("configs/.auth_token").display(),
        second.join("run").display(),
        second.join("planted").display()
    );
    process.ensure(spec(two, &looks)).await.unwrap();
    let text = said(&second.join("workspace/out")).await;
    let uids = [&first, &second].map(|tree| fs::metadata(tree.join("home")).unwrap().uid());
    assert_ne!(uids[0], uids[1]);
    assert!(uids.iter().all(|uid| *uid >= 70_000), "{uids:?}");
    assert!(text.starts_with("own\n"), "{text}");
    let token = fs::read_to_string(first.join("configs/.auth_token")).unwrap();
    for hidden in ["of the server", "secret\n", &token] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    assert!(text.ends_with(&format!("{0}\n{0}\nend\n", uids[1])), "{text}");
    assert!(scratch.record(two).exists() && !second.join("planted").exists());
    let leader = scratch.pid(two);
    assert_eq!(status(leader, "NoNewPrivs"), "1");
    assert_eq!(status(leader, "Groups"), "");
    for (path, mode) in [("configs", 0o700), ("workspace", 0o700), ("run", 0o700), ("uid", 0o600)] {
        let found = fs::metadata(second.join(path)).unwrap();
        assert_eq!(found.mode() & 0o777, mode, "{path}");
    }
    assert_eq!(fs::metadata(&second).unwrap().mode() & 0o007, 0);
    // A later instance of it is the same user; one whose data is gone frees its number for nobody before.
    process.destroy(two).await.unwrap();
    process.ensure(spec(key(2, 2), "sleep 1000")).await.unwrap();
    assert_eq!(
        status(scratch.pid(key(2, 2)), "Uid").split(' ').next().unwrap(),
        uids[1].to_string()
    );
    for key in [one, key(2, 2)] {
        process.destroy(key).await.unwrap();
        process.erase(key.workspace).await.unwrap();
    }
}

#[tokio::test]
async fn a_tree_of_the_servers_user_is_given_to_the_workspaces_own() {
    if !root() {
        return;
    }
    let (scratch, key) = (Scratch::new(), key(3, 1));
    let before = scratch.process(shared());
    assert!(before.fingerprint().await.unwrap().contains("one trust domain"));
    before
        .ensure(spec(key, "mkdir d; ln -s /etc/passwd d/link; echo x > d/file; echo > done"))
        .await
        .unwrap();
    let work = scratch.tree(key).join("workspace");
    said(&work.join("done")).await;
    before.destroy(key).await.unwrap();
    let host = fs::metadata("/etc/passwd").unwrap().uid();
    let after = scratch.process(Settings::default());
    let next = Key { generation: Generation::new(2), ..key };
    after
        .ensure(spec(next, "echo more >> d/file; cat d/file > out.new; mv out.new out; sleep 1000"))
        .await
        .unwrap();
    assert_eq!(said(&work.join("out")).await, "x\nmore\n");
    assert_eq!(
        fs::metadata("/etc/passwd").unwrap().uid(),
        host,
        "a link is given, not what it leads to"
    );
    after.destroy(next).await.unwrap();
}

#[tokio::test]
async fn what_an_instance_puts_in_the_way_leads_the_server_nowhere() {
    let (scratch, key) = (Scratch::new(), key(4, 1));
    let process = scratch.process(Settings::default());
    let target = scratch.0.join("secret");
    let script = format!(
        "cd $CONFIGS_DIR; for name in .auth_token.draft .auth_token; do ln -sf {} $name; done; \
        mkdir .auth_token.next .register_key; echo > done",
        target.display()
    );
    process.ensure(spec(key, &script)).await.unwrap();
    said(&scratch.tree(key).join("configs/done")).await;
    process.destroy(key).await.unwrap();
    let next = Key { generation: Generation::new(2), ..key };
    process.ensure(spec(next, "sleep 1000")).await.unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "of the server");
    process.destroy(next).await.unwrap();
}

#[tokio::test]
async fn what_left_the_group_ends_with_its_instance() {
    for (number, settings) in ways().into_iter().enumerate() {
        // As a user of its own, also what hides its environment.
        let hide = if settings.uid_base.is_some() { "env -i" } else { "" };
        for destroy in [false, true] {
            let scratch = Scratch::new();
            let process = scratch.process(settings.clone());
            let key = key(10 + number as u8, 1);
            let script = format!(
                "({hide} setsid sh -c 'echo $$ > away.new; mv away.new away; sleep 1000' &) ; sleep 1000"
            );
            process.ensure(spec(key, &script)).await.unwrap();
            let away = said(&scratch.tree(key).join("workspace/away")).await;
            let away: i32 = away.trim().parse().unwrap();
            // A later server ends it as well.
            let later = scratch.process(settings.clone());
            later.recover().await.unwrap();
            assert!(alive(away));
            if destroy {
                later.destroy(key).await.unwrap();
            } else {
                later.stop(key, Duration::from_secs(2)).await.unwrap();
            }
            assert!(!alive(away), "{settings:?}, destroyed: {destroy}");
            process.destroy(key).await.unwrap();
        }
    }
}

#[tokio::test]
async fn another_instance_of_the_workspace_outlives_the_end_of_one() {
    let scratch = Scratch::new();
    let process = scratch.process(Settings::default());
    let (old, new) = (key(14, 1), key(14, 2));
    for key in [old, new] {
        process.ensure(spec(key, "sleep 1000")).await.unwrap();
    }
    process.destroy(old).await.unwrap();
    assert_eq!(process.inspect(new).await.unwrap(), Seen::Running);
    process.destroy(new).await.unwrap();
}

#[tokio::test]
async fn a_tier_limits_files_and_what_was_limited_outright() {
    let scratch = Scratch::new();
    let process = scratch.process(Settings::default());
    let key = key(15, 1);
    let limits = Limits { tier: 2, memory_mb: Some(256), cpu_shares: None };
    process.ensure(Spec { limits, ..spec(key, "sleep 1000") }).await.unwrap();
    let limit = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{}/limits", scratch.pid(key))).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().ok()
    };
    // What it was started through sets them, and becomes it then.
    until(|| (limit("Max data size") == Some(256 << 20)).then_some(())).await;
    assert!(limit("Max open files").unwrap() <= 4096);
    assert_eq!(limit("Max core file size"), Some(0));
    process.destroy(key).await.unwrap();
}

#[tokio::test]
async fn a_control_group_ends_with_its_instance() {
    // Only where one can be made: that takes a delegated directory.
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let name = format!("ligand-test-{}", std::process::id());
    let made = places.map(|place| Path::new(place).join(&name)).into_iter().find(|dir| {
        dir.parent().is_some_and(|place| place.join("cgroup.procs").exists())
            && fs::create_dir(dir).is_ok()
    });
    let Some(group) = made.filter(|dir| dir.join("cgroup.kill").exists()) else { return };
    let (scratch, key) = (Scratch::new(), key(16, 1));
    let settings = Settings { cgroup: Some(group.clone()), ..Settings::default() };
    let process = scratch.process(settings);
    assert!(process.fingerprint().await.unwrap().contains("control groups"));
    process.ensure(spec(key, "sleep 1000")).await.unwrap();
    let inside = group.join(format!("{}-1/cgroup.procs", key.workspace));
    assert!(fs::read_to_string(&inside).unwrap().contains(&scratch.pid(key).to_string()));
    process.destroy(key).await.unwrap();
    assert!(!inside.exists());
    fs::remove_dir(group).unwrap();
}

#[tokio::test]
async fn data_goes_out_and_comes_in_as_a_whole() {
    for settings in ways() {
        let (from, to, key) = (Scratch::new(), Scratch::new(), key(20, 1));
        let (source, target) = (from.process(settings.clone()), to.process(settings.clone()));
        let script = "echo a > a; mkdir d; echo b > d/b; chmod 500 d; ln -s /nowhere l; echo h > $HOME/h; \
            echo c > $CONFIGS_DIR/c; mkfifo p; echo > done";
        source.ensure(spec(key, script)).await.unwrap();
        said(&from.tree(key).join("workspace/done")).await;
        source.destroy(key).await.unwrap();
        let sent = source.digest(key.workspace).await.unwrap();
        assert_eq!(source.list_data().await.unwrap(), [key.workspace]);
        let export = || async { source.export(key.workspace).await.unwrap() };
        // An instance that is there already, as a migration's target is, sees what comes.
        let waits = "until test -e done; do sleep 0.05; done; cat a d/b $HOME/h > seen.new; mv seen.new seen; sleep 1000";
        target.ensure(spec(key, waits)).await.unwrap();
        let token = fs::read(to.tree(key).join("configs/.auth_token")).unwrap();
        fs::write(to.tree(key).join("workspace/old"), "old").unwrap();
        let wrong = "0".repeat(64);
        let refused = target.import(key.workspace, export().await, Some(wrong)).await.unwrap_err();
        assert!(refused.what.contains("what was there stays"), "{}", refused.chain());
        assert!(refused.what.contains(&sent.digest), "{}", refused.chain());
        assert!(to.tree(key).join("workspace/old").exists());
        let came = target.import(key.workspace, export().await, Some(sent.digest.clone())).await;
        assert_eq!(came.unwrap(), sent);
        assert_eq!(said(&to.tree(key).join("workspace/seen")).await, "a\nb\nh\n");
        assert!(!to.tree(key).join("workspace/old").exists());
        assert_eq!(fs::read(to.tree(key).join("configs/.auth_token")).unwrap(), token);
        target.destroy(key).await.unwrap();
        fs::remove_file(to.tree(key).join("workspace/seen")).unwrap();
        assert_eq!(target.digest(key.workspace).await.unwrap(), sent);
        fs::set_permissions(to.tree(key).join("workspace/a"), Permissions::from_mode(0o777))
            .unwrap();
        assert_ne!(target.digest(key.workspace).await.unwrap().digest, sent.digest);
        target.erase(key.workspace).await.unwrap();
        assert_eq!(target.digest(key.workspace).await.unwrap_err().kind, ErrorKind::Missing);
    }
}

#[tokio::test]
async fn beneath_an_instance_that_stands_by_its_own_credentials_stay_and_turns_come() {
    let boxed = ways().into_iter().map(|way| Settings { sandbox: Sandbox::Auto, ..way });
    let ways = if root() { ways().into_iter().chain(boxed).collect() } else { ways() };
    for settings in ways {
        let (from, to, key) = (Scratch::new(), Scratch::new(), key(41, 1));
        let (source, target) = (from.process(settings.clone()), to.process(settings));
        let own = [".auth_token", ".auth_token.next", ".register_key", ".passport"];
        let writes = "cd $CONFIGS_DIR; for name in .auth_token.next .register_key .passport; do \
            echo $WORKSPACE_ID $1 > $name; done; mkdir .turns";
        let script = format!(
            "set -- source; {writes}; echo answered > .turns/one; echo > $WORKSPACE_DIR/done"
        );
        source.ensure(spec(key, &script)).await.unwrap();
        said(&from.tree(key).join("workspace/done")).await;
        source.destroy(key).await.unwrap();
        let sent = source.digest(key.workspace).await.unwrap();
        // It stands in its directory and holds a file of it open, as an agent does.
        let script = format!(
            "set -- target; {writes}; echo > $WORKSPACE_DIR/ready; exec 3< $WORKSPACE_DIR/ready; \
             until test -s .turns/one; do sleep 0.05; done; \
             cat .turns/one > $HOME/seen.new; mv $HOME/seen.new $HOME/seen; sleep 1000"
        );
        target.ensure(spec(key, &script)).await.unwrap();
        let tree = to.tree(key);
        said(&tree.join("workspace/ready")).await;
        let mine = || own.map(|name| fs::read(tree.join("configs").join(name)).unwrap());
        let before = mine();
        let archive = source.export(key.workspace).await.unwrap();
        let came = target.import(key.workspace, archive, Some(sent.digest.clone())).await;
        assert_eq!(came.unwrap(), sent);
        assert_eq!(said(&tree.join("home/seen")).await, "answered\n");
        assert_eq!(mine(), before);
        assert!(!tree.join("workspace/ready").exists());
        assert_eq!(target.inspect(key).await.unwrap(), Seen::Running);
        // What the source loses, the target keeps.
        source.erase(key.workspace).await.unwrap();
        assert_eq!(fs::read_to_string(tree.join("configs/.turns/one")).unwrap(), "answered\n");
        target.destroy(key).await.unwrap();
    }
}

#[tokio::test]
async fn an_import_that_breaks_off_changes_nothing_and_a_crash_is_repaired() {
    let (scratch, key) = (Scratch::new(), key(21, 1));
    let process = scratch.process(shared());
    process.ensure(spec(key, "echo old > a; echo > done")).await.unwrap();
    let tree = scratch.tree(key);
    said(&tree.join("workspace/done")).await;
    process.destroy(key).await.unwrap();
    let old = process.digest(key.workspace).await.unwrap();
    let archive: Vec<Bytes> =
        process.export(key.workspace).await.unwrap().try_collect().await.unwrap();
    let whole: Vec<u8> = archive.concat();
    let half = Bytes::copy_from_slice(&whole[..700]);
    let broken = futures_util::stream::iter([Ok(half), Err(std::io::Error::other("cut"))]).boxed();
    let refused = process.import(key.workspace, broken, None).await.unwrap_err();
    assert!(refused.chain().contains("cut"), "{}", refused.chain());
    assert_eq!(process.digest(key.workspace).await.unwrap(), old);
    // A crash after the verification, before anything was moved; then one in the middle of moving.
    for phase in [".verified", ".filling"] {
        let new = tree.join(phase).join("workspace");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("b"), phase).unwrap();
        if phase == ".filling" {
            fs::create_dir_all(tree.join(".previous/workspace")).unwrap();
            fs::rename(tree.join("workspace/b"), tree.join(".previous/workspace/b")).unwrap();
        }
        assert_eq!(process.digest(key.workspace).await.unwrap().entries, 1);
        assert_eq!(fs::read_to_string(tree.join("workspace/b")).unwrap(), phase);
        for left in [".verified", ".filling", ".previous"] {
            assert!(!tree.join(left).exists(), "{left}");
        }
    }
    // One that was never verified is worth nothing.
    fs::create_dir_all(tree.join(".incoming/workspace/c")).unwrap();
    assert_eq!(process.digest(key.workspace).await.unwrap().entries, 1);
}

#[tokio::test]
async fn a_workspace_works_in_the_directory_that_it_was_given() {
    let (scratch, key) = (Scratch::new(), key(22, 1));
    let process = scratch.process(shared());
    let place = scratch.0.join("project");
    fs::create_dir(&place).unwrap();
    let mount = Some(Mount { path: place.clone(), writable: true });
    process
        .ensure(Spec { mount, ..spec(key, "echo $WORKSPACE_DIR > out; sleep 1000") })
        .await
        .unwrap();
    assert_eq!(said(&place.join("out")).await.trim(), place.display().to_string());
    process.destroy(key).await.unwrap();
}

#[tokio::test]
async fn a_terminal_is_a_shell_of_the_workspace_and_ends_with_its_reader() {
    for settings in ways() {
        let (scratch, key) = (Scratch::new(), key(23, 1));
        let process = scratch.process(settings);
        let refused = process.terminal(key, (80, 24)).await.err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Missing);
        process.ensure(spec(key, "sleep 1000")).await.unwrap();
        let mut terminal = process.terminal(key, (80, 24)).await.unwrap();
        terminal.size.send((101, 31)).await.unwrap();
        let typed = "stty size; echo pid=$$; pwd -P; tty; sleep 1000\n";
        terminal.input.send(Bytes::from_static(typed.as_bytes())).await.unwrap();
        let mut text = String::new();
        let read = async {
            while !text.contains("/dev/pts/") {
                let piece = terminal.output.next().await.unwrap().unwrap();
                text += &String::from_utf8_lossy(&piece);
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap();
        assert!(text.contains("31 101"), "{text}");
        assert!(
            text.contains(&scratch.tree(key).join("workspace").display().to_string()),
            "{text}"
        );
        let shell = text.lines().find_map(|line| line.strip_prefix("pid=")).unwrap();
        let shell: i32 = shell.trim().parse().unwrap();
        let of = |pid: i32| status(pid, "Uid");
        assert_eq!(of(shell), of(scratch.pid(key)), "the same user");
        drop(terminal);
        until(|| (!alive(shell)).then_some(())).await;
        process.destroy(key).await.unwrap();
    }
}

#[tokio::test]
async fn in_a_sandbox_an_instance_has_places_and_processes_of_its_own() {
    let (scratch, key) = (Scratch::new(), key(24, 1));
    let settings = Settings { sandbox: Sandbox::Bubblewrap, ..shared() };
    let process = scratch.process(settings.clone());
    match process.fingerprint().await {
        Ok(what) => assert!(what.contains("in a sandbox"), "{what}"),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{}", why.chain());
            return;
        }
    }
    let script = format!(
        "(pwd; echo $HOME $CONFIGS_DIR; ls /configs/.auth_token; cat {}; touch /usr/x; \
        ls /proc | grep -c '^[0-9]') > out.new 2>&1; mv out.new out; setsid sleep 1000 & sleep 1000",
        scratch.0.join("secret").display()
    );
    process.ensure(spec(key, &script)).await.unwrap();
    let text = said(&scratch.tree(key).join("workspace/out")).await;
    assert!(text.starts_with("/workspace\n/home /configs\n"), "{text}");
    assert!(!text.contains("of the server"), "{text}");
    assert!(!Path::new("/usr/x").exists());
    let seen: u32 = text.lines().last().unwrap().parse().unwrap();
    assert!(seen < 10, "{text}");
    // A later server knows it, by its record and without.
    let later = scratch.process(settings);
    fs::remove_file(scratch.record(key)).unwrap();
    assert_eq!(later.inspect(key).await.unwrap(), Seen::Running);
    later.stop(key, Duration::from_secs(1)).await.unwrap();
    let left = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let ours = key.workspace.to_string();
        let pid = entry.file_name().to_string_lossy().parse().unwrap_or_default();
        environment.windows(ours.len()).any(|window| window == ours.as_bytes()) && alive(pid)
    });
    assert_eq!(left.count(), 0);
    process.destroy(key).await.unwrap();
}

#[tokio::test]
async fn a_command_may_name_files_that_others_could_not_reach() {
    if !root() {
        return;
    }
    let (scratch, key) = (Scratch::new(), key(25, 1));
    let process = scratch.process(Settings::default());
    let shut = scratch.0.join("shut");
    fs::create_dir_all(shut.join("venv/bin")).unwrap();
    fs::write(shut.join("venv/pyvenv.cfg"), "").unwrap();
    fs::write(shut.join("venv/library"), "beside\n").unwrap();
    std::os::unix::fs::symlink("/bin/sh", shut.join("venv/bin/shell")).unwrap();
    fs::write(
        shut.join("script"),
        "cat $(dirname $0)/venv/library > out.new; mv out.new out; sleep 1000",
    )
    .unwrap();
    let round = shut.join("venv/../script");
    let command = [shut.join("venv/bin/shell"), round].map(|path| path.display().to_string());
    process.ensure(Spec { command: command.to_vec(), ..spec(key, "") }).await.unwrap();
    assert_eq!(said(&scratch.tree(key).join("workspace/out")).await, "beside\n");
    process.destroy(key).await.unwrap();
}
