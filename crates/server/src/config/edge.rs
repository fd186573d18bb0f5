//! Settings of what stands in front of every route: who is reached from where, how often, and on whose word.

use super::layers::Layers;

/// The contract's number of requests per minute.
const RATE_LIMIT: u32 = 600;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Requests per minute of one address without a workspace credential, and of one workspace.
    pub rate_limit: u32,
    /// Pages that may read answers in a browser, beside the canvas on this machine; empty: that one alone.
    pub cors_origins: Vec<String>,
    /// The control plane that is asked whose session a cookie is.
    pub control_plane: Option<String>,
    /// The organisation's short name at the control plane.
    pub org_slug: Option<String>,
    /// Where the canvas is that is served under this server's own address.
    pub canvas_proxy: Option<String>,
    /// Whether tests may ask for a workspace's credential.
    pub test_tokens: bool,
    /// Whether agents may write to users by a tool.
    pub tools_reach_users: bool,
}

impl Edge {
    /// Resolve; `environment` is what `MOLECULE_ENV` says.
    pub(super) fn resolve(said: &mut Layers<'_>, environment: &str) -> Self {
        let asked = said.optional("test_tokens", "MOLECULE_ENABLE_TEST_TOKENS");
        let reach = said.optional("mcp_allow_send_message", "MOLECULE_MCP_ALLOW_SEND_MESSAGE");
        Self {
            rate_limit: said.count("rate_limit", "RATE_LIMIT", RATE_LIMIT),
            cors_origins: said.list("cors_origins", "CORS_ORIGINS"),
            control_plane: said.address("control_plane", "CP_UPSTREAM_URL"),
            org_slug: said.optional("org_slug", "MOLECULE_ORG_SLUG"),
            canvas_proxy: said.address("canvas_proxy", "CANVAS_PROXY_URL"),
            test_tokens: asked.as_deref() == Some("1")
                || !environment.eq_ignore_ascii_case("production"),
            tools_reach_users: reach.as_deref() == Some("true"),
        }
    }
}
