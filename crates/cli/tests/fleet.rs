//! A fleet with two provider accounts and a platform that has them as backends: three kinds of processes of the built
//! program, each with a database of its own, which die one at a time.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use ligand_domain::address::{Setting, judge};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::{Answer, Call};
use crate::migrate::{conserved, content, effects, fill, over, while_called};
use crate::run::Home;
use crate::stack::{Stack, generation, now, pause, say, until};

/// Longest that a transfer of several workspaces may take.
const MOVES: Duration = Duration::from_secs(120);
/// Longer than the lease of an agent here.
const SILENCE: Duration = Duration::from_secs(5);

/// See the module. Backend `west` is provider `hetzner`, `east` is `aws`.
struct Site {
    platform: Stack,
    fleet: Stack,
    secret: String,
}

impl Site {
    /// Agents count their turns; `script` is run before each.
    fn start(home: &Home, script: &str) -> Self {
        Self::start_with(home, script, &[])
    }

    /// The same, with more in the platform's environment.
    fn start_with(home: &Home, script: &str, more: &[(&str, &str)]) -> Self {
        let script = format!("export LIGAND_ECHO_EFFECTS=effects\n{script}\nexec \"$0\" agent");
        let words = ["/bin/sh", "-c", &script, env!("CARGO_BIN_EXE_ligand")];
        let words = words.map(|word| format!("{word:?}")).join(", ");
        let settings = format!(
            "provider = \"hetzner\"\nstop_grace_seconds = 1\nagent = [{words}]\n[providers.hetzner]\nkind = \"process\"\n\
             [providers.aws]\nkind = \"process\"\nuid_base = 300000\n"
        );
        let file = home.put("fleet.toml", &settings).display().to_string();
        let fleet = Stack::start(&["serve", "fleet", "--config", &file], &[]);
        let url = fleet.url();
        let settings = format!(
            "backend = \"west\"\nheartbeat_seconds = 1\n[migrations]\ngrace_seconds = 1\n\
             [backends.west]\nkind = \"fleet\"\nurl = {url:?}\norg = \"acme-1\"\nprovider = \"hetzner\"\n\
             [backends.east]\nkind = \"fleet\"\nurl = {url:?}\norg = \"acme-1\"\nprovider = \"aws\"\n\
             [runtimes.plain]\nredeems = false\ncommand = [{:?}, \"agent\"]\n",
            env!("CARGO_BIN_EXE_ligand")
        );
        let file = home.put("ligand.toml", &settings).display().to_string();
        let org =
            json!({"slug": "acme", "id": "acme-1", "backends": {"hetzner": "west", "aws": "east"}});
        assert_eq!(operate(&fleet, "POST /cp/admin/orgs", &org).status, 201);
        let token = operate(&fleet, "GET /cp/admin/orgs/acme/admin-token", &Value::Null).json();
        let token = token["admin_token"].as_str().unwrap();
        let secret = kept(&fleet, "fleet-shared-secret");
        let vars = [("ADMIN_TOKEN", token), ("MOLECULE_CP_SHARED_SECRET", secret.as_str())];
        let vars = [&vars[..], more].concat();
        let platform = Stack::start(&["serve", "platform", "--config", &file], &vars);
        Self { platform, fleet, secret }
    }

    /// As the fleet's operator.
    fn operate(&self, line: &str, body: &Value) -> Answer {
        operate(&self.fleet, line, body)
    }

    /// As the platform.
    fn call(&self, line: &str, body: &Value) -> Answer {
        let call = Call::new(self.fleet.url(), line).token(&self.secret);
        let call = call.header("x-molecule-admin-token", &self.platform.admin());
        if body.is_null() { call.send() } else { call.json(body).send() }
    }

    /// What a provider keeps of a workspace.
    fn tree(&self, provider: &str, id: &str) -> PathBuf {
        self.fleet.data().join("fleet").join(provider).join(id)
    }

    /// The process that leads an instance.
    fn leader(&self, provider: &str, id: &str, generation: i64) -> u32 {
        self.fleet.leader_at(&format!("fleet/{provider}"), id, generation)
    }

