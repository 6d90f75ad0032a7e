//! The listener: which connections are taken, and how long each may be silent.

use std::net::SocketAddr;
use std::time::Duration;

use actix_http::HttpService;
use actix_http::error::DispatchError;
use actix_server::{Server, ServerHandle};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, map_config};
use actix_web::dev::{AppConfig, fn_service};
use actix_web::middleware::{Compress, from_fn};
use actix_web::{App as ActixApp, rt::net::TcpStream, web};
use socket2::{Domain, SockRef, Socket, Type};

use super::app::App;
use super::connections::{Connection, Connections};
use super::edge::edge;
use super::routes::configure;
use crate::config::HttpSettings;

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 1024;
/// How long a connection that closes is read on, so that its caller sees the last answer.
const LINGER: Duration = Duration::from_secs(5);
/// How far the library's clock may be behind. A deadline that has passed when it is set is never noticed, and a connection must not
/// be closed earlier than a balancer expects.
const CLOCK_STEP: Duration = Duration::from_millis(500);
/// How long one of the last connections may be silent before its request: those that ask for the health do so at once.
const SPARE_SILENCE: Duration = Duration::from_secs(1);

/// A listener, not yet running.
pub(crate) struct Listener {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// It runs while this is polled.
    pub(crate) server: Server,
}

impl Listener {
    /// Listens with that many threads, each of which takes up to `most` connections.
    pub(crate) fn bind(
        app: &web::Data<App>,
        settings: &HttpSettings,
        workers: usize,
        most: usize,
    ) -> std::io::Result<Self> {
        let socket = bind(SocketAddr::new(settings.host, settings.port))?;
        let addr = socket.local_addr()?;
        let keep_alive = Duration::from_secs(settings.http_keep_alive_seconds);
        let head_timeout = Duration::from_millis(settings.http_head_timeout_ms);
        let answer_timeout = Duration::from_millis(settings.http_answer_timeout_ms);
        let (app, connections) = (app.clone(), Connections::new(workers.saturating_mul(most)));
        let service = move || {
            let (app, connections) = (app.clone(), connections.clone());
            let handlers = ActixApp::new()
                .app_data(app)
                .wrap(Compress::default())
                .wrap(from_fn(edge))
                .configure(configure)
                .into_factory()
                .map_err(|error: actix_web::Error| error.error_response());
            let waiting = connections.clone();
            let first_byte = move |stream| first_byte(stream, waiting.open(), keep_alive);
            let http = HttpService::build()
                .keep_alive(keep_alive + CLOCK_STEP)
                .client_request_timeout(head_timeout + CLOCK_STEP)
                .client_disconnect_timeout(LINGER)
                // Without this a caller that has gone is not noticed, and a waiting claim hands tasks to nobody.
                .h1_allow_half_closed(false)
                .local_addr(addr)
                .on_connect_ext(move |stream: &TcpStream, data| {
                    cut_off_after(stream, answer_timeout);
                    data.insert(connections.open());
                })
                .finish(map_config(handlers, |()| AppConfig::default()));
            fn_service(first_byte).and_then(http)
        };
        let server = Server::build()
            .workers(workers)
            .max_concurrent_connections(most)
            .disable_signals()
            .listen("http", socket, service)?
            .run();
        Ok(Self { addr, server })
    }

    /// By which it is stopped.
    pub(crate) fn handle(&self) -> ServerHandle {
        self.server.handle()
    }
}

fn bind(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // A port whose last connections are not forgotten yet is free.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Waits for the first byte of a new connection. Balancers open connections ahead of the requests they send on them. The library
/// counts the time for a request's head from the first moment, and answers 408 at its end, which a balancer would take for the
/// answer to a request it has just sent.
async fn first_byte(
    stream: TcpStream,
    connection: Connection,
    keep_alive: Duration,
) -> Result<(TcpStream, actix_http::Protocol, Option<SocketAddr>), DispatchError> {
    let patience = if connection.is_spare { SPARE_SILENCE.min(keep_alive) } else { keep_alive };
    match tokio::time::timeout(patience, stream.readable()).await {
        Ok(readable) => readable?,
        // Closed without a word.
        Err(_) => return Err(DispatchError::DisconnectTimeout),
    }
    // Answers go out as they are written.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok();
    Ok((stream, actix_http::Protocol::Http1, peer))
}

/// Has the connection closed when what was sent on it is not read for that long: a waiting answer keeps memory.
///
/// This is `TCP_USER_TIMEOUT`, which counts while the other side takes nothing in (RFC 5482, `tcp(7)`). Only Linux has it.
fn cut_off_after(stream: &TcpStream, timeout: Duration) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(timeout)) {
        tracing::debug!(%error, "a connection without a limit for its answers");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, timeout);
}
