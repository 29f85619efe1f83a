//! Who answers where a Strait server was expected: for the person who has to find the
//! mistake.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// As long as somebody may take to say who he is.
const PATIENCE: Duration = Duration::from_secs(2);
/// As much of it is read, in bytes.
const ENOUGH: u64 = 4096;

/// What `io` says when it is asked as any web server: `HTTP 404, text/html`, or its own
/// first words. Nothing when it says nothing.
pub(crate) async fn who_answers(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    authority: &str,
) -> Option<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let mut said = Vec::new();
    let talk = async {
        let _ = io.write_all(request.as_bytes()).await;
        let mut io = io.take(ENOUGH);
        // Up to the end of a head; whoever speaks another protocol may wait for us.
        while !said.windows(4).any(|end| end == b"\r\n\r\n") {
            match io.read_buf(&mut said).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
    };
    let _ = timeout(PATIENCE, talk).await;
    describe(&said)
}

/// A head in a few words; anything else as its first line.
fn describe(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    let mut lines = text.lines();
    let first = lines.next().filter(|line| !line.is_empty())?;
    if let Some(status) = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)) {
        let kind = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            .and_then(|(_, kind)| kind.split(';').next());
        let kind = kind.map_or("no content type", str::trim);
        return Some(format!("HTTP {}, {}", visible(status, 3), visible(kind, 60)));
    }
    Some(format!("it says \"{}\"", visible(first, 60)))
}

/// At most `most` characters of what a stranger said, safe to print.
fn visible(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '.' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_described_in_a_few_words() {
        for (said, words) in [
            (
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html>",
                "HTTP 404, text/html",
            ),
            ("HTTP/1.0 400 Bad Request\r\n\r\n", "HTTP 400, no content type"),
            ("220 mail.example ESMTP\r\n", "it says \"220 mail.example ESMTP\""),
            ("\x1b[2J\x07boo", "it says \".[2J.boo\""),
            ("HTTP/2", "it says \"HTTP/2\""),
        ] {
            assert_eq!(describe(said.as_bytes()).as_deref(), Some(words));
        }
        assert_eq!(describe(b""), None);
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_not_waited_for_long() {
        let (near, _far) = tokio::io::duplex(64);
        assert_eq!(who_answers(near, "a:1").await, None);
    }
}
