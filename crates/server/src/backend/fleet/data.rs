//! Logs, consoles and data of a workspace, as far as its control plane hands them out.

use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_api::fleet::{Console, Data};
use ligand_domain::id::WorkspaceId;
use reqwest::{Body, Method, RequestBuilder};

use super::Fleet;
use super::calls::{self, Call};
use crate::backend::{BackendError, Bytestream, Carried};

impl Fleet {
    /// Where a workspace's data is. Only fleets of ours have it.
    fn at(
        &self,
        workspace: WorkspaceId,
        rest: &str,
        method: Method,
    ) -> Result<RequestBuilder, BackendError> {
        let url = self.workspace(workspace, rest);
        let provider = self.settings.provider.iter().map(|provider| ("provider", provider));
        let asked = self.clients()?.long.request(method, url).query(&provider.collect::<Vec<_>>());
        Ok(self.as_platform(asked))
    }

    /// Do something to all of its data. Gives what was answered.
    pub(super) async fn data(
        &self,
        workspace: WorkspaceId,
        method: Method,
    ) -> Result<Vec<u8>, BackendError> {
        let request = self.at(workspace, "/data", method)?.timeout(self.settings.patience);
        understood(Call::Data, request).await
    }

    pub(super) async fn log_of(
        &self,
        workspace: WorkspaceId,
        lines: usize,
    ) -> Result<Bytes, BackendError> {
        let request = self.at(workspace, "/logs", Method::GET)?.query(&[("lines", lines)]);
        let request = request.timeout(self.settings.patience);
        understood(Call::Logs, request).await.map(Bytes::from)
    }

    pub(super) async fn console_of(&self, workspace: WorkspaceId) -> Result<String, BackendError> {
        let url = format!("{}/cp/admin/workspaces/{workspace}/console", self.settings.url);
        let answer =
            understood(Call::Console, self.as_administrator(self.http()?.get(url))).await?;
        calls::parse(Call::Console, &answer).map(|console: Console| console.output)
    }

    pub(super) async fn export_of(
        &self,
        workspace: WorkspaceId,
    ) -> Result<Bytestream, BackendError> {
        let response = calls::send(Call::Data, self.at(workspace, "/data", Method::GET)?).await?;
        let status = response.status();
        if !status.is_success() {
            let answer = calls::text(Call::Data, response).await?;
            return Err(calls::refused(Call::Data, status, &answer));
        }
        let broken = |cause: reqwest::Error| std::io::Error::other(cause.without_url());
        Ok(response.bytes_stream().map(move |part| part.map_err(broken)).boxed())
    }

    pub(super) async fn import_into(
        &self,
        workspace: WorkspaceId,
        archive: Bytestream,
        expected: Option<String>,
    ) -> Result<Carried, BackendError> {
        let request = self.at(workspace, "/data", Method::PUT)?;
        let digest: Vec<_> = expected.iter().map(|digest| ("digest", digest)).collect();
        let request = request.query(&digest).header("content-type", "application/x-tar");
        let answer = understood(Call::Data, request.body(Body::wrap_stream(archive))).await?;
        carried(&answer)
    }

    pub(super) async fn digest_of(&self, workspace: WorkspaceId) -> Result<Carried, BackendError> {
        let answer =
            understood(Call::Data, self.at(workspace, "/data/digest", Method::GET)?).await?;
        carried(&answer)
    }
}

async fn understood(call: Call, request: RequestBuilder) -> Result<Vec<u8>, BackendError> {
    let (status, answer) = calls::read(call, request).await?;
    if status.is_success() { Ok(answer) } else { Err(calls::refused(call, status, &answer)) }
}

fn carried(answer: &[u8]) -> Result<Carried, BackendError> {
    let Data { digest, entries, bytes } = calls::parse(Call::Data, answer)?;
    Ok(Carried { digest, entries, bytes })
}
