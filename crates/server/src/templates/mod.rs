//! Templates: what a workspace's configuration begins with.
//!
//! A template is a directory below the templates root (`disk.rs` reads it, `said.rs` what its `config.yaml`
//! says). A create or a restart chooses where a configuration comes from, by the rules of
//! `ligand_domain::template`; the choice is stored, and the next start delivers it. A start that is confirmed
//! has delivered it: later ones leave the files to the agent, until somebody chooses again.

mod disk;
pub mod http;
mod said;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_domain::template::{
    Asked, Basics, Defaults, Entry, Known, Source, for_create, for_restart, generate,
    longest_start, sanitise,
};

pub(crate) use self::disk::Cache;
use self::said::Said;
use crate::app::App;
use crate::backend::{Limits, Mount, Spec};
use crate::db::Tx;
use crate::workspaces::Workspace;

pub(crate) use self::store::{delivered, planned};

/// The file that says what a template is.
const CONFIG: &str = "config.yaml";

type Done<T = ()> = Result<T, sqlx::Error>;

/// A template that is there, and what it says.
pub(crate) struct Template {
    /// Its directory, below its root.
    pub(crate) id: String,
    said: Arc<Said>,
}

impl Template {
    fn entry(&self) -> Entry {
        Entry { id: self.id.clone(), name: self.said.name.clone() }
    }
}

/// The templates that are there now.
#[derive(Default)]
pub(crate) struct Catalogue {
    templates: Vec<Template>,
    org: Vec<Template>,
}

/// Read which templates there are. What cannot be read is not there, and the log says why.
pub(crate) async fn catalogue(app: &App) -> Catalogue {
    disk::scan(app).await
}

impl Catalogue {
    fn known(&self) -> Known {
        let entries = |of: &[Template]| of.iter().map(Template::entry).collect();
        Known { templates: entries(&self.templates), org: entries(&self.org) }
    }

    fn find(&self, id: &str) -> Option<&Template> {
        self.templates.iter().find(|template| template.id == id)
    }

    /// What a template says for those who leave it out.
    pub(crate) fn defaults(&self, id: &str) -> Defaults {
        self.find(id).map(|template| template.said.defaults.clone()).unwrap_or_default()
    }

    /// Where a new workspace's configuration comes from.
    pub(crate) fn for_create(&self, app: &App, template: Option<&str>, runtime: &str) -> Choice {
        let source = for_create(template, sanitised(app, runtime), &self.known());
        self.choice(source)
    }

    fn choice(&self, source: Source) -> Choice {
        let found = match &source {
            Source::Template(id) => self.find(id),
            Source::Org(id) => self.org.iter().find(|template| template.id == *id),
            Source::Generated | Source::Existing => None,
        };
        let required_env =
            found.map(|template| template.said.required_env.clone()).unwrap_or_default();
        Choice { source, required_env }
    }

    /// The longest start that templates of this runtime declare, in milliseconds.
    pub(crate) fn provision_timeout_ms(&self, runtime: &str) -> Option<u64> {
        let declared = self.templates.iter().map(|template| {
            let said = &template.said;
            (said.defaults.runtime.as_deref().unwrap_or_default(), said.provision_timeout_seconds)
        });
        longest_start(runtime, declared).map(|seconds| seconds.saturating_mul(1000))
    }
}

/// How long a start of this runtime may take, by what its templates declare now.
pub(crate) async fn start_deadline(app: &App, runtime: &str) -> Duration {
    let declared = catalogue(app).await.provision_timeout_ms(runtime);
    app.config.start_deadline(runtime, declared.map(Duration::from_millis))
}

/// A runtime's name as it may stand in a path or a configuration.
fn sanitised<'a>(app: &App, runtime: &'a str) -> &'a str {
    sanitise(runtime, |name| app.config.runtimes.contains_key(name))
}

/// Where a configuration comes from, and what it needs.
pub(crate) struct Choice {
    source: Source,
    required_env: Vec<String>,
}

/// A new workspace's configuration is this one. Its row must be there already.
pub(crate) async fn choose(tx: &mut Tx, workspace: WorkspaceId, choice: &Choice) -> Done {
    store::choose(tx, workspace, choice, false).await
}

/// What a restart says of the configuration, with the templates that were there when it was read.
#[derive(Default)]
pub(crate) struct Wish {
    asked: Asked,
    reset: bool,
    catalogue: Catalogue,
}

impl Wish {
    /// Look at what is there, if anything is asked for.
    pub(crate) async fn new(app: &App, asked: Asked, reset: bool) -> Self {
        let catalogue = match asked == Asked::default() {
            true => Catalogue::default(),
            false => catalogue(app).await,
        };
        Self { asked, reset, catalogue }
    }
}

