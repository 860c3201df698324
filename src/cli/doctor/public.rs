//! Does the provider reach us? The public URL as a webhook would find it: name, connection, certificate, redirects, size, and whether
//! it is this very service that answers.
//!
//! Sends webhooks with a token that cannot be right: they are refused and leave nothing behind but a count.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{DATE, LOCATION};
use reqwest::tls::TlsInfo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use url::Url;

use super::provider::Dated;
use super::running::Running;
use super::{Check, TIMEOUT};
use crate::cli::remote::{ProblemView, address, cause, is_here};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::family::FAMILIES;
use crate::domain::spelling::line;
use crate::domain::time::Time;
use crate::http::PROBE;
use crate::outgoing::client_builder;
use crate::sink::egress::is_public;

const URL: &str = "public URL";
const BODY: &str = "body size";
const CERTIFICATE: &str = "certificate";
/// What a webhook may have by default; the provider's are shorter.
const BODY_BYTES: usize = 64 << 10;
/// Longest answer that is looked at, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// So few days before its end a certificate should have been renewed: those that renew by themselves do it at thirty.
const DAYS_LEFT_MIN: u64 = 14;

/// What the public URL answered.
pub(super) struct Seen {
    question: String,
    small: Result<Answer, Failure>,
    large: Result<Answer, Failure>,
    /// Its clock, where it is not this machine's.
    pub(super) date: Option<Dated>,
}

struct Answer {
    status: u16,
    location: Option<String>,
    probe: Option<String>,
    date: Option<String>,
    problem: Option<ProblemView>,
    certificate: Option<Vec<u8>>,
}

struct Failure {
    cause: String,
    certificate: Option<CertificateError>,
}

/// Sends a short and a long webhook to the public URL.
pub(super) async fn look(base: &Url) -> anyhow::Result<Seen> {
    let mut question = [0; 16];
    getrandom::fill(&mut question).map_err(|error| anyhow::anyhow!("no source of chance: {error}"))?;
    let question = hex::encode(question);
    let small = post(base, &question, "{}".to_owned()).await?;
    let now = SystemClock::new().now();
    let large = post(base, &question, format!("{{\"filler\":\"{}\"}}", "x".repeat(BODY_BYTES - 13))).await?;
    let theirs = small.as_ref().ok().and_then(|answer| Time::parse_http(answer.date.as_deref()?).ok());
    let theirs = theirs.filter(|_| !is_here(base));
    let date = theirs.map(|theirs| Dated { whose: "the public URL", theirs, ours: now });
    Ok(Seen { question, small, large, date })
}

async fn post(base: &Url, question: &str, body: String) -> anyhow::Result<Result<Answer, Failure>> {
    let family = FAMILIES.first().map_or("", |family| family.path);
    let url = format!("{}/webhooks/{family}/any.recoup-doctor", base.as_str().trim_end_matches('/'));
    let http = client_builder(TIMEOUT).timeout(TIMEOUT).tls_info(true).build()?;
    let request = http.post(url).header(PROBE, question).header("content-type", "application/json").body(body);
    Ok(match request.send().await {
        Ok(response) => Ok(Answer::read(response).await),
        Err(error) => Err(Failure { cause: cause(&error), certificate: certificate_error(&error) }),
    })
}

impl Answer {
    async fn read(mut response: reqwest::Response) -> Self {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(line);
        let (location, probe, date) = (header(LOCATION), header(PROBE), header(DATE));
        let certificate =
            response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).map(<[u8]>::to_vec);
        let mut body = Vec::new();
        // A body that breaks off is none of ours.
        while let Ok(Some(chunk)) = response.chunk().await
            && body.len() <= ANSWER_BYTES_MAX
        {
            body.extend_from_slice(&chunk);
        }
        let problem = serde_json::from_slice(&body).ok();
        Self { status: response.status().as_u16(), location, probe, date, problem, certificate }
    }

    /// Whether it is the refusal of a recoup.
    fn is_refusal(&self) -> bool {
        self.status == 404 && self.problem.as_ref().is_some_and(|problem| problem.code == "NOT_FOUND")
    }
}

