//! What a server refuses to start with, before it listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;

use task_repo_server::{Server, Settings};
use task_repo_tests::{TestDatabase, TestServer};

use crate::program::{PROGRAM, free_port};

/// Why the server does not start with those settings. Its port is taken: one that came to listening would say so.
async fn refusal(configure: impl FnOnce(&mut Settings)) -> String {
    let database = TestDatabase::create().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut settings = Settings::for_tests(database.uri(), database.name());
    settings.http.port = taken.local_addr().expect("its address").port();
    configure(&mut settings);
    let Err(error) = Server::start(settings, Arc::default()).await else { panic!("the server starts") };
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named() {
    let error = refusal(|_| {}).await;
    assert!(error.contains("cannot listen") && error.contains("PORT"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weaker_write_concern_is_refused() {
    let database = TestDatabase::create().await;
    let uri = database.uri();
    let with = |uri: &str, option: &str| {
        format!("{uri}{}{option}", if uri.contains('?') { "&" } else { "/?" }).as_str().into()
    };
    for weak in ["w=1", "w=2", "w=0"] {
        let error = refusal(|settings| settings.database.mongodb_uri = with(uri, weak)).await;
        assert!(error.contains("MONGODB_URI") && error.contains("w=majority"), "{weak}: {error}");
    }
    // What the service promises may be spelled out: nothing but the port stands in the way.
    let error = refusal(|settings| settings.database.mongodb_uri = with(uri, "w=majority")).await;
    assert!(error.contains("cannot listen"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_uri_is_named() {
    let database = TestDatabase::create().await;
    let hosts = database.uri().split('?').next().unwrap();
    for (uri, cause) in [
        ("mongodb+srv://u:c4n4ry@no-such-cluster.example.invalid/".to_owned(), "cannot be resolved"),
        (format!("{hosts}?replicaSet=another"), "replicaSet="),
        (format!("{hosts}?tls=true&tlsCAFile=/no/such/ca.pem"), "/no/such/ca.pem"),
        ("mongodb://u:c4n4ry@host:notaport/".to_owned(), "percent-encoded"),
    ] {
        let error = refusal(|settings| {
            settings.database.mongodb_uri = uri.as_str().into();
            settings.database.mongodb_timeout_ms = 1000;
        })
        .await;
        assert!(error.contains("MONGODB_URI") && error.contains(cause), "{uri}: {error}");
        assert!(!error.contains("c4n4ry"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_key_is_refused_where_others_can_reach_it() {
    let default = Settings::default().http.api_key;
    for host in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv4Addr::new(192, 0, 2, 1).into(),
    ] {
        let error = refusal(|settings| {
            settings.http.api_key = default.clone();
            settings.http.host = host;
        })
        .await;
        assert!(["API_KEY", "HOST", "127.0.0.1"].iter().all(|word| error.contains(word)), "{error}");
    }
    let error = refusal(|settings| settings.http.api_key = default.clone()).await;
    assert!(error.contains("cannot listen"), "on a loopback address it will do: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_together_on_a_new_database_do_not_hinder_each_other() {
    let database = TestDatabase::create().await;
    let start = || Server::start(Settings::for_tests(database.uri(), database.name()), Arc::default());
    let (one, two) = tokio::join!(start(), start());
    for server in [one, two] {
        server.expect("it starts").stop().await;
    }
}

/// What `task-repo-server health` says in a folder with that `.env` file: whether all is well, and what was printed.
fn health_with(env_file: &str) -> (bool, String) {
    let folder = std::env::temp_dir().join(format!("task-repo-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join(".env"), env_file).expect("a file");
    let mut program = Command::new(&*PROGRAM);
    let output = program.arg("health").current_dir(&folder).env_remove("HOST").env_remove("PORT").output();
    std::fs::remove_dir_all(&folder).expect("it is removed");
    let output = output.expect("the program runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_asks_where_the_env_file_says() {
    let server = TestServer::start().await;
    let port = server.url().rsplit_once(':').expect("a port").1.to_owned();
    for host in ["127.0.0.1", "localhost", "0.0.0.0"] {
        assert_eq!(health_with(&format!("HOST={host}\nPORT={port}\n")), (true, String::new()), "{host}");
    }
    let (is_well, said) = health_with("HOST=127.0.0.1\nPORT=0\n");
    assert!(!is_well && said.contains("PORT"), "nobody knows which one it is: {said}");
    let (is_well, said) = health_with(&format!("HOST=127.0.0.1\nPORT={}\n", free_port()));
    assert!(!is_well, "nobody listens there: {said}");
    let (is_well, said) = health_with("a c4n4ry secret\n");
    assert!(!is_well && said.contains(".env") && !said.contains("c4n4ry"), "{said}");
}
