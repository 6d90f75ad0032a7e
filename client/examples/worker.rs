//! A worker with two handlers, one of which tells its progress, until Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run -p task-repo-client --example worker
//! curl -H "X-API-Key: dev_api_key" -H "Content-Type: application/json" \
//!      -d '{"task_type":"example.countdown","request":{"from":10}}' http://127.0.0.1:8503/api/v1/tasks
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use task_repo_client::{HandlerOptions, TaskClient, TaskContext, TaskFailure, Worker, WorkerEvent};

#[derive(Deserialize)]
struct Countdown {
    from: u32,
}

#[derive(Serialize)]
struct Done {
    seconds: u32,
}

/// Counts down, a second at a time. Stops between two seconds when it is told to.
async fn count_down(ctx: TaskContext, countdown: Countdown) -> Result<Done, TaskFailure> {
    for second in 0..countdown.from {
        ctx.send_progress(
            f64::from(second) / f64::from(countdown.from),
            format!("{} …", countdown.from - second),
        );
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = ctx.cancelled() => return Err(TaskFailure::cancelled()),
        }
    }
    ctx.send_progress(1.0, "lift-off");
    Ok(Done { seconds: countdown.from })
}

/// Divides two numbers. What it cannot do once it will never do.
async fn divide(_: TaskContext, (dividend, divisor): (i64, i64)) -> Result<i64, TaskFailure> {
    dividend
        .checked_div(divisor)
        .ok_or_else(|| TaskFailure::never("no such quotient").with_code("arithmetic"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("info,task_repo_client=debug").init();
    let url = std::env::var("TASK_REPO_URL").unwrap_or_else(|_| "http://127.0.0.1:8503".to_owned());
    let key = std::env::var("API_KEY").unwrap_or_else(|_| "dev_api_key".to_owned());
    let client = TaskClient::new(&url, &key)?;

    let worker = Worker::builder(&client)
        .concurrency(8)
        .lease(Duration::from_secs(30))
        .register_with("example.countdown", HandlerOptions::new().concurrency(4), count_down)
        .register_with("example.divide", HandlerOptions::new().timeout(Duration::from_secs(5)), divide)
        .on_event(|event| {
            if let WorkerEvent::Settled { task, receipt } = event {
                println!("{} {}", task.id, receipt.status);
            }
        })
        .build()?;

    println!("working; Ctrl-C or SIGTERM stops");
    let report = worker.run_until_signal().await?;
    println!("{report:?}");
    Ok(())
}