    /// Instances that the fleet says have not ended: provider, generation, state.
    fn instances(&self) -> Vec<(String, i64, String)> {
        let all = self.call("GET /cp/workspaces", &Value::Null).json();
        let text = |it: &Value, name: &str| it[name].as_str().unwrap().to_owned();
        let of = |it: &Value| (text(it, "provider"), generation(it), text(it, "state"));
        all["instances"].as_array().unwrap().iter().map(of).collect()
    }

    /// Nothing but this instance is left.
    #[track_caller]
    fn alone(&self, provider: &str, generation: i64) {
        let one = [(provider.to_owned(), generation, "running".to_owned())];
        until("one instance is left", || (self.instances() == one).then_some(()));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for provider in ["hetzner", "aws"] {
            let trees = fs::read_dir(self.fleet.data().join("fleet").join(provider));
            for tree in trees.into_iter().flatten().flatten() {
                say(&format!("the agent in {} wrote:", tree.path().display()));
                say(&fs::read_to_string(tree.path().join("logs/agent.log")).unwrap_or_default());
            }
        }
    }
}

fn kept(fleet: &Stack, name: &str) -> String {
    fs::read_to_string(fleet.data().join(name)).unwrap().trim().to_owned()
}

fn operate(fleet: &Stack, line: &str, body: &Value) -> Answer {
    let call = Call::new(fleet.url(), line).token(&kept(fleet, "fleet-admin-token"));
    if body.is_null() { call.send() } else { call.json(body).send() }
}

#[test]
fn a_workspace_goes_between_providers_of_a_fleet_while_it_is_called() {
    let home = Home::new();
    let site = Site::start(&home, "");
    let platform = &site.platform;
    platform.ok(&["ws", "create", "a", "--wait"]);
    let id = platform.id("a");
    let (west, east) = (site.tree("hetzner", &id), site.tree("aws", &id));
    fill(&west);
    let first = site.call(&format!("GET /cp/workspaces/{id}/status"), &Value::Null).json();
    let named = json!({"instance_id": first["instance_id"], "provider": "hetzner"});
    let line = format!("POST /admin/workspaces/{id}/set-compute-instance");
    let answer = Call::new(platform.url(), &line).token(&platform.admin()).json(&named).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let (before, kept) = (platform.workspace("a"), content(&west));
    let watch = ["migrate", "a", "--to", "east", "--grace", "0", "--watch"];
    let (_, answers) = while_called(platform, &id, || platform.ok(&watch));
    assert_eq!(over(platform, &id)["state"], "migrated");
    let after = platform.workspace("a");
    assert_eq!(generation(&after), generation(&before) + 1);
    assert!(after["url"] != before["url"] && after["backend"] == "east", "{after:#}");
    assert_eq!(content(&east), kept, "its data came with it");
    until("the source is gone, with its data", || (!west.exists()).then_some(()));
    conserved(&answers, &effects(&east));
    site.alone("aws", generation(&after));
    // What an administrator once named follows, with its provider.
    let second = site.call(&format!("GET /cp/workspaces/{id}/status"), &Value::Null).json();
    assert_eq!(
        (&after["instance_id"], &after["provider"]),
        (&second["instance_id"], &json!("aws")),
        "{after:#}"
    );
    assert_eq!(platform.settled(&id), generation(&after));
    // And it can be restarted where it is now.
    platform.ok(&["ws", "restart", "a", "--wait"]);
    assert_eq!(platform.settled(&id), generation(&after) + 1);
    site.alone("aws", generation(&after) + 1);
    platform.ok(&["ws", "delete", "a", "--confirm", "--purge"]);
    until("nothing is left of it", || {
        (!east.exists() && site.instances().is_empty()).then_some(())
    });
}

