//! `cargo xtask start`: the whole service on this machine, until Ctrl-C.

use std::env;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{interval, timeout};

use crate::layout;
use crate::mongod::Database;
use crate::process::{interrupted, unless_interrupted};
use crate::server::{self, Server, Settings};
use crate::spinner::Spinner;

/// A server stops within 25 s unless `SHUTDOWN_GRACE_SECONDS` says otherwise; what takes longer is stuck.
const STOP_GRACE: Duration = Duration::from_secs(40);

/// Options of `cargo xtask start`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the first server listens; further ones take the ports after it
    #[arg(long, default_value_t = 8503)]
    port: u16,
    /// Build with optimisations
    #[arg(long)]
    release: bool,
    /// How many servers to run side by side on the same database
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    replicas: u16,
}

/// Starts everything, waits for Ctrl-C, stops everything in order.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let folder = layout::data().join("start");
    let _lock = lock(&folder)?;
    let ports = ports(args)?;
    let (program, mut database) = unless_interrupted(async {
        let program = server::build(args.release).await?;
        Ok((program, Database::kept().await?))
    })
    .await?;
    let key = env::var("API_KEY").unwrap_or_else(|_| "dev_api_key".into());
    let settings = Settings { mongodb_uri: database.uri(), mongodb_database: None, api_key: &key };
    let started = ports.iter().map(|&port| {
        let log = folder.join(format!("server-{port}.log"));
        Server::start(&program, &settings, port, &log)
    });
    let mut servers = started.collect::<Result<Vec<_>>>()?;
    let outcome = serve(&mut servers, &mut database, &key).await;
    let stopped = stop(servers).await;
    database.stop().await?;
    outcome.and(stopped)
}

/// One start at a time: a second one would write into the first one's logs and data. The lock goes with the process.
fn lock(folder: &Path) -> Result<File> {
    layout::make_folder(folder)?;
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("`cargo xtask start` is already running in this repository"),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the folder of the kept data"),
    }
}

/// The ports to listen on, each of them free.
fn ports(args: &Args) -> Result<Vec<u16>> {
    let Some(last) = args.port.checked_add(args.replicas - 1) else {
        bail!("{} servers from port {} on do not fit below 65536", args.replicas, args.port);
    };
    let ports: Vec<_> = (args.port..=last).collect();
    if let Some(taken) = ports.iter().find(|&&port| !layout::is_free(port)) {
        bail!(
            "port {taken} is in use; stop what listens there, or choose another: cargo xtask start --port 8600"
        );
    }
    Ok(ports)
}

/// Returns without error on Ctrl-C, and with one when a part of the service ended by itself.
async fn serve(servers: &mut [Server], database: &mut Database, key: &str) -> Result<()> {
    let work = async {
        let spinner = Spinner::new("waiting for the service to be ready");
        for server in &mut *servers {
            server.ready().await?;
        }
        spinner.done();
        println!("{}", welcome(servers, database.uri(), key));
        let mut look = interval(Duration::from_millis(200));
        loop {
            look.tick().await;
            database.check_alive()?;
            servers.iter_mut().try_for_each(Server::check_alive)?;
        }
    };
    tokio::select! {
        ended = work => ended,
        asked = interrupted() => asked,
    }
}

async fn stop(mut servers: Vec<Server>) -> Result<()> {
    let spinner = Spinner::new("stopping (Ctrl-C again: at once)");
    // All are asked before any is waited for.
    servers.iter().for_each(Server::ask_to_stop);
    let orderly = async {
        for server in &mut servers {
            server.stop(STOP_GRACE).await?;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = orderly => outcome,
        again = interrupted() => again,
    };
    for server in &mut servers {
        // Nothing is left to wait for, unless a second Ctrl-C said not to.
        let _ = timeout(Duration::from_secs(1), server.stop(Duration::ZERO)).await;
    }
    spinner.done();
    outcome
}

/// What a person needs to go on: addresses, key, and three commands to paste.
fn welcome(servers: &[Server], database: &str, key: &str) -> String {
    let addresses: Vec<_> = servers.iter().map(Server::address).collect();
    let logs: Vec<_> = servers.iter().map(|server| server.log().display().to_string()).collect();
    let first = addresses.first().map_or("", String::as_str);
    format!(
        "\n  service   {}\n  API       {first}/docs\n  key       {key}\n  database  {database}\n  logs      {}\n\n\
         Create a task, claim it, complete it:\n\n{}\n\nCtrl-C stops everything; the data stays.",
        addresses.join("  "),
        logs.join("  "),
        walk_through(first, key).join("\n"),
    )
}

/// One task's life as three lines for bash or zsh. The second keeps id and token for the third.
fn walk_through(address: &str, key: &str) -> [String; 3] {
    let post = format!("curl -sS -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'");
    let tasks = format!("{address}/api/v1/tasks");
    let read = r#"import json, sys; task = json.load(sys.stdin)["tasks"][0]; print(task["id"], task["lease"]["token"])"#;
    [
        format!(r#"{post} {tasks} -d '{{"task_type":"demo","request":{{"hello":"world"}}}}'; echo"#),
        format!(
            r#"read -r ID TOKEN <<< "$({post} {tasks}/claim -d '{{"task_types":["demo"],"worker_id":"me"}}' | python3 -c '{read}')"; echo "$ID""#
        ),
        format!(
            r#"{post} {tasks}/$ID/complete -d '{{"lease_token":"'"$TOKEN"'","result":{{"answer":42}}}}'; echo"#
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_before_anything_starts() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = ports(&Args { port, release: false, replicas: 1 }).unwrap_err();
        assert!(error.to_string().contains(&format!("port {port} is in use")));
    }

    #[test]
    fn ports_do_not_run_over_the_end() {
        assert!(ports(&Args { port: 65535, release: false, replicas: 2 }).is_err());
    }

    #[test]
    fn the_walk_through_names_the_three_calls() {
        let lines = walk_through("http://127.0.0.1:8503", "key");
        assert!(lines[0].contains("http://127.0.0.1:8503/api/v1/tasks -d"));
        assert!(lines[1].contains("/api/v1/tasks/claim -d"));
        assert!(lines[2].contains("/api/v1/tasks/$ID/complete -d"));
    }
}
