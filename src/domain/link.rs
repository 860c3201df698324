//! What a link is: an absolute web address with a host, under which something can be fetched or called.
//!
//! Reads the text alone: whether anything answers there is for others to find out.

use url::Url;

/// Whether a text is an absolute `http` or `https` address with a host; space around it is none of it.
pub fn is_link(text: &str) -> bool {
    if is_plain_link(text) {
        return true;
    }
    // The reader of addresses mends what no client fetches: `https:x` and `https:///x` lead to the host x.
    let written = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with(['/', '\\']));
    written && Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Whether it is one beyond doubt: with a plain name for a host, as nearly all have. Every webhook asks, and reading the whole address
/// costs half as much as reading the whole body.
fn is_plain_link(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let labels_are_plain = host.split('.').all(|label| {
        label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && label.starts_with(|first: char| first.is_ascii_alphanumeric())
            && !label.starts_with("xn--")
    });
    // One that ends in a number is an address of another kind.
    labels_are_plain
        && host.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_lowercase()))
}

#[cfg(test)]
pub(in crate::domain) mod tests {
    use super::*;

    /// What providers were seen to write where a link belongs, and what only looks like one.
    pub(in crate::domain) const NO_LINKS: [&str; 22] = [
        "",
        "  ",
        "None",
        "null",
        "undefined",
        "N/A",
        "pending",
        "false",
        "/a.mp4",
        "a.mp4",
        "//cdn.example.com/a.mp4",
        "cdn.example.com/a.mp4",
        "cdn.example.com:443/a.mp4",
        "https://",
        "https:///a.mp4",
        "https:a.mp4",
        "http://?a",
        "javascript:alert(1)",
        "javascript://x/%0aalert(1)",
        "ftp://cdn.example.com/a.mp4",
        "data:video/mp4;base64,AA==",
        "file:///a.mp4",
    ];

    #[test]
    fn only_an_absolute_web_address_with_a_host_is_a_link() {
        for text in NO_LINKS {
            assert!(!is_link(text), "{text}");
        }
        for text in [
            "https://cdn.example.com/a.mp4",
            "http://cdn.example.com/a.mp4?X-Amz-Signature=ab%2F&x=https://y",
            "HTTPS://CDN.EXAMPLE.COM",
            "https://[2001:db8::1]:8443/a b.mp4",
            "https://user:word@127.0.0.1/a",
            "https://b\u{fc}cher.example/\u{e9}.mp4",
        ] {
            assert!(is_link(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_plain_can_be_read_as_an_address(
            text in "https?://[a-z0-9.:@\\[\\]-]{0,12}([/?#\\\\][ -~]{0,8})?",
        ) {
            let read = Url::parse(&text).is_ok_and(|url| url.has_host());
            proptest::prop_assert!(!is_plain_link(&text) || read, "{}", text);
        }
    }
}
