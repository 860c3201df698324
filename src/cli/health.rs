//! `recoup health`: exit 0 when the service is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use url::Url;

use super::{ConfigArgument, say};
use crate::provider::http_client;

/// Container health checks usually give up after as long.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The service's address [default: from the configuration]
    #[arg(long)]
    url: Option<Url>,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let base = if let Some(url) = arguments.url {
        url.to_string()
    } else {
        let server = arguments.config.load()?.config.server;
        format!("http://{}", reachable(server.admin_listen.unwrap_or(server.listen)))
    };
    let url = format!("{}/readyz", base.trim_end_matches('/'));
    let answer = http_client(TIMEOUT)?.get(&url).send().await.with_context(|| format!("no answer from {url}"))?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    say(body.trim())?;
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A service that listens on every address is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
    };
    SocketAddr::new(loopback, listen.port())
}
