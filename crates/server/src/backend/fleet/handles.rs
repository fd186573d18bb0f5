//! The control plane's names for instances: the only ones that it knows them by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ligand_domain::id::WorkspaceId;

use crate::backend::Key;

/// Between an instance and a provider that is not the backend's own. Names of instances have no spaces.
const OF: &str = " of ";

/// The text that is on record for an instance: its name, and its provider where that is another than the backend's.
#[must_use]
pub fn handle(instance: &str, provider: Option<&str>) -> String {
    Handle { instance: instance.to_owned(), provider: provider.map(str::to_owned) }.to_string()
}

/// The instance in such a text.
#[must_use]
pub fn instance_of(text: &str) -> &str {
    text.rsplit_once(OF).map_or(text, |(instance, _)| instance)
}

/// The provider in such a text, where one is named.
#[must_use]
pub fn provider_of(text: &str) -> Option<String> {
    Handle::parse(text)?.provider
}

/// The same, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) instance: String,
    pub(super) provider: Option<String>,
}

impl Handle {
    fn parse(text: &str) -> Option<Self> {
        let (instance, provider) = match text.rsplit_once(OF) {
            Some((instance, provider)) => (instance, Some(provider.to_owned())),
            None => (text, None),
        };
        let instance = instance.trim().to_owned();
        (!instance.is_empty()).then_some(Self { instance, provider })
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.instance)?;
        match &self.provider {
            Some(provider) => write!(f, "{OF}{provider}"),
            None => Ok(()),
        }
    }
}

struct Known {
    handle: Handle,
    /// The control plane said that it was ended.
    ended: bool,
    /// The machine that it is on, where that was said.
    host: Option<String>,
}

/// What is known of instances. Nothing here is the only copy: rows have the handles.
#[derive(Default)]
pub(super) struct Handles(Mutex<BTreeMap<Key, Known>>);

impl Handles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on record. It tells nothing new of a handle that is known.
    pub(super) fn known(&self, key: Key, text: &str) {
        let Some(handle) = Handle::parse(text) else { return };
        let mut all = self.lock();
        if all.get(&key).is_none_or(|known| known.handle != handle) {
            all.insert(key, Known { handle, ended: false, host: None });
        }
    }

    /// What the control plane itself says.
    pub(super) fn note(&self, key: Key, text: &str, host: Option<String>) {
        self.known(key, text);
        if let Some(known) =
            self.lock().get_mut(&key).filter(|known| host.is_some() && !known.ended)
        {
            known.host = host;
        }
    }

    pub(super) fn of(&self, key: Key) -> Option<Handle> {
        self.lock().get(&key).map(|known| known.handle.clone())
    }

    /// The provider that somebody chose for it.
    pub(super) fn provider(&self, key: Key) -> Option<String> {
        self.lock().get(&key).and_then(|known| known.handle.provider.clone())
    }

    pub(super) fn host(&self, key: Key) -> Option<String> {
        self.lock().get(&key).and_then(|known| known.host.clone())
    }

    pub(super) fn is_ended(&self, key: Key) -> bool {
        self.lock().get(&key).is_some_and(|known| known.ended)
    }

    /// It was ended: of its workspace's ended instances only the newest is of any use from now on.
    pub(super) fn end(&self, key: Key) {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(&key) {
            known.ended = true;
        }
        all.retain(|other, known| {
            other.workspace != key.workspace || *other >= key || !known.ended
        });
    }

    /// The newest of a workspace.
    pub(super) fn last(&self, workspace: WorkspaceId) -> Option<Key> {
        self.lock().keys().rfind(|key| key.workspace == workspace).copied()
    }

    pub(super) fn forget(&self, workspace: WorkspaceId) {
        self.lock().retain(|key, known| key.workspace != workspace || !known.ended);
    }
}

#[cfg(test)]
mod tests {
    use ligand_domain::id::Generation;

    use super::*;

    fn key(generation: i64) -> Key {
        let workspace = WorkspaceId::from_random([7; 16]);
        Key { workspace, generation: Generation::new(generation) }
    }

    #[test]
    fn a_handle_is_a_name_and_perhaps_whose_it_is() {
        for text in ["i-1", "i-1 of hetzner", "projects/p/instances/i"] {
            assert_eq!(Handle::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Handle::parse("i-1 of gcp").unwrap().provider.as_deref(), Some("gcp"));
        assert_eq!(handle("i-1", Some("gcp")), "i-1 of gcp");
        assert_eq!((Handle::parse(""), Handle::parse(" of aws")), (None, None));
    }

    #[test]
    fn another_name_on_record_is_another_instance() {
        let handles = Handles::default();
        handles.note(key(1), "i-1", Some("10.0.0.1".to_owned()));
        handles.end(key(1));
        handles.known(key(1), "i-1");
        assert!(handles.is_ended(key(1)));
        handles.known(key(1), "i-2");
        assert!(!handles.is_ended(key(1)));
        assert_eq!((handles.host(key(1)), handles.last(key(1).workspace)), (None, Some(key(1))));
    }

    #[test]
    fn what_ended_long_ago_takes_no_room() {
        let handles = Handles::default();
        for generation in 1..100 {
            handles.known(key(generation), &format!("i-{generation}"));
            handles.end(key(generation));
        }
        assert_eq!((handles.of(key(98)), handles.of(key(99)).is_some()), (None, true));
        handles.forget(key(99).workspace);
        assert_eq!(handles.of(key(99)), None);
    }
}
