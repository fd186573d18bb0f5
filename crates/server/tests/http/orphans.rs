//! What is left over at backends, what is gone from them, and what the sweep must never touch.

use std::time::Duration;

use bytes::Bytes;
use ligand_domain::id::{Generation, WorkspaceId};
use ligand_server::backend::fake::{Call, Fault, Planned};
use ligand_server::backend::{Backend as _, Key, Place, Root, Spec};
use ligand_server::liveness::orphans::Orphans;
use ligand_server::reconcile::{Pass, Reconciler as _};

use crate::support::agent::online;
use crate::support::modes::adjusted;
use crate::support::{TestApp, both};

async fn sweep(app: &TestApp) -> Pass {
    Orphans::default().pass(&app.app).await.unwrap()
}

fn id(text: &str) -> WorkspaceId {
    text.parse().unwrap()
}

fn stranger(n: u8) -> WorkspaceId {
    WorkspaceId::from_random([n; 16])
}

/// An instance of which no row knows.
async fn leave(app: &TestApp, workspace: WorkspaceId, generation: i64) -> Key {
    let key = Key { workspace, generation: Generation::new(generation) };
    app.fake.ensure(Spec::bare(key, Vec::new(), app.app.ids.token())).await.unwrap();
    key
}

fn instances(app: &TestApp) -> Vec<Key> {
    app.fake.instances().into_iter().map(|instance| instance.key).collect()
}

async fn data(app: &TestApp) -> Vec<WorkspaceId> {
    app.fake.list_data().await.unwrap()
}

/// A removed workspace, with an instance that its removal missed.
async fn removed(app: &TestApp, name: &str) -> (WorkspaceId, Key) {
    let (workspace, _) = online(app, name).await;
    app.delete(&format!("/workspaces/{workspace}")).await.ok();
    let key = leave(app, id(&workspace), 9).await;
    (key.workspace, key)
}

fn once(fault: Fault, at: Call) -> Planned {
    Planned::once(fault).at(&[at])
}

