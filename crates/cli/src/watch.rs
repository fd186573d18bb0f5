//! Waiting until a workspace is online, or at rest.

use std::time::Duration;

use ligand_api::workspace::Workspace;
use ligand_domain::workspace::Status;

use crate::clock;
use crate::error::{self, CommandError, CommandResult};
use crate::output::Progress;
use crate::session::{Named, Session};

const PERIOD: Duration = Duration::from_millis(200);

/// Whether to wait, and for how long.
#[derive(clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until the workspace is online
    #[arg(long)]
    pub(crate) wait: bool,
    /// How many seconds to wait
    #[arg(long, value_name = "SECS", default_value_t = 120, requires = "wait")]
    pub(crate) timeout: u64,
}

/// For how long to wait, where waiting is a matter of course.
#[derive(clap::Args)]
pub(crate) struct Patience {
    /// How many seconds to wait until it has stopped
    #[arg(long, value_name = "SECS", default_value_t = 120)]
    pub(crate) timeout: u64,
}

/// Waits until the workspace has a status.
pub(crate) async fn until(
    session: &Session,
    named: &Named,
    status: Status,
    patience: &Patience,
) -> CommandResult {
    let mut progress = Progress::start();
    let poll = async {
        loop {
            match session.client.workspace(&named.id).await {
                Ok(now) if now.status == status.as_str() => return Ok(()),
                Ok(now) => progress.say(format!("{} is {}", named.name, now.status)),
                Err(error) if error::passes(&error) => progress.say(error.to_string()),
                Err(error) => return Err(error.into()),
            }
            clock::pause(PERIOD).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(patience.timeout), poll).await;
    waited.unwrap_or_else(|_| {
        let text =
            format!("{} is not {} after {} s", named.name, status.as_str(), patience.timeout);
        let hint =
            format!("it is still asked for; `ligand why {}` tells how it stands", named.name);
        Err(CommandError::timed_out(text).hint(hint))
    })
}

/// Waits until the workspace is online: in any generation, or in a later one than it was in `before`.
pub(crate) async fn until_online(
    session: &Session,
    named: &Named,
    before: Option<&Workspace>,
    args: &WaitArgs,
) -> CommandResult {
    let mut seen = None;
    let patience = Duration::from_secs(args.timeout);
    let reached = tokio::time::timeout(patience, poll(session, named, before, &mut seen)).await;
    let error = match reached {
        Ok(Ok(Verdict::Reached)) => return Ok(()),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(_)) => CommandError::timed_out(format!("{} will not come online", named.name)),
        Err(_) => {
            let waited = format!("{} is not online after {} s", named.name, args.timeout);
            CommandError::timed_out(waited)
        }
    };
    Err(error
        .because(cause(session, named, seen).await)
        .hint(format!("`ligand why {}` tells how it came to this", named.name)))
}

/// What a look at the workspace means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Reached,
    Hopeless,
    Pending,
}

fn judge(before: Option<&Workspace>, now: &Workspace) -> Verdict {
    let replaced = before.is_none_or(|before| now.generation > before.generation);
    // A failure from before the request says nothing about it.
    let changed = before.is_none_or(|before| now.since != before.since);
    match Status::parse(&now.status) {
        Some(Status::Online) if replaced => Verdict::Reached,
        Some(Status::Failed) if changed => Verdict::Hopeless,
        Some(Status::Removed) => Verdict::Hopeless,
        _ => Verdict::Pending,
    }
}

async fn poll(
    session: &Session,
    named: &Named,
    before: Option<&Workspace>,
    seen: &mut Option<Workspace>,
) -> CommandResult<Verdict> {
    let mut progress = Progress::start();
    loop {
        match session.client.workspace(&named.id).await {
            Ok(now) => {
                progress.say(format!(
                    "{} is {} (generation {})",
                    named.name, now.status, now.generation
                ));
                let verdict = judge(before, &now);
                *seen = Some(now);
                if verdict != Verdict::Pending {
                    return Ok(verdict);
                }
            }
            // A server that is being replaced comes back; the deadline bounds how long that may take.
            Err(error) if error::passes(&error) => progress.say(error.to_string()),
            Err(error) => return Err(error.into()),
        }
        clock::pause(PERIOD).await;
    }
}

/// Why it is not online: its last error, else the last thing the journal tells, else its evidence.
async fn cause(session: &Session, named: &Named, seen: Option<Workspace>) -> Option<String> {
    let seen = seen?;
    if let Some(error) = seen.last_error.flatten() {
        return Some(error);
    }
    let why = session.client.why(&named.id).await.ok();
    let told = why.and_then(|why| why.journal.last().map(|entry| entry.summary.clone()));
    told.or(seen.evidence).or_else(|| Some(format!("it is {}", seen.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(status: &str, generation: i64, since: &str) -> Workspace {
        let (status, since) = (status.to_owned(), since.to_owned());
        Workspace { status, generation, since, ..Workspace::default() }
    }

    #[test]
    fn a_new_workspace_is_awaited_in_any_generation() {
        let judge = |status| judge(None, &workspace(status, 1, "t1"));
        assert_eq!(judge("provisioning"), Verdict::Pending);
        assert_eq!(judge("online"), Verdict::Reached);
        assert_eq!(judge("failed"), Verdict::Hopeless);
        assert_eq!(judge("removed"), Verdict::Hopeless);
        assert_eq!(judge("a status of the future"), Verdict::Pending);
    }

    #[test]
    fn a_restart_is_awaited_in_the_next_generation() {
        let before = workspace("failed", 3, "t1");
        let judge =
            |status, generation, since| judge(Some(&before), &workspace(status, generation, since));
        assert_eq!(judge("online", 3, "t0"), Verdict::Pending);
        assert_eq!(judge("online", 4, "t2"), Verdict::Reached);
        assert_eq!(judge("failed", 3, "t1"), Verdict::Pending, "the old failure");
        assert_eq!(judge("failed", 3, "t2"), Verdict::Hopeless, "a new one");
    }
}
