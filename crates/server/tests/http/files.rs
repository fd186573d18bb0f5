//! Files of workspaces, on both engines and a disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use futures_util::StreamExt as _;
use ligand_server::files::FileRestarts;
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};

use crate::support::agent::{online, unclaimed};
use crate::support::house::{House, housed};
use crate::support::{ADMIN, Answer, TestApp, both};

fn files(id: &str, rest: &str) -> String {
    format!("/workspaces/{id}/files{rest}")
}

async fn put(app: &TestApp, id: &str, rest: &str, content: &str) -> Answer {
    app.call("PUT", &files(id, rest), Some(ADMIN), Some(json!({"content": content}))).await
}

async fn delete(app: &TestApp, id: &str, rest: &str) -> Answer {
    app.call("DELETE", &files(id, rest), Some(ADMIN), None).await
}

/// A workspace that runs, with files on a disk.
async fn started(app: TestApp) -> (TestApp, House, String) {
    let (app, house) = housed(app);
    let (id, _) = online(&app, "a").await;
    (app, house, id)
}

/// Let the restarts that files ask for happen. Gives how many were asked for so far.
async fn restarts(app: &TestApp, id: &str) -> i64 {
    while FileRestarts.pass(&app.app).await.unwrap().looked_at > 0 {}
    app.settle().await;
    let journal = app.journal(id).await;
    i64::try_from(journal.iter().filter(|kind| *kind == "restart-requested").count()).unwrap()
}

/// A multipart body with these fields: name, file name, content.
fn form(fields: &[(&str, &str, &str)]) -> String {
    let mut body = String::new();
    for (field, name, content) in fields {
        body += &format!(
            "--b\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n"
        );
        body += &format!("Content-Type: text/x-of-the-sender\r\n\r\n{content}\r\n");
    }
    body + "--b--\r\n"
}

async fn upload(app: &TestApp, id: &str, body: String) -> Answer {
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    let path = format!("/workspaces/{id}/chat/uploads");
    app.send("POST", &path, Some(ADMIN), Some(body), &kind).await
}

async fn download(app: &TestApp, id: &str, path: &str) -> Answer {
    app.get(&format!("/workspaces/{id}/chat/download?path={path}")).await
}