/// What becomes of a wish.
pub(crate) struct Resolved {
    /// Where the configuration comes from, as the wire says it.
    pub(crate) label: String,
    /// Whether the session is forgotten.
    pub(crate) reset: bool,
}

/// Resolve a restart's wish, and store it with the restart.
pub(crate) async fn resolve(
    app: &App,
    tx: &mut Tx,
    workspace: &Workspace,
    wish: &Wish,
) -> Done<Resolved> {
    let runtime = sanitised(app, &workspace.runtime);
    let runtime = Some(runtime).filter(|_| !workspace.runtime.is_empty());
    let known = wish.catalogue.known();
    let source = for_restart(&wish.asked, &workspace.name, runtime, &known);
    let label = source.label().to_owned();
    match source {
        Source::Existing if wish.reset => store::choose_fresh(tx, workspace.id).await?,
        Source::Existing => {}
        source => {
            store::choose(tx, workspace.id, &wish.catalogue.choice(source), wish.reset).await?;
        }
    }
    Ok(Resolved { label, reset: wish.reset })
}

/// Names that a workspace's environment must have, by the configuration that was chosen last.
///
/// # Errors
/// When the database does not answer.
pub async fn required_env(tx: &mut Tx, workspace: WorkspaceId) -> Done<Vec<String>> {
    let row = store::get(tx, workspace).await?;
    Ok(row.map(|row| row.required_env).unwrap_or_default())
}

/// Add to a start what belongs to its configuration: files, limits, the directory of the machine, whether
/// sessions are forgotten. A refusal is a reason not to start: its files are not there.
pub(crate) async fn equip(
    app: &App,
    workspace: &Workspace,
    generation: Generation,
    spec: &mut Spec,
) -> anyhow::Result<Result<(), String>> {
    spec.limits = limits(app, workspace.tier);
    spec.mount = mount(workspace);
    let row = store::get(&mut app.db.read().await?, workspace.id).await?;
    let Some(row) = row.filter(|row| row.carried_by == generation) else { return Ok(Ok(())) };
    spec.fresh_session = row.fresh_at > row.delivered;
    if row.source_at <= row.delivered {
        return Ok(Ok(()));
    }
    spec.files = match files(app, workspace, &row.source).await {
        Ok(files) => files,
        Err(why) => return Ok(Err(why)),
    };
    let config = spec.files.get(CONFIG).map(|bytes| String::from_utf8_lossy(bytes));
    let required_env = config.map(|text| required_env_of(&text)).unwrap_or_default();
    if required_env != row.required_env {
        let mut tx = app.db.begin().await?;
        store::require(&mut tx, workspace.id, &required_env).await?;
        tx.commit().await?;
    }
    Ok(Ok(()))
}

/// Names that an environment must have, by a `config.yaml`. None, where it cannot be understood.
#[must_use]
pub fn required_env_of(config: &str) -> Vec<String> {
    Said::read(config).map(|said| said.required_env).unwrap_or_default()
}

fn limits(app: &App, tier: i64) -> Limits {
    let (memory_mb, cpu_shares) = app.config.tiers.of(tier);
    Limits { tier, memory_mb, cpu_shares }
}

fn mount(workspace: &Workspace) -> Option<Mount> {
    let path = PathBuf::from(workspace.workspace_dir.as_deref()?);
    match workspace.workspace_access.as_str() {
        "read_only" => Some(Mount { path, writable: false }),
        "read_write" => Some(Mount { path, writable: true }),
        _ => None,
    }
}

async fn files(
    app: &App,
    workspace: &Workspace,
    source: &Source,
) -> Result<BTreeMap<String, Bytes>, String> {
    let (root, id) = match source {
        Source::Template(id) => (Some(&app.config.templates.root), id),
        Source::Org(id) => (app.config.templates.org.as_ref(), id),
        Source::Existing => return Ok(BTreeMap::new()),
        Source::Generated => {
            let text = generate(Basics {
                name: &workspace.name,
                role: workspace.role.as_deref(),
                tier: workspace.tier,
                runtime: sanitised(app, &workspace.runtime),
                model: workspace.model.as_deref(),
            });
            return Ok(BTreeMap::from([(CONFIG.to_owned(), Bytes::from(text))]));
        }
    };
    let root = root.ok_or_else(|| format!("the template `{id}` is not on this server"))?;
    disk::files(root, id).await.map_err(|why| format!("the template `{id}` {why}"))
}
