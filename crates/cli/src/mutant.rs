//! A build that lacks one rule, to see that something notices. In no release.

use ligand_agent::guards::Guard as AgentGuard;
use ligand_domain::guards::{Guard, Guards};
use ligand_server::config::Config;

use crate::env;
use crate::error::{CommandError, CommandResult};
use crate::output;

/// Names the rule that is switched off.
pub(crate) const VARIABLE: &str = "LIGAND_MUTANT";

/// Switch off what the environment names: a rule of the platform here, one of the agent in every instance.
pub(crate) fn switch_off(config: &mut Config) -> CommandResult {
    let Some(name) = env::var(VARIABLE) else { return Ok(()) };
    if let Some(guard) = Guard::parse(&name) {
        config.guards = Guards::without(guard);
    } else if AgentGuard::parse(&name).is_some() {
        // Instances inherit nothing; their command says it.
        let agent = std::mem::take(&mut config.agent);
        config.agent =
            ["env".to_owned(), format!("{VARIABLE}={name}")].into_iter().chain(agent).collect();
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
