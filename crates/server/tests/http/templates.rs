//! Templates: what is chosen, what is delivered, and when it is not delivered again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ligand_server::backend::Mount;
use ligand_server::backend::fake::{FakeInstance, Fault};
use ligand_server::templates::required_env;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::engine::on_each;
use crate::support::modes::compat;
use crate::support::{ADMIN, TestApp, both};

/// A templates root of a test's own. It goes with the test.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ligand-templates-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Run a body on each engine, with templates.
fn with_templates<F: Future<Output = ()>>(name: &str, root: &Root, body: impl Fn(TestApp) -> F) {
    on_each(name, |db| body(TestApp::new(db, |config| config.templates.root.clone_from(&root.0))));
}

fn instance(app: &TestApp, id: &str) -> FakeInstance {
    app.fake.newest(id.parse().unwrap()).unwrap()
}

/// The files of the newest instance.
fn files(app: &TestApp, id: &str) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    instance(app, id).files.iter().map(|(path, bytes)| (path.clone(), text(bytes))).collect()
}

async fn created(app: &TestApp, body: Value) -> String {
    app.post("/workspaces", body).await.ok()["id"].as_str().unwrap().to_owned()
}

/// Restart, start, register. Gives what the answer says of the configuration.
async fn restarted(app: &TestApp, id: &str, body: Value) -> String {
    let answer = app.post(&format!("/workspaces/{id}/restart"), body).await.ok();
    assert_eq!(answer["status"], "provisioning");
    app.settle().await;
    Agent::of(app, id).register(app).await.ok();
    app.settle().await;
    answer["config_dir"].as_str().unwrap().to_owned()
}

async fn listed(app: &TestApp, id: &str) -> Value {
    let all = app.get("/workspaces").await.ok();
    all.as_array().unwrap().iter().find(|it| it["id"] == id).unwrap().clone()
}

#[test]
fn ws_05_a_template_says_what_its_caller_leaves_out() {
    let root = Root::new();
    root.write(
        "nested/config.yaml",
        "runtime: 'echo'\nruntime_config:\n  model: \"a:new\"\nmodel: old\n",
    );
    root.write("legacy/config.yaml", "model: old # of old\nruntime: hermes\n");
    root.write("broken/config.yaml", "runtime: echo\nmodel: m\n}{ not yaml: [\n");
    with_templates("ws_05", &root, |app| async move {
        for (body, runtime, model) in [
            (json!({"template": "nested"}), "echo", Some("a:new")),
            (json!({"template": "legacy"}), "hermes", Some("old")),
            (json!({"template": "./broken/"}), "echo", Some("m")),
            (json!({"template": "legacy", "model": "mine"}), "hermes", Some("mine")),
            (json!({"template": "legacy", "runtime": "echo"}), "echo", Some("old")),
            (json!({"template": "missing"}), "echo", None),
        ] {
            let mut body = body;
            body["name"] = json!("a");
            let id = created(&app, body.clone()).await;
            app.settle().await;
            assert_eq!(app.workspace(&id).await["runtime"], runtime, "{body}");
            if runtime == "echo" {
                assert_eq!(app.env(&id).get("MODEL").map(String::as_str), model, "{body}");
            }
        }
    });
}

#[test]
fn a_template_is_delivered_once_and_then_its_agents() {
    let root = Root::new();
    root.write(
        "writer/config.yaml",
        "name: Writer\nruntime: echo\nruntime_config:\n  required_env: [KEY, OTHER]\n",
    );
    root.write("writer/prompts/system.md", "Write.");
    root.write("writer/.auth_token", "stolen");
    with_templates("delivered_once", &root, |app| async move {
        let id = created(&app, json!({"name": "a", "template": "writer"})).await;
        let needs = async || {
            let mut tx = app.app.db.read().await.unwrap();
            required_env(&mut tx, id.parse().unwrap()).await.unwrap()
        };
        assert_eq!(needs().await, ["KEY", "OTHER"]);
        app.settle().await;
        let why = app.workspace(&id).await["last_error"].clone();
        assert_eq!(why, "required environment is missing: KEY, OTHER");
        for key in ["KEY", "OTHER"] {
            app.post("/settings/secrets", json!({"key": key, "value": "x"})).await.ok();
        }
        // What is refused by its backend delivered nothing.
        app.fake.plan(Fault::Refuse("not today".to_owned()));
        app.settle().await;
        app.later(5).await;
        let given = files(&app, &id);
        assert_eq!(given.keys().collect::<Vec<_>>(), ["config.yaml", "prompts/system.md"]);
        assert_eq!(given["prompts/system.md"], "Write.");
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        // A replacement leaves to the agent what it may have changed.
        app.fake.kill(instance(&app, &id).key, 9);
        app.settle().await;
        assert!(files(&app, &id).is_empty());
        assert_eq!(needs().await, ["KEY", "OTHER"]);
    });
}

