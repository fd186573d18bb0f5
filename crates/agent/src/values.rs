//! Secrets that were fetched, and what of them the program finds in its environment.
//!
//! An agent whose secrets are in its start-up data inherits an environment that the platform put together: what the
//! platform says, then the recipe, then the secrets, and then, where nothing stands yet, git's identity, the model and
//! the role. One that fetches them inherits the same without the secrets. So each of them goes over whatever is there:
//! over the recipe's by rank, over what is only a default because it would have kept that away. The names that the
//! platform and the agent keep to themselves are never taken from a secret, at either end.

use std::collections::BTreeMap;

/// Names that the platform or the agent sets itself, as the platform has them.
pub const TAKEN: [&str; 11] = [
    "WORKSPACE_ID",
    "WORKSPACE_CONFIG_PATH",
    "WORKSPACE_DIR",
    "CONFIGS_DIR",
    "PLATFORM_URL",
    "MOLECULE_URL",
    "MOLECULE_ORG_ID",
    "HOME",
    "HOST",
    "PORT",
    "PYTHONUNBUFFERED",
];
/// What steers the agent is kept from its program.
pub const AGENTS_OWN: &str = "LIGAND_";
/// The one default that the platform takes from a secret: of a runtime, a variable, and the secret.
const DERIVED: [(&str, &str, &str); 1] = [("hermes", "HERMES_DEFAULT_MODEL", "MODEL_PROVIDER")];

/// Whether a secret of this name reaches the program.
#[must_use]
pub fn deliverable(name: &str) -> bool {
    !TAKEN.contains(&name) && !name.starts_with(AGENTS_OWN)
}

/// Secrets in hand. No `Debug`: nothing of them is for a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Values {
    secrets: BTreeMap<String, String>,
    derived: BTreeMap<String, String>,
}

impl Values {
    /// Of an answer of the platform, over an environment of which `env` looks up a variable.
    pub(crate) fn new(
        fetched: BTreeMap<String, String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut derived = BTreeMap::new();
        for (runtime, variable, secret) in DERIVED {
            let value = fetched.get(secret).filter(|value| !value.is_empty());
            let free = set(variable).is_none() && !fetched.contains_key(variable);
            if let Some(value) =
                value.filter(|_| free && set("RUNTIME").as_deref() == Some(runtime))
            {
                derived.insert(variable.to_owned(), value.clone());
            }
        }
        let mut secrets = fetched;
        // A zero cannot stand in an environment: the program would not start at all.
        secrets.retain(|name, value| {
            deliverable(name)
                && !name.is_empty()
                && !name.contains(['=', '\0'])
                && !value.contains('\0')
        });
        Self { secrets, derived }
    }

    /// What the program finds beside, and over, what it inherits.
    pub(crate) fn overlay(&self) -> impl Iterator<Item = (&String, &String)> {
        self.derived.iter().chain(&self.secrets)
    }

    /// The secrets that it holds then.
    pub(crate) fn secrets(&self) -> &BTreeMap<String, String> {
        &self.secrets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn overlay(fetched: &[(&str, &str)], env: &[(&str, &str)]) -> BTreeMap<String, String> {
        let env = map(env);
        let values = Values::new(map(fetched), |name| env.get(name).cloned());
        values.overlay().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    #[test]
    fn secrets_go_over_everything_but_what_platform_and_agent_keep_to_themselves() {
        let fetched = [
            ("API_KEY", "k"),
            ("GIT_AUTHOR_NAME", "me"),
            ("TIER", "9"),
            ("PATH", "/opt"),
            ("PLATFORM_URL", "http://evil"),
            ("WORKSPACE_ID", "other"),
            ("LIGAND_PASSPORT", "p"),
            ("HOME", "/"),
            ("PORT", "1"),
            ("A=B", "x"),
            ("ZERO", "a\0b"),
        ];
        let expected =
            [("API_KEY", "k"), ("GIT_AUTHOR_NAME", "me"), ("PATH", "/opt"), ("TIER", "9")];
        assert_eq!(overlay(&fetched, &[("GIT_AUTHOR_NAME", "Molecule AI x")]), map(&expected));
    }

    #[test]
    fn a_runtimes_model_comes_from_the_secret_where_nothing_else_says_it() {
        let secret = [("MODEL_PROVIDER", "m")];
        let both = map(&[("MODEL_PROVIDER", "m"), ("HERMES_DEFAULT_MODEL", "m")]);
        assert_eq!(overlay(&secret, &[("RUNTIME", "hermes")]), both);
        assert_eq!(overlay(&secret, &[("RUNTIME", "echo")]), map(&secret));
        let said = [("RUNTIME", "hermes"), ("HERMES_DEFAULT_MODEL", "n")];
        assert_eq!(overlay(&secret, &said), map(&secret));
        let own = [("MODEL_PROVIDER", "m"), ("HERMES_DEFAULT_MODEL", "n")];
        assert_eq!(overlay(&own, &[("RUNTIME", "hermes")]), map(&own));
    }
}
