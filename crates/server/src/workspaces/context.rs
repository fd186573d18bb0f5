//! What a start is given: loaded in the one transaction that notes which restarts it satisfies.
//!
//! A start that is resumed loads again, since nothing of the first load is left: what it finds is at least as new,
//! and the counter says so. What its backend already runs was given what the load before it found.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use ligand_domain::id::Generation;
use ligand_domain::secrets::{self as domain, Whose};
use serde_json::{Value, json};

use super::brings::Brings;
use super::steps::Steps;
use super::{Instance, Workspace, store};
use crate::app::App;
use crate::journal::Work;
use crate::reconcile::CLAIM;
use crate::{secrets, templates};

/// The names that an agent's receipt covers.
const NAMES: &str = "LIGAND_SECRET_NAMES";

/// What was loaded for one instance.
pub(super) struct Context {
    /// The workspace as it is then.
    pub(super) workspace: Workspace,
    /// The environment, secrets among it. It has no `Debug`.
    pub(super) env: BTreeMap<String, String>,
    /// The same without secrets.
    bare: BTreeMap<String, String>,
    /// Variables without which the instance is not started.
    required_env: Vec<String>,
}

/// Why there will be no such instance for now.
pub(super) struct Refusal {
    /// For people.
    pub(super) why: String,
    /// What the event says beside that, or instead of it.
    pub(super) more: Value,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, more: json!({}) }
    }
}

impl Context {
    /// What the start cannot do without is there.
    fn complete(self) -> Result<Self, Refusal> {
        let missing = domain::missing(&self.required_env, &self.env);
        if missing.is_empty() {
            return Ok(self);
        }
        let why = format!("required environment is missing: {}", missing.join(", "));
        Err(Refusal { why, more: json!({"missing": missing}) })
    }

    /// With what of it leaves the platform.
    fn dressed(mut self, brings: Brings, own: &BTreeSet<String>) -> Self {
        let bare = std::mem::take(&mut self.bare);
        self.env = brings.dressed(self.env, bare, own);
        self
    }
}

impl Steps<'_> {
    /// Load what this instance is given, and note that it is loaded.
    pub(super) async fn load(
        &self,
        instance: &Instance,
    ) -> anyhow::Result<Result<Context, Refusal>> {
        let mut work = Work::begin(self.app).await?;
        // Before the row: whoever writes global secrets locks in this order.
        secrets::hold_global(&mut work.tx).await?;
        let until = work.now.after(CLAIM);
        let held = store::CLAIMS.keep(&mut work.tx, self.id.uuid(), self.claim, until).await?;
        ensure!(held, "another pass took over");
        let workspace = store::lock(&mut work.tx, self.id).await?.context("it is purged")?;
        let generation = instance.generation;
        let row = store::instance_of(&mut work.tx, self.id, generation).await?;
        let stands = row.is_some_and(|row| row.ended_at.is_none());
        if !stands || workspace.newest != generation {
            bail!("the start of generation {generation} is over");
        }
        let loaded = match secrets::load(self.app, &mut work.tx, self.id).await? {
            Ok(loaded) => loaded,
            Err(unread) => return Ok(Err(undecryptable(&unread))),
        };
        let required = templates::required_env(&mut work.tx, self.id).await?;
        let brings = Brings::of(self.app, &workspace);
        let own = self.own_names(&mut work, brings).await?;
        store::mark_loaded(&mut work.tx, self.id).await?;
        work.commit().await?;
        let context = self.context(workspace, instance, &loaded, required).complete();
        Ok(context.map(|context| context.dressed(brings, &own)))
    }

    fn context(
        &self,
        workspace: Workspace,
        instance: &Instance,
        loaded: &BTreeMap<String, String>,
        mut required_env: Vec<String>,
    ) -> Context {
        let config = &self.app.config;
        let recipe = config.runtimes.get(&workspace.runtime).cloned().unwrap_or_default();
        let bare = environment(self.app, &workspace, instance.generation, &BTreeMap::new());
        let mut env = environment(self.app, &workspace, instance.generation, loaded);
        let names = loaded.keys().filter(|name| domain::deliverable(name));
        let names: Vec<&str> = names.map(String::as_str).collect();
        if !names.is_empty() {
            env.insert(NAMES.to_owned(), names.join(" "));
        }
        required_env.extend(recipe.required_env);
        Context { workspace, env, bare, required_env }
    }
}

/// The environment of a migration's candidate: everything but secrets, which its agent fetches once it is told to.
pub(crate) fn standby(
    app: &App,
    workspace: &Workspace,
    generation: Generation,
) -> BTreeMap<String, String> {
    environment(app, workspace, generation, &BTreeMap::new())
}

fn environment(
    app: &App,
    workspace: &Workspace,
    generation: Generation,
    loaded: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let recipe = app.config.runtimes.get(&workspace.runtime).map(|recipe| &recipe.env);
    let whose = Whose {
        name: &workspace.name,
        runtime: &workspace.runtime,
        model: workspace.model.as_deref(),
        role: workspace.role.as_deref(),
    };
    let platform = platform(app, workspace, generation);
    domain::environment(platform, recipe.unwrap_or(&BTreeMap::new()), loaded, whose)
}

/// What the platform says of itself and of the instance.
fn platform(app: &App, workspace: &Workspace, generation: Generation) -> BTreeMap<String, String> {
    let config = &app.config;
    let mut env: BTreeMap<String, String> = [
        ("WORKSPACE_ID", workspace.id.to_string()),
        ("PLATFORM_URL", config.platform_url()),
        ("MOLECULE_URL", config.platform_url()),
        ("TIER", workspace.tier.to_string()),
        ("RUNTIME", workspace.runtime.clone()),
        ("LIGAND_GENERATION", generation.to_string()),
        ("LIGAND_AGENT_NAME", workspace.name.clone()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if let Some(org) = &config.org_id {
        env.insert("MOLECULE_ORG_ID".to_owned(), org.clone());
    }
    env
}

/// The event has the contract's words; the names are for people.
fn undecryptable(unread: &[secrets::Unread]) -> Refusal {
    let text = unread.first().map(secrets::Unread::text).unwrap_or_default();
    let why: Vec<String> = unread.iter().map(ToString::to_string).collect();
    let keys: Vec<String> = unread.iter().map(secrets::Unread::name).collect();
    Refusal { why: why.join("; "), more: json!({"error": text, "failed_keys": keys}) }
}
