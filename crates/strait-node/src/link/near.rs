//! Whether the peer is next door, and what follows from it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;

/// A peer that answers a ping within this time is next door.
const NEAR: Duration = Duration::from_micros(500);

/// Bytes that the kernel may receive ahead from a peer next door; it makes them twice as many
/// for its own accounts. Left alone it takes megabytes as soon as this process is what holds
/// bulk up, and each byte there lies in front of every short message. So near, this much still
/// fills some gigabits per second; for a peer further away it would cost throughput.
const AHEAD: usize = 96 * 1024;

/// How far the peer of a tunnel is: written where frames pass, read where bytes do.
pub(crate) struct Distance {
    since: Instant,
    /// When the last ping left, in microseconds after `since`.
    pinged: AtomicU64,
    is_near: AtomicBool,
}

impl Default for Distance {
    fn default() -> Distance {
        let (pinged, is_near) = (AtomicU64::new(0), AtomicBool::new(false));
        Distance { since: Instant::now(), pinged, is_near }
    }
}

impl Distance {
    fn now(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }

    /// A ping leaves.
    pub(crate) fn pinged(&self) {
        self.pinged.store(self.now(), Relaxed);
    }

    /// Its answer is here.
    pub(crate) fn ponged(&self) {
        if self.now() - self.pinged.load(Relaxed) <= NEAR.as_micros() as u64 {
            self.is_near.store(true, Relaxed);
        }
    }

    /// Whether one answer came that fast. Later ones may wait behind other work, here or there.
    pub(crate) fn is_near(&self) -> bool {
        self.is_near.load(Relaxed)
    }
}

/// A connection over TCP, encrypted or not.
pub(crate) trait OverTcp {
    fn tcp(&self) -> &TcpStream;
}

impl OverTcp for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl OverTcp for tokio_rustls::client::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl OverTcp for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Has the kernel receive no more than a little ahead.
pub(crate) fn keep_short(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_recv_buffer_size(AHEAD) {
        tracing::debug!(%error, "a socket option is not available");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::Shared;
    use super::*;

    #[test]
    fn one_fast_answer_tells_that_a_peer_is_near() {
        let distance = Distance::default();
        distance.pinged();
        std::thread::sleep(NEAR * 2);
        distance.ponged();
        assert!(!distance.is_near());
        // An answer now, whatever this thread waits for in between.
        let soon = (0..100).any(|_| {
            distance.pinged();
            distance.ponged();
            distance.is_near()
        });
        assert!(soon);
        distance.pinged();
        std::thread::sleep(NEAR * 2);
        distance.ponged();
        assert!(distance.is_near());
    }

    #[tokio::test]
    async fn from_a_peer_next_door_little_is_received_ahead() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let distance = std::sync::Arc::new(Distance::default());
        let buffer =
            |shared: &Shared<TcpStream>| SockRef::from(shared.io.tcp()).recv_buffer_size().unwrap();
        let before = SockRef::from(&tcp).recv_buffer_size().unwrap();
        let mut shared = Shared::new(tcp, &distance);
        far.write_all(b"ab").await.unwrap();
        shared.read_u8().await.unwrap();
        assert_eq!(buffer(&shared), before);
        distance.is_near.store(true, Relaxed);
        shared.read_u8().await.unwrap();
        assert!((AHEAD..=2 * AHEAD).contains(&buffer(&shared)), "{}", buffer(&shared));
    }
}
