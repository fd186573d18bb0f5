//! Processes beside the server that run instances for it: a provider of one backend, a fleet of both.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::process::Child;

use anyhow::Context as _;
use ligand_api::fleet::Instances;
use serde_json::json;

use super::moving::{EAST, WEST};
use super::scene::{Outcome, PATIENCE};
use super::stack::{Stack, end, listening, start};

/// The organisation whose platform the server is, at a fleet of a drill.
const ORGANISATION: &str = "drill";
/// Tokens of a fleet that lives for one drill, on 127.0.0.1.
const ADMINISTRATOR: &str = "the-administrator-of-a-drill";
const OPERATOR: &str = "the-operator-of-a-drill";
const SHARED_SECRET: &str = "what-a-drill-provisions-with";

/// A process that may be killed, and started again where it listened.
#[derive(Default)]
pub(super) struct Beside {
    child: Option<Child>,
    url: String,
}

impl Beside {
    fn listens(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or("127.0.0.1:0")
    }

    /// What the server proves itself with at the fleet, if there is one. The administrator's token comes first.
    pub(super) fn identity(&self) -> Vec<(&'static str, &'static str)> {
        match self.url.as_str() {
            "" => Vec::new(),
            _ => vec![("ADMIN_TOKEN", ADMINISTRATOR), ("PROVISION_SHARED_SECRET", SHARED_SECRET)],
        }
    }

    /// `kill -9`; nothing where it does not run.
    pub(super) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

impl Stack {
    /// Start a process that runs the backend of this name for the server (again, where it listened before). Gives its
    /// address and the file with its token.
    pub(super) async fn provide(&mut self, backend: &str) -> Outcome<(String, String)> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let (settings, token, data) = (path("provider.toml"), path("provider-token"), path("data"));
        let own = format!("[backends.{backend}]\nkind = \"process\"\nuid_base = 300000\n");
        fs::write(&settings, own).context("write the provider's settings")?;
        DirBuilder::new().recursive(true).mode(0o700).create(&data).context("make its room")?;
        let mut command = self.own(&["provider", "serve", "--backend", backend]);
        command.args(["--listen", self.provider.listens(), "--data-dir", &data]);
        command.args(["--config", &settings, "--token-file", &token]);
        self.starts += 1;
        let log = self.dir.join(format!("provider-{}.log", self.starts));
        let mut child = start(&mut command, &log).context("start the provider")?;
        let url = listening(&mut child, &log, "is served at ").await;
        self.provider.child = Some(child);
        self.provider.url = url?;
        Ok((self.provider.url.clone(), token))
    }

    /// Start a fleet with a provider for each backend, below whose folders the instances are, and make the server's
    /// organisation known to it. `agent`: the setting that says how every agent is started. Gives its address.
    pub(super) async fn fleet(&mut self, agent: &str) -> Outcome<String> {
        let provider = |name: &str, uid_base: u32| {
            let root = self.data().join(name).display().to_string();
            format!(
                "[providers.{name}]\nkind = \"process\"\nroot = {root:?}\nuid_base = {uid_base}\n"
            )
        };
        let own = format!("{agent}{}{}", provider(WEST, 200_000), provider(EAST, 300_000));
        fs::write(self.dir.join("fleet.toml"), own).context("write the fleet's settings")?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.data()).context("make room")?;
        self.fleet_again().await?;
        let url = self.fleet.url.clone();
        let org = json!({"id": ORGANISATION, "slug": ORGANISATION, "name": "a drill", "owner_user_id": "nobody",
            "admin_token": ADMINISTRATOR});
        let request =
            client()?.post(format!("{url}/cp/admin/orgs")).bearer_auth(OPERATOR).json(&org);
        let answer = request.send().await.context("ask the fleet")?;
        match answer.status().is_success() {
            true => Ok(url),
            false => {
                let (status, said) = (answer.status(), answer.text().await.unwrap_or_default());
                Err(anyhow::anyhow!("the fleet was asked for an organisation: {status} {said}")
                    .into())
            }
        }
    }

    /// What the fleet has of a workspace, as its list says to the platform: generation and provider of whatever is not
    /// gone.
    pub(super) async fn fleet_has(&self, id: &str) -> Outcome<Vec<(i64, String)>> {
        let request = client()?.get(format!("{}/cp/workspaces", self.fleet.url));
        let request = request.bearer_auth(SHARED_SECRET);
        let request = request.header("X-Molecule-Admin-Token", ADMINISTRATOR);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let all: Instances = answer.context("ask the fleet")?.json().await.context("its list")?;
        let of = all.instances.into_iter().filter(|it| it.workspace_id == id && it.state != "gone");
        Ok(of.map(|it| (it.generation, it.provider)).collect())
    }

    /// Start the fleet again, where it listened before.
    pub(super) async fn fleet_again(&mut self) -> Outcome {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let (settings, data) = (path("fleet.toml"), path("fleet"));
        let mut command = self.own(&["serve", "fleet", "--listen", self.fleet.listens()]);
        command.args(["--data-dir", &data, "--config", &settings, "--provider", WEST]);
        command.env("CP_ADMIN_API_TOKEN", OPERATOR).env("MOLECULE_CP_SHARED_SECRET", SHARED_SECRET);
        self.starts += 1;
        let log = self.dir.join(format!("fleet-{}.log", self.starts));
        let mut child = start(&mut command, &log).context("start the fleet")?;
        let url = listening(&mut child, &log, "is listening at ").await;
        self.fleet.child = Some(child);
        self.fleet.url = url?;
        Ok(())
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    let http = ligand_api::http::builder().map_err(|cause| anyhow::anyhow!("{cause}"))?;
    http.no_proxy().timeout(PATIENCE).build().context("make a raw client")
}

/// A backend of the server that is a provider of that fleet.
pub(super) fn of_fleet(url: &str, provider: &str) -> String {
    format!("kind = \"fleet\"\nurl = {url:?}\nprovider = {provider:?}\norg = {ORGANISATION:?}\n")
}
