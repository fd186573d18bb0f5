//! Where templates are.

use std::path::{Path, PathBuf};

use super::layers::Layers;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// Those that a create or a restart may name.
    pub root: PathBuf,
    /// The organisation's, if it has some.
    pub org: Option<PathBuf>,
}

impl Templates {
    /// Resolve; `file` is what the settings file says of each.
    pub(super) fn resolve(
        said: &mut Layers<'_>,
        file: (Option<&String>, Option<&String>),
        data_dir: &Path,
    ) -> Self {
        let default = data_dir.join("templates");
        Self {
            root: said.directory("templates_dir", "CONFIGS_DIR", file.0, &default),
            org: said.optional_directory("org_templates_dir", "ORG_TEMPLATES_DIR", file.1),
        }
    }
}
