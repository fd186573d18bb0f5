//! `ligand config`: the settings a server would run with.

use clap::{Args, Subcommand};
use ligand_server::config;
use serde::Serialize;

use crate::error::CommandResult;
use crate::output::Format;
use crate::serve::{ENVIRONMENT, ServerArgs, misconfigured};
use crate::text;

/// Look at the settings of a server
#[derive(Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Subcommand)]
enum ConfigVerb {
    Show(ConfigShowArgs),
}

/// Show every setting, its value, and where that comes from
#[derive(Args)]
#[command(after_help = ENVIRONMENT)]
struct ConfigShowArgs {
    /// How to print the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    // Last: its heading is that of all that follows.
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    value: String,
    origin: String,
}

/// `ligand config …`.
pub(crate) fn config(args: ConfigArgs) -> CommandResult {
    let ConfigVerb::Show(args) = args.verb;
    let shown = config::load(&args.server.flags()).map_err(misconfigured)?.shown;
    let rows: Vec<Row> = shown
        .into_iter()
        .map(|shown| Row { name: shown.name, value: shown.value, origin: shown.origin.to_string() })
        .collect();
    args.output.answer(&rows, || {
        let cells =
            rows.iter().map(|row| vec![row.name.to_owned(), row.value.clone(), row.origin.clone()]);
        text::table(&["SETTING", "VALUE", "FROM"], cells)
    })
}
