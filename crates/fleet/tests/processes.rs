//! A fleet as it is started, with processes of this machine and a database in a file.

use std::path::{Path, PathBuf};

use ligand_fleet::config::{File, Flags, resolve};
use ligand_fleet::serve::{Server, start};
use serde_json::{Value, json};

use crate::support::{WORKSPACE, engine};

/// A directory that is taken away afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ligand-fleet-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn serve(dir: &Path) -> Server {
    let flags = Flags {
        listen: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(dir.display().to_string()),
        ..Flags::default()
    };
    start(resolve(&flags, &|_| None, None, File::default()).unwrap().config).await.unwrap()
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

/// Call it: as the operator without a token, as a platform with one.
async fn call(
    server: &Server,
    dir: &Path,
    token: Option<&str>,
    (method, path): (&str, &str),
    body: &Value,
) -> (u16, Value) {
    let url = format!("http://{}{path}", server.address());
    let method = method.parse().unwrap();
    let request = server.fleet().http.request(method, url).body(body.to_string());
    let request = match token {
        None => request.bearer_auth(read(dir, "fleet-admin-token")),
        Some(token) => request
            .bearer_auth(read(dir, "fleet-shared-secret"))
            .header("x-molecule-admin-token", token),
    };
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

/// Everything that the database has written, its log included.
fn on_disk(dir: &Path) -> Vec<u8> {
    ["fleet.db", "fleet.db-wal"]
        .iter()
        .flat_map(|name| std::fs::read(dir.join(name)).unwrap_or_default())
        .collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_process_outlives_its_fleet_and_no_secret_is_in_the_database() {
    engine::run(async {
        let scratch = Scratch::new("outlives");
        let dir = scratch.0.as_path();
        let server = serve(dir).await;
        let new = json!({"slug": "acme", "admin_token": "acme-admin-token-in-clear", "config": {"K": "told-in-clear"}});
        let org = call(&server, dir, None, ("POST", "/cp/admin/orgs"), &new).await;
        assert_eq!(org.0, 201, "{org:?}");
        let token = Some("acme-admin-token-in-clear");
        let command = json!(["sh", "-c", "echo it-runs; exec sleep 300"]);
        let asked = |more: Value| {
            let mut asked = json!({"workspace_id": WORKSPACE, "env": {"KEY": "env-value-in-clear"}, "command": command});
            asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            asked
        };
        let provision = ("POST", "/cp/workspaces/provision");
        let (status, it) =
            call(&server, dir, token, provision, &asked(json!({"generation": 1}))).await;
        assert_eq!((status, &it["state"]), (201, &json!("running")), "{it}");
        let disk = on_disk(dir);
        assert!(disk.len() > 4096);
        for secret in ["acme-admin-token-in-clear", "told-in-clear", "env-value-in-clear"] {
            assert!(!holds(&disk, secret), "{secret}");
        }
        for file in ["fleet-admin-token", "fleet-shared-secret", "fleet-key"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(dir.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        server.stop().await;
        let server = serve(dir).await;
        let id = it["instance_id"].as_str().unwrap();
        let status = format!("/cp/workspaces/{WORKSPACE}/status?instance_id={id}");
        let (code, seen) = call(&server, dir, token, ("GET", &status), &Value::Null).await;
        assert_eq!((code, &seen["state"]), (200, &json!("running")), "{seen}");
        let (_, again) =
            call(&server, dir, token, provision, &asked(json!({"generation": 1}))).await;
        assert_eq!(again["instance_id"], it["instance_id"]);
        let delete = format!("/cp/workspaces/{WORKSPACE}?instance_id={id}&prune=true");
        let (code, gone) = call(&server, dir, token, ("DELETE", &delete), &Value::Null).await;
        assert_eq!((code, &gone["state"]), (200, &json!("gone")), "{gone}");
        let digest = format!("/cp/workspaces/{WORKSPACE}/data/digest");
        let (_, counted) = call(&server, dir, token, ("GET", &digest), &Value::Null).await;
        assert_ne!(counted["bytes"], json!(1), "{counted}");
        server.stop().await;
    });
}

#[test]
fn a_process_that_dies_is_replaced_for_a_platform_that_counts_not() {
    engine::run(async {
        let scratch = Scratch::new("replaced");
        let dir = scratch.0.as_path();
        let server = serve(dir).await;
        let new = json!({"slug": "acme", "admin_token": "acme-admin-token"});
        call(&server, dir, None, ("POST", "/cp/admin/orgs"), &new).await;
        let token = Some("acme-admin-token");
        // It falls the first time, and stays the second.
        let script = "test -e \"$WORKSPACE_DIR/mark\" && exec sleep 300; touch \"$WORKSPACE_DIR/mark\"; exit 3";
        let asked = json!({"workspace_id": WORKSPACE, "command": ["sh", "-c", script]});
        let (code, it) =
            call(&server, dir, token, ("POST", "/cp/workspaces/provision"), &asked).await;
        assert_eq!(code, 201, "{it}");
        let status = format!("/cp/workspaces/{WORKSPACE}/status");
        let mut seen = Value::Null;
        for _ in 0..200 {
            seen = call(&server, dir, token, ("GET", &status), &Value::Null).await.1;
            if seen["state"] == "running" && seen["generation"] == 2 {
                break;
            }
            server.fleet().clock.rest(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!((&seen["state"], &seen["generation"]), (&json!("running"), &json!(2)), "{seen}");
        let delete = format!("/cp/workspaces/{WORKSPACE}?prune=true");
        assert_eq!(call(&server, dir, token, ("DELETE", &delete), &Value::Null).await.0, 200);
        server.stop().await;
    });
}
