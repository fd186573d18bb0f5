//! Which layer wins, and what is said of mistakes.

use super::*;
use crate::backend::fake::{Call, Fault, Planned};
use crate::backend::process::Sandbox;
use crate::transfer::Place;

/// A key of 32 bytes.
const KEY: &str = "0123456789abcdef0123456789abcde!";

fn check(flags: &Flags, env: &[(&str, &str)], file: &str) -> Result<Resolved, ConfigError> {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let path = Path::new("ligand.toml");
    resolve(flags, &|name| env.get(name).cloned(), Some(path), super::parse::<File>(path, file)?)
}

fn origin(resolved: &Resolved, name: &str) -> (String, String) {
    let shown = resolved.shown.iter().find(|shown| shown.name == name).unwrap();
    (shown.value.clone(), shown.origin.to_string())
}

#[test]
fn a_flag_wins_over_environment_over_file_over_default() {
    let mut flags = Flags::default();
    let file = "listen = \"127.0.0.1:1\"";
    let env = [("LIGAND_LISTEN", "127.0.0.1:2")];
    let said = |flags: &Flags, env: &[(&str, &str)], file: &str| {
        origin(&check(flags, env, file).unwrap(), "listen")
    };
    assert_eq!(said(&flags, &[], ""), ("127.0.0.1:8080".into(), "default".into()));
    assert_eq!(said(&flags, &[], file), ("127.0.0.1:1".into(), "file ligand.toml".into()));
    assert_eq!(
        said(&flags, &env, file),
        ("127.0.0.1:2".into(), "environment LIGAND_LISTEN".into())
    );
    flags.listen = Some("127.0.0.1:3".to_owned());
    assert_eq!(said(&flags, &env, file), ("127.0.0.1:3".into(), "flag --listen".into()));
    assert_eq!(said(&Flags::default(), &[("PORT", "99")], "").0, "127.0.0.1:99");
}