both! {
    async fn os_01_what_removed_workspaces_left_is_ended_and_their_data_is_erased(app: TestApp) {
        let (kept, _) = online(&app, "kept").await;
        let (first, _) = removed(&app, "first").await;
        let (second, _) = removed(&app, "second").await;
        assert_eq!((instances(&app).len(), data(&app).await.len()), (3, 3));
        let pass = sweep(&app).await;
        assert_eq!((pass.looked_at, pass.steps, pass.failed), (6, 4, None));
        assert_eq!(data(&app).await, [id(&kept)]);
        assert_eq!(instances(&app).len(), 1);
        for gone in [first, second] {
            let told = app.journal(&gone.to_string()).await;
            assert_eq!(told.iter().filter(|kind| *kind == "swept").count(), 2, "{told:?}");
        }
        assert_eq!(sweep(&app).await.steps, 0);
    }

    async fn os_02_where_nothing_is_left_nothing_is_done(app: TestApp) {
        assert_eq!(sweep(&app).await, Pass::default());
        let (workspace, _) = online(&app, "a").await;
        app.fake.erase(id(&workspace)).await.unwrap();
        app.delete(&format!("/workspaces/{workspace}")).await.ok();
        assert_eq!(sweep(&app).await, Pass::default(), "a removed workspace of which nothing is there");
    }

    async fn os_03_os_12_a_backend_that_cannot_list_is_left_alone_for_this_time(app: TestApp) {
        let (gone, _) = removed(&app, "gone").await;
        let unknown = leave(&app, stranger(7), 1).await;
        for call in [Call::ListOwned, Call::ListData] {
            app.fake.plan(once(Fault::Silence, call));
            let pass = sweep(&app).await;
            assert_eq!((pass.looked_at, pass.steps), (0, 0), "{call}");
            assert_eq!(pass.failed.as_deref(), Some("fake: the backend did not answer"), "the report says so");
            assert_eq!((instances(&app).len(), data(&app).await.len()), (2, 2));
        }
        assert_eq!(sweep(&app).await.steps, 3);
        assert!(instances(&app).is_empty() && data(&app).await == [unknown.workspace], "{gone}");
    }

    async fn os_04_data_stays_while_its_instance_cannot_be_stopped(app: TestApp) {
        let (gone, key) = removed(&app, "gone").await;
        for call in [Call::Stop, Call::Destroy] {
            app.fake.plan(once(Fault::Silence, call));
            let pass = sweep(&app).await;
            assert_eq!((pass.steps, instances(&app), data(&app).await), (0, vec![key], vec![gone]), "{call}");
            let told = pass.failed.unwrap();
            assert!(told.contains(&gone.to_string()) && told.contains("did not answer"), "{told}");
        }
        assert_eq!(sweep(&app).await.steps, 2);
        assert!(instances(&app).is_empty() && data(&app).await.is_empty());
    }

    async fn os_05_an_erase_that_fails_stops_none_of_the_others(app: TestApp) {
        for name in ["a", "b", "c"] {
            removed(&app, name).await;
        }
        app.fake.plan(once(Fault::Silence, Call::Erase));
        let pass = sweep(&app).await;
        assert_eq!((pass.steps, data(&app).await.len()), (5, 1));
        assert!(instances(&app).is_empty() && pass.failed.is_some());
        assert_eq!(sweep(&app).await.steps, 1);
        assert!(data(&app).await.is_empty());
    }

    async fn os_09_what_has_no_row_at_all_is_ended_and_its_data_erased_if_it_was_ours(app: TestApp) {
        let (purged, _) = online(&app, "purged").await;
        app.sql("DELETE FROM instances").await;
        app.sql("DELETE FROM workspaces").await;
        // Another database's, or another Ligand's: it ends, for no row names it, and its data is left to a person.
        let unknown = leave(&app, stranger(7), 1).await;
        assert_eq!((instances(&app).len(), data(&app).await.len()), (2, 2));
        let pass = sweep(&app).await;
        assert_eq!((pass.steps, pass.failed), (3, None));
        assert!(instances(&app).is_empty());
        assert_eq!(data(&app).await, [unknown.workspace], "{purged}");
        assert_eq!(sweep(&app).await.steps, 0);
    }

    async fn os_10_whatever_its_status_a_workspace_keeps_its_data_and_its_named_instance(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        for status in [
            "UPDATE workspaces SET status = 'failed'",
            "UPDATE workspaces SET status = 'offline'",
            "UPDATE workspaces SET status = 'hibernated', intent = 'hibernated'",
            "UPDATE workspaces SET status = 'paused', intent = 'paused'",
            "UPDATE workspaces SET status = 'provisioning', intent = 'running'",
        ] {
            app.sql(status).await;
            assert_eq!(sweep(&app).await.steps, 0, "{status}");
        }
        app.sql("UPDATE workspaces SET intent = 'paused', due_at = 1").await;
        app.settle().await;
        assert!(instances(&app).is_empty());
        assert_eq!((sweep(&app).await.steps, data(&app).await), (0, vec![id(&workspace)]));
    }

    async fn os_11_of_a_mix_only_what_no_row_names_goes(app: TestApp) {
        let (serving, _) = online(&app, "a").await;
        let starting = app.create("b").await;
        app.settle().await;
        leave(&app, stranger(7), 1).await;
        // An older number of a workspace that is there.
        leave(&app, id(&serving), 9).await;
        let pass = sweep(&app).await;
        assert_eq!((pass.steps, pass.failed), (2, None));
        let left: Vec<String> = instances(&app).iter().map(|key| key.workspace.to_string()).collect();
        assert!(left.len() == 2 && left.contains(&serving) && left.contains(&starting), "{left:?}");
        assert!(data(&app).await.contains(&id(&serving)));
        assert_eq!(sweep(&app).await.steps, 0);
    }

    async fn what_a_removed_workspace_still_runs_is_the_reconcilers(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        // Marked, and its reconciler has not come to it.
        app.sql("UPDATE workspaces SET status = 'removed', intent = 'removed'").await;
        assert_eq!(sweep(&app).await.steps, 0);
        assert_eq!((instances(&app).len(), data(&app).await), (1, vec![id(&workspace)]));
        app.sql("UPDATE workspaces SET due_at = 1").await;
        app.settle().await;
        assert_eq!(sweep(&app).await.steps, 1);
        assert!(instances(&app).is_empty() && data(&app).await.is_empty());
    }

    async fn an_instance_whose_start_is_not_confirmed_is_named(app: TestApp) {
        app.fake.plan(Fault::LoseReply);
        app.fake.plan(once(Fault::Silence, Call::Find));
        let workspace = app.create("a").await;
        assert!(app.pass().await.failed.is_some());
        assert_eq!(instances(&app).len(), 1, "the backend has it, and no server knows");
        assert_eq!(sweep(&app).await.steps, 0);
        app.later(3).await;
        assert_eq!((instances(&app).len(), app.fake.starts()), (1, 1), "{workspace}");
    }

    /// Starts are carried out on one server while another one sweeps.
    async fn nothing_that_is_being_started_is_ever_garbage(app: TestApp) {
        // A look takes longer than a start, so that many of them begin and end while one looks.
        for (call, millis) in [(Call::Ensure, 1), (Call::ListOwned, 15), (Call::ListData, 2)] {
            app.fake.plan(once(Fault::Late(Duration::from_millis(millis)), call).times(0));
        }
        let done = std::cell::Cell::new(false);
        let starts = async {
            for n in 0..25 {
                app.create(&format!("w{n}")).await;
                app.pass().await;
            }
            app.settle().await;
            done.set(true);
        };
        let sweeps = async {
            let mut count = 0_u64;
            while !done.get() {
                let pass = sweep(&app).await;
                assert_eq!((pass.steps, pass.failed), (0, None));
                count += 1;
            }
            count
        };
        let ((), count) = tokio::join!(starts, sweeps);
        assert_eq!((instances(&app).len(), app.fake.starts()), (25, 25));
        assert!(count > 1, "{count} sweeps met {} starts", app.fake.starts());
    }

    async fn a_row_whose_instance_is_gone_is_looked_at_now(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        let (other, _) = online(&app, "b").await;
        let lost = app.fake.newest(id(&workspace)).unwrap().key;
        app.fake.lose(lost);
        app.settle().await;
        assert_eq!(app.fake.starts(), 2, "nothing is due, and nobody was told");
        let pass = sweep(&app).await;
        assert_eq!((pass.steps, pass.failed), (0, None), "the reconciler acts, not the sweep");
        app.settle().await;
        assert_eq!(app.fake.starts(), 3, "long before its lease of 30 s");
        let told = app.journal(&workspace).await;
        assert!(told.contains(&"lost".to_owned()), "{told:?}");
        assert!(!app.journal(&other).await.contains(&"lost".to_owned()));
    }

    async fn what_a_backend_cannot_say_of_a_missing_instance_changes_nothing(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        app.fake.lose(app.fake.newest(id(&workspace)).unwrap().key);
        app.fake.plan(once(Fault::Silence, Call::Inspect));
        sweep(&app).await;
        app.settle().await;
        assert_eq!((app.fake.starts(), app.workspace(&workspace).await["status"].clone()), (1, "online".into()));
        sweep(&app).await;
        app.settle().await;
        assert_eq!(app.fake.starts(), 2);
    }

    async fn files_of_a_purged_workspace_are_gone_with_it(app: TestApp) {
        let (workspace, _) = online(&app, "a").await;
        let at = Place { root: Root::Workspace, path: "secret".into() };
        app.fake.write_file(id(&workspace), at.clone(), Bytes::from_static(b"x")).await.unwrap();
        app.delete(&format!("/workspaces/{workspace}?purge=true")).await.ok();
        // A late copy of what was there, put back by somebody.
        app.fake.write_file(id(&workspace), at, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(sweep(&app).await.steps, 1);
        assert!(data(&app).await.is_empty());
    }
}

adjusted! { |config| config.backend = None;
    async fn os_08_without_a_backend_there_is_nothing_to_look_at(app: TestApp) {
        let unknown = leave(&app, stranger(7), 1).await;
        assert_eq!(sweep(&app).await, Pass::default());
        assert_eq!(instances(&app), [unknown]);
    }
}
