//! What things are called in the engine, and the body of a create request. Nothing here asks the engine.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{
    ContainerCreateBody, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use ligand_domain::id::{Generation, WorkspaceId};

use super::{Network, Setup};
use crate::backend::{Key, Spec};

/// Says that a platform of this kind made it.
pub(super) const MANAGED: &str = "molecule.platform.managed";
/// Which platform.
pub(super) const OWNER: &str = "ligand.owner";
/// Which workspace.
pub(super) const WORKSPACE: &str = "ligand.workspace";
/// Which generation it was born as.
pub(super) const GENERATION: &str = "ligand.generation";
/// Of a volume: to which import of the workspace's data it belongs. One without it is as old as the workspace.
pub(super) const IMPORT: &str = "ligand.import";
/// Of a volume without content: the import of this number is whole.
pub(super) const WHOLE: &str = "ligand.import.whole";
/// Where it answers, where that was decided before its start.
pub(super) const ADDRESS: &str = "ligand.address";
/// The network that instances share under `network = "bridge"`.
pub(super) const BRIDGE: &str = "molecule-monorepo-net";
/// Where an instance listens under `network = "bridge"`.
const PORT: &str = "8000/tcp";
/// The first characters of an id, in names that have room for no more.
const SHORT: usize = 12;
const MIB: i64 = 1 << 20;
/// Where `claude-code` keeps its sessions: in the home of a container's user, which is no place of this machine.
const SESSIONS: &str = concat!("/root", "/.claude/sessions");

/// The container of an instance.
pub(super) fn container(key: Key) -> String {
    format!("ws-{}-{}", key.workspace, key.generation)
}

/// A container for a moment: through it a workspace's volumes are read and written. There may be several.
pub(super) fn holder(workspace: WorkspaceId, number: u64) -> String {
    format!("ws-{workspace}-files-{number}")
}

/// The container through which data is poured beneath an instance.
pub(super) fn pourer(workspace: WorkspaceId) -> String {
    format!("ws-{workspace}-pour")
}

/// The container through which data comes in.
pub(super) fn importer(workspace: WorkspaceId) -> String {
    format!("ws-{workspace}-import")
}

fn short(workspace: WorkspaceId) -> String {
    workspace.to_string().chars().take(SHORT).collect()
}

/// Sessions of `claude-code`. No import brings any.
pub(super) fn sessions(workspace: WorkspaceId) -> String {
    format!("ws-{}-claude-sessions", short(workspace))
}

/// The volume that says that an import is whole.
pub(super) fn whole(workspace: WorkspaceId, import: u64) -> String {
    format!("ws-{workspace}-whole-{import}")
}

/// The volumes of a workspace's data, and where they are mounted: credential and configuration, what the agent works
/// on, what a program leaves in its home, plugins. Those of the first import and of every later one are others.
pub(super) fn roots(workspace: WorkspaceId, import: u64) -> [(String, &'static str); 4] {
    let first = [
        (format!("ws-{}-configs", short(workspace)), "/configs"),
        (format!("ws-{workspace}-workspace"), "/workspace"),
        (format!("ws-{workspace}-home"), "/home"),
        (format!("ws-{workspace}-plugins"), "/plugins"),
    ];
    if import == 0 { first } else { first.map(|(name, at)| (format!("{name}-{import}"), at)) }
}

/// Every volume that a workspace may have, and where it is mounted.
pub(super) fn volumes(workspace: WorkspaceId, import: u64) -> Vec<(String, &'static str)> {
    let mut all = Vec::from(roots(workspace, import));
    all.push((sessions(workspace), SESSIONS));
    all
}

/// The volumes of an instance, and where they are mounted. One that is trusted least has nothing to work on, and
/// one that was given a directory of the machine works there.
pub(super) fn volumes_of(spec: &Spec, import: u64) -> Vec<(String, &'static str)> {
    let workspace = spec.key.workspace;
    let works = spec.limits.tier != 1 && spec.mount.is_none();
    let talks = spec.runtime == "claude-code";
    let wanted = |(_, at): &(String, &str)| match *at {
        "/workspace" => works,
        SESSIONS => talks,
        _ => true,
    };
    volumes(workspace, import).into_iter().filter(wanted).collect()
}

/// What the volumes of a workspace say about its data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    /// The import that counts: the newest that is whole, with all that belongs to it. 0: none does.
    pub(super) import: u64,
    /// A number that no import has had.
    pub(super) next: u64,
    /// Volumes of other imports, and of what an import took the place of.
    pub(super) stale: Vec<String>,
}

