//! Hibernated data is what it was at the wake, or that is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::WorkspaceId;
use ligand_domain::instance::Seen;
use ligand_server::backend::fake::Fake;
use ligand_server::backend::{Answer, Backend, BackendError, Carried, Key, Spec, Started};

use crate::support::agent::{Agent, online};
use crate::support::{TestApp, both};

/// The fake backend, with data of which nothing but a digest is known; none: it cannot be read.
struct Keeper(Fake, Arc<Mutex<Option<&'static str>>>);

impl Backend for Keeper {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }
    fn fingerprint(&self) -> Answer<'_, String> {
        self.0.fingerprint()
    }
    fn ensure(&self, spec: Spec) -> Answer<'_, Started> {
        self.0.ensure(spec)
    }
    fn find(&self, key: Key) -> Answer<'_, Option<Started>> {
        self.0.find(key)
    }
    fn inspect(&self, key: Key) -> Answer<'_, Seen> {
        self.0.inspect(key)
    }
    fn stop(&self, key: Key, grace: Duration) -> Answer<'_, ()> {
        self.0.stop(key, grace)
    }
    fn destroy(&self, key: Key) -> Answer<'_, ()> {
        self.0.destroy(key)
    }
    fn erase(&self, workspace: WorkspaceId) -> Answer<'_, ()> {
        self.0.erase(workspace)
    }
    fn list_owned(&self) -> Answer<'_, Vec<Key>> {
        self.0.list_owned()
    }
    fn logs(&self, workspace: WorkspaceId, lines: usize) -> Answer<'_, Bytes> {
        self.0.logs(workspace, lines)
    }
    fn recover(&self) -> Answer<'_, ()> {
        self.0.recover()
    }
    fn digest(&self, _: WorkspaceId) -> Answer<'_, Carried> {
        let digest = *self.1.lock().unwrap();
        Box::pin(async move {
            let unreadable = || BackendError::missing("the disk is gone");
            let digest = digest.ok_or_else(unreadable)?.to_owned();
            Ok(Carried { digest, entries: 1, bytes: 1 })
        })
    }
}

/// Hibernate, do something to the data, wake. Gives what the journal says of the data, and the evidence of the start.
async fn over_a_rest(
    app: TestApp,
    before: Option<&'static str>,
    after: Option<&'static str>,
) -> (Vec<String>, String) {
    let data = Arc::new(Mutex::new(before));
    let keeper = Keeper(app.fake.clone(), Arc::clone(&data));
    let app = app.on(|_| Arc::new(keeper));
    let (id, _) = online(&app, "sleeper").await;
    app.sql("UPDATE workspaces SET intent = 'hibernated', due_at = 0").await;
    app.settle().await;
    *data.lock().unwrap() = after;
    app.sql("UPDATE workspaces SET intent = 'running', restarts_wanted = restarts_wanted + 1, due_at = 0").await;
    app.settle().await;
    assert!(app.fake.newest(id.parse().unwrap()).is_some(), "it is started whatever was found");
    let evidence = app.workspace(&id).await["evidence"].as_str().unwrap().to_owned();
    // From here on it is worked on: what was kept is compared once.
    Agent::of(&app, &id).register(&app).await.ok();
    app.sql("UPDATE workspaces SET restarts_wanted = restarts_wanted + 1, due_at = 0").await;
    app.settle().await;
    let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
    let entries = why["journal"].as_array().unwrap().iter();
    let said = entries.filter(|entry| entry["kind"] == "data");
    let said = said.map(|entry| entry["summary"].as_str().unwrap().to_owned()).collect();
    (said, evidence)
}

const KEPT: &str = "the data is kept under its digest";

both! {
    async fn data_that_is_what_it_was_wakes_with_its_workspace(app: TestApp) {
        let (said, evidence) = over_a_rest(app, Some("one"), Some("one")).await;
        assert_eq!(said, [KEPT, "the data is what it was when it was hibernated"]);
        assert!(!evidence.contains("data"), "{evidence}");
    }

    async fn data_that_changed_meanwhile_is_told(app: TestApp) {
        let (said, evidence) = over_a_rest(app, Some("one"), Some("other")).await;
        assert_eq!(said, [KEPT, "the data is not what it was when it was hibernated"]);
        assert!(evidence.ends_with("the data is not what it was when it was hibernated"), "{evidence}");
    }

    async fn data_that_is_gone_is_told(app: TestApp) {
        let (said, evidence) = over_a_rest(app, Some("one"), None).await;
        assert!(said[1].contains("cannot be told: the disk is gone"), "{said:?}");
        assert!(evidence.contains("the disk is gone"), "{evidence}");
    }

    async fn data_that_cannot_be_digested_holds_up_no_rest(app: TestApp) {
        let (said, _) = over_a_rest(app, None, Some("one")).await;
        assert_eq!(said, ["the data is kept without a digest: the disk is gone"]);
    }
}
