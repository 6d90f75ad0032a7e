//! `docs/examples/worker.py`, the model of a worker in another language, against a real server.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use task_repo_tests::{API_KEY, TestServer, eventually, id_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/worker.py");

/// Python, or `None` where there is none: then the test is left out, but not where nobody would see that it was.
fn python(test: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("python3")).find(|it| it.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "there is no python3 on PATH");
        eprintln!("skipped: {test}: there is no python3 on PATH");
    }
    found
}

/// The script, running until this value is dropped.
struct Script(Child);

impl Script {
    fn start(python: &PathBuf, url: &str, key: &str, words: &[&str]) -> Self {
        let mut command = Command::new(python);
        command.arg(SCRIPT).arg(url).args(words).env("TASK_SERVICE_KEY", key);
        command.stderr(Stdio::piped()).kill_on_drop(true);
        Self(command.spawn().expect("the script starts"))
    }

    async fn ask_to_stop(&self) {
        let pid = self.0.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status().await;
        assert!(sent.expect("kill runs").success());
    }

    /// Its exit code and its log.
    async fn ended(self) -> (Option<i32>, String) {
        let output = self.0.wait_with_output().await.expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn is_in(server: &TestServer, task: &Value, status: &str) -> bool {
    server.task(id_of(task)).await["status"] == status
}

/// What stands between the worker and the service.
#[derive(Default)]
struct Between {
    deliveries: AtomicUsize,
    too_large: AtomicUsize,
    cut_off: AtomicUsize,
}

/// The most that passes.
const MAX_BODY: usize = 700_000;

impl Between {
    /// Listens, and returns the address.
    async fn start(server: &TestServer) -> (Arc<Self>, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let target = server.url().trim_start_matches("http://").to_owned();
        let between = Arc::new(Self::default());
        let shared = Arc::clone(&between);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let (shared, target) = (Arc::clone(&shared), target.clone());
                tokio::spawn(async move { shared.serve(caller, &target).await });
            }
        });
        (between, url)
    }

    async fn serve(&self, mut caller: TcpStream, target: &str) -> Option<()> {
        let (mut request, mut part) = (Vec::new(), vec![0; 64 * 1024]);
        let head = loop {
            if let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            let count = caller.read(&mut part).await.ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&part[..count]);
        };
        let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
        let length = text.split("content-length: ").nth(1)?.lines().next()?.trim().parse::<usize>().ok()?;
        while request.len() < head + 4 + length {
            let count = caller.read(&mut part).await.ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&part[..count]);
        }
        let is_delivery = text.contains("/tasks/outcomes ");
        if length > MAX_BODY {
            self.too_large.fetch_add(1, Ordering::Relaxed);
            return answer(&mut caller, "413 Payload Too Large", "<h1>too large</h1>").await;
        }
        let number = if is_delivery { self.deliveries.fetch_add(1, Ordering::Relaxed) } else { usize::MAX };
        match number {
            0 => return answer(&mut caller, "200 OK", "<h1>Please log in</h1>").await,
            1 => return answer(&mut caller, "404 Not Found", "<h1>no such backend</h1>").await,
            _ => {}
        }
        let mut service = TcpStream::connect(target).await.ok()?;
        service.write_all(&request[..head]).await.ok()?;
        service.write_all(b"\r\nConnection: close").await.ok()?;
        service.write_all(&request[head..]).await.ok()?;
        let mut said = Vec::new();
        service.read_to_end(&mut said).await.ok()?;
        if number == 2 {
            // Settled and claimed, and the worker does not hear of it.
            self.cut_off.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        caller.write_all(&said).await.ok()
    }
}

