//! What stands between callers and a server: a proxy that loses, cuts off and doubles what passes through it.
//!
//! It knows just enough HTTP to see where a request and an answer end: both have a `Content-Length`, or no body.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::event::Event;
use crate::history::History;

mod copies;

/// How likely each fault is for one request, from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FaultRates {
    /// The request is carried out, and its answer is lost with the connection.
    pub(crate) lost_answer: f64,
    /// The connection ends before the request has reached the server.
    pub(crate) cut_off: f64,
    /// The request arrives two to five times at once, all but once at any one server.
    pub(crate) doubled: f64,
}

struct State {
    rates: FaultRates,
    faulty_requests: u64,
    rng: SmallRng,
}

/// A proxy in front of one server.
#[derive(Clone)]
pub(crate) struct Proxy {
    port: u16,
    /// Its own server, and where copies go.
    server: u16,
    servers: Arc<[u16]>,
    history: Arc<History>,
    state: Arc<Mutex<State>>,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestFault {
    Passes,
    AnswerLost,
    CutOff,
    /// So many copies go to the server at that port.
    Doubled(u32, u16),
}

impl Proxy {
    /// Starts one in front of the server at that port, one of `servers`. Ends with the program.
    pub(crate) async fn start(
        server: u16,
        servers: Arc<[u16]>,
        seed: u64,
        history: Arc<History>,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state =
            State { rates: FaultRates::default(), faulty_requests: 0, rng: SmallRng::seed_from_u64(seed) };
        let proxy = Self { port, server, servers, history, state: Arc::new(Mutex::new(state)) };
        let front = proxy.clone();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                let proxy = front.clone();
                // Either end may break off at any moment; that is what it is for.
                connections.spawn(async move { proxy.carry(caller).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(proxy)
    }

    /// Where callers connect.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets how likely faults are from now on.
    pub(crate) fn set_fault_rates(&self, rates: FaultRates) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rates = rates;
    }

    /// How many requests had a fault, so far.
    pub(crate) fn faulty_requests(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).faulty_requests
    }

    fn draw_fault(&self) -> RequestFault {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let FaultRates { lost_answer, cut_off, doubled } = state.rates;
        let draw: f64 = state.rng.random();
        state.faulty_requests += u64::from(draw < lost_answer + cut_off + doubled);
        if draw < lost_answer {
            RequestFault::AnswerLost
        } else if draw < lost_answer + cut_off {
            RequestFault::CutOff
        } else if draw < lost_answer + cut_off + doubled {
            let server = self.servers[state.rng.random_range(0..self.servers.len())];
            RequestFault::Doubled(state.rng.random_range(1..=4), server)
        } else {
            RequestFault::Passes
        }
    }

    fn draw(&self, range: std::ops::Range<usize>) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rng.random_range(range)
    }

    /// Ends a connection, half of the time with a reset.
    fn cut(&self, caller: &TcpStream) -> Result<()> {
        if self.draw(0..2) == 0 {
            caller.set_zero_linger()?;
        }
        Ok(())
    }

    async fn carry(&self, mut caller: TcpStream) -> Result<()> {
        caller.set_nodelay(true)?;
        let mut server: Option<TcpStream> = None;
        let mut unread = Vec::new();
        while let Some(request) = message(&mut caller, &mut unread).await? {
            let fault = self.draw_fault();
            if fault == RequestFault::CutOff {
                // Some of the request may have gone on.
                let sent = self.draw(0..request.len());
                connect(self.server).await?.write_all(&request[..sent]).await?;
                return self.cut(&caller);
            }
            let copies = match fault {
                RequestFault::Doubled(copies, server) => {
                    (0..copies).map(|_| send_copy(server, &request)).collect()
                }
                _ => Vec::new(),
            };
            let is_one_server = matches!(fault, RequestFault::Doubled(_, server) if server == self.server);
            let stream = match &mut server {
                Some(stream) => stream,
                None => server.insert(connect(self.server).await?),
            };
            stream.write_all(&request).await?;
            // A caller that goes away while it waits must be missed by the server too.
            let mut beyond = Vec::new();
            let answer = tokio::select! {
                answer = message(stream, &mut beyond) => answer?.ok_or_else(|| anyhow!("no answer"))?,
                gone = caller.read_buf(&mut unread) => match gone? {
                    0 => return Ok(()),
                    _ => return Err(anyhow!("a request before the last one was answered")),
                },
            };
            if fault == RequestFault::AnswerLost {
                return self.cut(&caller);
            }
            caller.write_all(&answer).await?;
            self.compare(request, answer, copies, is_one_server);
        }
        Ok(())
    }

    /// Notes where the answer to a copy differs from the caller's.
    fn compare(
        &self,
        request: Vec<u8>,
        answer: Vec<u8>,
        copies: Vec<JoinHandle<Result<Vec<u8>>>>,
        is_one_server: bool,
    ) {
        let history = Arc::clone(&self.history);
        tokio::spawn(async move {
            for copy in copies {
                // A copy may well be lost with its connection.
                let Ok(Ok(copy)) = copy.await else { continue };
                if let Some(answer) = copies::difference(&request, &answer, &copy, is_one_server) {
                    history.note(Event::Odd { call: "copies".to_owned(), answer });
                }
            }
        });
    }
}

async fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a copy and waits for its answer, which its caller does not hear.
fn send_copy(port: u16, request: &[u8]) -> JoinHandle<Result<Vec<u8>>> {
    let request = request.to_vec();
    tokio::spawn(async move {
        let mut stream = connect(port).await?;
        stream.write_all(&request).await?;
        message(&mut stream, &mut Vec::new()).await?.ok_or_else(|| anyhow!("no answer"))
    })
}

/// The next whole message; `None` when the connection ends between two. `unread` is what has come beyond it.
async fn message(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    loop {
        if let Some(length) = length(unread).filter(|length| unread.len() >= *length) {
            let rest = unread.split_off(length);
            return Ok(Some(std::mem::replace(unread, rest)));
        }
        if stream.read_buf(unread).await? == 0 {
            return if unread.is_empty() { Ok(None) } else { Err(anyhow!("cut off in a message")) };
        }
    }
}

/// How long the first message is, once its head is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let body =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    Some(head + body.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_length_says() {
        assert_eq!(length(b"GET / HTTP/1.1\r\nhost: x\r\n"), None);
        assert_eq!(length(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET"), Some(27));
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Some(43));
    }
}
