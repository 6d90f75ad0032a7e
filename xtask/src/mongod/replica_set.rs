//! Making a lone `mongod` a replica set of one member, whatever its data says it was before.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use tokio::time::{Instant, sleep};

/// The name of the replica set.
pub(super) const NAME: &str = "rs0";

/// The longest a start may take. Generous: after a hard end the journal of an hour's work may have to be replayed.
const PATIENCE: Duration = Duration::from_secs(120);

/// `NotYetInitialized`: the data is new.
const NOT_INITIALIZED: i32 = 94;
/// `InvalidReplicaSetConfig`: the stored configuration names other members only.
const NOT_A_MEMBER: i32 = 93;

/// Returns as soon as the `mongod` on this port takes writes.
pub(super) async fn make_primary(port: u16) -> Result<()> {
    let host = format!("127.0.0.1:{port}");
    let mut options = ClientOptions::parse(format!("mongodb://{host}/?directConnection=true")).await?;
    options.server_selection_timeout = Some(Duration::from_secs(1));
    let client = Client::with_options(options)?;
    let admin = client.database("admin");
    let started = Instant::now();
    let mut last;
    loop {
        last = match next_step(&client, &admin, &host).await {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if started.elapsed() > PATIENCE {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let message = format!("no writable primary on {host} within {} s", PATIENCE.as_secs());
    match last {
        Some(error) => Err(error).context(message),
        None => bail!(message),
    }
}

/// Whether all is done; if not, what was missing has been asked for.
async fn next_step(client: &Client, admin: &Database, host: &str) -> Result<bool> {
    let hello = admin.run_command(doc! { "hello": 1 }).await?;
    if hello.get_bool("isWritablePrimary").unwrap_or(false) {
        return Ok(true);
    }
    match admin.run_command(doc! { "replSetGetConfig": 1 }).await {
        Ok(answer) => correct(admin, answer.get_document("config")?, host).await?,
        Err(error) if code(&error) == Some(NOT_INITIALIZED) => {
            let members = [doc! { "_id": 0, "host": host }];
            admin.run_command(doc! { "replSetInitiate": { "_id": NAME, "members": members } }).await?;
        }
        Err(error) if code(&error) == Some(NOT_A_MEMBER) => {
            let stored = client.database("local").collection::<Document>("system.replset");
            let config = stored.find_one(doc! {}).await?.context("no stored replica set configuration")?;
            correct(admin, &config, host).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(false)
}

/// Makes this host the only member. By force, because a set whose only member has moved has nobody left to agree.
async fn correct(admin: &Database, config: &Document, host: &str) -> Result<()> {
    let members = config.get_array("members")?;
    let named = members.iter().filter_map(|member| member.as_document()?.get_str("host").ok());
    if named.eq([host]) {
        return Ok(());
    }
    let mut config = config.clone();
    let version = config.get_i32("version").unwrap_or(1);
    config.insert("version", version.saturating_add(1));
    config.insert("members", [doc! { "_id": 0, "host": host }].to_vec());
    admin.run_command(doc! { "replSetReconfig": config, "force": true }).await?;
    Ok(())
}

fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}
