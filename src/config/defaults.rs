//! The built-in defaults of contract section 3.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytesize::ByteSize;
use url::Url;

use super::{
    Confirm, Database, Events, Gateway, Log, LogFormat, Provider, Reconcile, RetentionSection, Server, Span, Webhook,
};
use crate::secret::Secret;

/// A URL that is known to be one.
#[expect(clippy::expect_used, reason = "constants; a test makes the defaults")]
fn url(text: &'static str) -> Url {
    Url::parse(text).expect("a constant URL")
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            public_url: None,
            admin_listen: None,
            max_connections: 1_024,
            shutdown_timeout: Span::seconds(25),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self { url: "sqlite://recoup.db".to_owned() }
    }
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            base_url: url("https://platform.runblob.io"),
            api_key: Secret::default(),
            request_timeout: Span::seconds(30),
            purchase_timeout: None,
            status_checks_per_minute: 48,
        }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            provider_secret: Secret::default(),
            provider_secrets: Vec::new(),
            confirm: Confirm::Untrusted,
            max_body: ByteSize::kib(64),
            allow_ips: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self { max_body: ByteSize::mib(80), repeat_wait: Span::seconds(100) }
    }
}

impl Default for Reconcile {
    fn default() -> Self {
        Self {
            enabled: true,
            grace: Span::seconds(30),
            webhook_retry_window: Span::seconds(150),
            hard_limit: Span::seconds(15 * 60),
            refund_window: Span::seconds(5 * 60),
            recheck: [15, 30, 60].map(Span::seconds).to_vec(),
            stuck_recheck: [5 * 60, 60 * 60].map(Span::seconds).to_vec(),
            not_found_recheck: Span::seconds(60),
            give_up_after: Span::seconds(24 * 60 * 60),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        let hour = 60 * 60;
        Self {
            retry_schedule: [5, 30, 2 * 60, 10 * 60, hour, 6 * hour, 24 * hour].map(Span::seconds).to_vec(),
            allow_private_addresses: false,
            endpoints: Vec::new(),
        }
    }
}

impl Default for RetentionSection {
    fn default() -> Self {
        Self { payloads: Span::seconds(30 * 24 * 60 * 60), generations: Span::seconds(0) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}
