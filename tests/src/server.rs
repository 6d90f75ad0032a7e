//! A real server, started for one test.

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use reqwest::Method;
use task_repo_client::TaskClient;
use task_repo_server::{Server, Settings};

use crate::database::TestDatabase;
use crate::http::Call;
use crate::waiting::run_elsewhere;

/// The bootstrap key of every test server: all tenants, all roles.
pub const API_KEY: &str = "test_api_key";

/// Longest that one call may take: beyond the longest wait of the contract, 30 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// A server on a free port. It stops when this value is dropped, and its database goes with the last server on it.
pub struct TestServer {
    server: Option<Server>,
    addr: SocketAddr,
    settings: Settings,
    http: reqwest::Client,
    database: Arc<TestDatabase>,
}

impl TestServer {
    /// A server with the settings of tests and a fresh database.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, with settings changed.
    pub async fn start_with(configure: impl FnOnce(&mut Settings)) -> Self {
        let database = TestDatabase::create().await;
        let mut settings = Settings::for_tests(database.uri(), database.name());
        configure(&mut settings);
        Self::start_on(Arc::new(database), settings).await
    }

    /// A server with the settings of tests on a database that holds something already.
    pub async fn start_in(database: TestDatabase) -> Self {
        let settings = Settings::for_tests(database.uri(), database.name());
        Self::start_on(Arc::new(database), settings).await
    }

    /// A second server on the same database, with the same settings.
    pub async fn sibling(&self) -> Self {
        Self::start_on(Arc::clone(&self.database), self.settings.clone()).await
    }

    /// A second server on the same database, with settings changed.
    pub async fn sibling_with(&self, configure: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        configure(&mut settings);
        Self::start_on(Arc::clone(&self.database), settings).await
    }

    async fn start_on(database: Arc<TestDatabase>, settings: Settings) -> Self {
        let server = Server::start(settings.clone()).await.expect("the server starts");
        Self { addr: server.addr(), server: Some(server), settings, http: http_client(), database }
    }

    /// Stops it, and starts another in its place once `away` has passed.
    pub async fn restart_after(mut self, away: impl Future<Output = ()>) -> Self {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        away.await;
        Self::start_on(Arc::clone(&self.database), self.settings.clone()).await
    }

    /// Stops gracefully; returns when nothing of it runs any more.
    pub async fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The shipped client, with the bootstrap key.
    pub fn client(&self) -> TaskClient {
        TaskClient::new(&self.url(), API_KEY).expect("a client")
    }

    /// The database, past the server.
    pub fn database(&self) -> mongodb::Database {
        self.database.handle()
    }

    /// A raw `GET`.
    pub fn get(&self, path: &str) -> Call {
        self.request("GET", path)
    }

    /// A raw `POST`.
    pub fn post(&self, path: &str) -> Call {
        self.request("POST", path)
    }

    /// A raw `PUT`.
    pub fn put(&self, path: &str) -> Call {
        self.request("PUT", path)
    }

    /// A raw `DELETE`.
    pub fn delete(&self, path: &str) -> Call {
        self.request("DELETE", path)
    }

    /// A raw call. A path that begins with `/tasks` or `/keys` is meant below `/api/v1`.
    pub fn request(&self, method: &str, path: &str) -> Call {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        Call::new(self.http.clone(), method, &self.url(), path)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            run_elsewhere(move || server.stop());
        }
    }
}

fn http_client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    // The client insists on a provider of cryptography, though these calls are plain HTTP.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder()
        .timeout(CALL_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(2))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("an HTTP client")
}
