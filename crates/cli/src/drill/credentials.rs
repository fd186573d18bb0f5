//! Drills of what an instance is given to work with.

use std::time::Duration;

use ligand_api::workspace::Create;
use serde_json::Value;

use super::api::Api;
use super::migration;
use super::scene::{Outcome, Scene};
use super::stack::Stack;
use crate::clock;

/// Beats every second: what takes minutes in life takes seconds here.
const QUICK: &str = "heartbeat_seconds = 1\n";
/// How long a healthy start may take.
const STARTS: Duration = Duration::from_secs(30);
/// How long an instance without its secrets is watched.
const WATCHED: Duration = Duration::from_secs(4);
/// The secrets of the workspace; the second is withheld.
const GIVEN: [(&str, &str); 2] =
    [("API_KEY", "a-value-that-nobody-logs"), ("DB_PASSWORD", "another-value-that-nobody-logs")];

/// Settings under which every instance starts without this variable.
fn without(name: &str, program: &str) -> String {
    let words = ["/usr/bin/env", "-u", name, program, "agent"].map(|word| format!("{word:?}"));
    format!("{QUICK}agent = [{}]\n", words.join(", "))
}

async fn seen(api: &Api, id: &str) -> Outcome<(String, String, Value)> {
    let why = api.why(id).await?;
    let evidence = why.workspace.evidence.clone().unwrap_or_default();
    let all = serde_json::to_value(&why).unwrap_or_default();
    Ok((why.workspace.status, evidence, all))
}

pub(super) async fn fleet_credentials(scene: &Scene, stack: &mut Stack) -> Outcome {
    let (name, _) = GIVEN[1];
    let api = stack.serve(&without(name, &stack.program())).await?;
    let secrets = GIVEN.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let body =
        Create { name: "worker".to_owned(), secrets: Some(secrets.collect()), ..Create::default() };
    let id = api.client.create(&body).await?.id.to_string();
    let registered = async || Ok((!api.entries(&id, "registered").await?.is_empty()).then_some(()));
    scene.until("the instance registers", registered).await?;
    scene.step(format!("an instance was started without {name}, and registered"));

    let until = clock::now().after(WATCHED);
    loop {
        let (status, evidence, _) = seen(&api, &id).await?;
        if status == "online" || clock::now() >= until {
            let must = "it does not become online, however often it reports";
            scene.must(must, status != "online", format!("{status}: {evidence}"))?;
            break;
        }
        clock::pause(Duration::from_millis(50)).await;
    }
    let (_, evidence, why) = seen(&api, &id).await?;
    let names = evidence.contains(name) && !evidence.contains(GIVEN[0].0);
    scene.must("`why` names the secret that is missing, and no other", names, evidence)?;
    let next = why["next"].as_str().unwrap_or_default().to_owned();
    scene.must("`why` says when it is replaced", next.contains("replaced at"), next)?;

    stack.kill_server()?;
    let api = stack.serve(QUICK).await?;
    scene.step("whatever withheld it is mended; the workspace is restarted");
    api.client.restart(&id).await?;
    scene
        .must_soon("restarted, it becomes online", STARTS, async || {
            let (settled, why) = api.settled(&id).await?;
            Ok((settled, format!("{} ({})", why.workspace.status, why.next)))
        })
        .await?;
    let (_, _, why) = seen(&api, &id).await?;
    let told = format!("{why}{}", stack.logs());
    let leaks = GIVEN.iter().filter(|(_, value)| told.contains(value)).count();
    scene.must("no value is in a log or in `why`", leaks == 0, format!("{leaks} found"))?;
    migration::secrets_move(scene, stack).await
}
