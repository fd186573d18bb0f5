//! The same calls that the server's stub is held to, against a fleet as it is started: by published platforms, and by
//! the backend of ours.

use std::path::PathBuf;
use std::time::Duration;

use ligand_domain::id::WorkspaceId;
use ligand_fleet::config::{Flags, resolve};
use ligand_fleet::serve::start;
use ligand_server::backend::fleet::Settings;
use ligand_server::config::Secret;
use ligand_server::config::parse;
use serde_json::{Value, json};

use crate::calls_of_platforms::{Whole, life, published, settings};
use crate::support::engine;

const TOKEN: &str = "the-token-of-a-tenants-administrator";

/// Takes its directory away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_fleet_does_what_published_platforms_expect_and_what_ours_does() {
    engine::run(async {
        let dir = std::env::temp_dir().join(format!("ligand-fleet-{}-clients", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let scratch = Scratch(dir);
        let file = parse("fleet.toml".as_ref(), "[providers.p]\nkind = \"fake\"\n").unwrap();
        let flags = Flags {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(scratch.0.display().to_string()),
            ..Flags::default()
        };
        let mut config = resolve(&flags, &|_| None, None, file).unwrap().config;
        config.provider = "p".to_owned();
        config.agent = vec!["/bin/ligand".to_owned(), "agent".to_owned()];
        let server = start(config).await.unwrap();
        let read = |name: &str| std::fs::read_to_string(scratch.0.join(name)).unwrap();
        let url = format!("http://{}", server.address());
        let new = json!({"slug": "acme", "admin_token": TOKEN, "config": {"RATE_LIMIT": "7"}});
        let request = server.fleet().http.post(format!("{url}/cp/admin/orgs")).json(&new);
        let made = request.bearer_auth(read("fleet-admin-token")).send().await.unwrap();
        let made: Value = made.json().await.unwrap();
        let at = Whole::new(Settings {
            url,
            org: made["id"].as_str().unwrap().to_owned(),
            provider: None,
            shared_secret: Some(Secret::new(read("fleet-shared-secret"))),
            identity: Some(Secret::new(TOKEN.to_owned())),
            admin: None,
            patience: Duration::from_secs(20),
            back_off: Duration::from_millis(10),
        });
        settings(&at).await;
        published(&at, WorkspaceId::from_random([1; 16])).await;
        life(&at, WorkspaceId::from_random([2; 16])).await;
        server.stop().await;
    });
}
