//! The bootstrap key is replaced by the steps in docs/operations.md, without one refusal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use task_repo_server::Settings;
use task_repo_tests::{API_KEY, TestServer, eventually};

/// What callers know, and what became of their calls.
#[derive(Default)]
struct Traffic {
    /// The servers that a balancer would send calls to, and the key that callers use.
    goes_to: Mutex<(Vec<String>, String)>,
    /// Answers by status and key.
    answers: Mutex<BTreeMap<(u16, String), usize>>,
    /// The key of each caller's last call that was answered.
    last_keys: Mutex<BTreeMap<usize, String>>,
}

impl Traffic {
    fn turn_to(&self, servers: &[&TestServer], key: &str) {
        *self.goes_to.lock().unwrap() = (servers.iter().map(|server| server.url()).collect(), key.to_owned());
    }

    fn answered(&self, status: u16, key: &str) -> usize {
        self.answers.lock().unwrap().get(&(status, key.to_owned())).copied().unwrap_or(0)
    }

    /// One caller, for ever.
    async fn call(&self, caller: usize) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for turn in 0.. {
            let (servers, key) = self.goes_to.lock().unwrap().clone();
            let url = format!("{}/api/v1/tasks?limit=1", servers[turn % servers.len()]);
            // A server that has just stopped gives no answer; a balancer would ask another.
            if let Ok(answer) = http.get(url).bearer_auth(&key).send().await {
                self.last_keys.lock().unwrap().insert(caller, key.clone());
                *self.answers.lock().unwrap().entry((answer.status().as_u16(), key)).or_default() += 1;
            }
        }
    }

    /// Returns when some more calls have been answered as they should.
    async fn goes_on(&self) {
        let key = self.goes_to.lock().unwrap().1.clone();
        let before = self.answered(200, &key);
        eventually("calls are answered", async || self.answered(200, &key) >= before + 30).await;
    }
}

/// Stops a server and starts another in its place; callers go to the other one meanwhile.
async fn restart(
    traffic: &Traffic,
    server: TestServer,
    other: &TestServer,
    key: &str,
    change: impl FnOnce(&mut Settings),
) -> TestServer {
    traffic.turn_to(&[other], key);
    server.stop().await;
    let server = other.sibling_with(change).await;
    traffic.turn_to(&[&server, other], key);
    traffic.goes_on().await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bootstrap_key_is_replaced_without_an_outage() {
    const NEW: &str = "the-next-key";
    let one = TestServer::start().await;
    let two = one.sibling().await;
    let traffic = Arc::new(Traffic::default());
    traffic.turn_to(&[&one, &two], API_KEY);
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let traffic = Arc::clone(&traffic);
            tokio::spawn(async move { traffic.call(caller).await })
        })
        .collect();
    traffic.goes_on().await;
    let both = |settings: &mut Settings| {
        settings.http.api_key = NEW.into();
        settings.http.api_key_previous = API_KEY.into();
    };
    // 1. The servers are restarted one by one with both.
    let one = restart(&traffic, one, &two, API_KEY, both).await;
    let two = restart(&traffic, two, &one, API_KEY, both).await;
    // 2. The callers move.
    traffic.turn_to(&[&one, &two], NEW);
    traffic.goes_on().await;
    eventually("all callers have moved", async || {
        traffic.last_keys.lock().unwrap().values().all(|key| key == NEW)
    })
    .await;
    // 3. The servers are restarted one by one without the old one.
    let only_new = |settings: &mut Settings| settings.http.api_key_previous = "".into();
    let one = restart(&traffic, one, &two, NEW, only_new).await;
    let two = restart(&traffic, two, &one, NEW, only_new).await;
    for caller in callers {
        caller.abort();
    }
    let answers = traffic.answers.lock().unwrap().clone();
    assert!(answers.keys().all(|(status, _)| *status == 200), "{answers:?}");
    for server in [&one, &two] {
        server.get("/tasks").send().await.problem(401, "unauthenticated");
        server.get("/tasks").key(NEW).send().await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_key_has_the_same_rights() {
    let server =
        TestServer::start_with(|settings| settings.http.api_key_previous = "the-previous-key".into()).await;
    for key in [API_KEY, "the-previous-key"] {
        server.get("/tasks").key(key).tenant("any").send().await.ok();
        server.get("/keys").key(key).send().await.ok();
    }
    server.get("/tasks").key("another-key").send().await.problem(401, "unauthenticated");
}
