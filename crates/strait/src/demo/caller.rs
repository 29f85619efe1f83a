//! A caller of the sample gRPC service, by way of the public entry: what it measures
//! has crossed the tunnel.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::sampler::{ECHO, Note, Reading, WATCH, WatchRequest};

/// One HTTP/2 connection to the entry, with gRPC on it.
#[derive(Clone)]
pub(crate) struct Caller {
    grpc: Grpc<Connection>,
}

impl Caller {
    /// Connects to `entry`.
    ///
    /// # Errors
    /// When nothing listens there, or it does not speak HTTP/2.
    pub(crate) async fn connect(entry: SocketAddr) -> io::Result<Caller> {
        let socket = TcpStream::connect(entry).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        // Ends by itself when the last sender is gone.
        tokio::spawn(connection);
        let origin = Uri::builder().scheme("http").authority(entry.to_string()).path_and_query("/");
        let origin = origin.build().map_err(io::Error::other)?;
        Ok(Caller { grpc: Grpc::with_origin(Connection(sender), origin) })
    }

    /// Calls `Echo` once and returns how long that took.
    ///
    /// # Errors
    /// The status of the call; `DATA_LOSS` when another text came back.
    pub(crate) async fn echo(&mut self, text: &str) -> Result<std::time::Duration, Status> {
        self.ready().await?;
        let began = Instant::now();
        let note = Note { text: text.to_owned(), sequence: 0 };
        let path = PathAndQuery::from_static(ECHO);
        let codec = ProstCodec::<Note, Note>::default();
        let answer = self.grpc.unary(tonic::Request::new(note), path, codec).await?;
        if answer.get_ref().text != text {
            return Err(Status::data_loss("the echo is not what was sent"));
        }
        Ok(began.elapsed())
    }

    /// Calls `Watch`.
    ///
    /// # Errors
    /// The status of the call.
    pub(crate) async fn watch(
        &mut self,
        asked: WatchRequest,
    ) -> Result<Streaming<Reading>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(WATCH);
        let codec = ProstCodec::<WatchRequest, Reading>::default();
        let answer = self.grpc.server_streaming(tonic::Request::new(asked), path, codec).await?;
        Ok(answer.into_inner())
    }

    /// Calls `Chat` with `notes`.
    ///
    /// # Errors
    /// The status of the call.
    #[cfg(test)]
    pub(crate) async fn chat(
        &mut self,
        notes: impl tonic::codegen::tokio_stream::Stream<Item = Note> + Send + 'static,
    ) -> Result<Streaming<Note>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(super::sampler::CHAT);
        let codec = ProstCodec::<Note, Note>::default();
        let answer = self.grpc.streaming(tonic::Request::new(notes), path, codec).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))
    }
}

/// A hyper connection as the service that tonic wants.
#[derive(Clone)]
struct Connection(SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
