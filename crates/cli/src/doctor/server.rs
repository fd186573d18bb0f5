//! What the server's own answers say about it.

use std::time::Duration;

use ligand_api::operator::{Backend, Health, Liveness, Reconciler};
use ligand_api::workspace::Workspace;
use ligand_domain::time::Timestamp;
use ligand_domain::workspace::Status;

use super::check::Check;
use crate::text;

/// A reconciler that has not passed for so long, or failed within it, deserves a look.
const QUIET: Duration = Duration::from_secs(5 * 60);
/// Workspaces told one by one; the rest is a number.
const TOLD: usize = 10;

/// Reachable, of our version, with a database.
pub(crate) fn health(health: &Health) -> Vec<Check> {
    let ours = env!("CARGO_PKG_VERSION");
    let version = if health.version == ours {
        Check::ok("version", ours)
    } else {
        Check::warn("version", format!("the server is {}, this is {ours}", health.version))
            .hint("run the same version on both sides")
    };
    let database = if health.database == "ok" {
        Check::ok("database", "ok")
    } else {
        Check::fail("database", &health.database).hint("the server's log tells what it misses")
    };
    let reachable = format!("{}, up for {} s", health.status, health.uptime);
    vec![Check::ok("reachable", reachable), version, database]
}

/// A server that lets callers pass without a credential says so.
pub(crate) fn auth(liveness: &Liveness) -> Option<Check> {
    let compat = liveness.auth == "compat";
    compat.then(|| {
        let open = "compat: callers pass without a credential where the contract lets them";
        Check::warn("auth", open)
            .hint("start the server without --auth compat once the fleet has moved")
    })
}

/// Secrets that whoever reads the database can read, or a copy of it.
pub(crate) fn secrets(liveness: &Liveness) -> Option<Check> {
    let plain = liveness.secrets_plain;
    let stored = match plain {
        ..=0 => return None,
        1 => "1 is stored in plain text".to_owned(),
        _ => format!("{plain} are stored in plain text"),
    };
    let mend = match liveness.secrets_key {
        true => "ligand secret rotate",
        false => {
            "set SECRETS_ENCRYPTION_KEY, start the servers again, then run `ligand secret rotate`"
        }
    };
    Some(Check::warn("secrets", stored).hint(mend))
}

/// Reconcilers that pass, and pass well.
pub(crate) fn reconcilers(liveness: &Liveness, now: Timestamp) -> Vec<Check> {
    let stalled = liveness.status == "stalled";
    let troubled = liveness.reconcilers.iter().filter_map(|(name, reconciler)| {
        let trouble = trouble(reconciler, now)?;
        Some(
            Check::warn(format!("reconciler {name}"), trouble)
                .hint("it tries again by itself; the server's log tells more"),
        )
    });
    let mut checks: Vec<Check> = troubled.collect();
    if stalled {
        checks.insert(
            0,
            Check::fail("reconcilers", "the server says that one is stalled")
                .hint("the server's log tells where it hangs"),
        );
    }
    if checks.is_empty() {
        let count = liveness.reconcilers.len();
        checks.push(Check::ok("reconcilers", format!("{count} passing")));
    }
    checks
}

/// What runs instances: whether it can, and what there is to know about it.
pub(crate) fn backends(liveness: &Liveness) -> Vec<Check> {
    let check = |(name, backend): (&String, &Backend)| match backend.usable {
        true if backend.says.contains("one trust domain") => {
            Check::warn(format!("backend {name}"), &backend.says)
                .hint("run the server as root: then every workspace is a user of its own")
        }
        true => Check::ok(format!("backend {name}"), &backend.says),
        false => Check::fail(format!("backend {name}"), &backend.says)
            .hint("nothing can be started there until that is mended"),
    };
    liveness.backends.iter().map(check).collect()
}

fn trouble(reconciler: &Reconciler, now: Timestamp) -> Option<String> {
    // What failed a while ago and was tried again since is history.
    let recent = |at: &str| Timestamp::parse(at).is_none_or(|at| now.since(at) <= QUIET);
    let news = reconciler.last_error_at.as_deref().is_none_or(recent);
    if let Some(error) = reconciler.last_error.as_ref().filter(|_| news) {
        return Some(error.clone());
    }
    let Some(passed) = &reconciler.last_pass_at else {
        return Some("has not passed since the server started".to_owned());
    };
    let every = Duration::from_secs(reconciler.every_seconds.unwrap_or_default());
    let patience = QUIET.saturating_add(every);
    let quiet = Timestamp::parse(passed).is_none_or(|at| now.since(at) > patience);
    quiet.then(|| format!("passed last {} ago", text::age(passed, now)))
}

