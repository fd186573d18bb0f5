//! What a migration comes to without one of its rules: proof that each of them holds something up.
#![cfg(feature = "mutants")]

use ligand_domain::guards::{Guard, Guards};
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::modes::adjusted;
use crate::support::standby::{broken, completed, pass, placed};

adjusted! {
    |config| config.guards = Guards::without(Guard::CutOverEvidence);

    async fn without_evidence_a_target_that_completes_no_turn_becomes_the_workspace(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", broken).await;
        it.ask(&app).await;
        it.done(&app).await;
        assert_eq!(app.workspace(&it.id).await["backend"], "other");
    }
}

adjusted! {
    |config| config.guards = Guards::without(Guard::CutOverRereads);

    async fn without_another_look_a_target_whose_credential_is_dead_becomes_the_workspace(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.ask(&app).await;
        it.until(&app, "cut-over").await;
        app.ask(&format!("/admin/workspaces/{}/revoke-auth-tokens", it.id)).await.ok();
        it.done(&app).await;
        assert_eq!(app.workspace(&it.id).await["backend"], "other");
        let target = it.target.as_ref().unwrap();
        assert_eq!(target.agent.beat(&app).await.status, 401);
    }
}

adjusted! {
    |config| config.guards = Guards::without(Guard::RollBackRevokes);

    async fn without_an_end_of_its_passport_the_target_of_a_roll_back_becomes_the_workspace(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        it.started(&app, 2).await;
        it.can(&app, "abort").await.ok();
        pass(&app).await;
        let target = it.target.as_mut().unwrap();
        target.step(&app).await;
        assert!(target.agent.token.is_some());
        assert_eq!(app.workspace(&it.id).await["generation"], 2);
    }
}

adjusted! {
    |config| config.guards = Guards::without(Guard::Receipt);

    async fn without_a_receipt_a_target_that_lacks_a_secret_becomes_the_workspace(app: TestApp) {
        let app = app.with_other();
        let (mut it, _) = placed(&app, "a", completed).await;
        let body = json!({"key": "API_KEY", "value": "one"});
        app.post(&format!("/workspaces/{}/secrets", it.id), body).await.ok();
        app.settle().await;
        it.source.agent = Agent::of(&app, &it.id);
        let features = json!({"ligand": {"version": "1", "features": ["paced", "standby"]}});
        it.source.agent.register_with(&app, features, &[]).await.ok();
        app.settle().await;
        it.withheld = Some("API_KEY");
        it.ask(&app).await;
        it.done(&app).await;
        assert_eq!(app.workspace(&it.id).await["backend"], "other");
    }
}