#[test]
fn a_fleet_that_is_killed_has_lost_nothing_and_doubt_ends_nobody() {
    let home = Home::new();
    let mut site = Site::start(&home, "");
    site.platform.ok(&["ws", "create", "a", "--wait"]);
    let id = site.platform.id("a");
    let leader = site.leader("hetzner", &id, 1);
    site.fleet.kill_server();
    // Turns go straight to the agent.
    let said = site.platform.ok(&["ws", "send", "a", "hi"]);
    assert!(said.contains("echo: hi"), "{said}");
    site.fleet.signal(leader, Signal::STOP);
    until("its silence is seen", || {
        (site.platform.workspace("a")["status"] != "online").then_some(())
    });
    pause(SILENCE);
    assert_eq!(site.platform.cycles(&id), "p", "nothing is started on the strength of doubt");
    site.fleet.signal(leader, Signal::CONT);
    assert_eq!(site.platform.settled(&id), 1);
    site.fleet.restart();
    site.alone("hetzner", 1);
    assert_eq!(site.leader("hetzner", &id, 1), leader);
    site.platform.ok(&["ws", "restart", "a", "--wait"]);
    assert_eq!(site.platform.settled(&id), 2);
    site.alone("hetzner", 2);
    // A start that is asked for while nobody answers is made when somebody does, once.
    site.fleet.kill_server();
    site.platform.ok(&["ws", "restart", "a"]);
    pause(Duration::from_secs(2));
    site.fleet.restart();
    assert_eq!(site.platform.settled(&id), 3);
    site.alone("hetzner", 3);
}

#[test]
fn an_instance_that_dies_is_replaced_once_whoever_is_away_meanwhile() {
    let home = Home::new();
    let mut site = Site::start(&home, "");
    site.platform.ok(&["ws", "create", "a", "--wait"]);
    let id = site.platform.id("a");
    let replaced = |site: &Site, to: i64| {
        until("it is replaced", || (generation(&site.platform.workspace("a")) == to).then_some(()));
        assert_eq!(site.platform.settled(&id), to);
        site.alone("hetzner", to);
    };
    site.fleet.kill_instance(site.leader("hetzner", &id, 1));
    replaced(&site, 2);
    // The same while the fleet is away: what is not known is not acted on, and seen when it is back.
    site.fleet.kill_server();
    site.fleet.kill_instance(site.leader("hetzner", &id, 2));
    until("its silence is seen", || {
        (site.platform.workspace("a")["status"] != "online").then_some(())
    });
    pause(SILENCE);
    assert_eq!(site.platform.cycles(&id), "pp");
    site.fleet.restart();
    replaced(&site, 3);
    // And while the platform is away.
    site.platform.kill_server();
    site.fleet.kill_instance(site.leader("hetzner", &id, 3));
    site.platform.restart();
    replaced(&site, 4);
    let said = site.platform.ok(&["ws", "send", "a", "hi"]);
    assert!(said.contains("echo: hi"), "{said}");
}

#[test]
fn for_a_platform_that_counts_not_the_fleet_replaces_what_died_while_it_was_away() {
    let home = Home::new();
    let mut site = Site::start(&home, "");
    let id = "33333333-3333-4333-8333-333333333333";
    let asked = json!({"workspace_id": id, "command": ["sh", "-c", "exec sleep 300"]});
    let first = site.call("POST /cp/workspaces/provision", &asked);
    assert_eq!(first.status, 201, "{first:?}");
    site.fleet.kill_server();
    site.fleet.kill_instance(site.leader("hetzner", id, 1));
    site.fleet.restart();
    let status = format!("GET /cp/workspaces/{id}/status");
    let it = until("it is replaced", || {
        let it = site.call(&status, &Value::Null).json();
        (generation(&it) == 2 && it["state"] == "running").then_some(it)
    });
    assert_eq!(it["instance_id"], first.json()["instance_id"], "its platform knows it by its name");
    let again = site.call("POST /cp/workspaces/provision", &asked).json();
    assert_eq!((&again["instance_id"], generation(&again)), (&it["instance_id"], 2));
    site.alone("hetzner", 2);
}

/// An address of this machine that agents may register from elsewhere, with a free port.
fn elsewhere() -> Option<SocketAddr> {
    let seen = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        // Nothing is sent: the system says from where it would be.
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let own = [seen("0.0.0.0:0", "198.51.100.1:9"), seen("[::]:0", "[2001:db8::1]:9")];
    let fits = |ip: &IpAddr| judge(*ip, Setting::to_advertise(true)).is_ok();
    let found = own.into_iter().flatten().find(fits)?;
    TcpListener::bind((found, 0)).ok()?.local_addr().ok()
}

