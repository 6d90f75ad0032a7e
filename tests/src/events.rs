//! Server-sent events as a browser reads them.

use std::time::Duration;

use serde_json::Value;

use crate::http::{HttpCall, raw};

/// Longest wait for a message: far beyond what the contract promises, so that a slow machine fails nothing.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// An open stream.
pub struct EventStream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The `retry:` line, in milliseconds.
    pub retry_ms: Option<u64>,
    /// How many lines of comment have come.
    pub comments: usize,
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct StreamEvent {
    /// The `id:` line.
    pub id: Option<String>,
    /// The `data:` line.
    pub text: String,
}

impl StreamEvent {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// What it tells.
    pub fn kind(&self) -> String {
        raw(&self.text, "event_type").trim_matches('"').to_owned()
    }

    /// The version it tells of.
    pub fn seq(&self) -> u64 {
        raw(&self.text, "seq").parse().expect("a number")
    }
}

impl HttpCall {
    /// Sends it, and reads the answer as a stream. Panics when no answer comes.
    pub async fn open(self) -> EventStream {
        EventStream { response: self.answer().await, buffer: Vec::new(), retry_ms: None, comments: 0 }
    }
}

impl EventStream {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next message; `None` when the server has closed the stream, properly or not. Panics when nothing comes.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        tokio::time::timeout(MAX_WAIT, self.read()).await.expect("a message, or the end")
    }

    /// All messages until the server closes the stream.
    pub async fn rest(&mut self) -> Vec<StreamEvent> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event);
        }
        rest
    }

    async fn read(&mut self) -> Option<StreamEvent> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<_> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = self.take(std::str::from_utf8(&block).expect("UTF-8").trim_end()) {
                    return Some(event);
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    fn take(&mut self, block: &str) -> Option<StreamEvent> {
        let (mut id, mut data, mut name) = (None, None, None);
        for line in block.lines() {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", value) => id = Some(value.to_owned()),
                ("data", value) => {
                    assert!(data.replace(value.to_owned()).is_none(), "one data line: {block}");
                }
                ("event", value) => name = Some(value.to_owned()),
                ("retry", value) => self.retry_ms = value.parse().ok(),
                (":", "") => self.comments += 1,
                _ => panic!("what is this: {line}"),
            }
        }
        let text = data?;
        assert_eq!(name.as_deref(), Some("task_event"), "{block}");
        Some(StreamEvent { id, text })
    }
}