both! {
    async fn files_are_written_read_listed_and_taken_away(app: TestApp) {
        let (app, house, id) = started(app).await;
        put(&app, &id, "/docs/./a.md", "hällo").await.is(200, &json!({"status": "saved", "path": "docs/a.md"}));
        app.get(&files(&id, "/docs/a.md")).await.is(200, &json!({"path": "docs/a.md", "content": "hällo", "size": 6}));
        let listed = |query: &'static str| { let (app, id) = (&app, &id); async move { app.get(&files(id, query)).await.ok() } };
        assert_eq!(listed("?root=/configs").await, json!([{"path": "docs", "size": 0, "dir": true}]));
        assert_eq!(listed("?depth=2").await, json!([{"path": "docs", "size": 0, "dir": true}, {"path": "docs/a.md", "size": 6, "dir": false}]));
        assert_eq!(listed("?path=docs").await, json!([{"path": "a.md", "size": 6, "dir": false}]));
        assert_eq!(listed("?root=/plugins").await, json!([]));
        assert_eq!(listed("?path=nowhere").await, json!([]));
        let file = house.of(&id).join("configs/docs/a.md");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        put(&app, &id, "/docs/a.md", "again").await.ok();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755, "it keeps its mode");
        assert_eq!(fs::read_dir(house.of(&id).join("configs/docs")).unwrap().count(), 1, "no draft stays");
        delete(&app, &id, "/docs").await.is(200, &json!({"status": "deleted", "path": "docs"}));
        delete(&app, &id, "/docs").await.ok();
        app.get(&files(&id, "/docs/a.md")).await.refuses(404, "file not found");
        app.get(&files(&id, "/docs")).await.refuses(404, "file not found");
        put(&app, &id, "/b?root=/workspace", "b").await.ok();
        assert_eq!(fs::read(house.of(&id).join("workspace/b")).unwrap(), b"b");
    }

    async fn what_leads_elsewhere_is_refused(app: TestApp) {
        let (app, _, id) = started(app).await;
        let root = "root must be one of: /configs, /workspace, /home, /plugins";
        for query in ["?root=/etc", "?root=configs", "?root=/configs/../etc", "/a?root=/", "/a?root=%2Fetc"] {
            app.get(&files(&id, query)).await.refuses(400, root);
        }
        for query in ["?path=..", "?path=/etc", "?path=a/%2e%2e/b", "/..", "/../a", "/%2e%2e%2fa", "/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/a%00b", "/a%5c..%5cb", "/.auth_token", "/.", "/.%2f.auth_token.next"] {
            app.get(&files(&id, query)).await.refuses(400, "invalid path");
        }
        for depth in ["0", "6", "x", "-1"] {
            app.get(&files(&id, &format!("?depth={depth}"))).await.refuses(400, "depth must be 1-5");
        }
        for path in ["/..%2fa", "//a", "/.auth_token", "/.."] {
            put(&app, &id, path, "x").await.refuses(400, "invalid path");
        }
        for path in ["//etc/passwd", "/%2fetc/passwd"] {
            delete(&app, &id, path).await.refuses(400, "absolute paths not permitted");
        }
        for path in ["/..", "/a/%2e%2e/b", "/.", "/.auth_token"] {
            delete(&app, &id, path).await.refuses(400, "invalid path");
        }
        put(&app, &id, "/%252e%252e", "a name, decoded once").await.ok();
        let bad = app.call("PUT", &files(&id, "/a"), Some(ADMIN), Some(json!({"text": "x"}))).await;
        bad.refuses(400, "invalid request body");
        assert!(bad.body["detail"].as_str().unwrap().contains("content"), "{bad:?}");
    }

    async fn no_link_leads_out(app: TestApp) {
        let (app, house, id) = started(app).await;
        let (outside, workspace) = (house.outside(), house.of(&id).join("workspace"));
        fs::write(outside.join("secret"), "theirs").unwrap();
        put(&app, &id, "/here?root=/workspace", "x").await.ok();
        symlink(&outside, workspace.join("way")).unwrap();
        symlink(outside.join("secret"), workspace.join("secret")).unwrap();
        for path in ["/way/secret", "/secret", "/way"] {
            app.get(&files(&id, &format!("{path}?root=/workspace"))).await.refuses(404, "file not found");
        }
        download(&app, &id, "/workspace/way/secret").await.refuses(404, "file not found");
        put(&app, &id, "/way/new?root=/workspace", "x").await.refuses(500, "failed to write file: the backend refused it");
        put(&app, &id, "/way/new/deep?root=/workspace", "x").await.refuses(500, "failed to write file: the backend refused it");
        let all = app.get(&files(&id, "?root=/workspace&depth=5")).await.ok();
        assert!(!all.to_string().contains("way/"), "{all}");
        assert_eq!(app.get(&files(&id, "?root=/workspace&path=way")).await.ok(), json!([]));
        delete(&app, &id, "/way/secret?root=/workspace").await.ok();
        put(&app, &id, "/secret?root=/workspace", "mine").await.ok();
        delete(&app, &id, "/way?root=/workspace").await.ok();
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read(workspace.join("secret")).unwrap(), b"mine");
        assert!(!workspace.join("way").is_symlink());
        // The directory itself is none either.
        fs::remove_dir_all(house.of(&id).join("home")).unwrap();
        symlink(&outside, house.of(&id).join("home")).unwrap();
        app.get(&files(&id, "/secret?root=/home")).await.refuses(404, "file not found");
    }

    async fn the_credential_is_no_file(app: TestApp) {
        let (app, house, id) = started(app).await;
        put(&app, &id, "/config.yaml", "x").await.ok();
        fs::write(house.of(&id).join("configs/.auth_token"), "s3cret").unwrap();
        let all = app.get(&files(&id, "?depth=5")).await.ok();
        assert_eq!(all, json!([{"path": "config.yaml", "size": 1, "dir": false}]));
        download(&app, &id, "/configs/.auth_token").await.refuses(400, "invalid path");
    }

    async fn what_is_no_text_comes_in_base64_and_goes_the_same_way(app: TestApp) {
        let (app, house, id) = started(app).await;
        let body = json!({"content": "AP8=", "encoding": "base64"});
        app.call("PUT", &files(&id, "/a"), Some(ADMIN), Some(body)).await.ok();
        assert_eq!(fs::read(house.of(&id).join("configs/a")).unwrap(), [0, 255]);
        app.get(&files(&id, "/a")).await.is(200, &json!({"path": "a", "content": "AP8=", "size": 2, "encoding": "base64"}));
        let body = json!({"content": "?", "encoding": "base64"});
        app.call("PUT", &files(&id, "/a"), Some(ADMIN), Some(body)).await.refuses(400, "invalid request body");
    }

    async fn several_files_are_written_or_none(app: TestApp) {
        let (app, house, id) = started(app).await;
        let all = |files: Value| { let (app, id) = (&app, &id); async move { app.call("PUT", &self::files(id, ""), Some(ADMIN), Some(json!({"files": files}))).await } };
        all(json!({"a.md": "a", "b/c.md": "c"})).await.is(200, &json!({"status": "replaced", "workspace": id, "files": 2, "source": "container"}));
        let refused = all(json!({"d.md": "d", "../e": "e"})).await;
        refused.refuses(400, "invalid path");
        assert_eq!(refused.body["detail"], "files: \"../e\"");
        assert!(!house.of(&id).join("configs/d.md").exists());
        let many = |n: usize| Value::Object((0..n).map(|n| (format!("f{n}"), json!(""))).collect());
        all(many(201)).await.refuses(400, "too many files (201), max 200");
        all(many(200)).await.ok();
        app.fake.kill(app.fake.newest(id.parse().unwrap()).unwrap().key, 9);
        assert_eq!(all(json!({"a.md": "a"})).await.ok()["source"], "volume");
        let large = "x".repeat(33 << 20);
        put(&app, &id, "/a", &large).await.refuses(413, "request body too large");
    }

    async fn writes_restart_at_most_every_fifteen_seconds(app: TestApp) {
        let (app, _, id) = started(app).await;
        for name in ["/a", "/b", "/c"] {
            put(&app, &id, name, "x").await.ok();
        }
        assert_eq!(restarts(&app, &id).await, 1, "three writes, one restart");
        let planned = app.journal(&id).await.iter().filter(|kind| *kind == "planned").count();
        assert_eq!(planned, 2, "and it happens");
        put(&app, &id, "/a", "y").await.ok();
        delete(&app, &id, "/b").await.ok();
        assert_eq!(restarts(&app, &id).await, 1, "not again so soon");
        app.app.clock.advance(std::time::Duration::from_secs(14));
        assert_eq!(restarts(&app, &id).await, 1);
        let app = { let (app, _) = housed(app.reborn()); app };
        app.app.clock.advance(std::time::Duration::from_secs(1));
        assert_eq!(restarts(&app, &id).await, 2, "what was asked for is done, whatever became of the server");
        app.app.clock.advance(std::time::Duration::from_secs(60));
        assert_eq!(restarts(&app, &id).await, 2, "once");
        put(&app, &id, "/a?root=/workspace", "y").await.ok();
        put(&app, &id, "/a?root=/home", "y").await.ok();
        assert_eq!(restarts(&app, &id).await, 2, "what it works on restarts nothing");
        app.sql("UPDATE workspaces SET intent = 'paused'").await;
        put(&app, &id, "/a", "z").await.ok();
        assert_eq!(restarts(&app, &id).await, 2, "what is not meant to run is not started");
    }

    async fn without_a_backend_there_are_no_files(app: TestApp) {
        let (app, _) = housed(app);
        let id = unclaimed(&app).await;
        app.get(&files(&id, "")).await.is(200, &json!([]));
        app.get(&files(&id, "/a")).await.refuses(404, "file not found (container offline, no template)");
        let text = "no backend here keeps this workspace's files";
        put(&app, &id, "/a", "x").await.refuses(503, &format!("failed to write file: {text}"));
        delete(&app, &id, "/a").await.refuses(503, text);
        upload(&app, &id, form(&[("files", "a", "x")])).await.refuses(503, "workspace container not running");
        download(&app, &id, "/workspace/a").await.refuses(503, "workspace container not running");
        app.get(&format!("/workspaces/{id}/terminal")).await.refuses(503, "Docker not available");
        app.get(&format!("/workspaces/{id}/logs?follow=true")).await.refuses(503, "no backend here keeps this workspace's log");
    }

    async fn files_are_those_of_a_workspace_that_is_there(app: TestApp) {
        let (app, _) = housed(app);
        let (id, agent) = online(&app, "a").await;
        let (other, _) = online(&app, "b").await;
        let nobody = "00000000-0000-4000-8000-000000000000";
        let all = [("GET", "files"), ("PUT", "files"), ("GET", "files/a"), ("PUT", "files/a"), ("DELETE", "files/a"), ("GET", "shared-context"), ("POST", "chat/uploads"), ("GET", "chat/download?path=/home/a"), ("GET", "terminal")];
        for (method, path) in all {
            let call = |id: &str, token: Option<String>| { let (app, path) = (&app, format!("/workspaces/{id}/{path}")); async move {
                let body = match path.contains("uploads") { true => form(&[("files", "a", "x")]), false => json!({"content": "x", "files": {}}).to_string() };
                app.send(method, &path, token.as_deref(), Some(body), &[("content-type", "multipart/form-data; boundary=b")]).await } };
            call(nobody, Some(ADMIN.to_owned())).await.refuses(404, "workspace not found");
            call(&other, agent.token.clone()).await.refuses(401, "invalid workspace auth token");
            call(&id, None).await.refuses(401, "missing workspace auth token");
            let own = call(&id, agent.token.clone()).await;
            assert!(own.status != 401, "{method} {path} {own:?}");
        }
    }

    async fn uploads_are_kept_for_the_agent_and_come_back(app: TestApp) {
        let (app, house, id) = started(app).await;
        let sent = form(&[("files", "my report.txt", "one"), ("other", "x", "skipped"), ("files", "..\\b.json", "{}")]);
        let sent = upload(&app, &id, sent).await.ok();
        let (first, second) = (&sent["files"][0], &sent["files"][1]);
        assert_eq!((&first["name"], &first["mimeType"], &first["size"]), (&json!("my report.txt"), &json!("text/x-of-the-sender"), &json!(3)));
        assert_eq!(second["name"], "b.json");
        let path = first["uri"].as_str().unwrap().strip_prefix("workspace:").unwrap();
        let (number, name) = path.strip_prefix("/workspace/.molecule/chat-uploads/").unwrap().split_once('-').unwrap();
        assert!(number.len() == 32 && number.bytes().all(|c| c.is_ascii_hexdigit()) && name == "my_report.txt", "{path}");
        assert_eq!(fs::read(house.of(&id).join(&path[1..])).unwrap(), b"one");
        let got = download(&app, &id, path).await;
        assert_eq!((got.text.as_str(), &got.headers["content-type"]), ("one", &"text/plain; charset=utf-8".parse().unwrap()));
        let disposition = format!("attachment; filename=\"{number}-{name}\"; filename*=UTF-8''{number}-{name}");
        assert_eq!((&got.headers["content-disposition"], &got.headers["content-length"]), (&disposition.parse().unwrap(), &"3".parse().unwrap()));
        assert_eq!(restarts(&app, &id).await, 0);
        for (path, why) in [("", "path query required"), ("workspace/a", "path must be absolute"), ("/etc/passwd", "path must be under /configs, /workspace, /home, or /plugins"), ("/workspace/%2e%2e/a", "invalid path")] {
            download(&app, &id, path).await.refuses(400, why);
        }
        download(&app, &id, "/workspace/nothing").await.refuses(404, "file not found");
    }

    async fn uploads_that_cannot_be_kept_are_refused(app: TestApp) {
        let (app, house, id) = started(app).await;
        upload(&app, &id, form(&[])).await.refuses(400, "expected at least one 'files' field");
        upload(&app, &id, form(&[("file", "a", "x")])).await.refuses(400, "expected at least one 'files' field");
        upload(&app, &id, "--b\r\nbroken".to_owned()).await.refuses(400, "failed to parse multipart form");
        let json = app.post(&format!("/workspaces/{id}/chat/uploads"), json!({})).await;
        json.refuses(400, "failed to parse multipart form");
        let (large, half) = ("x".repeat((25 << 20) + 1), "x".repeat(25 << 20));
        upload(&app, &id, form(&[("files", "a", &large)])).await.refuses(413, "file exceeds 25 MB");
        upload(&app, &id, form(&[("files", "a", &half), ("files", "b", &half)])).await.refuses(413, "upload exceeds 50 MB");
        app.fake.kill(app.fake.newest(id.parse().unwrap()).unwrap().key, 9);
        upload(&app, &id, form(&[("files", "a", "x")])).await.refuses(503, "workspace container not running");
        assert!(!house.of(&id).join("workspace/.molecule").exists());
    }

    async fn a_parent_shares_the_files_that_its_configuration_names(app: TestApp) {
        let (app, house, parent) = started(app).await;
        let child = app.post("/workspaces", json!({"name": "child", "parent_id": parent})).await.ok();
        let child = child["id"].as_str().unwrap();
        let shared = |id: &str| { let (app, path) = (&app, format!("/workspaces/{id}/shared-context")); async move { app.get(&path).await.ok() } };
        assert_eq!((shared(&parent).await, shared(child).await), (json!([]), json!([])));
        put(&app, &parent, "/config.yaml", "name: x\nshared_context:\n- docs/a.md\n- ../up\n- /etc/passwd\n- .auth_token\n- missing.md\n").await.ok();
        put(&app, &parent, "/docs/a.md", "rules").await.ok();
        fs::write(house.of(&parent).join("configs/.auth_token"), "s3cret").unwrap();
        assert_eq!(shared(child).await, json!([{"path": "docs/a.md", "content": "rules"}]));
    }

    async fn a_log_is_followed_over_rotations(app: TestApp) {
        let (app, house, id) = started(app).await;
        put(&app, &id, "/x?root=/home", "x").await.ok();
        let log = house.of(&id).join("logs/agent.log");
        fs::write(&log, "one\ntwo\n").unwrap();
        let follow = || axum::http::Request::get(format!("/workspaces/{id}/logs?follow=true&lines=1"))
            .header("authorization", format!("Bearer {ADMIN}")).body(axum::body::Body::empty()).unwrap();
        let mut readers = Vec::new();
        for _ in 0..2 {
            let response = app.response(follow()).await;
            assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &"text/plain; charset=utf-8".parse().unwrap()));
            let mut body = response.into_body().into_data_stream();
            assert_eq!(body.next().await.unwrap().unwrap(), "two\n");
            readers.push(body);
        }
        append(&log, "three\n");
        for reader in &mut readers {
            assert_eq!(reader.next().await.unwrap().unwrap(), "three\n");
        }
        append(&log, "last\n");
        fs::rename(&log, log.with_extension("log.1")).unwrap();
        fs::write(&log, "new\n").unwrap();
        for reader in &mut readers {
            assert_eq!(reader.next().await.unwrap().unwrap(), "last\n");
            assert_eq!(reader.next().await.unwrap().unwrap(), "new\n");
        }
        app.app.stop.cancel();
        for reader in &mut readers {
            assert!(reader.next().await.is_none(), "a server that stops ends what it follows");
        }
    }
}

fn append(path: &std::path::Path, text: &str) {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}
