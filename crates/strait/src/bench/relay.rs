//! A link of limited rate and some length between client and server: a TCP relay. It
//! holds as little as a link does: what is on its way, and no queue before that.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::units::Rate;

/// Bytes that are read at once: more would arrive in lumps.
const PIECE: usize = 8 * 1024;
/// Pieces on their way at most, however small they are.
const PIECES: usize = 1024;
/// How much of what the link carries the kernel may hold in front of it: enough not to
/// run dry, too little to be a queue of its own.
const IN_FRONT: Duration = Duration::from_millis(1);
/// A timer may be this late without costing rate.
const CATCH_UP: Duration = Duration::from_millis(3);

/// What a link is like, in each direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Link {
    /// `None`: no limit.
    pub(crate) rate: Option<Rate>,
    /// From one end to the other; timers make it up to two milliseconds longer.
    pub(crate) delay: Duration,
}

impl Link {
    /// Bytes that a socket in front of the link may hold.
    fn receive_buffer(&self) -> u32 {
        let bytes = self.rate.map_or(f64::MAX, |Rate(rate)| rate * IN_FRONT.as_secs_f64());
        (bytes as u32).clamp(8 * 1024, 256 * 1024)
    }
}

/// A running relay; dropping it cuts the link.
pub(crate) struct Relay {
    /// Where to connect instead of the target.
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// One direction of the link, shared by all connections.
struct Lane {
    link: Link,
    /// When the link has sent what it was given so far.
    free: Mutex<Instant>,
    /// Bytes that may be between the two ends.
    room: Arc<Semaphore>,
}

/// A piece on its way, due at the other end at its time.
type Flying = (Instant, Bytes, OwnedSemaphorePermit);

impl Relay {
    /// Starts a relay to `target` on `runtime`.
    ///
    /// # Errors
    /// When no port can be had.
    pub(crate) fn start(runtime: &Handle, link: Link, target: SocketAddr) -> io::Result<Relay> {
        let entered = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        // Before it listens, so that connections announce small windows from the start.
        socket.set_recv_buffer_size(link.receive_buffer())?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(16)?;
        drop(entered);
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn_on(accept(listener, link, target), runtime);
        Ok(Relay { address, _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, link: Link, target: SocketAddr) {
    let lanes = (Arc::new(Lane::new(link)), Arc::new(Lane::new(link)));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => {
                    let (up, down) = lanes.clone();
                    connections.spawn(async move {
                        let _ = join(near, target, &up, &down).await;
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn join(near: TcpStream, target: SocketAddr, up: &Lane, down: &Lane) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(up.link.receive_buffer())?;
    let far = socket.connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::try_join!(carry(near_read, far_write, up), carry(far_read, near_write, down))?;
    Ok(())
}

async fn carry(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    lane: &Lane,
) -> io::Result<()> {
    let (send, receive) = mpsc::channel(PIECES);
    tokio::try_join!(lane.depart(from, send), arrive(receive, to))?;
    Ok(())
}

impl Lane {
    fn new(link: Link) -> Lane {
        // What is on its way on a full link, and a little for timers that are late.
        let rate = link.rate.map_or(1e9, |Rate(rate)| rate);
        let flying = rate * (link.delay + 2 * CATCH_UP).as_secs_f64();
        let room = (flying as usize).clamp(4 * PIECE, 256 << 20);
        Lane { link, free: Mutex::new(Instant::now()), room: Arc::new(Semaphore::new(room)) }
    }

    async fn depart(
        &self,
        mut from: impl AsyncRead + Unpin,
        send: mpsc::Sender<Flying>,
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = from.read(&mut piece).await?;
            if count == 0 {
                return Ok(());
            }
            let room = Arc::clone(&self.room).acquire_many_owned(count as u32).await;
            let room = room.map_err(io::Error::other)?;
            let now = Instant::now();
            let sent = self.book(now, count);
            let bytes = Bytes::copy_from_slice(&piece[..count]);
            // What is caught up with is rate: nothing arrives before its delay is over.
            let flying = (sent.max(now) + self.link.delay, bytes, room);
            if send.send(flying).await.is_err() {
                return Ok(());
            }
            // What follows waits where it came from, not here.
            if sent > Instant::now() {
                tokio::time::sleep_until(sent.into()).await;
            }
        }
    }

    /// Books `count` bytes at `now` and returns when the last of them is sent.
    fn book(&self, now: Instant, count: usize) -> Instant {
        let Some(Rate(rate)) = self.link.rate else { return now };
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        *free = (*free).max(earliest) + Duration::from_secs_f64(count as f64 / rate);
        *free
    }
}

async fn arrive(
    mut receive: mpsc::Receiver<Flying>,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    while let Some((due, bytes, room)) = receive.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        to.write_all(&bytes).await?;
        drop(room);
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair of connected sockets with a link between them.
    async fn pair(link: Link) -> (Relay, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let relay = Relay::start(&Handle::current(), link, target).unwrap();
        let near = TcpStream::connect(relay.address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (relay, near, far)
    }

    #[test]
    fn a_lane_sends_as_fast_as_it_may_and_forgets_what_it_missed() {
        let link = Link { rate: Some(Rate(1e6)), delay: Duration::ZERO };
        let lane = Lane::new(link);
        let began = Instant::now() + Duration::from_secs(60);
        let first = lane.book(began, 10_000);
        assert_eq!(first, began - CATCH_UP + Duration::from_millis(10));
        // All at once, one behind the other.
        assert_eq!(lane.book(began, 10_000), first + Duration::from_millis(10));
        // A second of silence is no credit for a burst.
        let later = began + Duration::from_secs(1);
        assert!(lane.book(later, 10_000) >= later + Duration::from_millis(7));
    }

    #[tokio::test]
    async fn bytes_come_through_in_order_at_the_rate_of_the_link() {
        let link = Link { rate: Some(Rate(4e6)), delay: Duration::from_millis(5) };
        let (_relay, mut near, mut far) = pair(link).await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let began = Instant::now();
        let writer = {
            let sent = sent.clone();
            tokio::spawn(async move {
                near.write_all(&sent).await.unwrap();
                near.shutdown().await.unwrap();
                near
            })
        };
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        let took = began.elapsed().as_secs_f64();
        assert!(received == sent);
        // 0.25 s: never faster than that. A busy machine may be slower.
        assert!((0.24..2.5).contains(&took), "{took}");
        drop(writer.await.unwrap());
    }

    #[tokio::test]
    async fn a_byte_takes_the_delay_in_each_direction() {
        // With a rate too: what the link has not sent before does not make it shorter.
        let link = Link { rate: Some(Rate(1e9)), delay: Duration::from_millis(30) };
        let (_relay, mut near, mut far) = pair(link).await;
        tokio::time::sleep(2 * CATCH_UP).await;
        let began = Instant::now();
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        assert!(began.elapsed() >= Duration::from_millis(30));
        far.write_all(b"y").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'y');
        assert!(began.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_receiver_that_never_reads_fills_the_link_and_no_more() {
        let link = Link { rate: Some(Rate(1e9)), delay: Duration::from_millis(1) };
        let (_relay, mut near, _far) = pair(link).await;
        let piece = vec![0; 64 * 1024];
        let mut taken = 0;
        let full = tokio::time::timeout(Duration::from_secs(1), async {
            while taken < 256 << 20 {
                taken += near.write(&piece).await.unwrap();
            }
        });
        assert!(full.await.is_err(), "the link took {taken} bytes that nobody read");
    }
}
