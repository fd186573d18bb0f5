//! The recorded create request, by tier and network.

use std::path::PathBuf;

use ligand_domain::credential::Token;
use serde_json::{Value, json};

use super::*;
use crate::backend::{Limits, Mount};

const ID: &str = "a1b2c3d4-e5f6-4a1b-8c2d-3e4f5a6b7c8d";

fn setup(network: Network) -> Setup {
    Setup {
        socket: "/run/engine.sock".into(),
        network,
        images: [("echo".to_owned(), "ligand-agent:latest".to_owned())].into(),
        image: Some("images.example/workspace-{runtime}:latest".to_owned()),
        owner: "one".to_owned(),
    }
}

fn spec(tier: i64) -> Spec {
    let key = Key { workspace: ID.parse().unwrap(), generation: Generation::new(7) };
    let command = ["/usr/local/bin/ligand-agent", "--", "run", "me"].map(str::to_owned).to_vec();
    let env =
        [("TIER".to_owned(), tier.to_string()), ("WORKSPACE_ID".to_owned(), ID.to_owned())].into();
    let limits = Limits { tier, ..Limits::default() };
    Spec { env, limits, ..Spec::bare(key, command, Token::from_entropy([9; 32])) }
}

fn recorded(setup: &Setup, spec: &Spec, port: Option<u16>) -> Value {
    serde_json::to_value(create(setup, spec, ("ligand-agent:latest", 0), port)).unwrap()
}

#[test]
fn names_are_those_of_the_contract() {
    let key = spec(2).key;
    assert_eq!(container(key), format!("ws-{ID}-7"));
    let all: Vec<_> =
        volumes(key.workspace, 0).iter().map(|(name, at)| format!("{name}:{at}")).collect();
    let expected = [
        "ws-a1b2c3d4-e5f-configs:/configs".to_owned(),
        format!("ws-{ID}-workspace:/workspace"),
        format!("ws-{ID}-home:/home"),
        format!("ws-{ID}-plugins:/plugins"),
        format!("ws-a1b2c3d4-e5f-claude-sessions:{SESSIONS}"),
    ];
    assert_eq!(all, expected);
}

#[test]
fn labels_name_the_instance_and_nothing_else_is_taken_for_one() {
    let body = create(&setup(Network::Host), &spec(2), ("i", 0), Some(4321));
    let labels = body.labels.unwrap();
    assert_eq!(key_of(&labels), Some(spec(2).key));
    assert_eq!(labels["molecule.platform.managed"], "true");
    assert_eq!(labels["ligand.owner"], "one");
    assert_eq!(labels["ligand.address"], "http://127.0.0.1:4321");
    // A container for files has no generation.
    let holder = super::labels("one", spec(2).key.workspace);
    assert_eq!((key_of(&holder), workspace_of(&holder)), (None, Some(spec(2).key.workspace)));
}

