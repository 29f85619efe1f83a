//! Options of TCP sockets.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::TcpStream;

/// Bytes that the kernel takes for a visitor or backend before it has sent them. Without a
/// limit it takes 4 MiB for each that does not read.
const NOT_SENT: u32 = 128 * 1024;

/// What every TCP connection gets: no delay, and keep-alive probes that find a peer that
/// vanished without a word.
pub(crate) fn tune(tcp: &impl AsFd) {
    let socket = socket2::SockRef::from(tcp);
    let _ = socket.set_tcp_nodelay(true);
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    let _ = socket.set_tcp_keepalive(&probes);
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
}

/// The same for a connection that a tuned listener has accepted: on Linux it has what the
/// listener has, which saves five calls for each.
pub(crate) fn tune_accepted(tcp: &TcpStream) {
    if !cfg!(target_os = "linux") {
        tune(tcp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_tuned_listener_accepts_is_tuned() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        tune(&listener);
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tune_accepted(&accepted);
        tune(&dialled);
        for tcp in [&accepted, &dialled] {
            let socket = socket2::SockRef::from(tcp);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOT_SENT);
        }
    }
}
