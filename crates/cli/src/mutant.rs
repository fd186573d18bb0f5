//! A build that lacks one rule, to see that something notices. In no release.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ligand_agent::guards::Guard as AgentGuard;
use ligand_domain::guards::{Guard, Guards};
use ligand_server::config::Config;
use ligand_server::journal::Hub;
use rustix::process::{Signal, getpid, kill_process};

use crate::env;
use crate::error::{CommandError, CommandResult};
use crate::output;

/// Names the rule that is switched off.
pub(crate) const VARIABLE: &str = "LIGAND_MUTANT";

/// Names the file in which a number stands: after the commit of so many more decisions the server ends.
pub(crate) const CRASH: &str = "LIGAND_MUTANT_CRASH";

/// End this process as `kill -9` would, at the instant that the file says. Without a file nothing happens: it is
/// there only while a drill is about to strike.
pub(crate) fn crash_when_told(hub: &Hub) {
    let Some(path) = env::var(CRASH).map(PathBuf::from) else { return };
    // One at a time: each counts down what the one before it left.
    let turn = Mutex::new(());
    hub.after_commit(Box::new(move |decisions| {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let said = std::fs::read_to_string(&path).ok();
        let Some(left) = said.and_then(|text| text.trim().parse::<usize>().ok()) else { return };
        if left > decisions {
            let _ = std::fs::write(&path, (left - decisions).to_string());
            return;
        }
        // Whoever takes the file away decides: the drill may have called it off.
        if std::fs::remove_file(&path).is_ok() {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }));
}

/// The same for who runs instances and is no platform: only a rule of the agent concerns it.
pub(crate) fn of_agents(agent: &mut Vec<String>) {
    if let Some(name) = env::var(VARIABLE).filter(|name| AgentGuard::parse(name).is_some()) {
        without(&name, agent);
    }
}

/// Instances inherit nothing; their command says it.
fn without(name: &str, agent: &mut Vec<String>) {
    let words = std::mem::take(agent);
    *agent = ["env".to_owned(), format!("{VARIABLE}={name}")].into_iter().chain(words).collect();
}

/// Switch off what the environment names: a rule of the platform here, one of the agent in every instance.
pub(crate) fn switch_off(config: &mut Config) -> CommandResult {
    let Some(name) = env::var(VARIABLE) else { return Ok(()) };
    if let Some(guard) = Guard::parse(&name) {
        config.guards = Guards::without(guard);
    } else if AgentGuard::parse(&name).is_some() {
        without(&name, &mut config.agent);
    } else {
        let platform = Guard::ALL.map(Guard::as_str).join(", ");
        let agent = AgentGuard::ALL.map(AgentGuard::as_str).join(", ");
        return Err(CommandError::usage(format!("{VARIABLE}: there is no rule `{name}`"))
            .hint(format!("of the platform: {platform}"))
            .hint(format!("of the agent: {agent}")));
    }
    output::note(&format!("warning: this is a mutant: the rule {name} is switched off"));
    Ok(())
}
