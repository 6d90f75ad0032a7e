//! What a server refuses to start with, before it listens.

use std::sync::Arc;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use task_repo_server::{Server, Settings};
use task_repo_tests::TestDatabase;

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
