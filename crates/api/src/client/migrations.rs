//! Migrations and drains.

use serde_json::json;

use super::{Client, Result};
use crate::migration::{Drain, DrainRequest, Drains, Migrate, Migration, Migrations};

/// What a person wants of a migration, or of a drain, that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// That it rests, where it can.
    Pause,
    /// That it goes on.
    Resume,
    /// That it is undone, where it can be; of a drain, that nothing further is begun.
    Abort,
}

impl Order {
    /// As paths name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
        }
    }
}

impl Client {
    /// `POST /admin/workspaces/{id}/migrate`.
    ///
    /// # Errors
    /// [`super::Error`]; 409 with the cause where it cannot be moved there.
    pub async fn migrate(&self, id: &str, body: &Migrate) -> Result<Migration> {
        self.post(&format!("/admin/workspaces/{id}/migrate"), body).await
    }

    /// `GET /admin/workspaces/{id}/migrations`: those of one workspace, newest first.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn migrations_of(&self, id: &str) -> Result<Migrations> {
        self.get(&format!("/admin/workspaces/{id}/migrations")).await
    }

    /// `GET /admin/migrations`: those of every workspace, newest first; `open`: only those that are not over.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn migrations(&self, open: bool) -> Result<Migrations> {
        let query = if open { "?open=true" } else { "" };
        self.get(&format!("/admin/migrations{query}")).await
    }

    /// `POST /admin/workspaces/{id}/migrations/{order}`.
    ///
    /// # Errors
    /// [`super::Error`]; 409 where nothing goes on, or not that way.
    pub async fn order_migration(&self, id: &str, order: Order) -> Result<Migration> {
        let path = format!("/admin/workspaces/{id}/migrations/{}", order.as_str());
        self.post(&path, &json!({})).await
    }

    /// `POST /admin/drains`.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn drain(&self, body: &DrainRequest) -> Result<Drain> {
        self.post("/admin/drains", body).await
    }

    /// `GET /admin/drains`: newest first.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn drains(&self) -> Result<Drains> {
        self.get("/admin/drains").await
    }

    /// `GET /admin/drains/{id}`.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn drain_of(&self, id: &str) -> Result<Drain> {
        self.get(&format!("/admin/drains/{id}")).await
    }

    /// `POST /admin/drains/{id}/{order}`.
    ///
    /// # Errors
    /// [`super::Error`]; 409 where it is over.
    pub async fn order_drain(&self, id: &str, order: Order) -> Result<Drain> {
        self.post(&format!("/admin/drains/{id}/{}", order.as_str()), &json!({})).await
    }
}
