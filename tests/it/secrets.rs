//! What must not be known from outside: the real server program, driven with recognisable secrets at the most talkative
//! log level, and everything it prints searched for them.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::{Command as StdCommand, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use mongodb::bson::doc;
use serde_json::{Value, json};
use task_repo_tests::{TestDatabase, TestServer, eventually};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::fail_point::FailPoint;

/// Far longer than the program runs in any test here.
const PATIENCE: Duration = Duration::from_secs(180);
/// Part of every secret and payload, in one piece, so that also a part of it in the log is seen.
const CANARY: &str = "c4n4ry";

/// The server program, built as it is now.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut build = StdCommand::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args(["build", "--quiet", "--bin", "task-repo-server", "--message-format", "json"]);
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stderr(Stdio::inherit());
    let output = build.output().expect("cargo runs");
    assert!(output.status.success(), "the server program does not build");
    let messages = String::from_utf8(output.stdout).expect("messages of cargo");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.filter_map(|message| Some(message["executable"].as_str()?.to_owned())).next_back();
    program.expect("cargo says where the program is").into()
});

/// Starts the program with everything logged; returns where it will listen, its process, and what it prints until its end.
fn start(database: &str, uri: &OsStr, api_key: &OsStr) -> (String, u32, JoinHandle<String>) {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut command = Command::new(&*PROGRAM);
    command.env("MONGODB_URI", uri).env("MONGODB_DATABASE", database).env("API_KEY", api_key);
    command.env("HOST", "127.0.0.1").env("PORT", port.to_string()).env("SERVICE_NAME", "service");
    command.env("LOG_LEVEL", "trace").env("LOG_FORMAT", "json").env("RUST_BACKTRACE", "full");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().expect("the program starts");
    let process = child.id().expect("it runs");
    let printed = tokio::spawn(async move {
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends");
        let output = output.expect("its output");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    });
    (format!("http://127.0.0.1:{port}"), process, printed)
}

/// The URI with the password of a user whom that database knows.
fn with_password(uri: &str, database: &str, password: &str) -> String {
    let uri = uri.replacen("mongodb://", &format!("mongodb://canary:{password}@"), 1);
    let separator = if uri.contains('?') { "&" } else { "/?" };
    format!("{uri}{separator}authSource={database}")
}

#[track_caller]
fn assert_silent(printed: &str, secrets: &[String]) {
    for secret in secrets.iter().map(String::as_str).chain([CANARY]) {
        assert_eq!(printed.lines().find(|line| line.contains(secret)), None, "{secret} was printed");
    }
}

/// Calls the program, and remembers what must not be in its log.
struct Caller {
    http: reqwest::Client,
    url: String,
    key: String,
    secrets: Vec<String>,
}

impl Caller {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}/api/v1{path}", self.url));
        request = request.bearer_auth(&self.key).header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, &[], &body.to_string()).await
    }

    /// A task full of canaries; its id is a secret from then on.
    async fn create(&mut self) -> String {
        let body = json!({
            "task_type": "c4n4ry", "user_id": CANARY, "name": CANARY, "description": CANARY, "request": {CANARY: CANARY},
            "metadata": {CANARY: CANARY}, "tags": {CANARY: CANARY}, "template": {"service_type": CANARY},
        });
        let (status, task) = self.post("/tasks", body).await;
        assert_eq!(status, 201, "{task}");
        self.keep(&task["id"])
    }

    /// The same, and a lease on it.
    async fn claim(&mut self) -> (String, String) {
        let id = self.create().await;
        let (status, task) = self.post(&format!("/tasks/{id}/claim"), json!({"worker_id": CANARY})).await;
        assert_eq!(status, 200, "{task}");
        (id, self.keep(&task["lease"]["token"]))
    }

    fn keep(&mut self, secret: &Value) -> String {
        self.secrets.push(secret.as_str().expect("a secret").to_owned());
        self.secrets.last().unwrap().clone()
    }
}

