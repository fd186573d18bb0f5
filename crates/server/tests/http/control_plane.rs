//! Calls of a control plane: what is sent, what an answer means, and what is said of a failure.

use std::collections::BTreeMap;
use std::time::Duration;

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::Seen;
use ligand_server::backend::fleet::{Fleet, Settings};
use ligand_server::backend::{Backend, BackendError, ErrorKind, Key, Spec, fake::Fake};
use ligand_server::config::{
    BackendConfig, File, Flags, Origin, Secret, fetch, resolve, resolve_with,
};
use serde_json::json;

use crate::support::calls_of_platforms::{self, Whole};
use crate::support::control_plane::{ADMIN_KEY, ControlPlane, IDENTITY, SECRET, platform};
use crate::support::engine::{on_each, run};

fn key(generation: i64) -> Key {
    let workspace = WorkspaceId::from_random([5; 16]);
    Key { workspace, generation: Generation::new(generation) }
}

fn spec(generation: i64) -> Spec {
    let env = [("PLATFORM_URL", "https://tenant.example"), ("TOKEN", "s3cret-of-a-program")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let command = vec!["ligand".to_owned(), "agent".to_owned()];
    Spec { env, runtime: "claude-code".to_owned(), ..Spec::of(key(generation), command) }
}

/// Run with a control plane.
fn with(body: impl AsyncFn(ControlPlane)) {
    run(async { body(ControlPlane::start().await).await });
}

fn refused(result: Result<impl std::fmt::Debug, BackendError>) -> BackendError {
    result.unwrap_err()
}

fn resolved(said: &[(&str, &str)], backend: &str) -> Result<Settings, String> {
    let env = |name: &str| {
        said.iter().find(|(its, _)| *its == name).map(|(_, value)| (*value).to_owned())
    };
    let flags = Flags { backend: Some(backend.to_owned()), ..Flags::default() };
    let resolved = resolve(&flags, &env, None, File::default()).map_err(|it| it.to_string())?;
    Ok(resolved.config.fleet(&resolved.config.backends["fleet"]))
}

const URL: (&str, &str) = ("CP_PROVISION_URL", "http://127.0.0.1:9/");
const ORG: (&str, &str) = ("MOLECULE_ORG_ID", "org-1");

fn shown(secret: Option<&Secret>) -> Option<&str> {
    secret.map(Secret::reveal)
}

#[test]
fn cp_01_an_organisation_and_an_address_are_needed_and_nothing_is_guessed() {
    let why = resolved(&[URL], "fleet").unwrap_err();
    assert!(why.contains("MOLECULE_ORG_ID"), "{why}");
    let why = resolved(&[ORG], "fleet").unwrap_err();
    assert!(why.contains("CP_PROVISION_URL") && why.contains("MOLECULE_CP_URL"), "{why}");
    // Where pages are passed on to says nothing of where instances come from.
    let elsewhere = ("CP_UPSTREAM_URL", "http://127.0.0.1:8");
    assert!(resolved(&[ORG, elsewhere], "fleet").is_err());
    let settings = resolved(&[URL, ORG], "fleet").unwrap();
    assert_eq!((settings.url.as_str(), settings.org.as_str()), ("http://127.0.0.1:9", "org-1"));
    let second = ("MOLECULE_CP_URL", "http://127.0.0.1:7");
    assert_eq!(resolved(&[second, ORG], "fleet").unwrap().url, "http://127.0.0.1:7");
    assert_eq!(resolved(&[second, URL, ORG], "fleet").unwrap().url, "http://127.0.0.1:9");
    let bad = resolved(&[("CP_PROVISION_URL", "ftp://x"), ORG], "fleet").unwrap_err();
    assert!(bad.contains("environment CP_PROVISION_URL"), "{bad}");
}

#[test]
fn cp_02_cp_08_secrets_come_under_their_names() {
    let of = |said: &[(&str, &str)]| resolved(&[&[URL, ORG], said].concat(), "fleet").unwrap();
    let (first, second) = (("MOLECULE_CP_SHARED_SECRET", "a"), ("PROVISION_SHARED_SECRET", "b"));
    assert_eq!(shown(of(&[second]).shared_secret.as_ref()), Some("b"));
    assert_eq!(shown(of(&[first, second]).shared_secret.as_ref()), Some("a"));
    let settings = of(&[("CP_ADMIN_API_TOKEN", "k"), ("ADMIN_TOKEN", "t")]);
    assert_eq!(shown(settings.admin.as_ref()), Some("k"));
    assert_eq!(shown(settings.identity.as_ref()), Some("t"));
    assert!(of(&[]).identity.is_none(), "a token that this server mints is nobody else's business");
}

#[test]
fn under_compat_an_organisation_means_a_control_plane() {
    let env = |name: &str| match name {
        "MOLECULE_ORG_ID" => Some("org-1".to_owned()),
        "LIGAND_AUTH" => Some("compat".to_owned()),
        "MOLECULE_CP_URL" => Some("http://127.0.0.1:9".to_owned()),
        _ => None,
    };
    let config = resolve(&Flags::default(), &env, None, File::default()).unwrap().config;
    assert_eq!(config.backend.as_deref(), Some("fleet"));
    assert!(!config.redeems(None, "claude-code", "fleet") && config.redeems(None, "echo", "fleet"));
    let without = |name: &str| env(name).filter(|_| name != "MOLECULE_CP_URL");
    assert!(resolve(&Flags::default(), &without, None, File::default()).is_err());
}

#[test]
fn cp_03_cp_04_cp_05_what_is_not_set_is_not_sent() {
    with(async |at| {
        let none = Settings { shared_secret: None, identity: None, ..at.settings() };
        let empty = Some(Secret::new(String::new()));
        let half = Settings { shared_secret: empty, ..at.settings() };
        for settings in [none, at.settings(), half] {
            Fleet::new(settings).ensure(spec(1)).await.unwrap();
        }
        let sent: Vec<_> = at
            .provisions()
            .iter()
            .map(|it| {
                let own = |name| it.header(name).map(str::to_owned);
                (own("authorization"), own("x-molecule-admin-token"))
            })
            .collect();
        let (bearer, identity) = (Some(format!("Bearer {SECRET}")), Some(IDENTITY.to_owned()));
        assert_eq!(sent, [(None, None), (bearer, identity.clone()), (None, identity)]);
    });
}

#[test]
fn cp_06_cp_07_cp_25_consoles_are_for_administrators() {
    with(async |at| {
        let own = Fleet::new(at.settings());
        let lent = Fleet::new(Settings { admin: None, ..at.settings() });
        for fleet in [&own, &lent] {
            assert_eq!(fleet.console(key(1).workspace).await.unwrap(), "booting");
        }
        let path = format!("/cp/admin/workspaces/{}/console", key(1).workspace);
        let asked = at.asked("GET", &path);
        assert_eq!(asked[0].header("authorization"), Some(format!("Bearer {ADMIN_KEY}").as_str()));
        assert_eq!(asked[1].header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
        assert_eq!(asked[1].header("x-molecule-admin-token"), Some(IDENTITY));
        at.instead("console", 500, r#"{"error":"s3cret of the machine"}"#);
        let why = refused(own.console(key(1).workspace).await).what;
        assert!(why.contains("500") && !why.contains("s3cret"), "{why}");
    });
}

#[test]
fn cp_09_a_start_is_asked_for_as_published_platforms_ask() {
    with(async |at| {
        let fleet = Fleet::new(at.settings());
        let started = fleet.ensure(spec(3)).await.unwrap();
        assert_eq!(started.handle, format!("i-stub-{}", key(3).workspace));
        assert_eq!(started.address, None, "where it has its record is not where an agent answers");
        let asked = &at.provisions()[0];
        assert_eq!(asked.path, "/cp/workspaces/provision");
        assert_eq!(asked.header("content-type"), Some("application/json"));
        let expected = json!({"org_id": "org-1", "workspace_id": key(3).workspace.to_string(), "runtime": "claude-code",
            "tier": 0, "platform_url": "https://tenant.example", "generation": 3, "command": ["ligand", "agent"],
            "env": {"PLATFORM_URL": "https://tenant.example", "TOKEN": "s3cret-of-a-program"}, "fresh_session": false});
        assert_eq!(asked.body, expected);
    });
}

#[test]
fn no_credential_of_an_administrator_enters_an_instance() {
    with(async |at| {
        let mut spec = spec(1);
        for name in ["ADMIN_TOKEN", "CP_ADMIN_API_TOKEN", "MOLECULE_CP_SHARED_SECRET"] {
            spec.env.insert(name.to_owned(), "x".to_owned());
        }
        spec.files.insert("config.yaml".to_owned(), "name: a".into());
        spec.files.insert("prompts/a.md".to_owned(), "hello".into());
        spec.files.insert("skills/b.md".to_owned(), "not sent".into());
        Fleet::new(at.settings()).ensure(spec).await.unwrap();
        let body = &at.provisions()[0].body;
        let env = body["env"].as_object().unwrap();
        assert_eq!(env.keys().collect::<Vec<_>>(), ["PLATFORM_URL", "TOKEN"]);
        let files = json!({"config.yaml": "bmFtZTogYQ==", "prompts/a.md": "aGVsbG8="});
        assert_eq!(body["config_files"], files);
    });
}

#[test]
fn cp_10_cp_11_of_a_refusal_its_own_word_is_told_and_nothing_else() {
    with(async |at| {
        let fleet = Fleet::new(at.settings());
        at.instead(
            "provision",
            402,
            r#"{"error":"quota exceeded for s3cret-of-a-program","trace":"internal"}"#,
        );
        let cause = refused(fleet.ensure(spec(1)).await);
        assert_eq!(
            cause.what,
            "control plane: provision failed (402): quota exceeded for [hidden]"
        );
        assert_eq!(cause.kind, ErrorKind::Broken);
        at.instead("provision", 500, "<html>s3cret-of-a-program</html>");
        let cause = refused(fleet.ensure(spec(1)).await);
        let expected = "control plane: provision failed (500): <unstructured body, 32 bytes>";
        assert_eq!((cause.what.as_str(), cause.kind), (expected, ErrorKind::Transient));
        // Even a success that is not the one which was asked for.
        at.instead("provision", 200, r#"{"instance_id":"i-1","state":"running"}"#);
        assert!(refused(fleet.ensure(spec(1)).await).what.contains("provision failed (200)"));
        at.instead("provision", 201, r#"{"instance_id":"#);
        let cause = refused(fleet.ensure(spec(1)).await);
        assert!(cause.what.contains("decode provision response"), "{}", cause.what);
        at.instead("provision", 201, r#"{"state":"running"}"#);
        assert!(refused(fleet.ensure(spec(1)).await).what.contains("no instance_id"));
    });
}

#[test]
fn cp_12_cp_14_cp_19_nobody_there_is_an_error_and_never_an_end() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let at = ControlPlane::start().await;
        let fleet = Fleet::new(Settings { url, ..at.settings() });
        fleet.known(key(1), "i-1");
        let errors = [
            refused(fleet.ensure(spec(1)).await),
            refused(fleet.stop(key(1), Duration::ZERO).await),
            refused(fleet.destroy(key(1)).await),
            refused(fleet.inspect(key(1)).await),
        ];
        for cause in errors {
            assert!(cause.what.starts_with("control plane: send "), "{}", cause.what);
            assert_eq!(cause.kind, ErrorKind::Transient);
        }
    });
}

#[test]
fn cp_13_cp_15_cp_16_an_end_is_asked_for_by_the_stored_handle() {
    with(async |at| {
        let fleet = Fleet::new(Settings { provider: Some("aws".to_owned()), ..at.settings() });
        fleet.destroy(key(1)).await.unwrap();
        fleet.stop(key(1), Duration::ZERO).await.unwrap();
        assert!(at.ended().is_empty(), "without a handle nobody is called");
        fleet.known(key(1), "i-77");
        fleet.known(key(2), "i-78 of hetzner");
        for key in [key(1), key(2)] {
            fleet.stop(key, Duration::ZERO).await.unwrap();
            fleet.destroy(key).await.unwrap();
        }
        assert_eq!(at.ended(), ["i-77", "i-78"], "each once");
        let asked = at.asked("DELETE", &format!("/cp/workspaces/{}", key(1).workspace));
        let providers: Vec<_> = asked.iter().map(|it| it.names("provider").unwrap()).collect();
        assert_eq!(providers, ["aws", "hetzner"]);
        assert_eq!(asked[0].header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
        assert_eq!(asked[0].header("x-molecule-admin-token"), Some(IDENTITY));
        assert_eq!(asked[0].names("prune"), None);
        // Three times, and then it is somebody else's turn to decide.
        at.instead("stop", 500, r#"{"error":"busy"}"#);
        fleet.known(key(3), "i-79");
        assert!(refused(fleet.destroy(key(3)).await).what.contains("terminate failed (500): busy"));
        assert_eq!(at.ended().len(), 5);
    });
}

#[test]
fn cp_18_cp_20_cp_21_cp_22_cp_23_cp_24_doubt_about_a_state_is_no_state() {
    with(async |at| {
        let fleet = Fleet::new(at.settings());
        assert_eq!(fleet.inspect(key(1)).await.unwrap(), Seen::Gone);
        assert!(at.asked("GET", "/status").is_empty(), "without a handle nobody is called");
        at.add("i-5", &key(1).workspace.to_string());
        fleet.known(key(1), "i-5");
        assert_eq!(fleet.inspect(key(1)).await.unwrap(), Seen::Running);
        let asked = &at.asked("GET", "/status")[0];
        assert_eq!(asked.path, format!("/cp/workspaces/{}/status", key(1).workspace));
        assert_eq!(asked.names("instance_id"), Some("i-5"));
        assert_eq!(asked.header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
        assert_eq!(asked.header("x-molecule-admin-token"), Some(IDENTITY));
        at.end("i-5", "stopped");
        assert!(matches!(fleet.inspect(key(1)).await.unwrap(), Seen::Stopped(_)));
        let long = format!(r#"{{"pad":"{}","state":"stopped"}}"#, "x".repeat(70_000));
        for (status, body) in
            [(404, "{}"), (500, r#"{"state":"stopped"}"#), (200, "oops"), (200, &long)]
        {
            at.instead("status", status, body);
            assert_eq!(refused(fleet.inspect(key(1)).await).kind, ErrorKind::Transient, "{status}");
        }
    });
}

#[test]
fn cp_26_who_lets_go_of_it_asks_for_nothing() {
    with(async |at| {
        let fleet = Fleet::new(at.settings());
        fleet.ensure(spec(1)).await.unwrap();
        fleet.recover().await.unwrap();
        drop(fleet);
        assert_eq!((at.provisions().len(), at.ended().len()), (1, 0));
    });
}

#[test]
fn be_01_a_control_plane_is_a_backend_like_any_other() {
    run(async {
        let at = ControlPlane::ours().await;
        let (pushes, _heard) = ligand_server::backend::Pushes::channel();
        let backends: [Box<dyn Backend>; 2] =
            [Box::new(Fake::new(pushes)), Box::new(Fleet::new(at.settings()))];
        for backend in backends {
            let kind = backend.kind();
            assert_eq!(backend.find(key(1)).await.unwrap(), None, "{kind}");
            let first = backend.ensure(spec(1)).await.unwrap();
            assert_eq!(backend.ensure(spec(1)).await.unwrap(), first, "{kind}");
            assert_eq!(backend.find(key(1)).await.unwrap(), Some(first), "{kind}");
            assert_eq!(backend.inspect(key(1)).await.unwrap(), Seen::Running, "{kind}");
            assert_eq!(backend.list_owned().await.unwrap(), [key(1)], "{kind}");
            backend.stop(key(1), Duration::ZERO).await.unwrap();
            assert!(matches!(backend.inspect(key(1)).await.unwrap(), Seen::Stopped(_)), "{kind}");
            for _ in 0..2 {
                backend.destroy(key(1)).await.unwrap();
            }
            assert_eq!(backend.inspect(key(1)).await.unwrap(), Seen::Gone, "{kind}");
            assert!(backend.list_owned().await.unwrap().is_empty(), "{kind}");
        }
    });
}

#[test]
fn be_02_a_backend_that_is_not_there_is_an_error() {
    run(async {
        let nowhere = Settings { url: String::new(), ..ControlPlane::start().await.settings() };
        let fleet = Fleet::new(nowhere);
        fleet.known(key(1), "i-1");
        assert!(fleet.ensure(spec(1)).await.is_err() && fleet.inspect(key(1)).await.is_err());
        assert!(
            fleet.destroy(key(1)).await.is_err() && fleet.console(key(1).workspace).await.is_err()
        );
    });
    on_each("be_02", |db| async move {
        let at = ControlPlane::start().await;
        let app = platform(db, &at, |_| {});
        let id = app.create("a").await;
        app.sql("UPDATE workspaces SET backend = 'elsewhere'").await;
        app.later(1).await;
        let error = app.workspace(&id).await["last_error"].as_str().unwrap().to_owned();
        assert!(error.contains("there is no backend named `elsewhere`"), "{error}");
    });
}

#[test]
fn what_a_control_plane_gives_lies_between_environment_and_file() {
    run(async {
        let at = ControlPlane::start().await;
        at.give("MOLECULE_ORG_SLUG", "given");
        at.give("RATE_LIMIT", "7");
        at.give("LONG", &"x".repeat(5000));
        let given = fetch(&at.url, "org-1", IDENTITY).await;
        assert_eq!(given.keys().collect::<Vec<_>>(), ["MOLECULE_ORG_SLUG", "RATE_LIMIT"]);
        let asked = &at.asked("GET", "/cp/tenants/config")[0];
        assert_eq!(asked.header("authorization"), Some(format!("Bearer {IDENTITY}").as_str()));
        assert_eq!(asked.header("x-molecule-org-id"), Some("org-1"));
        assert_eq!(at.counters().await, json!({"provision_calls": 0, "tenants_config_calls": 1}));
        let env = |name: &str| (name == "RATE_LIMIT").then(|| "9".to_owned());
        let resolved =
            resolve_with(&Flags::default(), &env, &given, None, File::default()).unwrap();
        assert_eq!(resolved.config.edge.rate_limit, 9);
        assert_eq!(resolved.config.edge.org_slug.as_deref(), Some("given"));
        let slug = resolved.shown.iter().find(|shown| shown.name == "org_slug").unwrap();
        assert_eq!(slug.origin, Origin::ControlPlane("MOLECULE_ORG_SLUG"));
        // Whatever it says, a server starts with what it has.
        let long = format!(r#"{{"A":"{}"}}"#, "x".repeat(70_000));
        for (status, body) in
            [(500, "{}"), (201, "{}"), (200, "[]"), (200, r#"{"A":1}"#), (200, &long)]
        {
            at.instead("config", status, body);
            assert_eq!(
                fetch(&at.url, "org-1", IDENTITY).await,
                BTreeMap::new(),
                "{status} {body:.20}"
            );
        }
        assert_eq!(fetch("http://127.0.0.1:1", "org-1", IDENTITY).await, BTreeMap::new());
    });
}

#[test]
fn the_stub_does_what_published_platforms_expect() {
    run(async {
        let at = Whole::new(ControlPlane::start().await.settings());
        calls_of_platforms::published(&at, key(1).workspace).await;
        calls_of_platforms::settings(&at).await;
        let at = Whole::new(ControlPlane::ours().await.settings());
        calls_of_platforms::life(&at, key(1).workspace).await;
    });
}

#[test]
fn a_setting_of_one_kind_is_a_mistake_at_another() {
    let of =
        BackendConfig { url: Some("http://127.0.0.1:9".to_owned()), ..BackendConfig::default() };
    assert_eq!(of.kind, ligand_server::config::BackendKind::Process);
    let file = "[backends.here]\nkind = \"process\"\nurl = \"http://127.0.0.1:9\"\n";
    let folder = std::env::temp_dir().join(format!("ligand-settings-{}", std::process::id()));
    std::fs::write(&folder, file).unwrap();
    let flags = Flags { config: Some(folder.clone()), ..Flags::default() };
    let why = ligand_server::config::load(&flags).unwrap_err().to_string();
    std::fs::remove_file(folder).unwrap();
    assert!(why.contains("settings of the kind fleet"), "{why}");
}
