//! From what a platform asks for to what a provider is asked for.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ligand_api::fleet::Provision;
use ligand_domain::credential::TokenHash;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::secrets::proof;
use ligand_server::backend::{Key, Limits, Spec};

use crate::app::Fleet;
use crate::config::Config;

/// Most bytes of files that come with a call.
const MOST_FILES: usize = 256 * 1024;
/// Longest runtime, provider and address.
const LONGEST: usize = 512;
/// Credentials of administrators, of the organisation and of the fleet: none of them enters an instance.
const KEPT_OUT: [&str; 5] = [
    "ADMIN_TOKEN",
    "CP_ADMIN_API_TOKEN",
    "MOLECULE_CP_SHARED_SECRET",
    "PROVISION_SHARED_SECRET",
    "SECRETS_ENCRYPTION_KEY",
];
/// What stands for the fleet's own agent in a command.
const OWN_AGENT: [&str; 2] = ["ligand", "agent"];

/// Everything that is wrong with a call, each with its field.
pub(super) fn mistakes(asked: &Provision, org: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut wrong = |wrong: bool, what: &str| {
        if wrong {
            found.push(what.to_owned());
        }
    };
    wrong(
        !asked.org_id.is_empty() && asked.org_id != org,
        "org_id: expected the organisation that X-Molecule-Admin-Token belongs to",
    );
    wrong(asked.workspace_id.parse::<WorkspaceId>().is_err(), "workspace_id: expected a UUID");
    wrong(
        asked.generation.is_some_and(|generation| generation < 1),
        "generation: expected a number above 0",
    );
    wrong(!(0..=4).contains(&asked.tier), "tier: expected 0 to 4");
    wrong(asked.runtime.len() > LONGEST, "runtime: expected at most 512 bytes");
    wrong(
        crate::tenants::platform_url(&asked.platform_url).is_err(),
        "platform_url: expected an http or https URL without a password",
    );
    let bad_name = |name: &String| name.is_empty() || name.contains(['=', '\0']);
    wrong(
        asked.env.iter().any(|(name, value)| bad_name(name) || value.contains('\0')),
        "env: expected names without `=`, and neither names nor values with a zero in them",
    );
    wrong(
        asked.command.iter().any(|word| word.contains('\0'))
            || asked.command.first().is_some_and(String::is_empty),
        "command: expected a program and arguments without a zero in them",
    );
    if let Err(mistake) = files(asked) {
        found.push(mistake);
    }
    found
}

/// The files that come with a call.
fn files(asked: &Provision) -> Result<BTreeMap<String, Bytes>, String> {
    let mut files = BTreeMap::new();
    let mut total = 0;
    for (path, content) in &asked.config_files {
        let below = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || path.contains('\0') || !below || path.starts_with(".auth_token") {
            return Err("config_files: expected relative paths without `..`".to_owned());
        }
        let content = STANDARD.decode(content);
        let content = content.map_err(|_| "config_files: expected base64".to_owned())?;
        total += content.len();
        if total > MOST_FILES {
            return Err(format!("config_files: expected at most {MOST_FILES} bytes"));
        }
        files.insert(path.clone(), Bytes::from(content));
    }
    Ok(files)
}

/// By which the same wish is recognised. Without the fleet's key it tells nothing of what was wished for.
pub(super) fn wish(fleet: &Fleet, asked: &Provision) -> Vec<u8> {
    let same = Provision { generation: None, ..asked.clone() };
    let text = serde_json::to_string(&same).unwrap_or_default();
    let key = fleet.config.keys.current.as_ref().map(ligand_domain::secrets::Key::name);
    let secret = fleet.config.shared_secret.reveal();
    let key = TokenHash::of(&format!("{}{secret}", key.unwrap_or_default()));
    proof(&key, "wish", &text).into_bytes()
}

