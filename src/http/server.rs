//! A listener served until told to stop: connection and header limits, graceful drain, lingering close.
//!
//! Who may keep a connection, and for how long, is in `seats.rs`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::http::Request;
use axum_server::Handle;
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::lingering::{Lingering, Unread};
use super::places::Places;
use super::seats::{self, Seated, Seats, Taken};
use crate::planted;

/// How long a connection that showed a key is kept for another request; `seats.rs` closes strangers' sooner. Longer than clients and
/// proxies keep theirs (the provider's own client 30 s, polling every 10; nginx 60 s): who closes first breaks the request that the
/// other one is about to send. Also how long a head is waited for that began in the packet in which the request before it ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest block of request headers, in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1_024;
/// Most headers of a request (reliability.md 5.1).
const HEADERS_MAX: usize = 64;
/// Limits of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For connections.
    pub places: Places,
    /// How long requests under way may take once told to stop.
    pub shutdown_timeout: Duration,
}

/// Serves until `stop`, then finishes what is in flight.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let handle = Handle::<SocketAddr>::new();
    let seats = Seats::new(limits.places);
    let door = Door { seats: seats.clone(), stop: stop.clone() };
    let (headers_max, header_bytes_max) =
        if planted::is(planted::Fault::HeadsUnbounded) { (4_096, 8 << 20) } else { (HEADERS_MAX, HEADER_BYTES_MAX) };
    let mut server = axum_server::from_tcp(listener)?.http1_only().acceptor(door).handle(handle.clone());
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(if planted::is(planted::Fault::HeadsUntimed) {
            Duration::from_hours(1)
        } else {
            IDLE_TIMEOUT
        })
        .max_headers(headers_max)
        .max_buf_size(header_bytes_max);
    let serving = server.serve(router.into_make_service_with_connect_info::<SocketAddr>());
    tokio::pin!(serving);
    let mut ticks = tokio::time::interval(seats::TICK);
    // Late ticks are lost: a moment in which nothing ran is nobody's fault.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = &mut serving => return ended,
            _ = ticks.tick() => seats.tick(),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                handle.graceful_shutdown(Some(limits.shutdown_timeout));
            }
        }
    }
}

/// Lets connections in, each to a seat of its own.
#[derive(Clone, Debug)]
struct Door {
    seats: Seats,
    stop: CancellationToken,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Door {
    type Stream = Seated<Lingering>;
    type Service = Placed<S>;
    type Future = BoxFuture<'static, io::Result<(Seated<Lingering>, Placed<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Self { seats, stop } = self.clone();
        Box::pin(async move {
            stream.set_nodelay(true)?;
            let taken = Arc::new(seats.take().await?);
            let (unread, seat) = (Unread::default(), Arc::clone(&taken.seat));
            let stream = Seated { stream: Lingering::new(stream, unread.clone(), stop), seat };
            Ok((stream, Placed { service, unread, taken }))
        })
    }
}

/// A connection's service, and its seat: given back when the connection ends.
#[derive(Clone, Debug)]
struct Placed<S> {
    service: S,
    unread: Unread,
    taken: Arc<Taken>,
}

impl<B: HttpBody, S: Service<Request<B>>> Service<Request<B>> for Placed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        self.unread.set(!request.body().is_end_stream());
        self.taken.seat.asks();
        request.extensions_mut().insert(Arc::clone(&self.taken.seat));
        self.service.call(request)
    }
}
