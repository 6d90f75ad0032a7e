//! What must not be known from outside: the real server program, driven with recognisable secrets at the most talkative
//! log level, and everything it prints searched for them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;

use mongodb::bson::doc;
use serde_json::{Value, json};
use task_repo_protocol::path;
use task_repo_tests::{ROUTES, SYSTEM_ROUTES, TestDatabase, TestServer, eventually};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::canary::{CANARY, Caller, PIECE, queue, read, refusals, streams, unreadable, wait, work};
use crate::fail_point::FailPoint;
use crate::program::{PROGRAM, free_port};

/// Far longer than the program runs in any test here.
const PATIENCE: Duration = Duration::from_secs(180);
/// Starts the program with everything logged; returns where it will listen, its process, and what it prints until its end.
fn start(database: &str, uri: &OsStr, api_key: &OsStr) -> (String, u32, JoinHandle<String>) {
    let port = free_port();
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
    for secret in secrets.iter().map(String::as_str).chain([PIECE]) {
        assert_eq!(printed.lines().find(|line| line.contains(secret)), None, "{secret} was printed");
    }
}

/// Every route that was logged as driven to success: its method and its pattern.
fn driven(printed: &str) -> BTreeSet<(String, String)> {
    let lines = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let answers = lines.filter(|line| line["message"] == "answered" && line["level"] == "DEBUG");
    let good = answers.filter(|line| line["status"].as_u64().is_some_and(|status| status < 300));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    good.map(|line| (text(&line["span"]["method"]), text(&line["route"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_logged_at_any_level() {
    // Its database, and the fail points on that.
    let beside = TestServer::start().await;
    let database = beside.database();
    let user = doc! {"createUser": "canary", "pwd": "c4n4ry-password", "roles": ["readWrite"]};
    database.run_command(user).await.expect("a user");
    let uri = with_password(beside.mongodb_uri(), database.name(), "c4n4ry-password");
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
    queue(&mut caller).await;
    wait(&mut caller).await;
    read(&caller).await;
    streams(&mut caller).await;
    refusals(&mut caller).await;
    unreadable(&caller, &database).await;
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
    let driven = driven(&printed);
    for (method, path) in ROUTES.iter().map(|route| (route.method, format!("{}{}", path::BASE, route.path))) {
        assert!(driven.contains(&(method.to_owned(), path.clone())), "{method} {path} was not driven");
    }
    for (path, _) in SYSTEM_ROUTES {
        assert!(driven.contains(&("GET".to_owned(), (*path).to_owned())), "GET {path} was not driven");
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