async fn answer(caller: &mut TcpStream, status: &str, page: &str) -> Option<()> {
    let length = page.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n");
    caller.write_all((head + page).as_bytes()).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_arrive_whatever_answers_in_place_of_the_service() {
    let Some(python) = python("results_arrive_whatever_answers_in_place_of_the_service") else { return };
    let server = TestServer::start().await;
    let (between, url) = Between::start(&server).await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        tasks.push(server.create(json!({"task_type": "example.text", "request": {"length": 290_000}})).await);
    }
    let sum = server.create(json!({"task_type": "example.sum", "request": {"numbers": [1, 2, 3]}})).await;
    let script = Script::start(&python, &url, API_KEY, &["--concurrency", "8"]);
    eventually("all is completed, and some delivery was too large", async || {
        let large = between.too_large.load(Ordering::Relaxed);
        let mut are_done = is_in(&server, &sum, "completed").await;
        for task in &tasks {
            are_done &= is_in(&server, task, "completed").await;
        }
        if are_done && large == 0 {
            for _ in 0..8 {
                let fields = json!({"task_type": "example.text", "request": {"length": 290_000}});
                tasks.push(server.create(fields).await);
            }
        }
        are_done && large > 0
    })
    .await;
    assert_eq!(between.cut_off.load(Ordering::Relaxed), 1, "an answer was lost too");
    assert_eq!(server.task(id_of(&sum)).await["result"], json!({"sum": 6}));
    for task in &tasks {
        let task = server.task(id_of(task)).await;
        assert_eq!(task["result"].as_str().map(str::len), Some(290_000));
        assert_eq!((&task["attempt"], &task["losses"]), (&json!(1), &json!(0)), "done once: {task:#}");
    }
    script.ask_to_stop().await;
    let (code, log) = script.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("200 text/html is not an answer of the service"), "{log}");
    assert!(log.contains("are too large for one call and are split"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_say_why_and_a_stop_gives_back_what_runs() {
    let Some(python) = python("failures_say_why_and_a_stop_gives_back_what_runs") else { return };
    let server = TestServer::start().await;
    let with = |task_type: &str, request: Value| json!({"task_type": task_type, "request": request, "max_attempts": 1});
    let broken = server.create(with("example.sum", json!({"numbers": [1, "two"]}))).await;
    let no_json = server.create(with("example.sum", json!({"numbers": [1e308, 1e308]}))).await;
    let too_large = server.create(with("example.text", json!({"length": 1_200_000}))).await;
    let script = Script::start(&python, &server.url(), API_KEY, &[]);
    for (task, why) in [
        (&broken, "unsupported operand"),
        (&no_json, "Out of range float values"),
        (&too_large, "its result is refused"),
    ] {
        eventually("the attempt has failed", async || is_in(&server, task, "failed").await).await;
        let error = server.task(id_of(task)).await["error"].take();
        assert!(error["message"].as_str().is_some_and(|message| message.contains(why)), "{error}");
    }
    let endless = server.create(json!({"task_type": "example.wait", "request": {"steps": 1_000_000}})).await;
    eventually("it is begun", async || is_in(&server, &endless, "processing").await).await;
    script.ask_to_stop().await;
    let (code, log) = script.ended().await;
    assert_eq!(code, Some(0), "{log}");
    let task = server.task(id_of(&endless)).await;
    assert_eq!(
        (&task["status"], &task["attempt"], &task["losses"]),
        (&json!("pending"), &json!(0), &json!(0))
    );
    assert!(log.contains("stopped: 0 tasks are left to their leases"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_renewed_and_a_handler_hears_that_its_task_is_cancelled_or_gone() {
    let name = "leases_are_renewed_and_a_handler_hears_that_its_task_is_cancelled_or_gone";
    let Some(python) = python(name) else { return };
    let server = TestServer::start().await;
    let script =
        Script::start(&python, &server.url(), API_KEY, &["--concurrency", "1", "--lease-seconds", "6"]);
    let wait = json!({"task_type": "example.wait", "request": {"steps": 1_000_000}});
    let expiry = async |task: &Value| server.task(id_of(task)).await["lease"]["expires_at"].clone();

    let task = server.create(wait.clone()).await;
    eventually("it is begun", async || expiry(&task).await.is_string()).await;
    let first = expiry(&task).await;
    eventually("the lease is renewed", async || expiry(&task).await != first).await;
    assert!(server.task(id_of(&task)).await["progress"]["text"].is_string(), "with the progress");
    server.post(&format!("/tasks/{}/cancel", id_of(&task))).json(&json!({})).send().await.ok();
    eventually("the worker has let it go", async || is_in(&server, &task, "cancelled").await).await;
    assert_eq!(server.task(id_of(&task)).await["losses"], 0);

    let gone = server.create(wait).await;
    eventually("it is begun", async || expiry(&gone).await.is_string()).await;
    server.delete(&format!("/tasks/{}?force=true", id_of(&gone))).send().await.success();
    let next = server.create(json!({"task_type": "example.sum", "request": {"numbers": [4]}})).await;
    eventually("the slot is free again", async || is_in(&server, &next, "completed").await).await;
    script.ask_to_stop().await;
    let (code, log) = script.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("has to end: cancel") && log.contains("has to end: lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_person_can_mend_ends_the_worker_with_an_error() {
    let Some(python) = python("what_only_a_person_can_mend_ends_the_worker_with_an_error") else { return };
    let server = TestServer::start().await;
    let producer = server.issue_key(&["producer"], json!({})).await;
    let twice = format!("{}/api/v1", server.url());
    for (url, key, why) in [
        (&server.url(), "wrong", "401 unauthenticated"),
        (&server.url(), &producer, "403 forbidden"),
        (&twice, API_KEY, "404 not_found"),
    ] {
        let (code, log) = Script::start(&python, url, key, &[]).ended().await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&format!("the worker ends: {why}")), "{log}");
    }
}
