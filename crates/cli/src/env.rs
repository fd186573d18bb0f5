//! What the command line takes from its environment. Nothing else reads it.

use std::path::PathBuf;

/// The variables that client verbs know.
#[derive(Default)]
pub(crate) struct Env {
    /// `LIGAND_SERVER`.
    pub(crate) server: Option<String>,
    /// `LIGAND_TOKEN`.
    pub(crate) token: Option<String>,
    /// `MOLECULE_ORG_ID`.
    pub(crate) organisation: Option<String>,
    /// `$XDG_STATE_HOME/ligand`, or where that is by convention. `None` without a home.
    pub(crate) state_dir: Option<PathBuf>,
}

impl Env {
    /// Reads them, once.
    pub(crate) fn capture() -> Self {
        let state_home = var("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let fallback = || Some(PathBuf::from(var("HOME")?).join(".local/state"));
        Self {
            server: var("LIGAND_SERVER"),
            token: var("LIGAND_TOKEN"),
            organisation: var("MOLECULE_ORG_ID").map(|id| id.trim().to_owned()),
            state_dir: state_home.or_else(fallback).map(|home| home.join("ligand")),
        }
    }
}

/// Whether the terminal is believed to show more than ASCII.
pub(crate) fn utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(var).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// One variable; set but empty is the same as not set.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