/// Keys and tasks through their lives.
async fn work(caller: &mut Caller) {
    let body = json!({"name": CANARY, "roles": ["producer", "worker"], "tenant_id": "t"});
    let (_, issued) = caller.post("/keys", body).await;
    caller.keep(&issued["key"]);
    let key = caller.keep(&issued["id"]);
    let (status, rotated) = caller.post(&format!("/keys/{key}/rotate"), json!({})).await;
    assert_eq!(status, 200, "{rotated}");
    let secret = caller.keep(&rotated["key"]);
    let mut tenant =
        Caller { http: caller.http.clone(), url: caller.url.clone(), key: secret, secrets: Vec::new() };
    tenant.create().await;
    caller.secrets.append(&mut tenant.secrets);
    caller.send("DELETE", &format!("/keys/{key}"), &[], "").await;
    assert_eq!(tenant.send("GET", &format!("/tasks/{CANARY}"), &[], "").await.0, 401);

    for (verb, more) in [
        ("complete", json!({"result": CANARY, "result_id": CANARY})),
        ("fail", json!({"error": {"message": CANARY, "code": CANARY, "details": CANARY}})),
        ("release", json!({})),
        ("cancel", json!({})),
        ("heartbeat", json!({"progress": {"text": CANARY}})),
    ] {
        let (id, token) = caller.claim().await;
        let mut body = json!({"lease_token": format!("{CANARY}-token")});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(caller.post(&format!("/tasks/{id}/{verb}"), body.clone()).await.0, 409);
        caller.post(&format!("/tasks/{id}/cancel"), json!({})).await;
        body["lease_token"] = token.into();
        let (status, receipt) = caller.post(&format!("/tasks/{id}/{verb}"), body).await;
        assert_eq!(status, 200, "{verb}: {receipt}");
        for path in ["", "/status", "/executions"] {
            caller.send("GET", &format!("/tasks/{id}{path}"), &[("X-User-ID", CANARY)], "").await;
        }
        caller.send("DELETE", &format!("/tasks/{id}?force=true"), &[], "").await;
    }
}