/// Judge the volumes of one workspace, by name and labels.
pub(super) fn data(workspace: WorkspaceId, found: &[(&str, &HashMap<String, String>)]) -> Data {
    let there: BTreeSet<&str> = found.iter().map(|(name, _)| *name).collect();
    let number = |labels: &HashMap<String, String>, of: &str| labels.get(of)?.parse::<u64>().ok();
    let whole = found.iter().filter_map(|(_, labels)| number(labels, WHOLE));
    let complete = |import: &u64| {
        roots(workspace, *import).iter().all(|(name, _)| there.contains(name.as_str()))
    };
    let import = whole.filter(complete).max().unwrap_or(0);
    let of = |labels| number(labels, IMPORT).or_else(|| number(labels, WHOLE)).unwrap_or(0);
    let last = found.iter().map(|(_, labels)| of(labels)).max().unwrap_or(0);
    let kept = sessions(workspace);
    let stale = found.iter().filter(|(name, labels)| *name != kept && of(labels) != import);
    let stale = stale.map(|(name, _)| (*name).to_owned()).collect();
    Data { import, next: last + 1, stale }
}

/// Labels of whatever belongs to a workspace.
pub(super) fn labels(owner: &str, workspace: WorkspaceId) -> HashMap<String, String> {
    HashMap::from([
        (MANAGED.to_owned(), "true".to_owned()),
        (OWNER.to_owned(), owner.to_owned()),
        (WORKSPACE.to_owned(), workspace.to_string()),
    ])
}

/// Which instance these labels are of.
pub(super) fn key_of(labels: &HashMap<String, String>) -> Option<Key> {
    let generation = labels.get(GENERATION)?.parse().ok()?;
    Some(Key { workspace: workspace_of(labels)?, generation: Generation::new(generation) })
}

/// Whether this platform made what has these labels.
pub(super) fn is_of(owner: &str, labels: Option<&HashMap<String, String>>) -> bool {
    labels.and_then(|labels| labels.get(OWNER)).is_some_and(|found| found == owner)
}

/// Which workspace these labels are of.
pub(super) fn workspace_of(labels: &HashMap<String, String>) -> Option<WorkspaceId> {
    labels.get(WORKSPACE)?.parse().ok()
}

/// Only what this platform made, of this workspace where one is named.
pub(super) fn filters(owner: &str, workspace: Option<WorkspaceId>) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{MANAGED}=true"), format!("{OWNER}={owner}")];
    labels.extend(workspace.map(|id| format!("{WORKSPACE}={id}")));
    HashMap::from([("label".to_owned(), labels)])
}

/// On which network an instance is: what is trusted most is always on the machine's.
pub(super) fn network(setup: &Setup, tier: i64) -> Network {
    if tier >= 4 { Network::Host } else { setup.network }
}

/// The body of the request that creates an instance. `port` is the loopback port that it is to listen on, where it is
/// on the machine's network.
pub(super) fn create(
    setup: &Setup,
    spec: &Spec,
    (image, import): (&str, u64),
    port: Option<u16>,
) -> ContainerCreateBody {
    let address = port.map(|port| format!("http://127.0.0.1:{port}"));
    let mut labels = labels(&setup.owner, spec.key.workspace);
    labels.insert(GENERATION.to_owned(), spec.key.generation.to_string());
    labels.extend(address.clone().map(|address| (ADDRESS.to_owned(), address)));
    let (entrypoint, cmd) = match spec.command.split_first() {
        Some((program, arguments)) => (Some(vec![program.clone()]), Some(arguments.to_vec())),
        // Then the image says what runs.
        None => (None, None),
    };
    let works =
        volumes_of(spec, import).iter().any(|(_, at)| *at == "/workspace") || spec.mount.is_some();
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint,
        cmd,
        env: Some(environment(spec, port, address.as_deref())),
        labels: Some(labels),
        working_dir: works.then(|| "/workspace".to_owned()),
        exposed_ports: port.is_none().then(|| vec![PORT.to_owned()]),
        host_config: Some(host(setup, spec, import)),
        ..ContainerCreateBody::default()
    }
}

