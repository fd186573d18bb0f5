//! The load of heartbeats on a server that runs already. Its workspaces are made through the API, and deleted.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use ligand_api::client::Client;
use ligand_api::workspace::Create;
use reqwest::Url;

use super::Bench;
use super::agents::Agent;
use super::load::closed;
use super::options::Size;
use super::report::Row;
use crate::env::Env;
use crate::error::{CommandError, CommandResult};
use crate::target::{self, ClientArgs};

const SIZE: Size = Size { workspaces: [200, 20], connections: [32, 4], seconds: [10, 1] };
const SCENARIO: &str = "server";

/// A server that may be loaded.
pub(super) struct Given {
    address: SocketAddr,
    client: Client,
}

impl Given {
    /// Finds it, and refuses one that is somebody else's unless the caller insists.
    pub(super) async fn find(args: &ClientArgs, insists: bool) -> CommandResult<Self> {
        let target = target::find(args, &Env::capture())?;
        let no_address = |_| CommandError::usage("the address of the server cannot be resolved");
        let Some((host, port)) = plain(&target.server) else {
            return Err(CommandError::usage("only an http:// server can be loaded"));
        };
        let mut found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(no_address)?;
        let Some(address) = found.next() else {
            return Err(CommandError::usage("the address of the server cannot be resolved"));
        };
        if !address.ip().is_loopback() && !insists {
            return Err(CommandError::usage("that server is not on this machine").hint(
                "a load can take a server down; if that is yours to do, add --yes-load-this-server",
            ));
        }
        let token = target.token.map(|(token, _)| token);
        Ok(Self { address, client: Client::new(&target.server, token)? })
    }

    /// Loads it, and takes away what was made for that.
    pub(super) async fn measure(&self, bench: &mut Bench) -> Result<Vec<Row>> {
        let (count, connections, lasts) = bench.size(&SIZE);
        let mut agents = Vec::with_capacity(count);
        bench.say(format!("creating {count} workspaces"));
        let created = self.create(count, &mut agents).await;
        let agents = Arc::new(agents);
        bench.say(format!("{connections} connections for {} s", lasts.as_secs()));
        let measured = match created {
            Ok(()) => closed(self.address, &agents, connections, lasts).await,
            Err(error) => Err(error),
        };
        bench.say(format!("deleting {} workspaces", agents.len()));
        for agent in agents.iter() {
            self.client.delete(&agent.id.to_string(), true, true).await.context("clean up")?;
        }
        let outcome = measured?;
        let row = Row::new(SCENARIO, "authenticated heartbeats").value(outcome.rate(), "/s");
        let row = row.took(&outcome.took).note(format!(
            "{count} workspaces, {connections} connections; {} refused (a server limits the calls of each workspace), {} failed",
            outcome.refused, outcome.failed
        ));
        Ok(vec![row])
    }

    async fn create(&self, count: usize, agents: &mut Vec<Agent>) -> Result<()> {
        for number in 0..count {
            let name = format!("scaletest {} {number}", std::process::id());
            let body = Create { name, external: Some(true), ..Create::default() };
            let created = self.client.create(&body).await.context("create a workspace")?;
            let token = created.connection.map(|it| it.auth_token).unwrap_or_default();
            let (id, minted) = (created.id, !token.is_empty());
            agents.push(Agent { id, token: token.into() });
            ensure!(minted, "the server minted no credential for an external workspace");
        }
        Ok(())
    }
}

/// Host and port of a server that speaks HTTP without TLS.
fn plain(server: &str) -> Option<(String, u16)> {
    let url = Url::parse(server).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn only_plain_servers_are_loaded() {
        assert_eq!(plain("http://127.0.0.1:8080"), Some(("127.0.0.1".to_owned(), 8080)));
        assert_eq!(plain("http://[::1]:1"), Some(("::1".to_owned(), 1)));
        assert_eq!(plain("http://a"), Some(("a".to_owned(), 80)));
        assert_eq!(plain("https://a"), None);
    }
}