/// Workspaces that should be online and are not, each with its cause.
pub(crate) fn workspaces(all: &[Workspace], now: Timestamp) -> Vec<Check> {
    let wanting: Vec<&Workspace> = all.iter().filter(|workspace| wanting(workspace)).collect();
    if wanting.is_empty() {
        return vec![Check::ok("workspaces", format!("{}, all as they should be", all.len()))];
    }
    let told = wanting.iter().take(TOLD).map(|workspace| {
        let note = text::standing(workspace, now);
        let age = text::age(&workspace.since, now);
        let detail = format!("{} for {age}: {note}", workspace.status);
        Check::warn(format!("workspace {}", workspace.name), detail)
            .hint(format!("ligand why {}", workspace.name))
    });
    let mut checks: Vec<Check> = told.collect();
    if wanting.len() > TOLD {
        let rest = wanting.len() - TOLD;
        let check = Check::warn("workspaces", format!("{rest} more are not online"));
        checks.push(check.hint("ligand ws list"));
    }
    checks
}

/// Not online, though nobody asked for that.
fn wanting(workspace: &Workspace) -> bool {
    match Status::parse(&workspace.status) {
        Some(Status::Online | Status::Removed | Status::Paused) => false,
        Some(Status::Hibernated | Status::Hibernating) => false,
        Some(
            Status::Provisioning
            | Status::Degraded
            | Status::Offline
            | Status::Failed
            | Status::AwaitingAgent,
        )
        | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Level;
    use super::*;

    fn levels(checks: &[Check]) -> Vec<(&str, Level)> {
        checks.iter().map(|check| (check.what.as_str(), check.level)).collect()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_server_without_its_database_fails() {
        let well = Health {
            status: "ok".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            database: "ok".into(),
            uptime: 1,
        };
        assert!(health(&well).iter().all(|check| check.level == Level::Ok));
        let ill = Health { version: "9.9.9".into(), database: "unavailable".into(), ..well };
        assert_eq!(
            levels(&health(&ill)),
            [("reachable", Level::Ok), ("version", Level::Warn), ("database", Level::Fail)]
        );
    }

    #[test]
    fn reconcilers_are_told_when_quiet_failing_or_stalled() {
        let passing = Reconciler {
            last_pass_at: Some("2026-01-01T00:00:00Z".into()),
            ..Reconciler::default()
        };
        let failing = Reconciler { last_error: Some("no disk".into()), ..passing.clone() };
        let mut liveness = Liveness { status: "ok".into(), ..Liveness::default() };
        liveness.reconcilers = [("a".to_owned(), passing), ("b".to_owned(), failing)].into();
        let soon = reconcilers(&liveness, at("2026-01-01T00:00:10Z"));
        assert_eq!(levels(&soon), [("reconciler b", Level::Warn)]);
        let late = reconcilers(&liveness, at("2026-01-01T01:00:00Z"));
        assert_eq!(late[0].detail, "passed last 1h ago");
        liveness.status = "stalled".into();
        let stalled = reconcilers(&liveness, at("2026-01-01T00:00:10Z"));
        assert_eq!(levels(&stalled)[0], ("reconcilers", Level::Fail));
        liveness = Liveness::default();
        liveness.reconcilers.insert("a".to_owned(), Reconciler::default());
        assert_eq!(levels(&reconcilers(&liveness, at("2026-01-01T00:00:10Z"))).len(), 1);
    }

    #[test]
    fn secrets_in_plain_text_are_told_with_what_mends_it() {
        let mut liveness = Liveness::default();
        assert_eq!(secrets(&liveness), None);
        liveness.secrets_plain = 2;
        let told = secrets(&liveness).unwrap();
        assert_eq!((told.level, told.detail.as_str()), (Level::Warn, "2 are stored in plain text"));
        assert!(told.hint.unwrap().contains("SECRETS_ENCRYPTION_KEY"));
        liveness.secrets_key = true;
        assert_eq!(secrets(&liveness).unwrap().hint.unwrap(), "ligand secret rotate");
    }

    #[test]
    fn workspaces_that_rest_are_not_wanting() {
        let workspace = |status: &str| Workspace { status: status.into(), ..Workspace::default() };
        let resting = ["online", "paused", "hibernated", "hibernating", "removed"].map(workspace);
        assert_eq!(levels(&workspaces(&resting, Timestamp::EPOCH)), [("workspaces", Level::Ok)]);
        let many = vec![workspace("failed"); TOLD + 2];
        let told = workspaces(&many, Timestamp::EPOCH);
        assert_eq!(told.len(), TOLD + 1);
        assert_eq!(told[TOLD].detail, "2 more are not online");
    }
}
