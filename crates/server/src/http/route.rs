//! Where an agent is called, and by which client: the one way out to agents.

use reqwest::{Client, Url};

use super::address::Address;
use crate::app::App;

/// An address that may be called now.
pub struct Route {
    /// Where.
    pub url: Url,
    /// What calls it: connects to nothing but what was judged.
    pub http: Client,
}

/// Why there is no way.
#[derive(Debug)]
pub enum NoRoute {
    /// The address must not be called; a sentence that says why.
    Unsafe(String),
    /// No client can be had.
    Broken(anyhow::Error),
}

impl Route {
    /// The way to an agent. An address that its backend reported is trusted; any other is judged anew, by every
    /// address that its name resolves to: never call this inside a transaction.
    ///
    /// # Errors
    /// [`NoRoute`].
    pub async fn to(app: &App, text: &str, reported: bool) -> Result<Self, NoRoute> {
        let url = Url::parse(text).map_err(|cause| NoRoute::Broken(cause.into()))?;
        if reported {
            return Ok(Self { url, http: app.http.clone() });
        }
        let address = Address::parse(text).map_err(NoRoute::Unsafe)?;
        let resolved = address.may_be_called(app).await.map_err(NoRoute::Unsafe)?;
        // What was judged is what is called: the name may resolve to something else a moment later.
        let http = ligand_api::http::builder().map_err(|cause| NoRoute::Broken(cause.into()))?;
        let http = http.no_proxy().resolve_to_addrs(address.host(), &resolved).build();
        Ok(Self { url, http: http.map_err(|cause| NoRoute::Broken(cause.into()))? })
    }
}
