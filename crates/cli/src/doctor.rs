//! `ligand doctor`: what stands between an operator and a working fleet.

mod check;
mod machine;
mod server;

use ligand_api::client::Client;
use serde_json::json;

use crate::env::{self, Env};
use crate::error::{CommandError, CommandResult};
use crate::target::{self, ClientArgs, Target};
use crate::{clock, text};
use check::{Check, Level};

/// Check this machine, the server, and its workspaces
///
/// Every line is `ok`, `warn` or `fail`. Exits with 1 when any is `fail`.
#[derive(clap::Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand doctor`.
pub(crate) async fn run(args: DoctorArgs) -> CommandResult {
    let format = args.client.output;
    let env = Env::capture();
    let mut checks = Vec::new();
    match target::find(&args.client, &env) {
        Ok(target) => {
            checks.extend(known(&target));
            let client = Client::new(&target.server, target.token.map(|(token, _)| token))?;
            let client = client.of(target.organisation);
            checks.extend(examine(&client).await);
        }
        Err(error) => checks.push(check::refused("server", &error)),
    }
    checks.extend(machine::checks(env.state_dir.as_deref()));
    let dash = if env::utf8() { "—" } else { "-" };
    format.answer(&json!({ "checks": checks }), || report(&checks, dash))?;
    match checks.iter().filter(|check| check.level == Level::Fail).count() {
        0 => Ok(()),
        1 => Err(CommandError::failed("1 check failed")),
        several => Err(CommandError::failed(format!("{several} checks failed"))),
    }
}

/// Which server is meant, and with which token; never what the token is.
fn known(target: &Target) -> Vec<Check> {
    let server = format!("{} (from {})", target.server, target.server_from);
    let token = match (&target.token, &target.trouble) {
        (Some((_, from)), _) => Check::ok("token", format!("found in {from}")),
        (None, Some(trouble)) => Check::warn("token", trouble)
            .hint("run this as the user whose server it is, or set LIGAND_TOKEN"),
        (None, None) => Check::warn("token", "none given").hint("set LIGAND_TOKEN"),
    };
    vec![Check::ok("server", server), token]
}

/// Asks the server; once it does not answer, the rest would only say so again.
async fn examine(client: &Client) -> Vec<Check> {
    let health = match client.health().await {
        Ok(health) => health,
        Err(error) => return vec![check::refused("reachable", &error.into())],
    };
    let mut checks = server::health(&health);
    let workspaces = match client.list().await {
        Ok(workspaces) => workspaces,
        Err(error) => {
            checks.push(check::refused("access", &error.into()));
            return checks;
        }
    };
    checks.push(Check::ok("access", "the server accepts us"));
    let now = clock::now();
    match client.liveness().await {
        Ok(liveness) => {
            checks.extend(server::auth(&liveness));
            checks.extend(server::secrets(&liveness));
            checks.extend(server::reconcilers(&liveness, now));
            checks.extend(server::backends(&liveness));
        }
        Err(error) => checks.push(check::refused("reconcilers", &error.into())),
    }
    checks.extend(server::workspaces(&workspaces, now));
    checks
}

fn report(checks: &[Check], dash: &str) -> String {
    let line = |check: &Check| {
        let level = check.level.as_str();
        let (what, detail) = (text::plain(&check.what), text::plain(&check.detail));
        let hint = check.hint.as_deref().map(text::plain);
        let hint = hint.map(|hint| format!("      hint: {hint}\n")).unwrap_or_default();
        format!("{level:4}  {what} {dash} {detail}\n{hint}")
    };
    checks.iter().map(line).collect()
}
