//! Creates a task, claims it, completes it, and looks at what came out.
//!
//! ```text
//! cargo run -p task-repo-client --example quickstart
//! ```
//!
//! `TASK_REPO_URL` and `API_KEY` say where the service is and with which key; the defaults are those of a service
//! started on this machine.

use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use task_repo_client::{Json, NewTask, Priority, Tags, TaskClient};

#[derive(Serialize, Deserialize)]
struct Greeting {
    name: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("TASK_REPO_URL").unwrap_or_else(|_| "http://127.0.0.1:8503".to_owned());
    let key = std::env::var("API_KEY").unwrap_or_else(|_| "dev_api_key".to_owned());
    let client = TaskClient::new(&url, &key)?;
    client.ready().await.context("the service is not ready")?;

    let task = client
        .create_task(&NewTask {
            name: Some("a first greeting".to_owned()),
            priority: Some(Priority::HIGH),
            request: Some(Json::of(&Greeting { name: "world".to_owned() })?),
            tags: Some(Tags::from([("example", "quickstart")])),
            ..NewTask::new("example.greeting")
        })
        .await?;
    println!("created   {} ({}, priority {})", task.id, task.status, task.priority.get());

    // Whoever claims the task owns it until the lease runs out; only the owner can say how it ends.
    let claimed = client.claim_task(task.id, "quickstart").await?;
    println!("claimed   attempt {} of {}", claimed.task().attempt, claimed.task().max_attempts);
    let greeting: Greeting = claimed.request()?;
    let lease = claimed.heartbeat(None).await?;
    println!("heartbeat the lease holds until {}", lease.expires_at);
    let receipt = claimed.complete(&format!("Hello, {}!", greeting.name)).await?;
    println!("completed version {}", receipt.version);

    let task = client.wait_for_task(task.id, Duration::from_secs(5)).await?;
    let result: String = task.result.json().context("the task has no result")?.to()?;
    println!("result    {result}");
    for execution in client.get_executions(task.id).await? {
        println!("execution {:?} in {} ms", execution.status, execution.duration_ms.unwrap_or_default());
    }
    Ok(())
}
