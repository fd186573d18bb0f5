//! What is left over at a backend: instances that no row names, and data that belongs to nobody any more.
//!
//! **Garbage** is an instance that no row names which has not ended; labels at the backend only find candidates. Of
//! a workspace that is removed, or that was purged, its data is garbage too, once no row names an instance of it.
//!
//! Nothing fresh can be garbage, whoever starts it: a row is committed before its instance is asked for, and what a
//! backend has is listed *before* the rows are read. So whatever was listed had its row by then, and is missing
//! there only if that row has ended, for ever. For the same reason a verdict never grows old: a row that has ended
//! does not come back, nor does a workspace that is removed or purged.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Generation, WorkspaceId};

/// An instance as its backend knows it: whose, and the number that it was born with.
pub type Label = (WorkspaceId, Generation);

/// What a backend has of ours. Read before the [`Rows`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Instances that were not destroyed.
    pub instances: BTreeSet<Label>,
    /// Workspaces whose data it holds.
    pub data: BTreeSet<WorkspaceId>,
}

impl Listed {
    /// Every workspace of which anything was listed.
    #[must_use]
    pub fn workspaces(&self) -> BTreeSet<WorkspaceId> {
        self.instances.iter().map(|(workspace, _)| *workspace).chain(self.data.clone()).collect()
    }
}

/// What becomes of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It has a row, and is not removed.
    Kept,
    /// It is removed.
    Removed,
    /// It has no row any more; its credentials are remembered, so it was one of ours.
    Purged,
    /// This database never heard of it.
    Never,
}

/// What the database says, read after what is [`Listed`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Of each workspace that was listed; one that is not in here was never heard of.
    pub workspaces: BTreeMap<WorkspaceId, Known>,
    /// Instances on this backend whose rows have not ended, and whether the backend confirmed them.
    pub named: BTreeMap<Label, bool>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// To be stopped and destroyed.
    pub end: BTreeSet<Label>,
    /// To be erased, once everything of [`Verdict::end`] that is of the same workspace has ended.
    pub erase: BTreeSet<WorkspaceId>,
    /// Data of which this database never heard. It may be somebody else's, or this is not the right database: it is
    /// left alone, and a person is told.
    pub unknown: BTreeSet<WorkspaceId>,
    /// Confirmed once, and not listed: the backend is to be asked about these.
    pub missing: BTreeSet<Label>,
}

/// Sort what is listed.
#[must_use]
pub fn sort(listed: &Listed, rows: &Rows) -> Verdict {
    let end: BTreeSet<Label> =
        listed.instances.iter().filter(|label| !rows.named.contains_key(label)).copied().collect();
    let mut verdict = Verdict { end, ..Verdict::default() };
    for workspace in listed.workspaces() {
        let named = rows.named.keys().any(|(named, _)| *named == workspace);
        match rows.workspaces.get(&workspace).copied().unwrap_or(Known::Never) {
            Known::Removed | Known::Purged if !named => drop(verdict.erase.insert(workspace)),
            Known::Never if listed.data.contains(&workspace) => {
                verdict.unknown.insert(workspace);
            }
            Known::Kept | Known::Removed | Known::Purged | Known::Never => {}
        }
    }
    let confirmed = rows.named.iter().filter(|(_, confirmed)| **confirmed).map(|(label, _)| *label);
    verdict.missing = confirmed.filter(|label| !listed.instances.contains(label)).collect();
    verdict
}
