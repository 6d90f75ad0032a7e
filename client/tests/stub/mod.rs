//! A server that gives the replies it was told to, one a request, and remembers what it was asked.

#![allow(dead_code, reason = "each file of tests uses its part of it")]

pub(crate) mod queue;

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use task_repo_client::{ErrorCode, Problem, Uuid};

/// What happens to a request.
pub(crate) enum Reply {
    /// It is answered.
    Answer { status: u16, body: String },
    /// The connection is closed without an answer.
    Close,
    /// Nothing, for as long as the caller waits.
    Hang,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Answer { status, body: body.to_string() }
    }

    pub(crate) fn problem(code: ErrorCode) -> Self {
        Self::json(code.status(), &problem(code))
    }
}

/// A request as it came.
#[derive(Clone)]
pub(crate) struct Asked {
    head: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The path, without what all paths begin with.
    pub(crate) fn path(&self) -> &str {
        let path = self.head.first().and_then(|line| line.split(' ').nth(1)).expect("a request line");
        path.strip_prefix("/api/v1").expect("a path of the service")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// The stub.
pub(crate) struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    /// Gives the replies in their order, whatever it is asked. Connections beyond them are closed.
    pub(crate) fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        Self::answering(move |_| replies.pop_front().unwrap_or(Reply::Close))
    }

    /// Gives the reply that goes with each request.
    pub(crate) fn answering(reply: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let reply = Arc::new(Mutex::new(reply));
        let asked = Arc::clone(&requests);
        // Ends with the process: tests are short.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (reply, asked) = (Arc::clone(&reply), Arc::clone(&asked));
                std::thread::spawn(move || serve(stream, &*reply, &asked));
            }
        });
        Self { url, requests }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn requests(&self) -> Vec<Asked> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// Those that asked for that path.
    pub(crate) fn requests_for(&self, path: &str) -> Vec<Asked> {
        self.requests().into_iter().filter(|request| request.path() == path).collect()
    }
}

/// One request a connection.
fn serve(stream: TcpStream, reply: &Mutex<impl FnMut(&Asked) -> Reply>, asked: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => head.push(line.trim_end().to_owned()),
        }
    }
    let mut request = Asked { head, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).expect("the whole body");
    asked.lock().expect("not poisoned").push(request.clone());
    let reply = (reply.lock().expect("not poisoned"))(&request);
    let mut stream = reader.into_inner();
    match reply {
        Reply::Answer { status, body } => {
            let answer = format!(
                "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len(),
            );
            stream.write_all(answer.as_bytes()).expect("the caller waits");
        }
        // Until the caller closes the connection.
        Reply::Hang => drop(stream.read(&mut [0])),
        Reply::Close => {}
    }
}

/// A problem as the service spells it.
pub(crate) fn problem(code: ErrorCode) -> Value {
    serde_json::to_value(Problem::new(code, "by the stub", "request-1")).expect("serializes")
}

/// A task as the service shows it.
pub(crate) fn task(status: &str, token: Option<&str>) -> Value {
    let now = "2030-01-31T08:00:00.000Z";
    let lease = token.map(|token| json!({ "token": token, "worker_id": "w", "expires_at": now }));
    json!({
        "id": Uuid::nil(), "tenant_id": "default", "user_id": null, "task_type": "a", "name": null,
        "description": null, "status": status, "reason": null, "priority": 50, "request": null, "template": null,
        "metadata": {}, "tags": {}, "attempt": 0, "max_attempts": 3, "losses": 0, "run_at": null, "due_date": null,
        "reminder_time": null, "lease": lease, "progress": null, "cancel_requested_at": null, "result": null,
        "result_id": null, "error": null,
        "usage": { "credits_consumed": 0, "tokens_used": 0, "api_calls_made": 0 },
        "created_at": now, "updated_at": now, "started_at": null, "completed_at": null, "version": 1,
        "a_field_of_the_future": [1],
    })
}

/// Where a task stands after it was moved, as the service shows it.
pub(crate) fn receipt(id: &str, status: &str) -> Value {
    json!({ "id": id, "status": status, "reason": null, "attempt": 1, "run_at": null, "version": 2 })
}
