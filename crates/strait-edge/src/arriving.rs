//! Connections on their way to the threads that serve them.

use std::io;

use strait_engine::Seat;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// A connection that was accepted here, for the worker of its seat.
pub struct Arriving {
    tcp: Tcp,
    seat: Seat,
}

enum Tcp {
    Here(TcpStream),
    /// Known to no runtime on its way.
    Elsewhere(std::net::TcpStream),
}

impl Arriving {
    /// `tcp` on its way to `seat`.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn new(tcp: TcpStream, seat: Seat) -> io::Result<Arriving> {
        let tcp = if seat.is_here() { Tcp::Here(tcp) } else { Tcp::Elsewhere(tcp.into_std()?) };
        Ok(Arriving { tcp, seat })
    }

    /// The runtime on which it [arrives](Arriving::arrive).
    pub fn runtime(&self) -> Handle {
        self.seat.runtime().clone()
    }

    /// The connection, on the runtime of its worker, and the seat that it has there.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn arrive(self) -> io::Result<(TcpStream, Seat)> {
        let tcp = match self.tcp {
            Tcp::Here(tcp) => tcp,
            Tcp::Elsewhere(tcp) => TcpStream::from_std(tcp)?,
        };
        Ok((tcp, self.seat))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use strait_engine::{Workers, here};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_served_by_its_worker() {
        let (workers, _threads) = Workers::start(2).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut places = Vec::new();
        for _ in 0..2 {
            let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (tcp, _) = listener.accept().await.unwrap();
            // Held, so that the next one goes elsewhere.
            let arriving = Arriving::new(tcp, workers.tunnel()).unwrap();
            let served = arriving.runtime().spawn(async move {
                let (mut tcp, seat) = arriving.arrive().unwrap();
                let came = tcp.read_u8().await.unwrap();
                tcp.write_u8(came + 1).await.unwrap();
                (here(), seat)
            });
            far.write_u8(7).await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), 8);
            places.push(served.await.unwrap());
        }
        assert_eq!(places[0].0, here());
        assert_eq!(places[1].0, Some(places[1].1.runtime().id()));
        assert_ne!(places[0].0, places[1].0);
    }
}
