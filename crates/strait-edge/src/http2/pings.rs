//! Looking for visitors that have vanished without a word.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// How often a visitor is asked.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pings of one connection (RFC 9113 6.7).
pub(super) struct Pings {
    ping_pong: PingPong,
    /// Until the next ping, or until the answer to the last one is overdue.
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl Pings {
    pub(super) fn new(ping_pong: PingPong) -> Pings {
        Pings { ping_pong, timer: Box::pin(sleep(INTERVAL)), asked: false }
    }

    /// Asks when it is time. Ready when there was no answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.asked && self.ping_pong.poll_pong(cx).is_ready() {
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + INTERVAL);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It fails when the connection is over, which is then told by whoever reads.
            if self.asked || self.ping_pong.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = true;
            self.timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// How long a visitor is served who has said so much, in whole seconds; an hour at most.
    async fn served(answers: bool) -> u64 {
        let (mut there, here) = tokio::io::duplex(64 << 10);
        let visitor = async move {
            if answers {
                let (_sender, connection) = h2::client::handshake(there).await.unwrap();
                return connection.await.unwrap();
            }
            // The preface and empty SETTINGS (RFC 9113 3.4), and no word more.
            there.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
            let _ = there.read_to_end(&mut Vec::new()).await;
        };
        let visitor = tokio::spawn(visitor);
        let mut connection = h2::server::handshake(here).await.unwrap();
        let mut pings = Pings::new(connection.ping_pong().unwrap());
        let begun = Instant::now();
        let gone = poll_fn(|cx| match pings.poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => connection.poll_closed(cx).map(drop),
        });
        let _ = tokio::time::timeout(Duration::from_secs(3600), gone).await;
        visitor.abort();
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_who_answers_stays_and_one_who_vanished_goes() {
        assert_eq!(served(true).await, 3600);
        assert_eq!(served(false).await, (INTERVAL + PATIENCE).as_secs());
    }
}