/// What is refused, each with something in it that nobody should read.
async fn refusals(caller: &mut Caller) {
    let task = json!({"task_type": "t", "request": CANARY}).to_string();
    for body in [task.as_str(), r#"{"task_type":"t","request":"c4n4ry 2"}"#, task.as_str()] {
        let (_, answer) =
            caller.send("POST", "/tasks", &[("Idempotency-Key", "c4n4ry-idempotency")], body).await;
        if answer["id"].is_string() {
            caller.keep(&answer["id"]);
        }
    }
    let long = format!(r#"{{"task_type":"t","request":"{}"}}"#, CANARY.repeat(200_000));
    for body in
        ["{\"c4n4ry", "c4n4ry", r#""c4n4ry""#, r#"{"c4n4ry":1}"#, r#"{"task_type":["c4n4ry"]}"#, &long]
    {
        for (method, path) in [
            ("POST", "/tasks"),
            ("POST", "/tasks/claim"),
            ("PUT", "/tasks/c4n4ry"),
            ("POST", "/tasks/c4n4ry/complete"),
            ("POST", "/keys"),
            ("POST", "/c4n4ry"),
            ("PATCH", "/tasks/c4n4ry"),
            ("POST", "/keys/c4n4ry/rotate"),
        ] {
            let (status, _) = caller.send(method, path, &[], body).await;
            assert!((400..500).contains(&status), "{method} {path} {body:.50}: {status}");
        }
    }
    for path in [
        "/tasks/by-result/c4n4ry",
        "/tasks?c4n4ry=c4n4ry",
        "/tasks?cursor=c4n4ry",
        "/tasks?tag=c4n4ry:c4n4ry",
    ] {
        caller.send("GET", path, &[], "").await;
    }
    for (name, value) in [
        ("X-API-Key", CANARY),
        ("Authorization", "Bearer c4n4ry"),
        ("Authorization", "c4n4ry"),
        ("X-User-ID", "c4n4ry é"),
        ("X-Tenant-ID", CANARY),
        ("If-Match", CANARY),
        ("Idempotency-Key", "c4n4ry é"),
        ("Cookie", CANARY),
        ("X-Request-ID", "c4n4ry é"),
        ("Content-Type", "text/c4n4ry"),
        ("Expect", CANARY),
        ("Upgrade", CANARY),
    ] {
        caller.send("POST", "/tasks", &[(name, value)], &task).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_logged_at_any_level() {
    // Its database, and the fail points on that.
    let beside = TestServer::start().await;
    let database = beside.database();
    let user = doc! {"createUser": "canary", "pwd": "c4n4ry-password", "roles": ["readWrite"]};
    database.run_command(user).await.expect("a user");
    let uri = std::env::var("TEST_MONGODB_URI").expect("a MongoDB");
    let uri = with_password(&uri, database.name(), "c4n4ry-password");
    let key = "c4n4ry-bootstrap-key";
    let (url, process, printed) = start(database.name(), uri.as_ref(), key.as_ref());
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let ready = format!("{url}/health/ready");
    eventually("the program is ready", async || {
        assert!(!printed.is_finished(), "it has ended");
        http.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let mut caller = Caller { http, url, key: key.to_owned(), secrets: vec!["c4n4ry-password".to_owned()] };
    work(&mut caller).await;
    refusals(&mut caller).await;
    let (id, token) = caller.claim().await;
    let settle = json!({"lease_token": token, "result": CANARY});
    let error = || doc! {"errorCode": 8000, "errorLabels": []};
    for (command, method, path, body) in [
        ("insert", "POST", "/tasks".to_owned(), json!({"task_type": "t", "request": CANARY})),
        ("find", "GET", "/tasks?user_id=c4n4ry".to_owned(), Value::Null),
        ("find", "GET", format!("/tasks/{id}"), Value::Null),
        ("update", "POST", format!("/tasks/{id}/complete"), settle),
    ] {
        let fail = FailPoint::set(&beside, command, doc! {"times": 1}, error()).await;
        caller.send(method, &path, &[("Idempotency-Key", "c4n4ry-idempotency-2")], &body.to_string()).await;
        assert!(fail.end().await > 0, "{command} was not hit");
    }
    let stopped = StdCommand::new("kill").arg(process.to_string()).status().expect("a signal");
    assert!(stopped.success());
    let printed = printed.await.expect("what it printed");
    database.run_command(doc! {"dropUser": "canary"}).await.expect("no user");

    // It did log what it did, or the silence would prove nothing.
    for word in
        ["listening", "answered", "TRACE", "a database call failed", "/tasks/{task_id}/complete", "stopped"]
    {
        assert!(printed.contains(word), "{word} is not in the log");
    }
    assert!(printed.contains(&format!("{}…{}", &id[..4], &id[id.len() - 4..])), "the masked id");
    assert_silent(&printed, &caller.secrets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_start_does_not_print_its_secrets() {
    let database = TestDatabase::create().await;
    let good: OsString = database.uri().into();
    let wrong_password = with_password(database.uri(), database.name(), "c4n4ry");
    // What people forget to encode, and what they forget altogether.
    let uris = [
        wrong_password.as_str(),
        "mongodb://user:c4n4ry/rest@127.0.0.1:27017/db",
        "mongodb://user:a/c4n4ry@127.0.0.1:27017/db",
        "mongodb://user:c4n4ry?rest@127.0.0.1:27017/db",
        "mongodb://user:c4n4ry@rest@127.0.0.1:27017/db",
        "mongodb://user:c4n4ry:rest@127.0.0.1:27017/db",
        "mongodb://user:c4n4ry%@127.0.0.1:27017/db",
        "mongodb://user:c4n4ry#rest/@127.0.0.1:27017/db",
        "mongodb://user:[c4n4ry/rest@127.0.0.1:27017/db",
        "mongodb://user:/?c4n4ry@127.0.0.1:27017/db",
        "mongodb://user/?c4n4ry@127.0.0.1:27017/db",
        "mongodb://user:c4n4ry@",
        "mongodb://:c4n4ry@127.0.0.1",
        "mongodb+srv://user:c4n4ry/rest@cluster.invalid/db",
        "mongodb+srv://user:c4n4ry@127.0.0.1:27017/db",
        "user:c4n4ry@127.0.0.1:27017",
        "c4n4ry",
        "",
    ];
    for uri in uris {
        let (_, _, printed) = start(database.name(), uri.as_ref(), "c4n4ry-key".as_ref());
        let printed = printed.await.expect("what it printed");
        assert!(printed.contains("MONGODB_URI"), "{uri}: {printed}");
        assert_silent(&printed, &[]);
    }
    for (name, uri, key) in [
        ("API_KEY", good.clone(), OsString::from_vec(b"c4n4ry\xff".to_vec())),
        (
            "MONGODB_URI",
            OsString::from_vec(b"mongodb://user:c4n4ry\xff@127.0.0.1".to_vec()),
            "c4n4ry-key".into(),
        ),
    ] {
        let (_, _, printed) = start(database.name(), &uri, &key);
        let printed = printed.await.expect("what it printed");
        assert!(printed.contains(name), "{name}: {printed}");
        assert_silent(&printed, &[]);
    }
}