#[test]
fn a_bridge_publishes_one_port_on_loopback_and_the_engine_restarts_nothing() {
    let body = recorded(&setup(Network::Bridge), &spec(2), None);
    let host = &body["HostConfig"];
    assert_eq!(host["NetworkMode"], "molecule-monorepo-net");
    assert_eq!(
        host["PortBindings"],
        json!({"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]})
    );
    assert_eq!(body["ExposedPorts"], json!({"8000/tcp": {}}));
    assert_eq!(host["RestartPolicy"], json!({"Name": "no"}));
    assert_eq!((&host["Memory"], &host["CpuShares"]), (&json!(512 << 20), &json!(1024)));
    assert_eq!(
        host["Binds"],
        json!([
            "ws-a1b2c3d4-e5f-configs:/configs",
            format!("ws-{ID}-workspace:/workspace"),
            format!("ws-{ID}-home:/home"),
            format!("ws-{ID}-plugins:/plugins")
        ])
    );
    assert_eq!(body["Entrypoint"], json!(["/usr/local/bin/ligand-agent"]));
    assert_eq!(body["Cmd"], json!(["--", "run", "me"]));
    let expected = json!([
        "CONFIGS_DIR=/configs",
        "LIGAND_AGENT_LISTEN=0.0.0.0:8000",
        "LIGAND_MANAGED=1",
        "PLUGINS_DIR=/plugins",
        "PYTHONPATH=/app",
        "TIER=2",
        format!("WORKSPACE_ID={ID}"),
        "WORKSPACE_CONFIG_PATH=/configs",
        "WORKSPACE_DIR=/workspace",
    ]);
    let mut sorted: Vec<&str> =
        expected.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    sorted.sort_unstable();
    let mut env: Vec<&str> =
        body["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    env.sort_unstable();
    assert_eq!(env, sorted);
    let token = spec(2).credential.as_ref().expect("it has one").reveal().to_owned();
    assert!(!body.to_string().contains(&token), "the credential is in no request that engines log");
}

#[test]
fn on_the_network_of_the_machine_an_instance_is_told_its_port() {
    let body = recorded(&setup(Network::Host), &spec(2), Some(4321));
    assert_eq!(body["HostConfig"]["NetworkMode"], "host");
    assert_eq!(
        (&body["HostConfig"]["PortBindings"], &body["ExposedPorts"]),
        (&Value::Null, &Value::Null)
    );
    let env = body["Env"].to_string();
    assert!(env.contains("LIGAND_AGENT_LISTEN=127.0.0.1:4321"), "{env}");
    assert!(env.contains("LIGAND_AGENT_URL=http://127.0.0.1:4321"), "{env}");
}

#[test]
fn tiers_are_those_of_the_contract() {
    let of = |tier| recorded(&setup(Network::Bridge), &spec(tier), None)["HostConfig"].clone();
    let one = of(1);
    assert_eq!(
        (&one["ReadonlyRootfs"], &one["Tmpfs"]),
        (&json!(true), &json!({"/tmp": "size=64m"}))
    );
    assert!(!one["Binds"].to_string().contains("/workspace"), "{one}");
    assert_eq!((&one["Memory"], &one["Privileged"]), (&Value::Null, &Value::Null));
    let (two, three, four) = (of(2), of(3), of(4));
    assert_eq!((&two["Privileged"], &two["PidMode"]), (&Value::Null, &Value::Null));
    for trusted in [&three, &four] {
        assert_eq!((&trusted["Privileged"], &trusted["PidMode"]), (&json!(true), &json!("host")));
    }
    assert_eq!((&three["Memory"], &three["CpuShares"]), (&json!(2048_i64 << 20), &json!(2048)));
    assert_eq!((&four["Memory"], &four["CpuShares"]), (&json!(4096_i64 << 20), &json!(4096)));
    assert_eq!(three["NetworkMode"], "molecule-monorepo-net");
    assert_eq!(four["NetworkMode"], "host");
    assert!(!three["Binds"].to_string().contains("docker.sock"));
    assert!(four["Binds"].to_string().contains("/run/engine.sock:/var/run/docker.sock"));
}

#[test]
fn limits_mounts_runtimes_and_images_are_as_asked_for() {
    let mut wanted = spec(2);
    wanted.limits = Limits { tier: 2, memory_mb: Some(100), cpu_shares: Some(512) };
    wanted.mount = Some(Mount { path: PathBuf::from("/srv/project"), writable: false });
    wanted.runtime = "claude-code".to_owned();
    let host = recorded(&setup(Network::Host), &wanted, Some(1))["HostConfig"].clone();
    assert_eq!((&host["Memory"], &host["CpuShares"]), (&json!(100 << 20), &json!(512)));
    let binds = host["Binds"].to_string();
    assert!(binds.contains("/srv/project:/workspace:ro"), "{binds}");
    assert!(!binds.contains("-workspace:/workspace"), "{binds}");
    assert!(
        binds.contains("-claude-sessions:/root") && SESSIONS.ends_with("/.claude/sessions"),
        "{binds}"
    );
    let setup = setup(Network::Host);
    assert_eq!(setup.image_of("echo").as_deref(), Some("ligand-agent:latest"));
    let other = setup.image_of("langgraph");
    assert_eq!(other.as_deref(), Some("images.example/workspace-langgraph:latest"));
    assert_eq!(Setup { image: None, ..setup }.image_of("langgraph"), None);
    wanted.command = Vec::new();
    let body = recorded(&self::setup(Network::Host), &wanted, Some(1));
    assert_eq!((&body["Entrypoint"], &body["Cmd"]), (&Value::Null, &Value::Null));
}

/// What the volumes of a workspace come to: each by its name, with the number that a label gives it.
fn judged(found: &[(&str, Option<(&str, u64)>)]) -> Data {
    let labels: Vec<HashMap<String, String>> = found
        .iter()
        .map(|(_, label)| label.iter().map(|(of, n)| ((*of).to_owned(), n.to_string())).collect())
        .collect();
    let found: Vec<_> = found.iter().map(|(name, _)| *name).zip(&labels).collect();
    data(spec(2).key.workspace, &found)
}

#[test]
fn the_newest_import_that_is_whole_counts_and_what_is_half_there_does_not() {
    let workspace = spec(2).key.workspace;
    let (zero, one, two) = (roots(workspace, 0), roots(workspace, 1), roots(workspace, 2));
    let talks = sessions(workspace);
    let (whole_one, whole_two) = (whole(workspace, 1), whole(workspace, 2));
    assert_eq!(judged(&[]), Data { import: 0, next: 1, stale: Vec::new() });
    let mut all: Vec<(&str, Option<(&str, u64)>)> =
        zero.iter().map(|(name, _)| (name.as_str(), None)).collect();
    all.push((&talks, None));
    assert_eq!((judged(&all).import, judged(&all).stale), (0, Vec::new()));
    // It is being filled: what was there counts, and the next one is numbered beyond it.
    all.extend(one.iter().map(|(name, _)| (name.as_str(), Some((IMPORT, 1)))));
    let found = judged(&all);
    assert_eq!(
        (found.import, found.next, found.stale),
        (0, 2, one.clone().map(|it| it.0).to_vec())
    );
    all.push((&whole_one, Some((WHOLE, 1))));
    let found = judged(&all);
    assert_eq!(
        (found.import, found.next, found.stale),
        (1, 2, zero.clone().map(|it| it.0).to_vec())
    );
    // Said to be whole, and one of its volumes is not there.
    all.extend(two[1..].iter().map(|(name, _)| (name.as_str(), Some((IMPORT, 2)))));
    all.push((&whole_two, Some((WHOLE, 2))));
    assert_eq!((judged(&all).import, judged(&all).next), (1, 3));
    all.push((&two[0].0, Some((IMPORT, 2))));
    let found = judged(&all);
    assert_eq!((found.import, found.stale.len()), (2, 4 + 4 + 1));
    assert!(!found.stale.contains(&talks) && found.stale.contains(&whole_one));
}
