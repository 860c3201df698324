//! A listener served until told to stop: connection and header limits, graceful drain, lingering close.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::lingering::{Lingering, Unread};

/// A connection that has not sent a whole request head by then is closed; axum's own server would wait for ever.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for every later request; also how long an idle connection is kept.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest block of request headers, in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1_024;
/// How long a connection waits for a place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limits of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections_max: usize,
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
    let places = Places { free: Arc::new(Semaphore::new(limits.connections_max)), stop: stop.clone() };
    let mut server = axum_server::from_tcp(listener)?
        .http1_only()
        .first_request_timeout(FIRST_REQUEST_TIMEOUT)
        .acceptor(places)
        .handle(handle.clone());
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX);
    let serving = server.serve(router.into_make_service_with_connect_info::<SocketAddr>());
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            handle.graceful_shutdown(Some(limits.shutdown_timeout));
            serving.await
        }
    }
}

/// Gives out places for connections.
#[derive(Clone, Debug)]
struct Places {
    free: Arc<Semaphore>,
    stop: CancellationToken,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Places {
    type Stream = Lingering;
    type Service = Placed<S>;
    type Future = BoxFuture<'static, io::Result<(Lingering, Placed<S>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let (places, stop) = (Arc::clone(&self.free), self.stop.clone());
        Box::pin(async move {
            stream.set_nodelay(true)?;
            let place = tokio::time::timeout(PLACE_TIMEOUT, places.acquire_owned()).await;
            let place = place.map_err(|_| io::Error::other("too many connections"))?.map_err(io::Error::other)?;
            let unread = Unread::default();
            let stream = Lingering::new(stream, unread.clone(), stop);
            Ok((stream, Placed { service, unread, _place: Arc::new(place) }))
        })
    }
}

/// A connection's service, and its place: given back when the connection ends.
#[derive(Clone, Debug)]
struct Placed<S> {
    service: S,
    unread: Unread,
    _place: Arc<OwnedSemaphorePermit>,
}

impl<B: HttpBody, S: Service<Request<B>>> Service<Request<B>> for Placed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.unread.set(!request.body().is_end_stream());
        self.service.call(request)
    }
}
