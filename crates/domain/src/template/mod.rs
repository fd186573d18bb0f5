//! Where a workspace's configuration comes from.
//!
//! A template is a directory of files below a root. [`for_create`] and [`for_restart`] choose among those that
//! are there; `text.rs` reads what a template says of itself, and writes a configuration where there is none.

mod text;

pub use self::text::{Basics, Defaults, defaults, generate, quote};

/// Runtimes of published agents. Any other needs a recipe of the operator's.
const RUNTIMES: [&str; 8] = [
    "langgraph",
    "claude-code",
    "openclaw",
    "deepagents",
    "crewai",
    "autogen",
    "hermes",
    "gemini-cli",
];
/// What an unknown runtime's configuration is taken for.
const FALLBACK: &str = "langgraph";
/// Directories left over from single workspaces: they are nobody's template by name.
const LEFT_OVER: &str = "ws-";
/// Files of an instance's credential. No template holds them.
const CREDENTIAL: [&str; 2] = [".auth_token", ".register_key"];
/// Directories of the host that no workspace may work in.
const HOST_DIRS: [&str; 9] =
    ["/etc", "/var", "/proc", "/sys", "/dev", "/boot", "/sbin", "/bin", "/lib"];
/// The same, with all that is below it.
const HOST_PROGRAMS: &str = "/usr";

/// Clean a relative path: no `..`, nothing absolute, not empty. `None` where it breaks the rule.
#[must_use]
pub fn clean(path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains(['\0', '\n', '\r']) {
        return None;
    }
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let escapes = parts.contains(&"..");
    (!parts.is_empty() && !escapes).then(|| parts.join("/"))
}

/// Clean the path of a file that an instance is given below its configuration directory. `None` where it
/// breaks the rule, or would take the place of a credential.
#[must_use]
pub fn file(path: &str) -> Option<String> {
    let path = clean(path)?;
    let credential = CREDENTIAL.iter().any(|name| path.starts_with(name));
    (!credential).then_some(path)
}

/// Clean a directory of the host that a workspace may work in, as far as its text tells.
///
/// # Errors
/// What is wrong with it.
pub fn host_directory(path: &str) -> Result<String, &'static str> {
    let below = path.strip_prefix('/').and_then(clean);
    let Some(below) = below else { return Err("expected an absolute path without `..`") };
    let path = format!("/{below}");
    let system = HOST_DIRS.iter().chain([&HOST_PROGRAMS]).any(|root| under(&path, root));
    if system { Err("a directory of the system") } else { Ok(path) }
}

/// Whether a path is a root, or below it.
#[must_use]
pub fn under(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A workspace's name as a template's directory would have it.
#[must_use]
pub fn normalise(name: &str) -> String {
    name.trim().to_lowercase().replace(' ', "-")
}

/// A runtime's name, if it is one that may stand in a path: a published one, or one of the operator's `own`.
/// Everything else is taken for the framework that the contract falls back to.
#[must_use]
pub fn sanitise(runtime: &str, own: impl Fn(&str) -> bool) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let word = !runtime.is_empty() && runtime.chars().all(plain);
    if word && (RUNTIMES.contains(&runtime) || own(runtime)) { runtime } else { FALLBACK }
}

/// A template that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its directory, below its root.
    pub id: String,
    /// What its configuration calls it.
    pub name: Option<String>,
}

impl Entry {
    /// Its own directory, without those above it.
    fn directory(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or_default()
    }

    fn fits(&self, name: &str) -> bool {
        let directory = self.directory();
        let called = || self.name.as_deref().map(normalise);
        !directory.starts_with(LEFT_OVER)
            && (directory == name || called().as_deref() == Some(name))
    }
}

/// The templates that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Those below the templates root.
    pub templates: Vec<Entry>,
    /// Those of the organisation.
    pub org: Vec<Entry>,
}

impl Known {
    fn explicit(&self, template: Option<&str>) -> Option<Source> {
        let id = clean(template?)?;
        let there = self.templates.iter().any(|entry| entry.id == id);
        there.then_some(Source::Template(id))
    }

    fn default_of(&self, runtime: &str) -> Option<Source> {
        let id = format!("{runtime}-default");
        let there = self.templates.iter().any(|entry| entry.id == id);
        there.then_some(Source::Template(id))
    }
}

/// The first whose directory has the name; else the first that calls itself so.
fn by_name<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    let fitting = || entries.iter().filter(|entry| entry.fits(name));
    fitting().find(|entry| entry.directory() == name).or_else(|| fitting().next())
}

/// Where the files of a workspace's configuration come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory below the templates root.
    Template(String),
    /// A directory of the organisation's templates.
    Org(String),
    /// Written from what is known of the workspace.
    Generated,
    /// What is there already is kept.
    Existing,
}

impl Source {
    /// As the wire says it.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Template(id) | Self::Org(id) => id,
            Self::Generated => "generated",
            Self::Existing => "existing-volume",
        }
    }

    /// As it is stored: which kind, and which of it.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Template(id) => ("template", id),
            Self::Org(id) => ("org", id),
            Self::Generated => ("generated", ""),
            Self::Existing => ("existing", ""),
        }
    }

    /// Back from [`Source::parts`].
    #[must_use]
    pub fn from_parts(kind: &str, id: &str) -> Option<Self> {
        match kind {
            "template" => Some(Self::Template(id.to_owned())),
            "org" => Some(Self::Org(id.to_owned())),
            "generated" => Some(Self::Generated),
            "existing" => Some(Self::Existing),
            _ => None,
        }
    }
}

/// Where the configuration of a new workspace comes from: its template, the default of its runtime, or nowhere.
/// `runtime` is a sanitised one.
#[must_use]
pub fn for_create(template: Option<&str>, runtime: &str, known: &Known) -> Source {
    let found = known.explicit(template).or_else(|| known.default_of(runtime));
    found.unwrap_or(Source::Generated)
}

/// What a restart says of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// This template.
    pub template: Option<String>,
    /// The one that fits.
    pub apply_template: bool,
    /// The organisation's.
    pub rebuild_config: bool,
}

/// Where the configuration comes from at a restart. What is not there, or is no name at all, is passed over.
/// `runtime` is a sanitised one, or `None` where nothing is known of it.
#[must_use]
pub fn for_restart(asked: &Asked, name: &str, runtime: Option<&str>, known: &Known) -> Source {
    let name = normalise(name);
    let explicit = asked.template.as_deref().filter(|text| !text.is_empty());
    if let Some(found) = known.explicit(explicit) {
        return found;
    }
    if asked.apply_template
        && explicit.is_none()
        && let Some(entry) = by_name(&known.templates, &name)
    {
        return Source::Template(entry.id.clone());
    }
    if asked.rebuild_config
        && let Some(entry) = by_name(&known.org, &name)
    {
        return Source::Org(entry.id.clone());
    }
    let default = runtime.filter(|_| asked.apply_template).and_then(|it| known.default_of(it));
    default.unwrap_or(Source::Existing)
}

/// The longest start that a template of this runtime declares, in seconds.
#[must_use]
pub fn longest_start<'a>(
    runtime: &str,
    declared: impl IntoIterator<Item = (&'a str, Option<u64>)>,
) -> Option<u64> {
    let of_it = declared.into_iter().filter(|(of, _)| *of == runtime);
    of_it.filter_map(|(_, seconds)| seconds).filter(|seconds| *seconds > 0).max()
}

#[cfg(test)]
mod tests;
