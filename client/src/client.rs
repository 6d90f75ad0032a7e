//! The client itself and how it is set up. Its methods stand in [`tasks`](crate::tasks), [`list`](crate::list),
//! [`claiming`](crate::claiming), [`settle`](crate::settle), [`keys`](crate::keys) and [`system`](crate::system).

use std::sync::Arc;
use std::time::Duration;

use task_repo_protocol::path;

use crate::error::Result;
use crate::request::ApiRequest;
use crate::retry::RetryBudget;
use crate::transport::{ApiResponse, Transport};
use crate::waits::WaitWatcher;

/// Calls the service. Clones are cheap and share their connections.
#[derive(Debug, Clone)]
pub struct TaskClient {
    pub(crate) transport: Arc<Transport>,
    /// In a handler: watches what it waits for.
    pub(crate) waits: Option<Arc<dyn WaitWatcher>>,
}

impl TaskClient {
    /// A client with the usual settings.
    ///
    /// `base_url` is where the service is, such as `http://127.0.0.1:8503`, with or without `/api/v1`.
    ///
    /// # Errors
    /// When `base_url` is no `http` or `https` URL, or `api_key` is not visible ASCII.
    pub fn new(base_url: &str, api_key: &str) -> Result<Self> {
        Self::builder(base_url).api_key(api_key).build()
    }

    /// Sets up a client; see [`TaskClientBuilder`] for what can be set.
    pub fn builder(base_url: impl Into<String>) -> TaskClientBuilder {
        TaskClientBuilder {
            base_url: base_url.into(),
            api_key: None,
            tenant: None,
            user: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            retry: RetryBudget::default(),
        }
    }

    /// The same client with another credential.
    ///
    /// # Errors
    /// When `api_key` is not visible ASCII.
    pub fn with_api_key(&self, api_key: &str) -> Result<Self> {
        self.with_header("authorization", &format!("Bearer {api_key}"), true)
    }

    /// The same client for another tenant (`X-Tenant-ID`), with a key that reaches all tenants.
    ///
    /// # Errors
    /// When `tenant_id` is not visible ASCII.
    pub fn for_tenant(&self, tenant_id: &str) -> Result<Self> {
        self.with_header(path::TENANT_HEADER, tenant_id, false)
    }

    /// The same client on behalf of an end user (`X-User-ID`): it sees and changes only that user's tasks.
    ///
    /// # Errors
    /// When `user_id` is not visible ASCII.
    pub fn for_user(&self, user_id: &str) -> Result<Self> {
        self.with_header(path::USER_HEADER, user_id, false)
    }

    /// The same client with another retry budget.
    #[must_use]
    pub fn with_retry(&self, retry: RetryBudget) -> Self {
        let mut client = self.clone();
        Arc::make_mut(&mut client.transport).budget = retry;
        client
    }

    /// The same client with connections of its own, for use on another runtime.
    pub(crate) fn detached(&self) -> Result<Self> {
        Ok(Self { transport: Arc::new(self.transport.detached()?), waits: None })
    }

    /// The same client for a handler, whose waits are watched.
    pub(crate) fn watched(&self, waits: impl WaitWatcher + 'static) -> Self {
        Self { waits: Some(Arc::new(waits)), ..self.clone() }
    }

    /// Sends a request until it is answered, refused for good, or its retry budget is spent.
    pub(crate) async fn send(&self, request: ApiRequest) -> Result<ApiResponse> {
        self.transport.send(request).await
    }

    fn with_header(&self, name: &'static str, value: &str, secret: bool) -> Result<Self> {
        let mut client = self.clone();
        Arc::make_mut(&mut client.transport).set_header(name, value, secret)?;
        Ok(client)
    }
}

/// Sets up a [`TaskClient`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct TaskClientBuilder {
    base_url: String,
    api_key: Option<String>,
    tenant: Option<String>,
    user: Option<String>,
    timeout: Duration,
    connect_timeout: Duration,
    retry: RetryBudget,
}

impl TaskClientBuilder {
    /// The credential, sent as `Authorization: Bearer`. Without one, only health can be asked for.
    pub fn api_key(mut self, api_key: impl Into<String>) -> Self {
        self.api_key = Some(api_key.into());
        self
    }

    /// Which tenant a key that reaches all tenants means (`X-Tenant-ID`).
    pub fn tenant(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant = Some(tenant_id.into());
        self
    }

    /// The end user on whose behalf the calls are made (`X-User-ID`).
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.user = Some(user_id.into());
        self
    }

    /// How long one attempt of a call may take, default 10 s. A long poll may take its wait in addition.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long it may take to connect, default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often, and for how long, calls are repeated.
    pub fn retry(mut self, retry: RetryBudget) -> Self {
        self.retry = retry;
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the base URL is no `http` or `https` URL, one of the headers cannot carry its value, or for `https` the
    /// system has no certificates to trust.
    pub fn build(self) -> Result<TaskClient> {
        let transport = Transport::new(&self.base_url, self.timeout, self.connect_timeout, self.retry)?;
        let mut client = TaskClient { transport: Arc::new(transport), waits: None };
        if let Some(api_key) = &self.api_key {
            client = client.with_api_key(api_key)?;
        }
        if let Some(tenant) = &self.tenant {
            client = client.for_tenant(tenant)?;
        }
        if let Some(user) = &self.user {
            client = client.for_user(user)?;
        }
        Ok(client)
    }
}
