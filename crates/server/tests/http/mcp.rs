//! Tools for agents: `POST /workspaces/{id}/mcp`, and the stream beside it.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use futures_util::StreamExt as _;
use ligand_server::messages::DeliveryReconciler;
use ligand_server::reconcile::Reconciler as _;
use rmcp::model::{CallToolRequestParams, ClientConfig, ErrorCode, ProtocolVersion};
use rmcp::service::{RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::{Value, json};

use super::cards::served_by;
use super::gates::created;
use crate::support::agent::{Agent, online};
use crate::support::modes::{adjusted, compat, development};
use crate::support::{ADMIN, Answer, TestApp, a_moment, both};

const NEW: &str = "2026-07-28";
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

/// Call a method, as a client of the contract does: without any header about the protocol.
async fn call(app: &TestApp, of: &Agent, method: &str, params: Value) -> Answer {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    say(app, of, &body.to_string(), &[]).await
}

async fn say(app: &TestApp, of: &Agent, body: &str, headers: &[(&str, &str)]) -> Answer {
    let path = format!("/workspaces/{}/mcp", of.workspace);
    app.send("POST", &path, of.token.as_deref(), Some(body.to_owned()), headers).await
}

/// Call a tool, as a client of the contract does. Gives the whole answer.
async fn tool(app: &TestApp, of: &Agent, name: &str, arguments: Value) -> Value {
    let answer = call(app, of, "tools/call", json!({"name": name, "arguments": arguments})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// What a tool says.
async fn says(app: &TestApp, of: &Agent, name: &str, arguments: Value) -> String {
    let answer = tool(app, of, name, arguments).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// Why a tool fails.
async fn fails(app: &TestApp, of: &Agent, name: &str, arguments: Value) -> String {
    let answer = tool(app, of, name, arguments).await;
    assert_eq!(answer["error"]["code"], -32_000, "{answer}");
    answer["error"]["message"].as_str().unwrap().to_owned()
}

/// A call that stands alone.
async fn alone(
    app: &TestApp,
    of: &Agent,
    method: &str,
    more: Value,
    headers: &[(&str, &str)],
) -> Answer {
    let mut params = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": NEW,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}}});
    for (key, value) in more.as_object().unwrap() {
        params[key] = value.clone();
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let all = [&[("mcp-protocol-version", NEW), ("mcp-method", method)][..], headers].concat();
    say(app, of, &body, &all).await
}

/// An agent that answers a message with its own words, in capitals.
async fn shouting(app: &TestApp, name: &str) -> Agent {
    let answer = async |Json(body): Json<Value>| {
        let said = body["params"]["message"]["parts"][0]["text"].as_str().unwrap().to_uppercase();
        Json(
            json!({"jsonrpc": "2.0", "id": body["id"], "result": {"kind": "message", "role": "agent",
            "parts": [{"kind": "text", "text": said}]}}),
        )
    };
    served_by(app, name, axum::Router::new().route("/", post(answer))).await.1
}

/// Limit, remaining, reset.
fn told(answer: &Answer) -> Vec<u64> {
    let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    names.iter().map(|name| answer.headers[*name].to_str().unwrap().parse().unwrap()).collect()
}

both! {
    /// ML-01 to ML-03, ML-05 to ML-07.
    async fn ml_01_to_03_05_to_07_a_bearer_has_so_many_calls_a_minute(app: TestApp) {
        let (a, first) = created(&app, Some(ADMIN), "a").await;
        let first = Agent::with(&a, Some(&first));
        for left in (0..120).rev() {
            let passed = call(&app, &first, "ping", json!({})).await;
            assert_eq!((passed.status.as_u16(), told(&passed)), (200, vec![120, left, 60]));
        }
        app.app.clock.advance(Duration::from_secs(18));
        let refused = call(&app, &first, "ping", json!({})).await;
        refused.is(429, &json!({"error": "MCP rate limit exceeded", "retry_after": 42}));
        assert_eq!((told(&refused), &refused.headers["retry-after"]), (vec![120, 0, 42], &"42".parse().unwrap()));
        let stream = format!("/workspaces/{a}/mcp/stream");
        app.call("GET", &stream, first.token.as_deref(), None).await.refuses(429, "MCP rate limit exceeded");
        // Another bearer of the same workspace, and one of another.
        call(&app, &Agent::with(&a, Some(ADMIN)), "ping", json!({})).await.ok();
        let (b, second) = created(&app, Some(ADMIN), "b").await;
        assert_eq!(told(&call(&app, &Agent::with(&b, Some(&second)), "ping", json!({})).await)[1], 119);
        // What does not call tools is not counted.
        app.call("GET", &format!("/workspaces/{a}/why"), first.token.as_deref(), None).await.ok();
        app.app.clock.advance(Duration::from_secs(42));
        assert_eq!(told(&call(&app, &first, "ping", json!({})).await), [120, 119, 60]);
    }

    async fn ml_04_nobody_calls_without_a_token(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let nobody = Agent::with(&id, None);
        call(&app, &nobody, "ping", json!({})).await.refuses(401, "missing workspace auth token");
        let other = online(&app, "b").await.1;
        let other = Agent { workspace: id, ..other };
        call(&app, &other, "ping", json!({})).await.refuses(401, "invalid workspace auth token");
    }

    async fn a_client_of_the_contract_shakes_hands_and_is_told_the_tools(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
        let answer = call(&app, &agent, "initialize", hello).await.ok();
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(1)));
        let result = &answer["result"];
        assert_eq!((&result["protocolVersion"], &result["serverInfo"]), (&json!("2024-11-05"), &json!({"name": "molecule-a2a", "version": "1.0.0"})));
        assert!(result["capabilities"]["tools"].is_object(), "{result}");
        let note = say(&app, &agent, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, &[]).await;
        assert_eq!((note.status.as_u16(), note.text.as_str()), (200, ""));
        let listed = call(&app, &agent, "tools/list", json!({})).await.ok();
        let tools = listed["result"]["tools"].as_array().unwrap();
        let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["delegate_task", "delegate_task_async", "check_task_status", "list_peers", "get_workspace_info"]);
        assert_eq!(tools[0]["inputSchema"]["required"], json!(["workspace_id", "task"]));
        assert!(listed["result"].get("resultType").is_none(), "{listed}");
        assert_eq!(call(&app, &agent, "ping", json!({})).await.ok()["result"], json!({}));
    }

    async fn a_handshake_agrees_on_what_both_speak(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        for (asked, offered) in [("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25"), (NEW, "2025-11-25"), ("2025-03-26", "2024-11-05")] {
            let answer = call(&app, &agent, "initialize", json!({"protocolVersion": asked})).await.ok();
            assert_eq!(answer["result"]["protocolVersion"], offered, "{asked}");
        }
        let newer = [("mcp-protocol-version", "2025-11-25")];
        let note = say(&app, &agent, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, &newer).await;
        assert_eq!((note.status.as_u16(), note.text.as_str()), (202, ""));
    }

    async fn what_makes_no_sense_is_refused_with_its_code(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        for (body, status, code, id) in [
            ("{", 400, -32_700, json!(null)),
            ("", 400, -32_700, json!(null)),
            ("[]", 200, -32_600, json!(null)),
            (r#"{"id":3,"method":"ping"}"#, 200, -32_600, json!(3)),
            (r#"{"jsonrpc":"2.0","id":"x"}"#, 200, -32_600, json!("x")),
            (r#"{"jsonrpc":"2.0","id":4,"method":"resources/list"}"#, 200, -32_601, json!(4)),
            (r#"{"jsonrpc":"2.0","id":4,"method":"ping","params":[1]}"#, 200, -32_602, json!(4)),
            (r#"{"jsonrpc":"2.0","id":4,"method":"tools/call"}"#, 200, -32_602, json!(4)),
            (r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"no_such_tool"}}"#, 200, -32_602, json!(4)),
            (r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"list_peers","arguments":1}}"#, 200, -32_602, json!(4)),
        ] {
            let answer = say(&app, &agent, body, &[]).await;
            assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"], &answer.body["id"]), (status, &json!(code), &id), "{body}");
        }
        for (arguments, field) in [(json!({}), "workspace_id"), (json!({"workspace_id": "x", "task": "t"}), "workspace_id"), (json!({"workspace_id": UNKNOWN, "task": " "}), "task")] {
            let error = &tool(&app, &agent, "delegate_task", arguments).await["error"];
            assert_eq!(error["code"], -32_602);
            assert!(error["message"].as_str().unwrap().starts_with(&format!("{field}: expected")), "{error}");
        }
        let long = json!({"jsonrpc": "2.0", "id": 1, "method": "x".repeat(1 << 20)}).to_string();
        say(&app, &agent, &long, &[]).await.refuses(413, "request body too large");
    }

    async fn peers_are_found_and_handed_tasks(app: TestApp) {
        let (caller, peer) = (online(&app, "caller").await.1, shouting(&app, "peer").await);
        let peers = says(&app, &caller, "list_peers", json!({})).await;
        let peers: Value = serde_json::from_str(&peers).unwrap();
        assert_eq!((peers.as_array().unwrap().len(), &peers[0]["id"], &peers[0]["name"]), (1, &json!(peer.workspace), &json!("peer")));
        assert!(peers[0].get("url").is_none(), "{peers}");
        let about = says(&app, &caller, "get_workspace_info", json!({})).await;
        let about: Value = serde_json::from_str(&about).unwrap();
        assert_eq!((&about["id"], &about["status"]), (&json!(caller.workspace), &json!("online")));
        let task = json!({"workspace_id": peer.workspace, "task": "be loud"});
        assert_eq!(says(&app, &caller, "delegate_task", task).await, "BE LOUD");
        assert!(app.workspace(&caller.workspace).await["last_outbound_at"].is_string(), "sent as the caller");
    }

    async fn a_task_takes_the_way_of_a_message(app: TestApp) {
        let caller = online(&app, "caller").await.1;
        let peer = shouting(&app, "peer").await;
        let own = json!({"workspace_id": caller.workspace, "task": "t"});
        assert_eq!(fails(&app, &caller, "delegate_task", own).await, "self-delegation not permitted");
        let below = app.post("/workspaces", json!({"name": "below", "parent_id": peer.workspace})).await.ok();
        let stranger = json!({"workspace_id": below["id"], "task": "t"});
        let denied = "access denied: workspaces cannot communicate per hierarchy rules";
        assert_eq!(fails(&app, &caller, "delegate_task", stranger.clone()).await, denied);
        // The administrator acts as the workspace too, and no further.
        let admin = Agent::with(&caller.workspace, Some(ADMIN));
        assert_eq!(fails(&app, &admin, "delegate_task", stranger).await, denied);
        let nobody = json!({"workspace_id": UNKNOWN, "task": "t"});
        assert_eq!(fails(&app, &caller, "delegate_task", nobody).await, denied);
        app.fake.report_address(Some("http://127.0.0.1:1".to_owned()));
        let gone = online(&app, "gone").await.1;
        let gone = fails(&app, &caller, "delegate_task", json!({"workspace_id": gone.workspace, "task": "t"})).await;
        assert!(gone.starts_with("failed to reach workspace agent"), "{gone}");
        let refuse = async || Json(json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32_601, "message": "not that"}}));
        let (_, refusing) = served_by(&app, "refusing", axum::Router::new().route("/", post(refuse))).await;
        let refused = json!({"workspace_id": refusing.workspace, "task": "t"});
        assert_eq!(fails(&app, &caller, "delegate_task", refused).await, "not that");
    }

    async fn a_task_is_handed_over_and_asked_about(app: TestApp) {
        let (caller, peer) = (online(&app, "caller").await.1, shouting(&app, "peer").await);
        let task = json!({"workspace_id": peer.workspace, "task": "be loud"});
        let given = says(&app, &caller, "delegate_task_async", task).await;
        let given: Value = serde_json::from_str(&given).unwrap();
        assert_eq!((&given["status"], &given["target_id"]), (&json!("dispatched"), &json!(peer.workspace)));
        let id = &given["task_id"];
        let admin = Agent::with(&caller.workspace, Some(ADMIN));
        let stands = async |asking: &Agent| -> Value {
            let told = says(&app, asking, "check_task_status", json!({"task_id": id})).await;
            serde_json::from_str(&told).unwrap()
        };
        assert_eq!(stands(&caller).await, json!({"task_id": id, "status": "pending", "target_id": peer.workspace}));
        for round in 0.. {
            DeliveryReconciler.pass(&app.app).await.unwrap();
            if stands(&admin).await["status"] == "completed" {
                break;
            }
            assert!(round < 300, "it is never done: {}", stands(&admin).await);
            a_moment(10).await;
        }
        let read = async || app.get(&format!("/workspaces/{}/delegations", caller.workspace)).await.ok();
        assert_eq!(read().await[0]["acknowledged_at"], Value::Null, "nobody but the caller acknowledges");
        assert_eq!(stands(&caller).await["response"], "BE LOUD");
        assert!(read().await[0]["acknowledged_at"].is_string());
        let other = fails(&app, &peer, "check_task_status", json!({"task_id": id})).await;
        assert_eq!(other, format!("there is no task {}", id.as_str().unwrap()));
    }

    async fn a_task_that_may_not_be_handed_over_says_so_at_once(app: TestApp) {
        let caller = online(&app, "caller").await.1;
        let (other, below) = (app.create("other").await, json!({"name": "below"}));
        let below = json!({"name": below["name"], "parent_id": other});
        let below = app.post("/workspaces", below).await.ok()["id"].clone();
        for (peer, why) in [
            (json!(caller.workspace), "self-delegation not permitted"),
            (below, "access denied: workspaces cannot communicate per hierarchy rules"),
            (json!(UNKNOWN), "workspace not found"),
        ] {
            let task = json!({"workspace_id": peer, "task": "t"});
            assert_eq!(fails(&app, &caller, "delegate_task_async", task).await, why);
        }
    }

    async fn a_busy_peer_has_the_task_queued(app: TestApp) {
        let caller = online(&app, "caller").await.1;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        app.fake.report_address(Some(format!("http://{}", listener.local_addr().unwrap())));
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                drop(caller);
            }
        });
        let peer = online(&app, "peer").await.1;
        let task = json!({"workspace_id": peer.workspace, "task": "t"});
        let told = says(&app, &caller, "delegate_task", task).await;
        assert!(told.starts_with("the peer is busy: the task is queued as "), "{told}");
    }

    async fn a_newer_client_is_told_of_a_failure_in_the_result(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let params = json!({"name": "delegate_task", "arguments": {"workspace_id": id, "task": "t"}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let answer = say(&app, &agent, &body, &[("mcp-protocol-version", "2025-11-25")]).await.ok();
        assert_eq!(answer["result"], json!({"content": [{"type": "text", "text": "self-delegation not permitted"}], "isError": true}));
    }

    async fn users_are_written_to_only_where_an_operator_says_so(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let refused = fails(&app, &agent, "send_message_to_user", json!({"message": "hi"})).await;
        assert!(refused.contains("not enabled"), "{refused}");
        let app = app.with(|config| config.edge.tools_reach_users = true);
        let listed = call(&app, &agent, "tools/list", json!({})).await.ok();
        assert_eq!(listed["result"]["tools"][5]["name"], "send_message_to_user");
        let mut live = app.app.hub.live();
        says(&app, &agent, "send_message_to_user", json!({"message": "hi"})).await;
        let event = loop {
            let event = live.recv().await.unwrap();
            if event.event == "AGENT_MESSAGE" {
                break event;
            }
        };
        assert_eq!((event.event.as_str(), &event.payload["message"], &event.payload["name"]), ("AGENT_MESSAGE", &json!("hi"), &json!("a")));
        assert_eq!(tool(&app, &agent, "send_message_to_user", json!({})).await["error"]["code"], -32_602);
    }

    async fn a_call_can_stand_alone(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let found = alone(&app, &agent, "server/discover", json!({}), &[]).await.ok();
        let found = &found["result"];
        assert_eq!(found["supportedVersions"], json!(["2024-11-05", "2025-06-18", "2025-11-25", NEW]));
        assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "molecule-a2a");
        let listed = alone(&app, &agent, "tools/list", json!({}), &[]).await.ok();
        let listed = &listed["result"];
        assert_eq!((&listed["resultType"], &listed["cacheScope"], &listed["ttlMs"]), (&json!("complete"), &json!("private"), &json!(0)));
        let info = json!({"name": "get_workspace_info", "arguments": {}});
        let info = alone(&app, &agent, "tools/call", info, &[("mcp-name", "get_workspace_info")]).await.ok();
        assert_eq!((&info["result"]["resultType"], &info["result"]["isError"]), (&json!("complete"), &json!(false)));
        let unknown = alone(&app, &agent, "resources/list", json!({}), &[]).await;
        assert_eq!((unknown.status.as_u16(), &unknown.body["error"]["code"]), (404, &json!(-32_601)));
    }

    async fn a_call_that_contradicts_itself_is_refused(app: TestApp) {
        let (_, agent) = online(&app, "a").await;
        let plain = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let lists = [("mcp-method", "tools/list")];
        let with = |version| [("mcp-protocol-version", version), lists[0]];
        let unnamed = say(&app, &agent, plain, &with(NEW)).await;
        assert_eq!((unnamed.status.as_u16(), &unnamed.body["error"]["code"]), (400, &json!(-32_602)));
        let unknown = say(&app, &agent, plain, &with("2099-01-01")).await;
        assert_eq!((unknown.status.as_u16(), &unknown.body["error"]["code"]), (400, &json!(-32_022)));
        assert_eq!(unknown.body["error"]["data"]["requested"], "2099-01-01");
        let named = json!({"name": "list_peers", "arguments": {}});
        let other = alone(&app, &agent, "tools/call", named, &[("mcp-name", "delegate_task")]).await;
        assert_eq!((other.status.as_u16(), &other.body["error"]["code"]), (400, &json!(-32_020)));
    }

    async fn a_stream_tells_where_calls_go(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}/mcp/stream");
        let token = agent.token.as_deref().unwrap();
        let request = Request::get(&path).header("authorization", format!("Bearer {token}"));
        let response = app.response(request.body(Body::empty()).unwrap()).await;
        assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
        assert_eq!(response.headers()["x-ratelimit-limit"], "120");
        let mut chunks = response.into_body().into_data_stream();
        let first = chunks.next().await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&first), format!("event: endpoint\ndata: /workspaces/{id}/mcp\n\n"));
        app.app.stop.cancel();
        assert!(chunks.next().await.is_none(), "it ends with the server");
    }

    async fn the_protocols_own_client_calls_tools_in_every_way_it_knows(app: TestApp) {
        let (caller, peer) = (online(&app, "caller").await.1, shouting(&app, "peer").await);
        let base = format!("http://{}", app.listen().await);
        let shakes = |version: ProtocolVersion| (ClientLifecycleMode::Initialize, version.clone(), version);
        let discovers = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        for (mode, asked, spoken) in [
            shakes(ProtocolVersion::V_2024_11_05),
            shakes(ProtocolVersion::V_2025_11_25),
            (ClientLifecycleMode::Initialize, ProtocolVersion::V_2025_03_26, ProtocolVersion::V_2024_11_05),
            (discovers, ProtocolVersion::LATEST, ProtocolVersion::LATEST),
        ] {
            let client = client(&base, &caller, mode, asked).await;
            assert_eq!(client.peer_info().unwrap().protocol_version, spoken);
            let tools = client.list_all_tools().await.unwrap();
            assert_eq!(tools.len(), 5, "{tools:?}");
            let task = json!({"workspace_id": peer.workspace, "task": "hear me"});
            let said = using(&client, "delegate_task", task).await.unwrap();
            assert_eq!(said, (Some(false), "HEAR ME".to_owned()));
            let own = json!({"workspace_id": caller.workspace, "task": "t"});
            let refused = using(&client, "delegate_task", own).await;
            match refused {
                Ok(said) => assert_eq!(said, (Some(true), "self-delegation not permitted".to_owned())),
                Err(ServiceError::McpError(error)) => assert_eq!((error.code, spoken), (ErrorCode(-32_000), ProtocolVersion::V_2024_11_05)),
                Err(other) => panic!("{other}"),
            }
            client.cancel().await.unwrap();
        }
    }
}