/// Somebody else's migrator, which knows nothing but the routes of administrators: the agents are such that can redeem
/// nothing, and register as they always did.
#[test]
fn a_migrator_from_outside_moves_a_workspace_by_the_routes_of_administrators() {
    let home = Home::new();
    let Some(at) = elsewhere() else {
        say("skipped: this machine has no address but that of documents and its own");
        return;
    };
    // No backend reports where the target is: it says so itself, and that may be a network of ours.
    let site = Site::start_with(&home, "", &[("MOLECULE_DEPLOY_MODE", "saas")]);
    let platform = &site.platform;
    platform.ok(&["ws", "create", "a", "--runtime", "plain", "--wait"]);
    let id = platform.id("a");
    // What lies there of the instance before is worth nothing to the next one.
    platform.ok(&["ws", "restart", "a", "--wait"]);
    assert_eq!(platform.settled(&id), 2);
    let status = format!("GET /cp/workspaces/{id}/status");
    let source = site.call(&status, &Value::Null).json()["instance_id"].clone();
    let before = platform.workspace("a");
    let agent = format!(
        "unset LIGAND_LISTEN_STDIN LIGAND_AGENT_URL; exec \"$0\" agent --listen {at} --advertise http://{at}"
    );
    let asked = json!({
        "workspace_id": id, "generation": generation(&before) + 1, "provider": "aws", "runtime": "plain",
        "platform_url": platform.url(), "command": ["sh", "-c", agent, env!("CARGO_BIN_EXE_ligand")],
    });
    let target = site.call("POST /cp/workspaces/provision", &asked);
    assert_eq!(target.status, 201, "{target:?}");
    let target = target.json()["instance_id"].clone();
    pause(SILENCE);
    let meanwhile = platform.workspace("a");
    let same = |name: &str| meanwhile[name] == before[name];
    assert!(same("url") && same("generation"), "nobody comes in beside it: {meanwhile:#}");
    let admin = |what: &str, body: &Value| {
        let line = format!("POST /admin/workspaces/{id}/{what}");
        Call::new(platform.url(), &line).token(&platform.admin()).json(body).send().status
    };
    assert_eq!(admin("revoke-auth-tokens", &json!({})), 200);
    until("the target is the workspace", || {
        (platform.workspace("a")["url"] != before["url"]).then_some(())
    });
    let compute = json!({"instance_id": target, "provider": "aws"});
    assert_eq!(admin("set-compute-instance", &compute), 200);
    assert_eq!(admin("restart", &json!({})), 202);
    until("it is restarted", || {
        let now = site.call(&status, &Value::Null).json();
        (now["instance_id"] != source && now["instance_id"] != target).then_some(())
    });
    platform.settled(&id);
    let said = platform.ok(&["ws", "send", "a", "hi"]);
    assert!(said.contains("echo: hi"), "{said}");
    let line = format!("DELETE /cp/workspaces/{id}?instance_id={}", source.as_str().unwrap());
    assert_eq!(site.call(&line, &Value::Null).status, 200);
    let after = platform.workspace("a");
    site.alone("aws", generation(&after));
    let now = site.call(&status, &Value::Null).json();
    assert_eq!((&after["instance_id"], &after["provider"]), (&now["instance_id"], &json!("aws")));
}

fn create(site: &Site, names: &[&str]) {
    for name in names {
        site.platform.ok(&["ws", "create", name, "--wait"]);
    }
}

/// A drain of the west to the east, once it is over.
fn drained(site: &Site, concurrency: u32) -> Value {
    let asked = json!({"to": "aws", "concurrency": concurrency});
    let drain = site.operate("POST /cp/admin/providers/hetzner/drain", &asked);
    assert_eq!(drain.status, 202, "{drain:?}");
    ended(site, drain.json()["id"].as_str().unwrap())
}

/// A drain, once it is over.
fn ended(site: &Site, id: &str) -> Value {
    let (line, begun) = (format!("GET /cp/admin/drains/{id}"), now());
    loop {
        let it = site.operate(&line, &Value::Null).json();
        if it["ended_at"].is_string() {
            return it;
        }
        assert!(begun.elapsed() < MOVES, "{it:#}");
        pause(Duration::from_millis(50));
    }
}

/// How many workspaces of a drain are in this state.
fn count(drain: &Value, state: &str) -> usize {
    drain["workspaces"].as_array().unwrap().iter().filter(|it| it["state"] == state).count()
}

