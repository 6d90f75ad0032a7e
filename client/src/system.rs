//! The service's own health. These calls are not repeated: their failure is the answer.

use task_repo_protocol::system::{DetailedHealth, Health};
use task_repo_protocol::{Json, path};

use crate::client::TaskClient;
use crate::error::Result;
use crate::request::ApiRequest;
use crate::retry::RetryBudget;

/// Health.
impl TaskClient {
    /// Whether the process lives; says nothing of its database. Needs no key.
    ///
    /// # Errors
    /// When it does not; see [`ClientError`](crate::ClientError).
    pub async fn health(&self) -> Result<Health> {
        self.once().send(ApiRequest::get(path::HEALTH)).await?.json()
    }

    /// Whether the service can do its work now. Needs no key.
    ///
    /// # Errors
    /// With HTTP status 503 while the database takes no writes or the server is draining; see
    /// [`ClientError`](crate::ClientError).
    pub async fn ready(&self) -> Result<Health> {
        self.once().send(ApiRequest::get(path::HEALTH_READY)).await?.json()
    }

    /// Each dependency and background job. Needs any key.
    ///
    /// # Errors
    /// See [`ClientError`](crate::ClientError).
    pub async fn detailed_health(&self) -> Result<DetailedHealth> {
        self.once().send(ApiRequest::get(path::HEALTH_DETAILED)).await?.json()
    }

    /// The service's metrics as Prometheus text. Needs any key.
    ///
    /// # Errors
    /// See [`ClientError`](crate::ClientError).
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.once().send(ApiRequest::get(path::METRICS)).await?.text())
    }

    /// The `OpenAPI` document. Needs no key.
    ///
    /// # Errors
    /// See [`ClientError`](crate::ClientError).
    pub async fn openapi(&self) -> Result<Json> {
        self.once().send(ApiRequest::get(path::OPENAPI)).await?.json()
    }

    fn once(&self) -> Self {
        self.with_retry(RetryBudget::none())
    }
}
