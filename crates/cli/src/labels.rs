//! Processes of instances, found by the label that the backend gives them. Nothing else is ever signalled.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// The variable in their environment: backend root, workspace and generation.
const LABEL: &str = "LIGAND_INSTANCE=";

/// A process that carries a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Labelled {
    /// Its number.
    pub(crate) id: u32,
    /// The generation that its label names.
    pub(crate) generation: Option<i64>,
}

/// Every process whose label lies below this directory: that of a backend, or of one workspace of it.
pub(crate) fn below(root: &Path) -> Vec<Labelled> {
    let label = format!("{LABEL}{}/", root.display());
    all(|environment| labelled(environment, &label))
}

/// Every process that says it is of this workspace, whichever backend runs it. Only for ids that were made here a
/// moment ago: nobody else's process can carry one.
pub(crate) fn of_workspace(id: &str) -> Vec<Labelled> {
    let entry = format!("WORKSPACE_ID={id}");
    all(|environment| {
        let mut entries = environment.split(|byte| *byte == 0);
        entries.any(|found| found == entry.as_bytes()).then_some(None)
    })
}

/// Every process for whose environment this gives something: the generation, where it is known.
fn all(of: impl Fn(&[u8]) -> Option<Option<i64>>) -> Vec<Labelled> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let labelled = |id: u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
        let generation = of(&environment)?;
        Some(Labelled { id, generation })
    };
    numbers.filter_map(labelled).collect()
}

/// `kill -9` of all of them.
pub(crate) fn kill(found: &[Labelled]) {
    for process in found {
        let pid = i32::try_from(process.id).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // One that ended meanwhile has ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// What this environment says, if it carries the label: the generation stands at its end.
fn labelled(environment: &[u8], label: &str) -> Option<Option<i64>> {
    let mut entries = environment.split(|byte| *byte == 0);
    let entry = entries.find(|entry| entry.starts_with(label.as_bytes()))?;
    let last = entry.rsplit(|byte| *byte == b'/').next()?;
    Some(std::str::from_utf8(last).ok().and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_workspace_and_generation() {
        let environment = b"A=1\0LIGAND_INSTANCE=/data/process/w/12\0B=2\0";
        let of = |root: &str| labelled(environment, &format!("{LABEL}{root}/"));
        assert_eq!(of("/data/process/w"), Some(Some(12)));
        assert_eq!(of("/data/process"), Some(Some(12)));
        assert_eq!(of("/data/process/x"), None);
        assert_eq!(of("/data/proc"), None, "a name is a whole one");
    }

    #[test]
    fn nobody_carries_a_label_of_nowhere() {
        assert_eq!(below(Path::new("/nowhere/at/all")), []);
    }
}
