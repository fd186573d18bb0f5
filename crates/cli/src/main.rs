//! The one binary people install.
//!
//! Every verb has a file; its doc comment is its help. A verb asks the server through the typed client,
//! turns the answer into text with a pure function, and hands both to [`output`], which alone writes to the
//! terminal: stdout is data, stderr is talk.
//!
//! | file | what |
//! | --- | --- |
//! | [`args`] | all verbs, and where each goes |
//! | [`target`], [`session`] | which server, with which token; the connection and what `WS` means |
//! | [`error`] | exit codes, causes, hints |
//! | [`output`], [`text`] | the terminal; pure formatting |
//! | [`watch`] | waiting for a workspace |
//! | [`env`], [`clock`] | the only doors to the environment and to time |
//! | [`labels`] | processes of instances |
//! | [`local`] | how a server on this machine is found |
//! | [`tap`] | watching at next to no cost |
//! | [`migrate`], [`drain`] | moving workspaces, with pictures of how it goes |
//! | [`caller`] | sending turns, and counting them |
//! | [`fleet`] | the fleet's server |
//! | [`drill`] | incidents, re-enacted |
//! | [`provider`] | the protocol of providers, from either side |

mod args;
mod caller;
mod clock;
mod completions;
mod config_show;
mod doctor;
mod drain;
mod drill;
mod env;
mod error;
mod events;
mod fleet;
mod labels;
mod local;
mod messages;
mod migrate;
#[cfg(feature = "mutants")]
mod mutant;
mod openapi;
mod output;
mod provider;
mod scaletest;
mod secret;
mod serve;
mod session;
mod tap;
mod target;
mod text;
mod up;
mod watch;
mod why;
mod ws;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match args::run(cli.verb) {
        Ok(code) => code,
        Err(error) => {
            output::failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
