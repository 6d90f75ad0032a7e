//! A server that gives the replies it was told to, one a request, and remembers what it was asked.

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
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// The stub. Connections beyond its replies are closed.
pub(crate) struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    pub(crate) fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
        let asked = Arc::clone(&requests);
        // Ends with the process: tests are short.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (replies, asked) = (Arc::clone(&replies), Arc::clone(&asked));
                std::thread::spawn(move || serve(stream, &replies, &asked));
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
}

/// One request a connection.
fn serve(stream: TcpStream, replies: &Mutex<VecDeque<Reply>>, asked: &Mutex<Vec<Asked>>) {
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
    let reply = replies.lock().expect("not poisoned").pop_front();
    asked.lock().expect("not poisoned").push(request);
    let mut stream = reader.into_inner();
    match reply {
        Some(Reply::Answer { status, body }) => {
            let answer = format!(
                "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len(),
            );
            stream.write_all(answer.as_bytes()).expect("the caller waits");
        }
        // Until the caller closes the connection.
        Some(Reply::Hang) => drop(stream.read(&mut [0])),
        Some(Reply::Close) | None => {}
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
