//! How HTTP requests leave this program: no redirect is followed, no proxy of the environment used, nothing repeated, and only
//! the bundled roots are trusted.

use std::time::Duration;

use crate::planted;

/// Time to connect; the whole request has its own limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("recoup/", env!("CARGO_PKG_VERSION"));

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client: {0}")]
pub struct ClientError(#[from] reqwest::Error);

/// A client whose requests take `timeout` at most.
///
/// # Errors
/// [`ClientError`] when TLS cannot be set up.
pub fn http_client(timeout: Duration) -> Result<reqwest::Client, ClientError> {
    Ok(client_builder(timeout).timeout(timeout).build()?)
}

/// A client for a thread that may wait; it cannot be made inside the runtime.
///
/// # Errors
/// [`ClientError`] when TLS cannot be set up.
pub fn blocking_client(timeout: Duration) -> Result<reqwest::blocking::Client, ClientError> {
    // Already installed is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    Ok(reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .user_agent(USER_AGENT)
        .tls_certs_only(roots())
        .build()?)
}

/// The bundled roots.
fn roots() -> impl Iterator<Item = reqwest::Certificate> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    roots.filter_map(|root| reqwest::Certificate::from_der(root).ok())
}

/// The same, to be completed. `timeout` bounds the time to connect only.
pub fn client_builder(timeout: Duration) -> reqwest::ClientBuilder {
    // Already installed is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .redirect(if planted::is(planted::Fault::RedirectsFollowed) {
            reqwest::redirect::Policy::limited(5)
        } else {
            reqwest::redirect::Policy::none()
        })
        .tls_danger_accept_invalid_certs(planted::is(planted::Fault::AnyCertificate))
        .no_proxy()
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .user_agent(USER_AGENT)
        .tls_certs_only(roots())
}