/// What is to be said about the public URL.
pub(super) async fn checks(base: &Url, config: &Config, seen: &Seen, running: &Running) -> anyhow::Result<[Check; 3]> {
    let here = post(&address(config.server.listen)?, &seen.question, "{}".to_owned()).await?;
    let ours = here.ok().and_then(|answer| answer.probe);
    Ok([reached(base, &seen.small, ours.as_deref(), running), size(&seen.large), certificate(base, &seen.small)])
}

fn reached(base: &Url, small: &Result<Answer, Failure>, ours: Option<&str>, running: &Running) -> Check {
    if small.is_err() && is_here(base) && !running.answers() {
        return Check::skipped(URL, format!("{base} is this machine, and the service does not run"));
    }
    let answer = match small {
        Ok(answer) => answer,
        Err(Failure { certificate: Some(_), .. }) => {
            return Check::failed(
                URL,
                format!("no secure connection to {base}"),
                "see the certificate below: the provider does not connect either",
            );
        }
        Err(Failure { cause, .. }) => {
            let advice = "check the name, the firewall and the proxy in front; from inside some networks the own public address cannot be \
                          reached: then try it from elsewhere";
            return Check::failed(URL, format!("{base} cannot be reached: {cause}"), advice);
        }
    };
    match (answer.status, ours) {
        (300..=399, _) => {
            let target = answer.location.as_deref().unwrap_or("nowhere");
            let advice = "the provider does not carry a webhook along: set server.public_url to where it leads, or take the redirect away";
            Check::failed(URL, format!("{base} redirects (HTTP {}) to {target}", answer.status), advice)
        }
        (502..=504, _) if !running.answers() => Check::skipped(
            URL,
            format!("a proxy answers at {base} (HTTP {}), and the service behind it does not run", answer.status),
        ),
        _ if !answer.is_refusal() => {
            let advice = "lead POST /webhooks/ there to recoup: no login, no filter and no page of its own in front";
            Check::failed(URL, format!("{base} answers HTTP {}, and that is not recoup", answer.status), advice)
        }
        (_, Some(ours)) if answer.probe.as_deref() == Some(ours) => arrived(base),
        (_, None) => Check::warning(
            URL,
            format!("a recoup answers at {base}; whether it is this one cannot be told"),
            "start the service, then look again",
        ),
        (_, Some(_)) if answer.probe.is_none() => {
            let advice = "let the proxy pass the header Recoup-Probe in both directions, or see that the same version runs on both ends";
            Check::warning(URL, format!("a recoup answers at {base}; whether it is this one cannot be told"), advice)
        }
        (_, Some(_)) => {
            let advice = "webhooks go to that one and are refused there: correct server.public_url or the proxy";
            Check::failed(URL, format!("another recoup answers at {base}"), advice)
        }
    }
}

fn arrived(base: &Url) -> Check {
    let public = match base.host() {
        Some(url::Host::Ipv4(address)) => is_public(address.into()),
        Some(url::Host::Ipv6(address)) => is_public(address.into()),
        Some(url::Host::Domain(name)) => name != "localhost",
        None => false,
    };
    if public {
        Check::ok(URL, format!("{base} leads here, without a redirect"))
    } else {
        Check::warning(
            URL,
            format!("{base} leads here, but only from inside"),
            "set server.public_url to an address the provider can reach",
        )
    }
}

fn size(large: &Result<Answer, Failure>) -> Check {
    match large {
        Ok(answer) if answer.is_refusal() => Check::ok(BODY, "a webhook of 64 KiB passes"),
        Ok(answer) if answer.status == 413 => {
            let advice =
                "allow what `webhook.max_body` says: client_max_body_size in nginx, request_body max_size in Caddy";
            Check::failed(BODY, "something in front refuses a webhook of 64 KiB (HTTP 413)", advice)
        }
        Ok(answer) => Check::skipped(BODY, format!("no recoup answers (HTTP {})", answer.status)),
        Err(Failure { cause, .. }) => Check::skipped(BODY, format!("no answer: {cause}")),
    }
}

