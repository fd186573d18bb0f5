//! The files of workspaces, and their logs as they grow.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::Method;

use super::{Client, PATIENCE, Result, unreadable};
use crate::files::{Content, Done, Entry, Write};

impl Client {
    /// `GET /workspaces/{id}/files`: what is below `path` in `root`, `depth` levels deep.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn files(&self, id: &str, root: &str, path: &str, depth: u8) -> Result<Vec<Entry>> {
        let query = format!("root={root}&path={}&depth={depth}", encoded(path));
        self.get(&format!("/workspaces/{id}/files?{query}")).await
    }

    /// `GET /workspaces/{id}/files/{path}`.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn file(&self, id: &str, root: &str, path: &str) -> Result<Content> {
        self.get(&file(id, root, path)).await
    }

    /// `PUT /workspaces/{id}/files/{path}`.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn write_file(&self, id: &str, root: &str, path: &str, body: &Write) -> Result<Done> {
        let request = self.request(Method::PUT, &file(id, root, path)).timeout(PATIENCE).json(body);
        let response = self.accept(request).await?;
        self.read(response).await
    }

    /// `DELETE /workspaces/{id}/files/{path}`.
    ///
    /// # Errors
    /// [`super::Error`].
    pub async fn remove_file(&self, id: &str, root: &str, path: &str) -> Result<Done> {
        let request = self.request(Method::DELETE, &file(id, root, path)).timeout(PATIENCE);
        let response = self.accept(request).await?;
        self.read(response).await
    }

    /// `GET /workspaces/{id}/logs?follow=true`: the last `lines` lines, and what is written from then on. Ends
    /// when the server stops, or where a backend keeps a log per instance, with the instance.
    ///
    /// # Errors
    /// [`super::Error`], at once or as an item.
    pub async fn follow(
        &self,
        id: &str,
        lines: usize,
    ) -> Result<impl Stream<Item = Result<Bytes>> + use<>> {
        let path = format!("/workspaces/{id}/logs?follow=true&lines={lines}");
        let response = self.accept(self.request(Method::GET, &path)).await?;
        let server = self.server.clone();
        Ok(response.bytes_stream().map(move |piece| piece.map_err(|e| unreadable(&server, &e))))
    }
}

fn file(id: &str, root: &str, path: &str) -> String {
    format!("/workspaces/{id}/files/{}?root={root}", encoded(path))
}

/// A path as it stands in an address.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let write =
        |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        assert_eq!(encoded("a b/ä?#%.md"), "a%20b/%C3%A4%3F%23%25.md");
    }
}
