//! What is said to a control plane, and what it says. Keys that published clients read are taken as they may come:
//! absent or null.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ligand_api::fleet::{Exit as Told_, Limits, Provision};
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::instance::{Exit, Seen};
use reqwest::StatusCode;
use serde::Deserialize;

use super::Settings;
use crate::backend::{BackendError, ErrorKind, Key, Spec};

/// Most bytes of configuration files that are sent along.
const MOST_FILES: usize = 256 << 10;
/// Texts shorter than this are no secrets worth hiding, and would make an error unreadable.
const SHORTEST_SECRET: usize = 8;
/// What never goes into an instance, whoever put it into an environment.
const NEVER: [&str; 5] = [
    "ADMIN_TOKEN",
    "CP_ADMIN_API_TOKEN",
    "MOLECULE_CP_SHARED_SECRET",
    "PROVISION_SHARED_SECRET",
    "SECRETS_ENCRYPTION_KEY",
];

/// An instance, as it is told.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    pub(super) instance_id: Option<String>,
    pub(super) workspace_id: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) provider: Option<String>,
    pub(super) state: Option<String>,
    pub(super) url: Option<String>,
    pub(super) private_ip: Option<String>,
    pub(super) exit: Option<Told_>,
    pub(super) evidence: Option<String>,
}

/// Several of them.
#[derive(Debug, Deserialize)]
pub(super) struct Inventory {
    pub(super) instances: Vec<Told>,
}

impl Told {
    pub(super) fn instance(&self) -> &str {
        self.instance_id.as_deref().unwrap_or_default().trim()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state.as_deref() == Some("gone")
    }

    /// It is being started, and says so by the words of a fleet of ours.
    pub(super) fn is_on_its_way(&self) -> bool {
        let nowhere = self.url.as_deref().is_none_or(str::is_empty);
        self.generation.is_some() && nowhere && self.state.as_deref() == Some("pending")
    }

    /// The machine that it is on.
    pub(super) fn host(&self) -> Option<String> {
        self.private_ip.as_deref().map(str::trim).filter(|ip| !ip.is_empty()).map(str::to_owned)
    }

    pub(super) fn key(&self) -> Option<Key> {
        let workspace: WorkspaceId = self.workspace_id.as_deref()?.parse().ok()?;
        (!self.instance().is_empty()).then_some(())?;
        Some(Key { workspace, generation: Generation::new(self.generation?) })
    }

    /// What its state means. One that is on its way is there: whether it arrives is judged by the time it takes.
    pub(super) fn seen(&self) -> Result<Seen, BackendError> {
        let doubt = |what: String| BackendError { kind: ErrorKind::Transient, what, source: None };
        match self.state.as_deref().map(str::trim) {
            Some("running" | "pending") => Ok(Seen::Running),
            Some("gone") => Ok(Seen::Gone),
            Some("unknown") => {
                let why = self.evidence.as_deref().unwrap_or("it does not know");
                Err(doubt(format!("control plane: status: {why}")))
            }
            None => {
                Err(doubt("control plane: decode status response: there is no state".to_owned()))
            }
            Some(state) => {
                let told = self.exit.clone().unwrap_or_default();
                let said = told.said.or_else(|| Some(format!("the control plane says `{state}`")));
                Ok(Seen::Stopped(Exit { code: told.code, signal: told.signal, said }))
            }
        }
    }
}

/// Whether an end is accepted and not there yet, by the words of a fleet of ours. From anybody else it is as good as
/// there.
pub(super) fn is_under_way(status: StatusCode, answer: &[u8]) -> bool {
    let told = || serde_json::from_slice::<Told>(answer).unwrap_or_default();
    status == StatusCode::ACCEPTED && told().generation.is_some()
}