#[test]
fn a_lost_answer_delivers_no_template_twice() {
    let root = Root::new();
    root.write("writer/config.yaml", "runtime: echo\n");
    with_templates("lost_answer", &root, |app| async move {
        app.fake.plan(Fault::LoseReply);
        let id = created(&app, json!({"name": "a", "template": "writer"})).await;
        app.settle().await;
        assert_eq!(files(&app, &id).len(), 1);
        Agent::of(&app, &id).register(&app).await.ok();
        assert_eq!(restarted(&app, &id, json!({})).await, "existing-volume");
        assert!(files(&app, &id).is_empty());
    });
}

#[test]
fn rt_01_to_rt_08_a_restart_takes_the_configuration_that_it_names() {
    let root = Root::new();
    root.write(
        "other/config.yaml",
        "name: Other\nruntime: echo\nruntime_config: {required_env: [OTHER]}\n",
    );
    root.write("the-writer/config.yaml", "name: x\n");
    root.write("ws-left/config.yaml", "name: nobody\n");
    with_templates("rt", &root, |app| async move {
        app.post("/settings/secrets", json!({"key": "OTHER", "value": "x"})).await.ok();
        let (id, _) = online(&app, "The Writer").await;
        // RT-01
        assert_eq!(restarted(&app, &id, json!({})).await, "existing-volume");
        assert!(files(&app, &id).is_empty());
        // RT-02, RT-08
        let both = json!({"template": "other", "apply_template": true});
        assert_eq!(restarted(&app, &id, both).await, "other");
        assert!(files(&app, &id)["config.yaml"].contains("name: Other"));
        let mut tx = app.app.db.read().await.unwrap();
        assert_eq!(required_env(&mut tx, id.parse().unwrap()).await.unwrap(), ["OTHER"]);
        drop(tx);
        // RT-03
        assert_eq!(restarted(&app, &id, json!({"apply_template": true})).await, "the-writer");
        assert_eq!(files(&app, &id)["config.yaml"], "name: x\n");
        // RT-06, RT-07
        for template in ["../other", "/etc", "missing", "other/../../etc"] {
            let chosen = restarted(&app, &id, json!({"template": template})).await;
            assert_eq!(chosen, "existing-volume", "{template}");
        }
        assert!(files(&app, &id).is_empty());
    });
}

#[test]
fn rt_04_rt_05_rt_09_rt_10_the_default_of_a_runtime_is_found_by_a_plain_name() {
    let root = Root::new();
    root.write("echo-default/config.yaml", "name: default\n");
    root.write("outside/config.yaml", "name: outside\n");
    with_templates("rt_default", &root, |app| async move {
        // RT-04: of a runtime that is known; a create takes it too.
        let (id, _) = online(&app, "nobody").await;
        assert_eq!(files(&app, &id)["config.yaml"], "name: default\n");
        assert_eq!(restarted(&app, &id, json!({"apply_template": true})).await, "echo-default");
        // RT-05, RT-09, RT-10: no other text of a runtime leads to a directory.
        for runtime in ["hermes", "../outside", "echo-default/../../outside", "cobol"] {
            let body = json!({"name": "b", "runtime": runtime, "command": ["x"]});
            let id = created(&app, body).await;
            app.settle().await;
            assert!(files(&app, &id)["config.yaml"].starts_with("name: \"b\""), "{runtime}");
            let asked = json!({"apply_template": true});
            assert_eq!(restarted(&app, &id, asked).await, "existing-volume", "{runtime}");
        }
    });
}

#[test]
fn a_template_that_is_gone_is_the_named_cause_and_returns() {
    let root = Root::new();
    root.write("here/config.yaml", "runtime: echo\n");
    let path = root.0.join("here");
    with_templates("gone", &root, |app| {
        let path = path.clone();
        async move {
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("config.yaml"), "runtime: echo\n").unwrap();
            let id = created(&app, json!({"name": "a", "template": "here"})).await;
            fs::remove_dir_all(&path).unwrap();
            app.settle().await;
            let workspace = app.workspace(&id).await;
            assert_eq!(workspace["status"], "failed");
            let why = workspace["last_error"].as_str().unwrap();
            assert!(why.starts_with("the template `here` cannot be read"), "{why}");
            assert!(workspace["next_attempt_at"].is_string());
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("config.yaml"), "name: back\n").unwrap();
            app.later(60).await;
            assert_eq!(files(&app, &id)["config.yaml"], "name: back\n");
        }
    });
}

