//! URLs that open one stream without a key, for pages in browsers.

use task_repo_protocol::{NewStreamToken, NewTenantStreamToken, StreamToken, Uuid, path};

use crate::client::TaskClient;
use crate::error::Result;
use crate::request::ApiRequest;
use crate::retry::Repeat;

/// Stream tokens.
impl TaskClient {
    /// A URL that opens the stream of a task without a key.
    ///
    /// # Errors
    /// `task_not_found`, `validation_failed`; see [`ClientError`](crate::ClientError).
    pub async fn create_stream_token(&self, id: Uuid, token: &NewStreamToken) -> Result<StreamToken> {
        let request = ApiRequest::post(path::TASK_STREAM_TOKEN, Repeat::Always).at(&id.to_string())?;
        self.send(request.json(token)?).await?.json()
    }

    /// A URL that opens the stream of all tasks of the tenant that fit these filters, without a key.
    ///
    /// # Errors
    /// `validation_failed`; see [`ClientError`](crate::ClientError).
    pub async fn create_tenant_stream_token(&self, token: &NewTenantStreamToken) -> Result<StreamToken> {
        self.send(ApiRequest::post(path::STREAM_TOKEN, Repeat::Always).json(token)?).await?.json()
    }
}
