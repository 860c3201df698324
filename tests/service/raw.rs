//! A provider made of bare sockets: sees every byte of a request, and answers or breaks the connection as told.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub(crate) fn callback_url(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["callback_url"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// What it does once it has read a request whole.
#[derive(Clone)]
pub(crate) enum Then {
    /// These bytes, then the connection is closed.
    Answer(Vec<u8>),
    /// The connection is closed without a word.
    Close,
    /// To a read these bytes; after a purchase the connection is closed without a word.
    AnswerReads(Vec<u8>),
    /// Nothing, until told to let go; then these bytes.
    Wait(Arc<Notify>, Vec<u8>),
    /// A webhook to the callback URL of the request, then these bytes.
    WebhookFirst { body: String, answer: Vec<u8> },
}

pub(crate) struct RawProvider {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    arrived: Arc<Notify>,
}

impl RawProvider {
    pub(crate) async fn start(then: Then) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, arrived) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(Notify::new()));
        let (list, bell) = (Arc::clone(&seen), Arc::clone(&arrived));
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (then, list, bell) = (then.clone(), Arc::clone(&list), Arc::clone(&bell));
                tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(request) = read(&mut stream).await else { return };
                    list.lock().unwrap().push(request.clone());
                    bell.notify_waiters();
                    answer(stream, &request, then).await;
                });
            }
        });
        Self { url, seen, arrived }
    }

    /// The purchases among what it has seen.
    pub(crate) fn purchases(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.head.starts_with("POST ")).collect()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for a request.
    pub(crate) async fn first(&self) -> Seen {
        loop {
            let arrived = self.arrived.notified();
            if let Some(first) = self.seen().into_iter().next() {
                return first;
            }
            arrived.await;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes.split_off(end + 4);
    let seen = Seen { head, body: Vec::new() };
    let length: usize = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen { body, ..seen })
}

async fn answer(mut stream: TcpStream, request: &Seen, then: Then) {
    let bytes = match then {
        Then::Close => return,
        Then::AnswerReads(_) if request.head.starts_with("POST ") => return,
        Then::AnswerReads(bytes) | Then::Answer(bytes) => bytes,
        Then::Wait(go, bytes) => {
            go.notified().await;
            bytes
        }
        Then::WebhookFirst { body, answer } => {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            let told = http.post(request.callback_url()).body(body).send().await.unwrap();
            assert_eq!(told.status(), 200);
            answer
        }
    };
    drop(stream.write_all(&bytes).await);
    drop(stream.shutdown().await);
}

/// An answer as bytes.
pub(crate) fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(crate) fn sold(id: &str) -> Vec<u8> {
    http("201 Created", "", &format!(r#"{{"generation_id":"{id}","status":"pending","price":"0.1500"}}"#))
}
