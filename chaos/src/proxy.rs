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
use tokio::task::JoinSet;

/// How likely each mishap is for one request, from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// The request is carried out, and its answer is lost with the connection.
    pub(crate) lost_answer: f64,
    /// The connection ends before the request has reached the server.
    pub(crate) cut_off: f64,
    /// The request reaches the server two to five times at once.
    pub(crate) doubled: f64,
}

struct State {
    weather: Weather,
    dice: SmallRng,
}

/// A proxy in front of one server.
#[derive(Clone)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    AnswerLost,
    CutOff,
    Doubled(u32),
}

impl Proxy {
    /// Starts one in front of that port. Ends with the program.
    pub(crate) async fn start(server: u16, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = State { weather: Weather::default(), dice: SmallRng::seed_from_u64(seed) };
        let proxy = Self { port, state: Arc::new(Mutex::new(state)) };
        let front = proxy.clone();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((caller, _)) = listener.accept().await {
                let proxy = front.clone();
                // Either end may break off at any moment; that is what it is for.
                connections.spawn(async move { proxy.carry(caller, server).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(proxy)
    }

    /// Where callers connect.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What is to happen from now on.
    pub(crate) fn set(&self, weather: Weather) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).weather = weather;
    }

    fn fate(&self) -> Fate {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Weather { lost_answer, cut_off, doubled } = state.weather;
        let dice: f64 = state.dice.random();
        if dice < lost_answer {
            Fate::AnswerLost
        } else if dice < lost_answer + cut_off {
            Fate::CutOff
        } else if dice < lost_answer + cut_off + doubled {
            Fate::Doubled(state.dice.random_range(1..=4))
        } else {
            Fate::Passes
        }
    }

    async fn carry(&self, mut caller: TcpStream, port: u16) -> Result<()> {
        caller.set_nodelay(true)?;
        let mut server: Option<TcpStream> = None;
        let mut unread = Vec::new();
        while let Some(request) = message(&mut caller, &mut unread).await? {
            let fate = self.fate();
            if fate == Fate::CutOff {
                return Ok(());
            }
            if let Fate::Doubled(copies) = fate {
                for _ in 0..copies {
                    let request = request.clone();
                    tokio::spawn(async move { once(port, &request).await });
                }
            }
            let stream = match &mut server {
                Some(stream) => stream,
                None => server.insert(connect(port).await?),
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
            if fate == Fate::AnswerLost {
                return Ok(());
            }
            caller.write_all(&answer).await?;
        }
        Ok(())
    }
}

async fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a copy and waits for its answer, which nobody hears.
async fn once(port: u16, request: &[u8]) -> Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(request).await?;
    message(&mut stream, &mut Vec::new()).await?;
    Ok(())
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
