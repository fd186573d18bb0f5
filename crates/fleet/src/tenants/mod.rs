//! Organisations: each has a platform of its own, which proves itself with tokens that are kept sealed.

pub(crate) mod admin;
pub(crate) mod http;
mod store;

use std::collections::BTreeMap;

use ligand_api::fleet::{ChangeOrg, NewOrg, Org};
use ligand_domain::credential::TokenHash;
use ligand_domain::fleet::slug_mistake;
use ligand_domain::secrets::Stored;
use ligand_domain::time::Timestamp;
use ligand_server::db::Tx;
use ligand_server::error::{Error, Result};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::app::Fleet;
use crate::journal::{self, About};

pub(crate) use store::{get, learn_platform, purge};

/// The shortest token that an organisation may bring along.
const SHORTEST_TOKEN: usize = 8;

/// An organisation.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id.
    pub org_id: String,
    /// Its name in addresses.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// Its first member.
    pub owner: String,
    /// Where its platform answers; empty while that is not known.
    pub platform_url: String,
    /// `pending`, `running`, `failed`.
    pub status: String,
    /// What its platform said last of its start.
    pub boot_event: Option<String>,
    /// The token of its administrator, sealed.
    pub admin_token: Stored,
    /// SHA-256 of it.
    pub token_hash: Vec<u8>,
    /// SHA-256 of what it provisions with; `None`: the fleet's secret.
    pub secret_hash: Option<Vec<u8>>,
    /// What its platform is told at its start, sealed.
    pub config: Stored,
    /// Its names of backends, by provider.
    pub backends: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub removed_at: Option<Timestamp>,
}

impl Tenant {
    /// What its platform calls the backend of this provider.
    #[must_use]
    pub fn backend_of<'a>(&'a self, provider: &'a str) -> &'a str {
        self.backends.get(provider).map_or(provider, String::as_str)
    }

    /// What its platform is told at its start.
    pub(crate) fn told(&self, fleet: &Fleet) -> Result<BTreeMap<String, String>> {
        let unreadable = Error::internal("the organisation's settings cannot be read");
        let text = fleet.open(&self.config).map_err(unreadable)?;
        let broken = Error::internal("the organisation's settings cannot be read");
        serde_json::from_str(&text).map_err(broken)
    }
}

/// The organisation that a token belongs to; none that is deleted.
pub(crate) async fn of_token(fleet: &Fleet, token: &str) -> Result<Option<Tenant>> {
    let hash = TokenHash::of(token);
    let mut tx = fleet.db.read().await?;
    let tenant = store::of_hash(&mut tx, &hash).await?;
    Ok(tenant.filter(|tenant| {
        tenant.removed_at.is_none() && bool::from(tenant.token_hash.ct_eq(hash.bytes()))
    }))
}

/// One by its name in addresses.
pub(crate) async fn of_slug(tx: &mut Tx, slug: &str) -> Result<Tenant> {
    let tenant = store::of_slug(tx, slug).await?.filter(|tenant| tenant.removed_at.is_none());
    tenant.ok_or_else(|| Error::not_found("organisation not found"))
}

fn invalid(mistakes: &[String]) -> Error {
    Error::invalid("invalid organisation", mistakes.join("; "))
}

/// An address of a platform, as it is kept.
pub(crate) fn platform_url(text: &str) -> std::result::Result<String, String> {
    let expected = || "platform_url: expected an http or https URL without a password".to_owned();
    let text = text.trim().trim_end_matches('/');
    if text.is_empty() {
        return Ok(String::new());
    }
    let url = reqwest::Url::parse(text).map_err(|_| expected())?;
    let fits = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    if fits { Ok(text.to_owned()) } else { Err(expected()) }
}

fn mistakes_of(new: &NewOrg) -> Vec<String> {
    let mut mistakes: Vec<String> =
        slug_mistake(&new.slug).map(str::to_owned).into_iter().collect();
    let short = |name: &str, said: &Option<String>| {
        let short = said.as_ref().is_some_and(|token| token.trim().len() < SHORTEST_TOKEN);
        short.then(|| format!("{name}: expected at least {SHORTEST_TOKEN} characters"))
    };
    mistakes.extend(short("admin_token", &new.admin_token));
    mistakes.extend(short("shared_secret", &new.shared_secret));
    mistakes.extend(platform_url(new.platform_url.as_deref().unwrap_or_default()).err());
    if new.id.as_ref().is_some_and(|id| id.trim().is_empty() || id.len() > 128) {
        mistakes.push("id: expected 1 to 128 characters".to_owned());
    }
    if new.config.keys().any(String::is_empty) {
        mistakes.push("config: expected names that are not empty".to_owned());
    }
    mistakes
}

