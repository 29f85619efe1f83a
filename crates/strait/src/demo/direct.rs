//! One address for all samples without a tunnel, for tests of the samples alone: a
//! connection that begins like HTTP/2 goes to the gRPC sample, any other to the HTTP one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::samples::Samples;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, samples: &Samples) {
    let mut connections = JoinSet::new();
    let (http, grpc) = (samples.http, samples.grpc);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(async move {
                        // Either side may leave at any time.
                        let _ = join(socket, http, grpc).await;
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn join(mut visitor: TcpStream, http: SocketAddr, grpc: SocketAddr) -> io::Result<()> {
    // The preface of RFC 9113 3.4; no HTTP/1 method begins so.
    let mut first = [0; 3];
    while visitor.peek(&mut first).await? < first.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let address = if &first == b"PRI" { grpc } else { http };
    let mut sample = TcpStream::connect(address).await?;
    visitor.set_nodelay(true)?;
    sample.set_nodelay(true)?;
    copy_bidirectional(&mut visitor, &mut sample).await?;
    Ok(())
}