#[test]
fn every_mistake_is_named_at_once_and_no_value_is_repeated() {
    let flags = Flags { listen: Some("nowhere".to_owned()), ..Flags::default() };
    let env = [("DATABASE_URL", "mysql://root:hunter2@db"), ("LIGAND_BACKEND", "cloud")];
    let text = check(&flags, &env, "").unwrap_err().to_string();
    for expected in [
        "listen (flag --listen)",
        "database_url (environment DATABASE_URL)",
        "backend (environment LIGAND_BACKEND)",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn an_unknown_key_in_the_file_is_an_error_that_names_it() {
    let text = check(&Flags::default(), &[], "lisen = \"x\"").unwrap_err().to_string();
    assert!(text.contains("ligand.toml") && text.contains("lisen"), "{text}");
}

#[test]
fn only_backends_that_somebody_chose_are_there() {
    let names = |env: &[(&str, &str)], file: &str| -> Vec<String> {
        let config = check(&Flags::default(), env, file).unwrap().config;
        config.backends.into_keys().collect()
    };
    assert_eq!(names(&[], ""), ["process"]);
    assert_eq!(names(&[("LIGAND_BACKEND", "fake")], ""), ["fake"]);
    assert_eq!(names(&[("LIGAND_BACKEND", "none")], ""), [""; 0]);
    let file = "[backends.second]\nkind = \"process\"";
    assert_eq!(names(&[], file), ["process", "second"]);
    assert_eq!(names(&[("LIGAND_BACKEND", "second")], file), ["second"]);
}

#[test]
fn only_a_fake_backend_takes_a_plan_and_only_one_that_makes_sense() {
    let refused = |file: &str| match check(&Flags::default(), &[], file) {
        Err(ConfigError::Values(problems)) => problems[0].to_string(),
        other => panic!("{other:?}"),
    };
    let fake = "[backends.fake]\nkind = \"fake\"\n";
    let plan =
        "plan = [{ what = \"twice\" }, { what = { late = 0.5 }, at = [\"stop\"], times = 0 }]";
    let config = check(&Flags::default(), &[], &format!("{fake}{plan}")).unwrap().config;
    let late = Planned::once(Fault::Late(Duration::from_millis(500)));
    let expected = [Planned::once(Fault::Twice), late.at(&[Call::Stop]).times(0)];
    assert_eq!(config.backends["fake"].plan, expected);
    let wrong = refused(&format!("{fake}plan = [{{ what = \"twice\", at = [\"stop\"] }}]"));
    assert!(
        wrong.starts_with("backends.fake.plan (") && wrong.contains("expected one of ensure"),
        "{wrong}"
    );
    let wrong = refused(&format!("[backends.a]\nkind = \"process\"\n{plan}"));
    assert!(wrong.contains("only a backend of the kind `fake`"), "{wrong}");
}

#[test]
fn what_keeps_instances_apart_is_checked_and_named() {
    let file = "[backends.process]\nkind = \"process\"\nuid_base = 33\ncgroup = \"here\"";
    let said = check(&Flags::default(), &[], file).unwrap_err().to_string();
    assert!(said.contains("backends.process.uid_base") && said.contains("from 10000"), "{said}");
    assert!(said.contains("backends.process.cgroup") && said.contains("absolute"), "{said}");
    let file = "[backends.process]\nkind = \"process\"\nuid_base = 0\nsandbox = \"auto\"";
    let config = check(&Flags::default(), &[], file).unwrap().config;
    let settings = config.backends["process"].process();
    assert_eq!((settings.uid_base, settings.sandbox), (None, Sandbox::Auto));
}

#[test]
fn uv_04_an_organisation_means_saas_unless_the_deploy_mode_says_otherwise() {
    let saas = |env: &[(&str, &str)]| check(&Flags::default(), env, "").unwrap().config.saas;
    let org = ("MOLECULE_ORG_ID", "acme");
    assert!(saas(&[org]) && !saas(&[]) && !saas(&[("MOLECULE_ORG_ID", "  ")]));
    for (mode, expected) in [
        ("saas", true),
        (" SaaS ", true),
        ("self-hosted", false),
        ("SelfHosted", false),
        ("standalone", false),
        ("cloud", false),
    ] {
        assert_eq!(saas(&[org, ("MOLECULE_DEPLOY_MODE", mode)]), expected, "{mode}");
        assert_eq!(saas(&[("MOLECULE_DEPLOY_MODE", mode)]), expected, "{mode}");
    }
}

#[test]
fn sf_01_development_is_said_in_any_case() {
    let development = |text| {
        let env = [("MOLECULE_ENV", text), ("SECRETS_ENCRYPTION_KEY", KEY)];
        check(&Flags::default(), &env, "").unwrap()
    };
    for (text, expected) in
        [("dev", true), ("Development", true), ("DEV", true), ("production", false), ("", false)]
    {
        assert_eq!(development(text).config.development, expected, "{text}");
    }
}

#[test]
fn hs_08_hs_09_hs_10_pt_08_a_number_that_is_none_is_as_good_as_not_said() {
    let of = |variable: &'static str, value: &str| {
        let config = check(&Flags::default(), &[(variable, value)], "").unwrap().config;
        let timeout = config.provision_timeout.map(|timeout| timeout.as_secs());
        (config.external_stale_after.as_secs(), timeout)
    };
    assert_eq!(of("REMOTE_LIVENESS_STALE_AFTER", "30"), (30, None));
    assert_eq!(of("PROVISION_TIMEOUT_SECONDS", "45"), (90, Some(45)));
    for garbage in ["", "0", "-5", "soon", "1.5"] {
        assert_eq!(of("REMOTE_LIVENESS_STALE_AFTER", garbage), (90, None), "{garbage}");
        assert_eq!(of("PROVISION_TIMEOUT_SECONDS", garbage), (90, None), "{garbage}");
    }
    let file = "[runtimes.slow]\nstart_deadline_seconds = 70";
    let config = check(&Flags::default(), &[], file).unwrap().config;
    assert_eq!(config.start_deadline("slow", None).as_secs(), 70);
    assert_eq!(config.start_deadline("hermes", None).as_secs(), 1800);
}

#[test]
fn compat_listens_where_only_this_machine_reaches_it_unless_forced() {
    let mut flags = Flags { auth: Some("compat".to_owned()), ..Flags::default() };
    let config = check(&flags, &[], "").unwrap().config;
    assert!(config.open_registration && config.default_runtime == "langgraph");
    flags.listen = Some("0.0.0.0:8080".to_owned());
    let text = check(&flags, &[], "").unwrap_err().to_string();
    assert!(text.starts_with("auth (flag --auth): ") && text.contains("--force-compat"), "{text}");
    let text = check(&Flags { auth: None, ..flags.clone() }, &[("LIGAND_AUTH", "compat")], "");
    assert!(text.unwrap_err().to_string().contains("environment LIGAND_AUTH"));
    flags.force_compat = true;
    assert!(check(&flags, &[], "").unwrap().config.compat());
    let strict = check(&Flags::default(), &[("LIGAND_LISTEN", "0.0.0.0:1")], "").unwrap();
    assert!(!strict.config.compat() && !strict.config.open_registration);
}

#[test]
fn dv_01_the_development_mode_needs_compat_and_no_admin_token() {
    let open = |auth: &str, env: &[(&str, &str)]| {
        let flags = Flags { auth: Some(auth.to_owned()), ..Flags::default() };
        let env: Vec<_> = env.iter().copied().chain([("SECRETS_ENCRYPTION_KEY", KEY)]).collect();
        check(&flags, &env, "").unwrap().config.fails_open()
    };
    for name in ["development", "dev", "DEV", " Development "] {
        assert!(open("compat", &[("MOLECULE_ENV", name)]), "{name}");
        assert!(!open("strict", &[("MOLECULE_ENV", name)]), "{name}");
        assert!(!open("compat", &[("MOLECULE_ENV", name), ("ADMIN_TOKEN", "x")]), "{name}");
    }
    for name in ["production", "staging", "develop", ""] {
        assert!(!open("compat", &[("MOLECULE_ENV", name)]), "{name}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    let resolved = check(&Flags::default(), &[("ADMIN_TOKEN", "s3cret")], "").unwrap();
    assert_eq!(resolved.config.admin_token.reveal(), "s3cret");
    assert!(!format!("{resolved:?}").contains("s3cret"));
}

#[test]
fn a_docker_backend_has_settings_of_its_own_and_an_agent_of_its_images() {
    let file = "[backends.box]\nkind = \"docker\"\nnetwork = \"host\"\nimages = { py = \"py:1\" }\n\
        [runtimes.py]\ncommand = [\"python\"]";
    let config = check(&Flags::default(), &[], file).unwrap().config;
    let of = &config.backends["box"];
    let setup = of.setup(Path::new("/srv/data"));
    assert_eq!((setup.owner.as_str(), setup.images["py"].as_str()), ("/srv/data", "py:1"));
    assert_eq!(setup.images["echo"], "ligand-agent:latest");
    assert!(!of.apart());
    let command = config.command_of(None, "py", "box").unwrap();
    assert_eq!(command, ["/usr/local/bin/ligand-agent", "--", "python"]);
    let own = file.replace("network", "agent = []\nnetwork");
    let config = check(&Flags::default(), &[], &own).unwrap().config;
    assert_eq!(config.command_of(None, "py", "box").unwrap(), ["python"]);
    assert!(config.command_of(None, "echo", "box").unwrap().is_empty(), "the image says what runs");
    let flags = Flags { backend: Some("docker".to_owned()), ..Flags::default() };
    let config = check(&flags, &[], "").unwrap().config;
    assert!(config.backends["docker"].apart());
    let mistaken = "[backends.p]\nkind = \"process\"\nowner = \"me\"";
    let text = check(&Flags::default(), &[], mistaken).unwrap_err().to_string();
    assert!(text.contains("settings of the kind docker"), "{text}");
}

#[test]
fn tiers_and_templates_are_said_by_variables() {
    let env = [
        ("TIER2_MEMORY_MB", "128"),
        ("TIER4_CPU_SHARES", "many"),
        ("CONFIGS_DIR", "/srv/templates"),
        ("LIGAND_DATA_DIR", "/data"),
    ];
    let config = check(&Flags::default(), &env, "").unwrap().config;
    assert_eq!(config.tiers.of(1), (None, None));
    assert_eq!(config.tiers.of(2), (Some(128), Some(1024)));
    assert_eq!(config.tiers.of(3), (Some(2048), Some(2048)));
    assert_eq!(config.tiers.of(4), (Some(4096), Some(4096)));
    assert_eq!((config.tiers.of(0), config.tiers.of(9)), ((None, None), (None, None)));
    assert_eq!(config.templates.root, Path::new("/srv/templates"));
    let file = "templates_dir = \"/file\"\norg_templates_dir = \"/org\"";
    let config = check(&Flags::default(), &env[..1], file).unwrap().config;
    assert_eq!(config.templates.root, Path::new("/file"));
    assert_eq!(config.templates.org.as_deref(), Some(Path::new("/org")));
    let config = check(&Flags::default(), &env[3..], "").unwrap().config;
    assert_eq!(config.templates.root, Path::new("/data/templates"));
    assert_eq!(config.templates.org, None);
}

#[test]
fn production_needs_a_key_and_no_key_is_shown() {
    let key = KEY;
    let of = |env: &[(&str, &str)]| check(&Flags::default(), env, "");
    for environment in ["prod", "production", "Production"] {
        let text = of(&[("MOLECULE_ENV", environment)]).unwrap_err().to_string();
        assert!(text.contains("SECRETS_ENCRYPTION_KEY"), "{text}");
        assert!(of(&[("MOLECULE_ENV", environment), ("SECRETS_ENCRYPTION_KEY", key)]).is_ok());
    }
    assert_eq!(of(&[]).unwrap().config.secrets, Keys::default());
    let env = [("SECRETS_ENCRYPTION_KEY", key), ("SECRETS_ENCRYPTION_KEY_PREVIOUS", "too short")];
    let text = of(&env).unwrap_err().to_string();
    assert!(
        text.contains("secrets_encryption_key_previous") && !text.contains("too short"),
        "{text}"
    );
    let resolved = of(&env[..1]).unwrap();
    assert_eq!(origin(&resolved, "secrets_encryption_key").0, "(hidden)");
    assert!(!format!("{:?}", resolved.config).contains(key));
}

#[test]
fn a_store_of_data_on_its_way_is_a_folder_or_a_bucket() {
    let of = |env: &[(&str, &str)], store: &str| {
        let file = format!("[migrations]\nstore = \"{store}\"");
        check(&Flags::default(), env, &file)
    };
    let default = check(&Flags::default(), &[("LIGAND_DATA_DIR", "/data")], "").unwrap();
    let Place::Folder(path) = default.config.migrations.store else { panic!("it is a folder") };
    assert_eq!(path, Path::new("/data/transfers"));
    let Place::Folder(path) = of(&[], "file:///a/folder").unwrap().config.migrations.store else {
        panic!("it is a folder")
    };
    assert_eq!(path, Path::new("/a/folder"));
    let env = [
        ("AWS_ACCESS_KEY_ID", "the id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_ENDPOINT_URL", "http://store:9000"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let resolved = of(&env, "s3://bucket/some/prefix").unwrap();
    assert_eq!(
        origin(&resolved, "migrations.store"),
        ("s3://bucket/some/prefix".into(), "file ligand.toml".into())
    );
    assert_eq!(origin(&resolved, "aws_access_key_id").0, "the id");
    let shown = format!("{:?} {:?}", resolved.shown, resolved.config);
    assert!(!shown.contains("hunter2"), "{shown}");
    let Place::Bucket(bucket) = resolved.config.migrations.store else { panic!("it is a bucket") };
    assert_eq!((bucket.url.as_str(), bucket.said.len()), ("s3://bucket/some/prefix", 4));
    for wrong in [
        "",
        "a/folder",
        "file://host/folder",
        "s3://",
        "s3://user:hunter2@bucket/x",
        "s3://bucket:1/x",
        "s3://bucket?region=x",
        "gs://bucket/x",
    ] {
        let text = of(&[], wrong).unwrap_err().to_string();
        assert!(text.starts_with("migrations.store (file ligand.toml): expected "), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let text = of(&env[..3], "s3://bucket").unwrap_err().to_string();
    assert!(text.contains("AWS_ENDPOINT_URL") && text.contains("AWS_ALLOW_HTTP=true"), "{text}");
}

#[test]
fn two_backends_that_would_share_their_data_are_a_mistake() {
    let of = |one: &str, other: &str| {
        let file = format!("[backends.one]\n{one}\n[backends.other]\n{other}");
        check(&Flags::default(), &[], &file).map(drop)
    };
    let docker = "kind = \"docker\"";
    let elsewhere = "kind = \"docker\"\nsocket = \"/other.sock\"";
    let process = "kind = \"process\"\nroot = \"/data/one\"";
    for (one, other) in [(docker, docker), (elsewhere, elsewhere), (process, process)] {
        let text = of(one, other).unwrap_err().to_string();
        assert!(text.starts_with("backends (file ligand.toml): expected a root"), "{text}");
    }
    for (one, other) in [(docker, elsewhere), (process, docker), (process, "kind = \"process\"")] {
        of(one, other).unwrap();
    }
}

#[test]
fn a_provider_is_named_with_what_it_lets_us_in_by_and_no_message_repeats_that() {
    let file = "[backends.cloud]\nkind = \"provider\"\nurl = \"https://a.example/x\"\ntoken_env = \"CLOUD\"";
    let env = [("CLOUD", "hunter2")];
    let config = check(&Flags::default(), &env, file).unwrap().config;
    let of = &config.backends["cloud"];
    assert_eq!(of.reached.as_ref().unwrap().url(), "https://a.example/x");
    assert!(of.apart() && !format!("{config:?}").contains("hunter2"));
    let command = config.command_of(None, "echo", "cloud").unwrap();
    assert_eq!(command, ["/usr/local/bin/ligand-agent"]);
    let wrong = |file: &str| {
        let text = check(&Flags::default(), &env, file).unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
        text
    };
    let plain = wrong(&file.replace("https", "http"));
    assert!(plain.contains("backends.cloud.url") && plain.contains("takes TLS"), "{plain}");
    assert!(wrong(&file.replace("CLOUD", "OTHER")).contains("backends.cloud.token_env"));
    assert!(wrong(&file.replace("token_env", "owner")).contains("backends.cloud.token_file"));
    let misplaced = wrong("[backends.p]\nkind = \"process\"\nurl = \"https://a.example\"");
    assert!(misplaced.contains("settings of the kind provider"), "{misplaced}");
}
