//! A real server, started for one test.

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use bson::{Document, doc};
use chrono::{DateTime, Utc};
use reqwest::Method;
use task_repo_client::TaskClient;
use task_repo_server::clock::Clock;
use task_repo_server::{Server, Settings};
use tokio::sync::Mutex;

use crate::database::TestDatabase;
use crate::http::{API_KEY, HttpCall};
use crate::waiting::{eventually, run_elsewhere};

/// Longest that one call may take: beyond the longest wait of the contract, 30 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest step by which [`TestServer::let_pass`] moves the clock: a quarter of what the service takes for an outage.
const MAX_CLOCK_STEP: Duration = Duration::from_millis(500);

/// A server on a free port. It stops when this value is dropped, and its database goes with the last server on it.
pub struct TestServer {
    server: Option<Server>,
    addr: SocketAddr,
    settings: Settings,
    http: reqwest::Client,
    database: Arc<TestDatabase>,
    clock: Arc<Clock>,
    /// Held for a step of the clock, so that those of several parts of a test do not add up to an outage.
    steps: Arc<Mutex<()>>,
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
        Self::start_on(Arc::new(database), settings, Arc::default(), Arc::default()).await
    }

    /// A server with the settings of tests on a database that holds something already.
    pub async fn start_in(database: TestDatabase) -> Self {
        let settings = Settings::for_tests(database.uri(), database.name());
        Self::start_on(Arc::new(database), settings, Arc::default(), Arc::default()).await
    }

    /// Its database.
    pub fn test_database(&self) -> &TestDatabase {
        &self.database
    }

    /// The MongoDB that its database is in.
    pub fn mongodb_uri(&self) -> &str {
        self.database.uri()
    }

    /// A second server on the same database, with the same settings and the same clock.
    pub async fn sibling(&self) -> Self {
        Self::start_on(
            Arc::clone(&self.database),
            self.settings.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.steps),
        )
        .await
    }

    /// A second server on the same database, with settings changed.
    pub async fn sibling_with(&self, configure: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings.clone();
        configure(&mut settings);
        Self::start_on(Arc::clone(&self.database), settings, Arc::clone(&self.clock), Arc::clone(&self.steps))
            .await
    }

    async fn start_on(
        database: Arc<TestDatabase>,
        settings: Settings,
        clock: Arc<Clock>,
        steps: Arc<Mutex<()>>,
    ) -> Self {
        let server = Server::start(settings.clone(), Arc::clone(&clock)).await.expect("the server starts");
        Self {
            addr: server.addr(),
            server: Some(server),
            settings,
            http: http_client(),
            database,
            clock,
            steps,
        }
    }

    /// Stops it, and starts another in its place once `away` has passed.
    pub async fn restart_after(mut self, away: impl Future<Output = ()>) -> Self {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        away.await;
        Self::start_on(
            Arc::clone(&self.database),
            self.settings.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.steps),
        )
        .await
    }

    /// Stops gracefully; returns when nothing of it runs any more.
    pub async fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Returns once that many claims for the task type wait here, each after a read that found nothing for it. They must not
    /// be answered before.
    pub async fn until_claims_wait(&self, task_type: &str, count: usize) {
        eventually("the claims wait", async || self.waiting_claims(task_type) >= count).await;
    }

    /// How many claims for the task type wait here, after a read that found nothing for them.
    pub fn waiting_claims(&self, task_type: &str) -> usize {
        self.running().waiting_claims(task_type)
    }

    /// Returns once that many calls wait here for the end of a task, each after a read that found it unfinished.
    pub async fn until_reads_wait(&self, count: usize) {
        eventually("the calls wait for their tasks", async || self.running().waiting_reads() >= count).await;
    }

    /// Returns once that many calls have come and are not answered.
    pub async fn until_in_flight(&self, count: usize) {
        eventually("the calls have come", async || self.running().calls_in_flight() >= count).await;
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("a server that runs")
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

    /// The time by the server's clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The server's clock, for tests that go on after the server has stopped.
    pub fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// Has the server's clock, and that of its siblings, jump. To the service this is a time in which no server ran: leases
    /// hold longer by it.
    pub fn jump(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    /// Lets time pass by the server's clock, and that of its siblings, in steps that are no outage: after each, the sweeper
    /// has made sure that leases can be renewed. It takes about 20 ms of real time for half a second.
    pub async fn let_pass(&self, duration: Duration) {
        let mut left = duration;
        while !left.is_zero() {
            let step = left.min(MAX_CLOCK_STEP);
            let _alone = self.steps.lock().await;
            left -= step;
            self.clock.advance(step);
            let moved = self.clock.now();
            let renewals = self.database().collection::<Document>("tasks_pulse");
            eventually("the sweeper has noticed the time", async || {
                let renewal = renewals.find_one(doc! {}).await.expect("an answer");
                renewal.is_some_and(|renewal| {
                    renewal.get_datetime("seen_at").is_ok_and(|seen| seen.to_chrono() >= moved)
                })
            })
            .await;
        }
    }

    /// Lets time pass by the server's clock, as [`let_pass`](Self::let_pass) does, until `work` is done.
    pub async fn while_time_passes<T>(&self, work: impl Future<Output = T>) -> T {
        let passing = async {
            loop {
                self.let_pass(MAX_CLOCK_STEP).await;
            }
        };
        tokio::select! {
            done = work => done,
            () = passing => unreachable!("time does not end"),
        }
    }

    /// Lets the time pass until `time`, as [`let_pass`](Self::let_pass) does.
    pub async fn let_pass_until(&self, time: DateTime<Utc>) {
        self.let_pass(self.clock.until(time)).await;
    }

    /// A raw `GET`.
    pub fn get(&self, path: &str) -> HttpCall {
        self.request("GET", path)
    }

    /// A raw `POST`.
    pub fn post(&self, path: &str) -> HttpCall {
        self.request("POST", path)
    }

    /// A raw `PUT`.
    pub fn put(&self, path: &str) -> HttpCall {
        self.request("PUT", path)
    }

    /// A raw `DELETE`.
    pub fn delete(&self, path: &str) -> HttpCall {
        self.request("DELETE", path)
    }

    /// A raw call. A path that begins like one of the contract is meant below `/api/v1`.
    pub fn request(&self, method: &str, path: &str) -> HttpCall {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        HttpCall::new(self.http.clone(), method, &self.url(), path)
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
