//! Every verb, and where each goes.

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::error::{CommandError, CommandResult};
use crate::{
    completions, config_show, doctor, drain, drill, error, events, messages, migrate, openapi,
    provider, scaletest, secret, serve, up, why, ws,
};

/// Control plane for fleets of long-lived AI agents
#[derive(Parser)]
#[command(name = "ligand", version, max_term_width = 100, after_help = error::EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Up(up::UpArgs),
    Serve(serve::ServeArgs),
    /// Run beside an agent: register it, report for it, keep it alive
    ///
    /// Without a command it runs a built-in agent that echoes what it is told.
    #[command(after_help = ligand_agent::config::ENVIRONMENT)]
    Agent(ligand_agent::config::Args),
    Ws(ws::WsArgs),
    Secret(secret::SecretArgs),
    Messages(messages::MessagesArgs),
    Why(why::WhyArgs),
    Migrate(migrate::MigrateArgs),
    Drain(drain::DrainArgs),
    Events(events::EventsArgs),
    Doctor(doctor::DoctorArgs),
    Drill(drill::DrillArgs),
    Provider(provider::ProviderArgs),
    Scaletest(scaletest::ScaletestArgs),
    #[command(hide = true)]
    ScaletestBare,
    Config(config_show::ConfigArgs),
    Completions(completions::CompletionsArgs),
    Openapi(openapi::OpenapiArgs),
}

/// Carries a verb out. Servers and agents bring their own runtime; client verbs share a small one.
pub(crate) fn run(verb: Verb) -> CommandResult<ExitCode> {
    let done = match verb {
        // It has exit codes of its own: those of the program that it runs.
        Verb::Agent(args) => return Ok(ligand_agent::main(args)),
        Verb::Up(args) => up::up(args),
        Verb::Serve(args) => serve::serve(args),
        Verb::Ws(args) => client(ws::run(args.verb)),
        Verb::Secret(args) => client(secret::run(args.verb)),
        Verb::Messages(args) => client(messages::run(args.verb)),
        Verb::Why(args) => client(why::run(args)),
        Verb::Migrate(args) => client(migrate::run(args)),
        Verb::Drain(args) => client(drain::run(args)),
        Verb::Events(args) => client(events::run(args)),
        Verb::Doctor(args) => client(doctor::run(args)),
        Verb::Drill(args) => drill::drill(args),
        Verb::Provider(args) => provider::run(args),
        Verb::Scaletest(args) => client(scaletest::run(args)),
        Verb::ScaletestBare => scaletest::bare(),
        Verb::Config(args) => config_show::config(args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Openapi(args) => client(openapi::run(args)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs a client verb: one thread is plenty for one connection.
pub(crate) fn client(verb: impl Future<Output = CommandResult>) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(CommandError::internal)?;
    // On the heap: the future of the largest verb would otherwise pass through several frames by value.
    runtime.block_on(Box::pin(verb))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