#[test]
fn what_leads_out_of_the_root_is_no_template_and_no_file_of_one() {
    let (root, outside) = (Root::new(), Root::new());
    outside.write("secret", "s3cret");
    std::os::unix::fs::symlink(&outside.0, root.0.join("leads-out")).unwrap();
    root.write("mixed/config.yaml", "runtime: echo\n");
    std::os::unix::fs::symlink(outside.0.join("secret"), root.0.join("mixed/secret")).unwrap();
    root.write("loop/config.yaml", "runtime: echo\n");
    std::os::unix::fs::symlink(root.0.join("loop"), root.0.join("loop/again")).unwrap();
    with_templates("leads_out", &root, |app| async move {
        let listed = app.get("/templates").await.ok();
        assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
        let id = created(&app, json!({"name": "a", "template": "leads-out"})).await;
        app.settle().await;
        assert!(files(&app, &id)["config.yaml"].starts_with("name: \"a\""), "generated");
        let id = created(&app, json!({"name": "a", "template": "mixed"})).await;
        app.settle().await;
        assert_eq!(files(&app, &id).keys().collect::<Vec<_>>(), ["config.yaml"]);
        let id = created(&app, json!({"name": "a", "template": "loop"})).await;
        app.settle().await;
        let why = app.workspace(&id).await["last_error"].as_str().unwrap_or_default().to_owned();
        // A link to itself is a directory without an end.
        assert!(why.contains("deep") || why.contains("files"), "{why}");
        let refused = "invalid template";
        for (template, why) in [
            ("../x", refused),
            ("/etc", refused),
            ("a/../../b", refused),
            (".", refused),
            ("a\u{0}", "invalid workspace payload"),
        ] {
            let answer = app.post("/workspaces", json!({"name": "a", "template": template})).await;
            answer.refuses(400, why);
        }
    });
}

#[test]
fn a_start_may_take_as_long_as_a_template_of_its_runtime_declares() {
    let root = Root::new();
    root.write(
        "slow/config.yaml",
        "runtime: echo\nruntime_config:\n  provision_timeout_seconds: 900\n",
    );
    root.write(
        "quick/config.yaml",
        "runtime: echo\nruntime_config:\n  provision_timeout_seconds: 20\n",
    );
    root.write(
        "other/config.yaml",
        "runtime: hermes\nruntime_config:\n  provision_timeout_seconds: 9000\n",
    );
    with_templates("declared", &root, |app| async move {
        let id = app.create("a").await;
        app.settle().await;
        app.later(899).await;
        assert_eq!(app.fake.starts(), 1, "the longest of its runtime counts");
        app.later(1).await;
        assert_eq!(app.fake.starts(), 2);
        let error = app.workspace(&id).await["last_error"].clone();
        assert!(error.as_str().unwrap().contains("900 s"), "{error}");
        // What the operator says beats it.
        let strict = app.with(|config| config.provision_timeout = Some(Duration::from_secs(40)));
        strict.sql("UPDATE workspaces SET due_at = 1").await;
        strict.later(40).await;
        let error = strict.workspace(&id).await["last_error"].clone();
        assert!(error.as_str().unwrap().contains("40 s"), "{error}");
    });
}