/// What a provider is asked for. `token` is that of the platform's administrator, which nothing may hold.
pub(super) fn spec(
    config: &Config,
    asked: &Provision,
    (org, token): (&str, &str),
    generation: Generation,
) -> Result<Spec, String> {
    let workspace: WorkspaceId =
        asked.workspace_id.parse().map_err(|_| "workspace_id".to_owned())?;
    let recipe = config.runtimes.get(&asked.runtime);
    let mut env = recipe.map(|recipe| recipe.env.clone()).unwrap_or_default();
    let given = asked.env.iter().filter(|(name, value)| {
        !KEPT_OUT.contains(&name.as_str()) && (token.is_empty() || *value != token)
    });
    env.extend(given.map(|(name, value)| (name.clone(), value.clone())));
    let mut unless_said = |name: &str, value: &str| {
        if !value.is_empty() {
            env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    };
    unless_said("WORKSPACE_ID", &workspace.to_string());
    unless_said("PLATFORM_URL", &asked.platform_url);
    unless_said("MOLECULE_ORG_ID", org);
    let limits = asked.limits.clone().unwrap_or_default();
    Ok(Spec {
        key: Key { workspace, generation },
        command: command(config, asked),
        env,
        credential: None,
        runtime: asked.runtime.clone(),
        files: files(asked)?,
        limits: Limits {
            tier: if asked.tier == 0 { 3 } else { asked.tier },
            memory_mb: limits.memory_mb,
            cpu_shares: limits.cpu_shares,
        },
        mount: None,
        provider: None,
        fresh_session: asked.fresh_session,
    })
}

/// A platform's agent is elsewhere: where it names `ligand agent`, this fleet's is meant.
fn command(config: &Config, asked: &Provision) -> Vec<String> {
    let words = &asked.command;
    if words.iter().map(String::as_str).take(2).eq(OWN_AGENT) {
        return config.agent.iter().chain(&words[2..]).cloned().collect();
    }
    if !words.is_empty() {
        return words.clone();
    }
    match config.runtimes.get(&asked.runtime) {
        Some(recipe) if recipe.command.is_empty() => config.agent.clone(),
        Some(recipe) => {
            let mut command = config.agent.clone();
            command.push("--".to_owned());
            command.extend(recipe.command.iter().cloned());
            command
        }
        None if asked.runtime == "echo" => config.agent.clone(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{File, Flags, resolve};

    fn config() -> Config {
        let resolved = resolve(&Flags::default(), &|_| None, None, File::default()).unwrap();
        let agent = ["/bin/ligand", "agent"].map(str::to_owned).to_vec();
        Config { agent, ..resolved.config }
    }

    fn asked() -> Provision {
        Provision {
            workspace_id: "00000000-0000-4000-8000-000000000001".to_owned(),
            ..Provision::default()
        }
    }

    #[test]
    fn no_credential_of_an_administrator_enters_an_instance() {
        let env = [("ADMIN_TOKEN", "x"), ("SNEAKY", "the-token"), ("MODEL", "m")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let asked = Provision { env, platform_url: "http://p".to_owned(), ..asked() };
        let spec = spec(&config(), &asked, ("org", "the-token"), Generation::new(1)).unwrap();
        let names: Vec<&str> = spec.env.keys().map(String::as_str).collect();
        assert_eq!(names, ["MODEL", "MOLECULE_ORG_ID", "PLATFORM_URL", "WORKSPACE_ID"]);
    }

    #[test]
    fn the_agent_of_the_place_takes_the_place_of_the_platforms() {
        let of = |words: &[&str]| {
            let command = words.iter().map(|word| (*word).to_owned()).collect();
            super::command(&config(), &Provision { command, ..asked() })
        };
        assert_eq!(of(&["ligand", "agent", "--", "a"]), ["/bin/ligand", "agent", "--", "a"]);
        assert_eq!(of(&["python", "agent.py"]), ["python", "agent.py"]);
        assert_eq!(of(&[]), Vec::<String>::new());
    }

    #[test]
    fn every_mistake_names_its_field() {
        let bad = Provision {
            org_id: "other".to_owned(),
            workspace_id: "x".to_owned(),
            generation: Some(0),
            tier: 9,
            platform_url: "ftp://x".to_owned(),
            env: [("A=B".to_owned(), String::new())].into(),
            command: vec![String::new()],
            config_files: [("../x".to_owned(), String::new())].into(),
            ..Provision::default()
        };
        let found = mistakes(&bad, "org");
        let names: Vec<&str> = found.iter().filter_map(|it| it.split(':').next()).collect();
        let all = [
            "org_id",
            "workspace_id",
            "generation",
            "tier",
            "platform_url",
            "env",
            "command",
            "config_files",
        ];
        assert_eq!(names, all);
        assert_eq!(mistakes(&asked(), "org"), Vec::<String>::new());
    }
}
