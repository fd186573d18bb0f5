//! `ligand provider check`.

use std::path::PathBuf;
use std::time::Duration;

use ligand_kit::remote::Remote;
use ligand_kit::{Name, Scenario, Verdict};
use ligand_server::app::Ids;
use ligand_server::backend::provider::{Address, Provider};
use ligand_server::backend::{Backend as _, BackendError, ErrorKind, Pushes};
use serde::Serialize;

use super::read;
use crate::error::{CommandError, CommandResult, Kind};
use crate::output::{self, Format, Progress};
use crate::serve::Stop;
use crate::{env, text};

/// Holds the token, where no flag does.
const TOKEN: &str = "LIGAND_PROVIDER_TOKEN";

/// Run the conformance kit against a provider
///
/// Prints every scenario with its verdict. What the provider does not claim to be able to is not applicable, and so is
/// what takes somebody on its machine. Exits with 0 only if nothing failed. It works on workspaces that it makes up,
/// and takes them away again; others are not touched.
#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// Where the provider answers: https://HOST/PATH, or http:// on this machine
    #[arg(value_name = "URL")]
    url: String,
    /// The provider's token; better in a file, or in LIGAND_PROVIDER_TOKEN
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// The file that holds it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Only this scenario, or those of this group; can be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How long a scenario may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// How to print it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// What a scenario came to, for programs.
#[derive(Serialize)]
struct Line {
    group: &'static str,
    name: &'static str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// All of it.
#[derive(Serialize)]
struct Report {
    url: String,
    says: String,
    passed: usize,
    failed: usize,
    not_applicable: usize,
    scenarios: Vec<Line>,
}

/// `ligand provider check`.
pub(super) async fn run(args: CheckArgs) -> CommandResult {
    let chosen = chosen(&args.only)?;
    let at = address(&args)?;
    let asked = Provider::new(at.clone(), Pushes::channel().0);
    let says = asked.map_err(refused)?.fingerprint().await.map_err(refused)?;
    let ids = Ids::from_os().map_err(|cause| CommandError::internal(cause.into()))?;
    let owner = u64::from_le_bytes(ids.bytes());
    let (patience, mut progress) = (Duration::from_secs(args.patience.max(1)), Progress::start());
    let (mut stop, mut stopped) = (Stop::listen()?, false);
    let mut lines = Vec::new();
    for (at_work, scenario) in chosen.iter().enumerate() {
        progress.say(format!("{}/{} {}", at_work + 1, chosen.len(), scenario.name));
        let ground = Box::new(Remote::new(at.clone(), Name::of(owner), patience));
        let running = ligand_kit::run(ground, scenario);
        tokio::pin!(running);
        let verdict = loop {
            tokio::select! {
                verdict = &mut running => break verdict,
                // What it started is ended first.
                () = stop.asked(), if !stopped => stopped = true,
            }
        };
        lines.push(line(scenario, verdict));
        if stopped {
            break;
        }
    }
    drop(progress);
    let report = report(at.url().to_owned(), says, lines);
    args.output.answer(&report, || table(&report))?;
    let Report { passed, failed, not_applicable, .. } = report;
    output::note(&format!("{passed} passed, {failed} failed, {not_applicable} not applicable"));
    match failed {
        0 if stopped => Err(CommandError::failed("ended by a signal before the last scenario")),
        0 => Ok(()),
        1 => Err(CommandError::failed("1 scenario failed")),
        several => Err(CommandError::failed(format!("{several} scenarios failed"))),
    }
}

fn chosen(only: &[String]) -> CommandResult<Vec<&'static Scenario>> {
    let all = || ligand_kit::DOOR.iter().chain(ligand_kit::SCENARIOS);
    let meant = |name: &String, it: &Scenario| it.name == name || it.group == name;
    if let Some(unknown) = only.iter().find(|name| !all().any(|it| meant(name, it))) {
        let mut groups: Vec<&str> = all().map(|it| it.group).collect();
        groups.dedup();
        return Err(CommandError::usage(format!(
            "--only: there is no scenario or group `{unknown}`"
        ))
        .hint(format!("groups: {}", groups.join(", "))));
    }
    Ok(all().filter(|it| only.is_empty() || only.iter().any(|name| meant(name, it))).collect())
}

fn address(args: &CheckArgs) -> CommandResult<Address> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => read(path)?,
        (None, None) => env::var(TOKEN).ok_or_else(|| {
            CommandError::usage("no token: expected --token-file, --token or LIGAND_PROVIDER_TOKEN")
        })?,
    };
    Address::new(&args.url, &token).map_err(CommandError::usage)
}

fn refused(cause: BackendError) -> CommandError {
    let (denied, what) = (cause.what.contains("accept the token"), cause.chain());
    let kind = match cause.kind {
        ErrorKind::Transient => Kind::Unreachable,
        _ if denied => Kind::Denied,
        _ => Kind::Failed,
    };
    CommandError::new(kind, anyhow::anyhow!("{what}"))
}

fn line(scenario: &Scenario, verdict: Verdict) -> Line {
    let (verdict, reason) = match verdict {
        Verdict::Held => ("pass", None),
        Verdict::Failed(why) => ("fail", Some(why)),
        Verdict::NotApplicable(why) => ("not applicable", Some(why)),
    };
    Line { group: scenario.group, name: scenario.name, verdict, reason }
}

fn report(url: String, says: String, scenarios: Vec<Line>) -> Report {
    let count = |verdict: &str| scenarios.iter().filter(|line| line.verdict == verdict).count();
    Report {
        passed: count("pass"),
        failed: count("fail"),
        not_applicable: count("not applicable"),
        url,
        says,
        scenarios,
    }
}

fn table(report: &Report) -> String {
    let rows = report.scenarios.iter().map(|line| {
        let reason = line.reason.clone().unwrap_or_default();
        vec![line.group.to_owned(), line.name.to_owned(), line.verdict.to_owned(), reason]
    });
    text::table(&["GROUP", "SCENARIO", "VERDICT", "REASON"], rows)
}
