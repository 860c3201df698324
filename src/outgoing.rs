//! How HTTP requests leave this program: no redirect is followed, no proxy of the environment used, nothing repeated, and only
//! the bundled roots are trusted.

use std::time::Duration;

/// Time to connect; the whole request has its own limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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

/// The same, to be completed. `timeout` bounds the time to connect only.
pub fn client_builder(timeout: Duration) -> reqwest::ClientBuilder {
    // Already installed is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let roots = roots.filter_map(|root| reqwest::Certificate::from_der(root).ok());
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .user_agent(concat!("recoup/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(roots)
}