#[test]
fn a_provider_is_drained_by_its_fleet() {
    let home = Home::new();
    let site = Site::start(&home, "");
    let names = ["a", "b", "c", "d", "e"];
    create(&site, &names);
    let drain = drained(&site, 2);
    assert_eq!((&drain["state"], count(&drain, "migrated")), (&json!("done"), 5), "{drain:#}");
    for name in names {
        assert_eq!(site.platform.workspace(name)["backend"], "east", "{name}");
        let said = site.platform.ok(&["ws", "send", name, "hi"]);
        assert!(said.contains("echo: hi"), "{said}");
    }
    until("the west is empty", || {
        site.instances().iter().all(|(provider, ..)| provider == "aws").then_some(())
    });
    // One of them, back.
    let line = format!("POST /cp/admin/workspaces/{}/migrate-provider", site.platform.id("a"));
    let back = site.operate(&line, &json!({"provider": "hetzner"}));
    assert_eq!(back.status, 202, "{back:?}");
    let back = ended(&site, back.json()["id"].as_str().unwrap());
    assert_eq!(count(&back, "migrated"), 1, "{back:#}");
    assert_eq!(site.platform.workspace("a")["backend"], "west");
}

#[test]
fn a_drain_of_a_provider_stops_at_a_failure_and_goes_on_when_it_is_told_to() {
    let home = Home::new();
    // As long as this file is not there, no turn is completed in the east.
    let well = home.path().join("well");
    let script = format!(
        "case $HOME in */aws/*) test -e {} || LIGAND_ECHO_EFFECTS=/nowhere/effects;; esac",
        well.display()
    );
    let site = Site::start(&home, &script);
    let names = ["a", "b", "c"];
    create(&site, &names);
    let drain = drained(&site, 1);
    assert_eq!(
        (&drain["state"], count(&drain, "failed"), count(&drain, "waiting")),
        (&json!("stopped"), 1, 2),
        "{drain:#}"
    );
    let failed = drain["workspaces"].as_array().unwrap().iter().find(|it| it["state"] == "failed");
    let cause = failed.unwrap()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("did not complete a turn"), "{cause}");
    assert!(names.iter().all(|name| site.platform.workspace(name)["backend"] == "west"));
    home.put("well", "");
    let id = drain["id"].as_str().unwrap();
    let on = site.operate(&format!("POST /cp/admin/drains/{id}/resume"), &Value::Null);
    assert_eq!(on.status, 200, "{on:?}");
    let drain = ended(&site, id);
    assert_eq!(
        (&drain["state"], count(&drain, "failed"), count(&drain, "migrated")),
        (&json!("done"), 1, 2),
        "{drain:#}"
    );
    // Who stayed is still there for the next one.
    let drain = drained(&site, 1);
    assert_eq!((count(&drain, "migrated"), count(&drain, "failed")), (1, 0), "{drain:#}");
}

#[test]
fn a_drain_of_a_provider_that_is_aborted_leaves_everybody_where_he_was() {
    let home = Home::new();
    let site = Site::start(&home, "case $HOME in */aws/*) sleep 5;; esac");
    create(&site, &["a", "b"]);
    let limits = json!({"to": "aws", "concurrency": 1});
    let drain = site.operate("POST /cp/admin/providers/hetzner/drain", &limits).json();
    let id = drain["id"].as_str().unwrap().to_owned();
    let line = format!("GET /cp/admin/drains/{id}");
    until("one is on its way", || {
        (count(&site.operate(&line, &Value::Null).json(), "asked") == 1).then_some(())
    });
    let put = |what: &str| {
        site.operate(&format!("POST /cp/admin/drains/{id}/{what}"), &Value::Null).status
    };
    assert_eq!((put("pause"), put("pause"), put("abort"), put("resume")), (200, 409, 200, 409));
    let drain = ended(&site, &id);
    assert_eq!(
        (&drain["state"], count(&drain, "failed"), count(&drain, "kept")),
        (&json!("aborted"), 1, 1),
        "{drain:#}"
    );
    for name in ["a", "b"] {
        assert_eq!(site.platform.workspace(name)["backend"], "west");
        let said = site.platform.ok(&["ws", "send", name, "hi"]);
        assert!(said.contains("echo: hi"), "{said}");
    }
    until("the east is empty", || {
        site.instances().iter().all(|(provider, ..)| provider == "hetzner").then_some(())
    });
}
