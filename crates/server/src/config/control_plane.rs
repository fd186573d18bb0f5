//! Who asks a control plane for instances, and where it is. There is no default for the second: a server that was told
//! nothing asks nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use super::file::{BackendConfig, BackendKind};
use super::layers::Layers;
use super::{Config, Origin, Secret};
use crate::backend::fleet;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct ControlPlane {
    /// Where it is, for backends that name no other.
    pub url: Option<String>,
    /// The bearer of calls about workspaces.
    pub shared_secret: Option<Secret>,
    /// What says whose platform asks: the administrator's token, where somebody set it. One that this server minted is
    /// nobody else's business.
    pub identity: Option<Secret>,
    /// The bearer of calls of administrators.
    pub admin: Option<Secret>,
}

impl Layers<'_> {
    /// Resolve, and hold every backend of the kind `fleet` against it.
    pub(super) fn control_plane(
        &mut self,
        admin_token: &Secret,
        backends: &BTreeMap<String, BackendConfig>,
        org: Option<&str>,
    ) -> ControlPlane {
        let url = self.address("cp_provision_url", "CP_PROVISION_URL");
        let url = url.or_else(|| self.address("molecule_cp_url", "MOLECULE_CP_URL"));
        let secret = self.hidden("cp_shared_secret", "MOLECULE_CP_SHARED_SECRET");
        let secret = secret.or_else(|| self.hidden("cp_shared_secret", "PROVISION_SHARED_SECRET"));
        let of_fleet = backends.iter().filter(|(_, of)| of.kind == BackendKind::Fleet);
        for (name, of) in of_fleet {
            let origin = Origin::Default;
            match &of.url {
                None if url.is_none() => {
                    let expected = "expected the address of a control plane: CP_PROVISION_URL or MOLECULE_CP_URL, or `url` \
                        in the backend's table; there is no default";
                    self.problem(format!("backends.{name}.url"), &origin, expected);
                }
                Some(said) if !is_address(said) => {
                    let expected = "expected an http or https URL without a password";
                    self.problem(format!("backends.{name}.url"), &origin, expected);
                }
                _ => {}
            }
            if of.org.is_none() && org.is_none() {
                let expected =
                    "expected an organisation: MOLECULE_ORG_ID, or `org` in the backend's table";
                self.problem(format!("backends.{name}.org"), &origin, expected);
            }
        }
        ControlPlane {
            url,
            shared_secret: secret,
            identity: Some(admin_token.clone()).filter(|token| !token.reveal().is_empty()),
            admin: self.hidden("cp_admin_api_token", "CP_ADMIN_API_TOKEN"),
        }
    }
}

/// Whether this is where a server may be.
pub(super) fn is_address(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none()
    })
}

impl Config {
    /// What a backend of the kind `fleet` is built with.
    #[must_use]
    pub fn fleet(&self, of: &BackendConfig) -> fleet::Settings {
        let said = &self.control_plane;
        let url = of.url.as_deref().or(said.url.as_deref()).unwrap_or_default();
        let org = of.org.as_deref().or(self.org_id.as_deref()).unwrap_or_default();
        fleet::Settings {
            url: url.trim().trim_end_matches('/').to_owned(),
            org: org.to_owned(),
            provider: of.provider.clone(),
            shared_secret: said.shared_secret.clone(),
            identity: said.identity.clone(),
            admin: said.admin.clone(),
            patience: fleet::PATIENCE,
            back_off: fleet::BACK_OFF,
        }
    }

    /// How long a passport of this runtime is good for: longer than its start may take, however slow its backend is.
    #[must_use]
    pub fn passport_term(&self, start_deadline: Duration) -> Duration {
        start_deadline + Duration::from_secs(3600)
    }
}