/// What is asked for.
pub(super) fn provision(settings: &Settings, spec: Spec) -> Result<Provision, BackendError> {
    if spec.mount.is_some() {
        let why = "workspace_dir: a directory of the platform's machine cannot be given to an instance elsewhere";
        return Err(BackendError::broken(why));
    }
    if spec.credential.is_some() {
        let why =
            "a control plane delivers no credential as a file: only start-up data can be passed";
        return Err(BackendError::broken(why));
    }
    let mut env = spec.env;
    env.retain(|name, _| !NEVER.contains(&name.as_str()));
    let limits = Limits { memory_mb: spec.limits.memory_mb, cpu_shares: spec.limits.cpu_shares };
    Ok(Provision {
        org_id: settings.org.clone(),
        workspace_id: spec.key.workspace.to_string(),
        generation: Some(spec.key.generation.number()),
        runtime: spec.runtime,
        tier: spec.limits.tier,
        platform_url: env.get("PLATFORM_URL").cloned().unwrap_or_default(),
        config_files: files(&spec.files)?,
        env,
        command: spec.command,
        limits: (limits != Limits::default()).then_some(limits),
        provider: spec.provider.or_else(|| settings.provider.clone()),
        fresh_session: spec.fresh_session,
        instance_type: None,
    })
}

/// Of a configuration, what an instance needs to come up: its own file, and prompts.
fn files(all: &BTreeMap<String, bytes::Bytes>) -> Result<BTreeMap<String, String>, BackendError> {
    let (mut total, mut files) = (0, BTreeMap::new());
    for (path, content) in all.iter().filter(|(path, _)| is_sent(path)) {
        total += content.len();
        files.insert(path.clone(), STANDARD.encode(content));
    }
    if total > MOST_FILES {
        let why = format!(
            "configuration files: {total} bytes, and at most {MOST_FILES} can be sent along"
        );
        return Err(BackendError::broken(why));
    }
    Ok(files)
}

fn is_sent(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    plain && (path == "config.yaml" || path.starts_with("prompts/"))
}

/// A text without any of these values, whoever put them there.
pub(super) fn scrub<'a>(mut text: String, values: impl Iterator<Item = &'a str>) -> String {
    for value in values.filter(|value| value.len() >= SHORTEST_SECRET) {
        text = text.replace(value, "[hidden]");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(body: &str) -> Option<Seen> {
        serde_json::from_str::<Told>(body).unwrap().seen().ok()
    }

    #[test]
    fn cp_17_only_what_is_there_counts_as_there() {
        assert_eq!(seen(r#"{"state":"running","private_ip":null}"#), Some(Seen::Running));
        assert_eq!(seen(r#"{"state":"pending"}"#), Some(Seen::Running));
        assert_eq!(seen(r#"{"state":"gone"}"#), Some(Seen::Gone));
        for other in ["stopped", "terminated", ""] {
            let told = seen(&format!(r#"{{"state":"{other}"}}"#));
            assert!(matches!(told, Some(Seen::Stopped(_))), "{other}");
        }
        let exit = r#"{"state":"stopped","exit":{"code":3,"said":"bye"}}"#;
        let stopped = Exit { code: Some(3), signal: None, said: Some("bye".to_owned()) };
        assert_eq!(seen(exit), Some(Seen::Stopped(stopped)));
        assert_eq!((seen(r#"{"state":"unknown"}"#), seen("{}")), (None, None));
    }

    #[test]
    fn only_plain_files_of_a_configuration_are_sent() {
        for path in ["config.yaml", "prompts/a.md", "prompts/deep/b.md"] {
            assert!(is_sent(path), "{path}");
        }
        for path in
            ["prompts/../../etc/passwd", "/config.yaml", "skills/a.md", ".auth_token", "prompts"]
        {
            assert!(!is_sent(path), "{path}");
        }
        let large = BTreeMap::from([("config.yaml".to_owned(), vec![0; MOST_FILES + 1].into())]);
        assert!(files(&large).is_err());
    }

    #[test]
    fn what_was_sent_is_not_told_again() {
        let told =
            scrub("bad value s3cret-value for A".to_owned(), ["s3cret-value", "A"].into_iter());
        assert_eq!(told, "bad value [hidden] for A");
    }
}
