//! Settings that cannot work stop the start, and say which one and what was expected.

use std::path::PathBuf;
use std::process::{Command, Output};

use task_repo_tests::TestDatabase;

use crate::program::{PROGRAM, Program};

/// A folder of its own, with that `.env` file in it.
fn folder_with(env_file: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("task-repo-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join(".env"), env_file).expect("a file");
    folder
}

/// Starts the program with those variables and that `.env` file, beside a database that does not answer.
fn start(variables: &[(&str, &str)], env_file: &str) -> Output {
    let folder = folder_with(env_file);
    let mut program = Command::new(&*PROGRAM);
    program.env_clear().current_dir(&folder);
    program.env("MONGODB_URI", "mongodb://127.0.0.1:9/?replicaSet=none").env("MONGODB_TIMEOUT_MS", "100");
    program.env("HOST", "127.0.0.1").env("API_KEY", "a-key");
    let output = program.envs(variables.iter().copied()).output().expect("the program runs");
    std::fs::remove_dir_all(&folder).expect("it is removed");
    output
}

/// What the program says instead of starting.
fn refusal(variables: &[(&str, &str)], env_file: &str) -> String {
    let output = start(variables, env_file);
    assert!(!output.status.success(), "{variables:?}: it starts");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_value_that_cannot_work_stops_the_start_with_its_name_and_what_was_expected() {
    for (variable, value, expected) in [
        ("HOST", "", "an IP address"),
        ("HOST", " 127.0.0.1", "an IP address"),
        ("HOST", "no-such-host.invalid", "an IP address"),
        ("HOST", "127.0.0.1:8503", "an IP address"),
        ("HOST", "8503", "an IP address"),
        ("PORT", "", "a whole number from 0 to 65535"),
        ("PORT", "8503 ", "a whole number from 0 to 65535"),
        ("PORT", "８５０３", "a whole number from 0 to 65535"),
        ("SERVICE_NAME", "", "characters"),
        ("SERVICE_NAME", "a\nb", "characters"),
        ("API_KEY", "", "ASCII"),
        ("API_KEY", "c4n4ry\n", "ASCII"),
        ("API_KEY", "c4n4ry-ü", "ASCII"),
        ("API_KEY_PREVIOUS", " c4n4ry", "ASCII"),
        ("API_KEY_PREVIOUS", "a-key", "another key than API_KEY"),
        ("MONGODB_URI", "", "mongodb://"),
        ("MONGODB_URI", "mongodb://c4n4ry@host\n", "mongodb://"),
        ("MONGODB_DATABASE", "", "letters"),
        ("MONGODB_DATABASE", "größe", "letters"),
        ("MONGODB_DATABASE", "admin", "admin"),
        ("MONGODB_DATABASE", "Local", "local"),
        ("MONGODB_TASKS_COLLECTION", "", "letters"),
        ("MONGODB_TASKS_COLLECTION", "a.b", "letters"),
        ("MONGODB_TASKS_COLLECTION", "api_keys", "api_keys"),
        ("MONGODB_TASKS_COLLECTION", "tasks_logs", "_logs"),
        ("MONGODB_MAX_CONNECTIONS", "", "a whole number"),
        ("MONGODB_TIMEOUT_MS", "5s", "a whole number"),
        ("HTTP_KEEP_ALIVE_SECONDS", "0", "1 to"),
        ("HTTP_MAX_BODY_BYTES_IN_FLIGHT", "128 MiB", "a whole number"),
        ("SHUTDOWN_GRACE_SECONDS", "-1", "a whole number"),
        ("CORS_ALLOWED_ORIGINS", "*", "exact origins"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example,https://*.b.example", "exact origins"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example,", "exact origins"),
        ("STREAMS_MAX", "0", "1 to"),
        ("STREAMS_MAX_PER_TENANT", "many", "a whole number"),
        ("LOG_FORMAT", "", "json or pretty"),
        ("LOG_FORMAT", "logfmt", "json or pretty"),
        ("LOG_LEVEL", "", "trace, debug, info, warn, error or off"),
        ("LOG_LEVEL", "verbose", "trace, debug, info, warn, error or off"),
        ("LOG_LEVEL", "info,hyper", "trace, debug, info, warn, error or off"),
        ("LOG_LEVEL", "info,hyper=loud", "trace, debug, info, warn, error or off"),
    ] {
        let said = refusal(&[(variable, value)], "");
        assert!(said.contains(variable) && said.contains(expected), "{variable}={value:?}: {said}");
        assert!(!said.contains("c4n4ry"), "{variable}={value:?}: {said}");
    }
}

#[test]
fn the_default_key_as_the_previous_one_is_refused_where_others_can_reach_it() {
    for host in ["0.0.0.0", "::"] {
        let said = refusal(&[("HOST", host), ("API_KEY_PREVIOUS", "dev_api_key")], "");
        assert!(said.contains("API_KEY_PREVIOUS") && said.contains("127.0.0.1"), "{said}");
    }
}

#[test]
fn one_setting_under_two_names_is_refused() {
    let said = refusal(&[("PORT", "8503"), ("port", "8504")], "");
    assert!(said.contains("port"), "{said}");
}

#[test]
fn a_line_of_the_env_file_that_cannot_be_read_is_named_by_its_number_only() {
    for (file, line) in [
        ("# a comment\n\nLOG_LEVEL=info\na c4n4ry secret\nPORT=1\n", 4),
        ("\u{feff}a c4n4ry secret\n", 1),
        ("SERVICE_NAME='two\nlines'\nAPI_KEY=c4n4ry with spaces\n", 3),
        ("LOG_LEVEL=info\nAPI_KEY=\"c4n4ry\nPORT=1\n", 2),
        ("LOG_LEVEL=info\r\nAPI_KEY = c4n4ry secret # why\r\n", 2),
    ] {
        let said = refusal(&[], file);
        assert!(said.contains(".env") && said.contains(&format!("line {line}")), "{file:?}: {said}");
        assert!(!said.contains("c4n4ry") && !said.contains("secret"), "{file:?}: {said}");
    }
    let said = refusal(&[], "\u{feff}LOG_LEVEL=verbose\n");
    assert!(said.contains("LOG_LEVEL"), "a file with a byte order mark is read: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_hosts_and_any_case_of_words_are_taken() {
    let database = TestDatabase::create().await;
    let variables =
        [("HOST", "localhost"), ("LOG_FORMAT", "JSON"), ("LOG_LEVEL", "WARN,task_repo_server=Info")];
    let program = Program::start_with(&database, "dev_api_key", &variables).await;
    let answer = reqwest::get(format!("{}/health", program.url)).await.expect("an answer");
    assert_eq!(answer.status(), 200, "the default key is good enough for a loopback address");
}
