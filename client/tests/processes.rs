//! Worker processes, as they are started and stopped in production. Each test runs itself once more as such a process.

mod stub;

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use stub::queue::{leased, outcomes, queue};
use stub::{Asked, Stub};
use task_repo_client::{ErrorCode, TaskClient, TaskContext, TaskFailure, Worker, WorkerBuilder};

/// Where the process that a test starts finds the stub.
const STUB: &str = "WORKER_PROCESS_STUB";

/// A process that runs the test of that name once more.
struct Process {
    child: Child,
    /// Open until it has ended, or its last words would fail.
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(test: &str, stub: &str, environment: &[(&str, &str)]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args([test, "--exact", "--nocapture"]).env(STUB, stub).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
        let output = BufReader::new(child.stdout.take().expect("is piped")).lines();
        Self { child, output }
    }

    /// Waits until it prints that line.
    fn prints(&mut self, line: &str) {
        let mut printed = self.output.by_ref().map_while(Result::ok);
        assert!(printed.any(|printed| printed == line), "{line} is not printed");
    }

    fn terminate(&self) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("a signal");
        assert!(sent.success());
    }

    /// How it ends, and what it wrote to standard error.
    fn ended(&mut self) -> (ExitStatus, String) {
        let mut errors = String::new();
        self.child.stderr.take().expect("is piped").read_to_string(&mut errors).expect("text");
        (self.child.wait().expect("it ends"), errors)
    }
}

/// A test that fails leaves nothing at work.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// In the process that a test has started: runs the worker until it is told to stop, in a runtime as `main` has one, and
/// says what it did.
fn run(stub: &str, set_up: impl FnOnce(WorkerBuilder) -> WorkerBuilder) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = TaskClient::new(stub, "key").expect("a client");
        let worker = Worker::builder(&client).grace(Duration::ZERO).stop_patience(Duration::from_millis(20));
        let ended = set_up(worker).build().expect("a worker").run_until_signal().await;
        match ended {
            Ok(report) => println!("{report:?}"),
            Err(error) => println!("{error}"),
        }
    });
}

fn plain_queue() -> Stub {
    queue([leased(1, &Value::Null)], |_: &Asked| None)
}

#[test]
fn a_process_ends_although_a_handler_does_not() {
    if let Ok(stub) = std::env::var(STUB) {
        return run(&stub, |worker| {
            worker.register("a", async |_: TaskContext, (): ()| -> Result<(), TaskFailure> {
                println!("\nat work");
                loop {
                    std::thread::park();
                }
            })
        });
    }
    let stub = plain_queue();
    let mut process = Process::start("a_process_ends_although_a_handler_does_not", stub.url(), &[]);
    process.prints("at work");
    process.terminate();
    assert_eq!(process.ended().0.code(), Some(1));
    assert!(outcomes(&stub).is_empty(), "nothing is said of a task whose handler still runs");
}

#[test]
fn a_blocking_handler_does_not_keep_its_process() {
    if let Ok(stub) = std::env::var(STUB) {
        return run(&stub, |worker| {
            worker.register_blocking("a", |_: TaskContext, (): ()| -> Result<(), TaskFailure> {
                println!("\nat work");
                loop {
                    std::thread::park();
                }
            })
        });
    }
    let stub = plain_queue();
    let mut process = Process::start("a_blocking_handler_does_not_keep_its_process", stub.url(), &[]);
    process.prints("at work");
    process.terminate();
    let (status, errors) = process.ended();
    assert!(status.success(), "its thread is not waited for: {errors}");
    assert!(outcomes(&stub).is_empty(), "nothing is said of a task whose handler still runs");
    assert!(errors.contains("tracing_subscriber::fmt().init()"), "says why nothing is logged: {errors}");
}

#[test]
fn the_second_signal_ends_the_grace() {
    if let Ok(stub) = std::env::var(STUB) {
        return run(&stub, |worker| {
            worker.grace(Duration::from_secs(600)).register("a", async |ctx: TaskContext, (): ()| {
                println!("\nat work");
                ctx.stopping().await;
                println!("stopping");
                ctx.cancelled().await;
                Err::<(), _>(TaskFailure::cancelled())
            })
        });
    }
    let stub = plain_queue();
    let mut process = Process::start("the_second_signal_ends_the_grace", stub.url(), &[]);
    process.prints("at work");
    process.terminate();
    process.prints("stopping");
    process.terminate();
    assert!(process.ended().0.success());
    assert_eq!(outcomes(&stub)[0]["outcome"], "released");
}

#[test]
fn a_worker_that_is_refused_logs_why_and_what_to_do() {
    if let Ok(stub) = std::env::var(STUB) {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
        return run(&stub, |worker| worker.register("a", async |_: TaskContext, (): ()| Ok(())));
    }
    let stub = queue([], |_: &Asked| Some(stub::Reply::problem(ErrorCode::Unauthenticated)));
    let mut process = Process::start("a_worker_that_is_refused_logs_why_and_what_to_do", stub.url(), &[]);
    let (_, errors) = process.ended();
    let line = errors.lines().find(|line| line.contains("ERROR")).unwrap_or_default();
    for part in ["the service refuses to give it work", "unauthenticated", "start the worker with an API key"]
    {
        assert!(line.contains(part), "{part}: {errors}");
    }
}

#[test]
fn a_failed_attempt_is_logged_with_its_task_and_its_error() {
    if let Ok(stub) = std::env::var(STUB) {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
        return run(&stub, |worker| {
            worker.register("a", async |_: TaskContext, (): ()| -> Result<(), TaskFailure> {
                println!("\nat work");
                Err("the printer is on fire")?
            })
        });
    }
    let stub = plain_queue();
    let mut process =
        Process::start("a_failed_attempt_is_logged_with_its_task_and_its_error", stub.url(), &[]);
    process.prints("at work");
    process.terminate();
    let (_, errors) = process.ended();
    let line = errors.lines().find(|line| line.contains("WARN")).unwrap_or_default();
    let id = task_repo_client::Uuid::from_u128(1).to_string();
    for part in [&*id, r#"task.type="a""#, "task.attempt=1", "the printer is on fire"] {
        assert!(line.contains(part), "{part}: {errors}");
    }
}

#[test]
fn a_proxy_in_the_way_is_named() {
    if let Ok(stub) = std::env::var(STUB) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = TaskClient::builder(stub).api_key("key").retry(task_repo_client::RetryBudget::none());
        let asked = runtime.block_on(client.build().expect("a client").ready());
        eprintln!("{}", asked.expect_err("there is no proxy"));
        return;
    }
    let stub = plain_queue();
    let environment = [("HTTP_PROXY", "http://user:secret@127.0.0.1:1"), ("NO_PROXY", "")];
    let mut process = Process::start("a_proxy_in_the_way_is_named", stub.url(), &environment);
    let (_, errors) = process.ended();
    assert!(errors.contains("http://127.0.0.1:1, which HTTP_PROXY"), "{errors}");
    assert!(!errors.contains("secret"), "{errors}");
}
