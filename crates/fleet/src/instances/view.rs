//! Instances, as callers see them.

use ligand_api::fleet;
use ligand_domain::fleet::State;
use ligand_domain::instance::{Exit, Seen};
use ligand_domain::time::Timestamp;

use super::Instance;

/// As it is written down.
pub(super) fn instance(it: &Instance) -> fleet::Instance {
    let url = it.address.clone().unwrap_or_default();
    let host = reqwest::Url::parse(&url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let waits = it.ended_at.is_none() && it.last_error.is_some() && it.due < Timestamp::NEVER;
    fleet::Instance {
        instance_id: it.id.clone(),
        workspace_id: it.workspace.to_string(),
        generation: it.generation.number(),
        provider: it.provider.clone(),
        state: it.state.as_str().to_owned(),
        url,
        private_ip: host.unwrap_or_default(),
        exit: it.exit.as_ref().map(exit),
        since: it.since.to_string(),
        evidence: it.evidence.clone(),
        error: it.last_error.clone(),
        next_attempt_at: waits.then(|| it.due.to_string()),
    }
}

/// As it is written down, but for what its provider says of it now.
pub(super) fn seen(it: &Instance, seen: &Seen, now: Timestamp) -> fleet::Instance {
    let mut view = instance(it);
    let state = State::of(seen);
    if state != it.state {
        view.since = now.to_string();
    }
    state.as_str().clone_into(&mut view.state);
    match seen {
        Seen::Running => "its provider says that it runs".clone_into(&mut view.evidence),
        Seen::Gone => "its provider does not have it".clone_into(&mut view.evidence),
        Seen::Stopped(how) => {
            view.evidence = how.to_string();
            view.exit = Some(exit(how));
        }
        Seen::Unknown(why) => {
            view.evidence = format!("its provider cannot be asked: {why}");
            view.error = Some(why.clone());
        }
    }
    view
}

fn exit(exit: &Exit) -> fleet::Exit {
    fleet::Exit { code: exit.code, signal: exit.signal, said: exit.said.clone() }
}