/// Create one. Its tokens are there before anything of it can call.
pub(crate) async fn create(fleet: &Fleet, new: NewOrg) -> Result<Tenant> {
    let mistakes = mistakes_of(&new);
    if !mistakes.is_empty() {
        return Err(invalid(&mistakes));
    }
    let token = new.admin_token.map(|token| token.trim().to_owned());
    let token = token.unwrap_or_else(|| fleet.ids.token().reveal().to_owned());
    let told = serde_json::to_string(&new.config).map_err(Error::internal("cannot keep it"))?;
    let hash = |text: &String| TokenHash::of(text.trim()).bytes().to_vec();
    let id = || Uuid::from_bytes(fleet.ids.bytes()).simple().to_string();
    let tenant = Tenant {
        org_id: new.id.map_or_else(id, |id| id.trim().to_owned()),
        name: if new.name.is_empty() { new.slug.clone() } else { new.name },
        slug: new.slug,
        owner: new.owner_user_id,
        platform_url: platform_url(new.platform_url.as_deref().unwrap_or_default())
            .unwrap_or_default(),
        status: "pending".to_owned(),
        boot_event: None,
        token_hash: hash(&token),
        admin_token: fleet.seal(&token),
        secret_hash: new.shared_secret.as_ref().map(hash),
        config: fleet.seal(&told),
        backends: new.backends,
        created_at: fleet.clock.now(),
        removed_at: None,
    };
    let mut tx = fleet.db.begin().await?;
    if !store::insert(&mut tx, &tenant).await? {
        let taken = "slug, id and admin_token: expected ones that no other organisation has";
        return Err(Error::Refused(
            axum::http::StatusCode::CONFLICT,
            Box::new(ligand_api::error::ErrorBody::new("organisation exists").detail(taken)),
        ));
    }
    if !tenant.owner.is_empty() {
        store::add_member(&mut tx, &tenant.org_id, &tenant.owner).await?;
    }
    let about = About { org: Some(&tenant.org_id), ..About::default() };
    let what = format!("the organisation {} was created", tenant.slug);
    journal::note(fleet, &mut tx, about, "tenant", &what).await?;
    tx.commit().await?;
    Ok(tenant)
}

/// Change one.
pub(crate) async fn change(fleet: &Fleet, slug: &str, change: ChangeOrg) -> Result<Tenant> {
    let url = change.platform_url.as_deref().map(platform_url).transpose();
    let url = url.map_err(|mistake| invalid(&[mistake]))?;
    let mut tx = fleet.db.begin().await?;
    let mut tenant = of_slug(&mut tx, slug).await?;
    tenant.name = change.name.unwrap_or(tenant.name);
    tenant.platform_url = url.unwrap_or(tenant.platform_url);
    tenant.backends = change.backends.unwrap_or(tenant.backends);
    if let Some(config) = change.config {
        let told = serde_json::to_string(&config).map_err(Error::internal("cannot keep it"))?;
        tenant.config = fleet.seal(&told);
    }
    store::update(&mut tx, &tenant).await?;
    let about = About { org: Some(&tenant.org_id), ..About::default() };
    journal::note(fleet, &mut tx, about, "tenant", "the organisation was changed").await?;
    tx.commit().await?;
    Ok(tenant)
}

/// As callers see it.
pub(crate) fn view(fleet: &Fleet, tenant: &Tenant, instances: i64) -> Org {
    // What cannot be read is told to whoever asks for it; a list is answered all the same.
    let told = tenant.told(fleet).unwrap_or_default();
    Org {
        id: tenant.org_id.clone(),
        slug: tenant.slug.clone(),
        name: tenant.name.clone(),
        owner_user_id: tenant.owner.clone(),
        platform_url: tenant.platform_url.clone(),
        instance_status: tenant.status.clone(),
        boot_event: tenant.boot_event.clone(),
        config_keys: told.into_keys().collect(),
        backends: tenant.backends.clone(),
        instances,
        created_at: tenant.created_at.to_string(),
    }
}