fn certificate(base: &Url, small: &Result<Answer, Failure>) -> Check {
    match small {
        _ if base.scheme() != "https" => Check::skipped(CERTIFICATE, "server.public_url is not https"),
        Err(Failure { certificate: Some(error), .. }) => {
            let advice = "renew or replace it: the provider does not connect to what it cannot trust";
            Check::failed(CERTIFICATE, what_is_wrong(error), advice)
        }
        Err(Failure { cause, .. }) => Check::skipped(CERTIFICATE, format!("no connection: {cause}")),
        Ok(answer) => match answer.certificate.as_deref().and_then(not_after) {
            Some(end) => left(end, SystemClock::new().now()),
            None => Check::skipped(CERTIFICATE, "its end cannot be read"),
        },
    }
}

fn left(end: Time, now: Time) -> Check {
    let days = end.since(now).as_secs() / 86_400;
    let seen = format!("valid until {end}, {days} days from now");
    if days < DAYS_LEFT_MIN {
        Check::warning(CERTIFICATE, seen, "renew it, and see why that does not happen by itself")
    } else {
        Check::ok(CERTIFICATE, seen)
    }
}

fn what_is_wrong(error: &CertificateError) -> String {
    if let CertificateError::ExpiredContext { not_after, .. } = error {
        format!("it expired at {}", time(*not_after))
    } else if let CertificateError::NotValidForNameContext { .. } = error {
        format!("it is for another name: {error}")
    } else if *error == CertificateError::UnknownIssuer {
        "nobody known has issued it: it is self-signed, or the server does not send the chain".to_owned()
    } else {
        error.to_string()
    }
}

fn time(at: UnixTime) -> Time {
    Time::default() + Duration::from_secs(at.as_secs())
}

/// What rustls found wrong, if that is why a request failed.
fn certificate_error(error: &reqwest::Error) -> Option<CertificateError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        // An I/O error that wraps another leaves it out of the chain of sources.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let rustls = error.downcast_ref().or_else(|| wrapped?.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(error)) = rustls {
            return Some(error.clone());
        }
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The end of a certificate. rustls names it when it is asked to judge the certificate at a time beyond it.
fn not_after(certificate: &[u8]) -> Option<Time> {
    let mut roots = RootCertStore::empty();
    let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
    roots.add_parsable_certificates(bundled);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let far = UnixTime::since_unix_epoch(Duration::from_secs(u64::from(u32::MAX) * 50));
    let name = ServerName::try_from("localhost").ok()?;
    match verifier.verify_server_cert(&CertificateDer::from(certificate), &[], &name, &[], far) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(time(not_after))
        }
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_certificate_is_renewed_before_it_ends() {
        let now = Time::parse("2026-11-23T10:00:00Z").unwrap();
        let days = |days: u64| left(now + Duration::from_hours(24 * days), now);
        assert_eq!(days(14).verdict, Verdict::Ok);
        assert_eq!(
            (days(13).verdict, days(13).seen.as_str()),
            (Verdict::Warning, "valid until 2026-12-06T10:00:00Z, 13 days from now")
        );
    }

    #[test]
    fn the_end_of_a_certificate_is_read_whoever_issued_it() {
        let mut wanted = rcgen::CertificateParams::new(vec!["recoup.example.com".to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(2027, 2, 28);
        let certificate = wanted.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(not_after(certificate.der()), Some(Time::parse("2027-02-28T00:00:00Z").unwrap()));
        assert_eq!(not_after(b"no certificate"), None);
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_words() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: at(1_800_000_000), not_after: at(1_795_428_000) };
        assert_eq!(what_is_wrong(&expired), "it expired at 2026-11-23T10:00:00Z");
        let expected = ServerName::try_from("recoup.example.com").unwrap();
        let presented = vec!["www.example.com".to_owned()];
        let named = what_is_wrong(&CertificateError::NotValidForNameContext { expected, presented });
        assert!(named.starts_with("it is for another name") && named.contains("www.example.com"), "{named}");
        assert!(what_is_wrong(&CertificateError::UnknownIssuer).contains("self-signed"));
    }
}