/// The body of the request that creates a container with these volumes alone, which says whose it is and is on no
/// network. What the image has where they are mounted stays out of them.
pub(super) fn create_holder(
    owner: &str,
    workspace: WorkspaceId,
    image: String,
    volumes: &[(String, &'static str)],
    command: Vec<String>,
) -> ContainerCreateBody {
    let binds = volumes.iter().map(|(volume, at)| format!("{volume}:{at}:nocopy")).collect();
    ContainerCreateBody {
        image: Some(image),
        entrypoint: Some(command),
        labels: Some(labels(owner, workspace)),
        user: Some("0".to_owned()),
        host_config: Some(HostConfig {
            binds: Some(binds),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn environment(spec: &Spec, port: Option<u16>, address: Option<&str>) -> Vec<String> {
    let mut env = spec.env.clone();
    env.entry("PYTHONPATH".to_owned()).or_insert_with(|| "/app".to_owned());
    let listen = port.map_or("0.0.0.0:8000".to_owned(), |port| format!("127.0.0.1:{port}"));
    let ours = [
        ("CONFIGS_DIR", "/configs"),
        ("WORKSPACE_CONFIG_PATH", "/configs"),
        ("WORKSPACE_DIR", "/workspace"),
        ("PLUGINS_DIR", "/plugins"),
        ("LIGAND_AGENT_LISTEN", listen.as_str()),
        ("LIGAND_MANAGED", "1"),
    ];
    let address = address.map(|address| ("LIGAND_AGENT_URL", address));
    for (name, value) in ours.into_iter().chain(address) {
        env.insert(name.to_owned(), value.to_owned());
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn host(setup: &Setup, spec: &Spec, import: u64) -> HostConfig {
    let tier = spec.limits.tier;
    let mut binds: Vec<String> =
        volumes_of(spec, import).into_iter().map(|(volume, at)| format!("{volume}:{at}")).collect();
    if let Some(mount) = &spec.mount {
        let mode = if mount.writable { "rw" } else { "ro" };
        binds.push(format!("{}:/workspace:{mode}", mount.path.display()));
    }
    if tier >= 4 {
        binds.push(format!("{}:/var/run/docker.sock", setup.socket.display()));
    }
    let (memory, shares) = match tier {
        ..2 => (None, None),
        2 => (Some(512), Some(1024)),
        3 => (Some(2048), Some(2048)),
        4.. => (Some(4096), Some(4096)),
    };
    let memory = spec.limits.memory_mb.and_then(|mib| i64::try_from(mib).ok()).or(memory);
    let shares = spec.limits.cpu_shares.and_then(|shares| i64::try_from(shares).ok()).or(shares);
    let bridge = network(setup, tier) == Network::Bridge;
    HostConfig {
        binds: Some(binds),
        network_mode: Some(if bridge { BRIDGE } else { "host" }.to_owned()),
        // The engine chooses the port, and publishes it to this machine alone.
        port_bindings: bridge.then(|| HashMap::from([(PORT.to_owned(), Some(vec![loopback()]))])),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        memory: memory.map(|mib| mib.saturating_mul(MIB)),
        cpu_shares: shares,
        readonly_rootfs: (tier == 1).then_some(true),
        tmpfs: (tier == 1).then(|| HashMap::from([("/tmp".to_owned(), "size=64m".to_owned())])),
        privileged: (tier >= 3).then_some(true),
        pid_mode: (tier >= 3).then(|| "host".to_owned()),
        ..HostConfig::default()
    }
}

fn loopback() -> PortBinding {
    PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) }
}

/// Where the engine published the port of an instance.
pub(super) fn published(ports: Option<&bollard::models::PortMap>) -> Option<String> {
    let bindings = ports?.get(PORT)?.as_ref()?;
    let port =
        bindings.iter().find_map(|binding| binding.host_port.as_deref()?.parse::<u16>().ok());
    port.map(|port| format!("http://127.0.0.1:{port}"))
}

#[cfg(test)]
mod tests;