adjusted! { |config| { compat(config); development(config); };
    async fn ml_04_ml_09_an_open_door_still_asks_for_a_bearer_in_any_letters(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        let nobody = Agent::with(&id, None);
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        say(&app, &nobody, ping, &[]).await.refuses(401, "missing bearer token");
        for (scheme, left) in [("bearer t", 119), ("BEARER t", 118), ("Bearer  t", 119)] {
            let passed = say(&app, &nobody, ping, &[("authorization", scheme)]).await;
            // With this spelling the gate reads a token too, and knows none like it.
            if scheme.starts_with("Bearer") {
                passed.refuses(401, "invalid workspace auth token");
            } else {
                assert_eq!((passed.status.as_u16(), told(&passed)[1]), (200, left));
            }
        }
    }
}

async fn client(
    base: &str,
    of: &Agent,
    mode: ClientLifecycleMode,
    asked: ProtocolVersion,
) -> RunningService<RoleClient, ClientConfig> {
    let uri = format!("{base}/workspaces/{}/mcp", of.workspace);
    let config = StreamableHttpClientTransportConfig::with_uri(uri);
    let config = config.auth_header(of.token.as_deref().unwrap());
    let http = ligand_api::http::builder().unwrap().no_proxy().build().unwrap();
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let mut about = ClientConfig::default();
    about.protocol_version = asked;
    about.serve_with_lifecycle(transport, mode).await.unwrap()
}

/// Whether a tool failed, and what it says.
async fn using(
    client: &RunningService<RoleClient, ClientConfig>,
    name: &'static str,
    arguments: Value,
) -> Result<(Option<bool>, String), ServiceError> {
    let Value::Object(arguments) = arguments else { panic!("{arguments}") };
    let params = CallToolRequestParams::new(name).with_arguments(arguments);
    let result = client.call_tool(params).await?;
    let text = result.content[0].as_text().unwrap().text.clone();
    Ok((result.is_error, text))
}
