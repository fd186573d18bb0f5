//! `ligand ws`: workspaces.

mod create;
mod delete;
mod files;
mod follow;
mod get;
mod list;
mod logs;
mod restart;
pub(crate) mod send;
mod shell;
mod start;
mod stop;

use crate::error::CommandResult;

/// Create, look at, talk to and end workspaces
#[derive(clap::Args)]
pub(crate) struct WsArgs {
    #[command(subcommand)]
    pub(crate) verb: WsVerb,
}

#[derive(clap::Subcommand)]
pub(crate) enum WsVerb {
    Create(Box<create::CreateArgs>),
    List(list::ListArgs),
    Get(get::GetArgs),
    Send(send::SendArgs),
    Restart(restart::RestartArgs),
    Recover(start::RecoverArgs),
    Pause(stop::PauseArgs),
    Resume(start::ResumeArgs),
    Hibernate(stop::HibernateArgs),
    Wake(start::WakeArgs),
    Delete(delete::DeleteArgs),
    Logs(logs::LogsArgs),
    Files(files::FilesArgs),
    Shell(shell::ShellArgs),
}

/// `ligand ws …`.
pub(crate) async fn run(verb: WsVerb) -> CommandResult {
    match verb {
        WsVerb::Create(args) => create::run(*args).await,
        WsVerb::List(args) => list::run(args).await,
        WsVerb::Get(args) => get::run(args).await,
        WsVerb::Send(args) => send::run(args).await,
        WsVerb::Restart(args) => restart::run(args).await,
        WsVerb::Recover(args) => start::recover(args).await,
        WsVerb::Pause(args) => stop::pause(args).await,
        WsVerb::Resume(args) => start::resume(args).await,
        WsVerb::Hibernate(args) => stop::hibernate(args).await,
        WsVerb::Wake(args) => start::wake(args).await,
        WsVerb::Delete(args) => delete::run(args).await,
        WsVerb::Logs(args) => logs::run(args).await,
        WsVerb::Files(args) => files::run(args).await,
        WsVerb::Shell(args) => shell::run(args).await,
    }
}
