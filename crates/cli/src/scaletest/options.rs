//! What is measured, how much of it, and for how long.

use std::time::Duration;

use clap::ValueEnum;

use crate::output::Format;
use crate::target::ClientArgs;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Heartbeats a second on PostgreSQL, beside six statements each
    HeartbeatsPostgres,
    /// Heartbeats a second on SQLite, beside a handler that only reads them
    HeartbeatsSqlite,
    /// Heartbeats that are accepted after a revocation was confirmed
    Revocation,
    /// Registers that mint a second, beside raw transactions
    Registrations,
    /// What an idle workspace weighs
    Memory,
    /// What the heartbeats of many agents cost, and the highest pace that one core holds
    Hold,
    /// How soon all agents are healthy after the server was killed
    Reconnect,
    /// From the heartbeat that announces a rotation to the first one on the new credential
    Rotation,
    /// Two replicas, revocations, and one replica killed under load
    Chaos,
    /// From `kill -9` of an instance until its workspace is online again
    Kills,
    /// How long no turn is served while a workspace goes from one backend to another
    Migrations,
    /// A look at many workspaces of which none needs anything
    Passes,
    /// Messages a second that are accepted without waiting, beside rows inserted one by one
    Enqueue,
    /// What the way through the server adds to a turn
    Proxy,
    /// How soon events reach many watchers of one stream, and whether all do
    Watch,
}

impl Scenario {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HeartbeatsPostgres => "heartbeats-postgres",
            Self::HeartbeatsSqlite => "heartbeats-sqlite",
            Self::Revocation => "revocation",
            Self::Registrations => "registrations",
            Self::Memory => "memory",
            Self::Hold => "hold",
            Self::Reconnect => "reconnect",
            Self::Rotation => "rotation",
            Self::Chaos => "chaos",
            Self::Kills => "kills",
            Self::Migrations => "migrations",
            Self::Passes => "passes",
            Self::Enqueue => "enqueue",
            Self::Proxy => "proxy",
            Self::Watch => "watch",
        }
    }
}

/// Measure how much a server takes on this machine
///
/// Starts servers of its own on scratch data, lets simulated agents call them over loopback, and prints each
/// figure beside a baseline of the same run. Whatever it started it ends, and it removes the scratch data.
/// Exits with 1 when a count that must be zero is not; what is merely slow is shown, and is no failure.
#[derive(clap::Args)]
pub(crate) struct ScaletestArgs {
    /// What to measure, several with commas [default: all]
    #[arg(long = "scenario", value_enum, value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Seconds instead of minutes, for trying it: no figure is judged, only counts that must be zero
    #[arg(long)]
    short: bool,
    /// Workspaces of each scenario [default: what the scenario is about]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    workspaces: Option<u32>,
    /// Connections of each scenario [default: what the scenario is about]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8_000))]
    connections: Option<u32>,
    /// How long each load lasts [default: what the scenario is about]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// postgres://…; a scratch schema is made there, and removed. Without it SQLite alone is measured
    #[arg(long, value_name = "URL")]
    pub(super) database_url: Option<String>,
    /// The socket of a Docker engine with the agent's image: `kills` measures its containers too
    #[arg(long, value_name = "PATH")]
    pub(super) docker_socket: Option<String>,
    /// Load this server, which runs already, with heartbeats, and measure nothing else. It must be on this machine
    #[arg(long, value_name = "URL", conflicts_with_all = ["scenarios", "database_url"])]
    server: Option<String>,
    /// What to prove yourself with there [env: LIGAND_TOKEN]
    #[arg(long, value_name = "TOKEN", requires = "server")]
    token: Option<String>,
    /// Load it even if it is not on this machine
    #[arg(long, requires = "server")]
    pub(super) yes_load_this_server: bool,
    /// How to print the figures
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(super) output: Format,
}

/// How much, for one scenario: in full, and in the short form.
pub(super) struct Size {
    /// Workspaces.
    pub(super) workspaces: [usize; 2],
    /// Connections.
    pub(super) connections: [usize; 2],
    /// Seconds.
    pub(super) seconds: [u64; 2],
}

impl ScaletestArgs {
    /// What is measured, in the order in which it is named here.
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let all = Scenario::value_variants().iter().copied();
        all.filter(|it| self.scenarios.is_empty() || self.scenarios.contains(it)).collect()
    }

    /// Whether figures are held against what is required: not in the short form, and not with sizes of the
    /// caller's own.
    pub(super) fn judged(&self) -> bool {
        let own = self.workspaces.is_some() || self.connections.is_some() || self.seconds.is_some();
        !self.short && !own
    }

    /// The server that runs already.
    pub(super) fn given(&self) -> Option<ClientArgs> {
        let (server, token) = (Some(self.server.clone()?), self.token.clone());
        Some(ClientArgs { server, token, output: self.output })
    }

    /// Whether it is the short form.
    pub(super) fn short(&self) -> bool {
        self.short
    }

    /// Workspaces, connections and seconds: those of the scenario, unless the caller said otherwise.
    pub(super) fn size(&self, of: &Size) -> (usize, usize, Duration) {
        let form = usize::from(self.short);
        let number = |said: Option<u32>, own: usize| said.map_or(own, |said| said as usize);
        (
            number(self.workspaces, of.workspaces[form]),
            number(self.connections, of.connections[form]),
            Duration::from_secs(self.seconds.unwrap_or(of.seconds[form])),
        )
    }
}