#[test]
fn templates_are_listed_as_they_are_now() {
    let root = Root::new();
    with_templates("listed", &root, {
        let root = root.0.clone();
        move |app| {
            let root = root.clone();
            async move {
                let write = |text: &str| write(&root.join("slow/config.yaml"), text);
                write(
                    "name: Slow One\ndescription: takes long\ntier: 2\nruntime: echo\nmodel: m\nskills: [a, b]\n\
                    runtime_config:\n  provision_timeout_seconds: 90\n  required_env: [K]\n  models: [{id: m}]\n",
                );
                let id = app.create("a").await;
                let templates = app.get("/templates").await;
                templates.is(200, &json!([{"id": "slow", "name": "Slow One", "description": "takes long", "tier": 2,
                    "runtime": "echo", "model": "m", "models": [{"id": "m"}], "required_env": ["K"],
                    "skills": ["a", "b"], "skill_count": 2, "provision_timeout_seconds": 90}]));
                assert_eq!(listed(&app, &id).await["provision_timeout_ms"], 90_000);
                assert_eq!(app.workspace(&id).await["provision_timeout_ms"], 90_000);
                // A file that changed is read again.
                write("name: Quick\nruntime: other\n");
                assert_eq!(app.get("/templates").await.ok()[0]["name"], "Quick");
                assert_eq!(listed(&app, &id).await.get("provision_timeout_ms"), None);
                fs::remove_dir_all(root.join("slow")).unwrap();
                app.get("/templates").await.is(200, &json!([]));
            }
        }
    });
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn an_import_is_there_whole_or_not_at_all() {
    let root = Root::new();
    with_templates("imported", &root, {
        let root = root.0.clone();
        move |app| {
            let root = root.clone();
            async move {
                let import = async |body: Value| app.post("/templates/import", body).await;
                let many: BTreeMap<String, String> =
                    (0..201).map(|n| (n.to_string(), String::new())).collect();
                import(json!({"name": "a", "files": many}))
                    .await
                    .refuses(400, "too many files (201), max 200");
                for path in ["../x", "/etc/x", "a/../../x", "", ".auth_token"] {
                    let refused = import(json!({"name": "a", "files": {path: "x"}})).await;
                    refused.refuses(400, "invalid path");
                }
                for name in ["", "..", "../a", ".a", "a/b", "\u{e9}"] {
                    import(json!({"name": name})).await.refuses(400, "invalid request body");
                }
                import(json!([])).await.refuses(400, "invalid request body");
                assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
                let body = json!({"name": "My Agent", "files": {"config.yaml": "name: Mine\n", "a/./b.md": "deep"}});
                let done = import(body.clone()).await;
                done.is(201, &json!({"status": "imported", "id": "my-agent", "name": "My Agent"}));
                import(body)
                    .await
                    .is(409, &json!({"error": "template already exists", "id": "my-agent"}));
                assert_eq!(fs::read_to_string(root.join("my-agent/a/b.md")).unwrap(), "deep");
                import(json!({"name": "bare"})).await.ok();
                let listed = app.get("/templates").await.ok();
                assert_eq!(
                    (&listed[0]["name"], &listed[1]["name"]),
                    (&json!("bare"), &json!("Mine"))
                );
                assert_eq!(listed.as_array().unwrap().len(), 2, "no draft is left: {listed}");
                let id = created(&app, json!({"name": "x", "template": "my-agent"})).await;
                app.settle().await;
                assert_eq!(files(&app, &id)["a/b.md"], "deep");
                fs::remove_dir_all(&root).unwrap();
                fs::create_dir_all(&root).unwrap();
            }
        }
    });
}

#[test]
fn a_rebuild_takes_the_organisations_template() {
    let (root, org) = (Root::new(), Root::new());
    org.write("acme/the-writer/config.yaml", "name: of acme\n");
    on_each("rebuild", |db| {
        let app = TestApp::new(db, |config| {
            config.templates.root.clone_from(&root.0);
            config.templates.org = Some(org.0.clone());
        });
        async move {
            let (id, _) = online(&app, "The Writer").await;
            let chosen = restarted(&app, &id, json!({"rebuild_config": true})).await;
            assert_eq!(chosen, "acme/the-writer");
            assert_eq!(files(&app, &id)["config.yaml"], "name: of acme\n");
        }
    });
}

both! {
    async fn ws_04_a_create_has_the_contracts_defaults_and_texts(app: TestApp) {
        app.send("POST", "/workspaces", Some(ADMIN), Some("{".to_owned()), &[]).await.refuses(400, "invalid workspace payload");
        let body = json!({"name": "a", "secrets": {}, "initial_memories": [], "canvas": {"x": 1.5, "y": 2.0},
            "budget_limit": 500, "max_concurrent_tasks": -3, "tier": 0, "template": "", "model": ""});
        let id = created(&app, body).await;
        let workspace = listed(&app, &id).await;
        for (key, value) in [("tier", json!(3)), ("budget_limit", json!(500)), ("max_concurrent_tasks", json!(1)),
            ("x", json!(1.5)), ("y", json!(2.0)), ("runtime", json!("echo")), ("workspace_dir", Value::Null)] {
            assert_eq!(workspace[key], value, "{key}");
        }
        app.settle().await;
        let config = files(&app, &id)["config.yaml"].clone();
        assert!(config.starts_with("name: \"a\"\ndescription: \"\"\nversion: \"1.0.0\"\ntier: 3\nruntime: \"echo\"\n"), "{config}");
        let instance = instance(&app, &id);
        let limits = (instance.limits.tier, instance.limits.memory_mb, instance.limits.cpu_shares);
        assert_eq!(limits, (3, Some(2048), Some(2048)));
        assert_eq!((instance.mount, instance.fresh_session), (None, false));
        app.app.db.close().await;
        let failed = app.post("/workspaces", json!({"name": "a"})).await;
        assert!(failed.status.is_server_error(), "{failed:?}");
    }

    async fn ws_06_lengths_are_inclusive_and_nothing_breaks_a_line(app: TestApp) {
        let create = async |field: &str, value: String| {
            let mut body = json!({"name": "a", "runtime": "echo", "external": true});
            body[field] = json!(value);
            app.post("/workspaces", body).await
        };
        for (field, most) in [("name", 255), ("role", 1000), ("model", 100), ("runtime", 100)] {
            create(field, "x".repeat(most)).await.ok();
            create(field, "x".repeat(most + 1)).await.refuses(400, "invalid workspace fields");
            for end in ["\n", "\r", "\r\n"] {
                create(field, format!("a{end}b: c")).await.refuses(400, "invalid workspace fields");
            }
        }
        for (field, accepted) in [("name", false), ("role", false), ("model", true)] {
            for mark in ["{", "}", "[", "]", "\\", "|", ">", "*", "&", "!"] {
                let answer = create(field, format!("a{mark}b")).await;
                assert_eq!(answer.status == 201, accepted, "{field} {mark}");
            }
        }
        // What may be there is read back as the text that it is.
        let body = json!({"name": "a: b # c", "role": "\"quoted\"\u{2028}evil: true", "model": "m\u{85}evil: true"});
        let id = created(&app, body).await;
        app.settle().await;
        let config = files(&app, &id)["config.yaml"].clone();
        assert!(!config.contains(['\u{2028}', '\u{85}']) && config.lines().count() == 8, "{config}");
    }

    async fn a_reset_is_carried_by_one_start(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/restart");
        let expected = json!({"status": "provisioning", "config_dir": "existing-volume", "reset_session": true});
        app.post(&format!("{path}?reset=true"), json!({})).await.is(200, &expected);
        // A second wish before the start takes nothing from the first.
        app.post(&path, json!({})).await.ok();
        app.settle().await;
        assert!(instance(&app, &id).fresh_session && files(&app, &id).is_empty());
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        app.post(&path, json!({"reset": true})).await.is(200, &expected);
        app.settle().await;
        assert!(instance(&app, &id).fresh_session);
        Agent::of(&app, &id).register(&app).await.ok();
        app.settle().await;
        restarted(&app, &id, json!({})).await;
        assert!(!instance(&app, &id).fresh_session);
    }

    /// SG-01: strict asks for an administrator always.
    async fn sg_01_templates_are_for_administrators(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        for (method, path) in [("GET", "/templates"), ("POST", "/templates/import")] {
            app.call(method, path, None, None).await.refuses(401, "admin auth required");
            for token in [agent.token.as_deref(), Some("wrong")] {
                app.call(method, path, token, None).await.refuses(401, "invalid admin auth token");
            }
        }
        app.get("/templates").await.is(200, &json!([]));
    }
}

#[test]
fn sg_01_templates_are_open_on_a_fresh_install_under_compat() {
    on_each("sg_01_fresh", |db| async move {
        let app = TestApp::new(db, compat);
        app.call("GET", "/templates", None, None).await.is(200, &json!([]));
        let body = json!({"name": "a", "external": true});
        app.call("POST", "/workspaces", None, Some(body)).await.ok();
        app.call("GET", "/templates", None, None).await.refuses(401, "admin auth required");
    });
}

#[test]
fn a_directory_of_the_host_is_mounted_as_its_access_says() {
    on_each("mounts", |db| async move {
        let app = TestApp::new(db, |config| {
            config.workspace_roots = vec!["/srv/shared".to_owned()];
            config.saas = true;
        });
        for (access, writable) in [
            (None, None),
            (Some("none"), None),
            (Some("read_only"), Some(false)),
            (Some("read_write"), Some(true)),
        ] {
            let body = json!({"name": "a", "workspace_dir": "/srv//shared/a/", "workspace_access": access});
            let id = created(&app, body).await;
            app.settle().await;
            let path = PathBuf::from("/srv/shared/a");
            let expected = writable.map(|writable| Mount { path, writable });
            assert_eq!(instance(&app, &id).mount, expected, "{access:?}");
            let workspace = listed(&app, &id).await;
            assert_eq!(
                (&workspace["workspace_dir"], &workspace["tier"]),
                (&json!("/srv/shared/a"), &json!(4))
            );
        }
        for path in ["/srv/sharedx", "/srv/shared/../etc", "srv/shared", "//etc", "/usr/lib"] {
            let refused =
                app.post("/workspaces", json!({"name": "a", "workspace_dir": path})).await;
            refused.refuses(400, "invalid workspace directory");
        }
    });
}
