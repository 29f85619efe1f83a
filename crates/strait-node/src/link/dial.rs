//! The dialling end of a tunnel's transport.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming as HttpBody;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use strait_engine::Session;
use strait_wire::codec::MAX_MESSAGE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

use super::stranger::who_answers;
use super::{
    FRAME, FrameCodec, Outgoing, PATH, Received, SEND_BUFFER, Shared, WINDOW, describe, is_broken,
    tune,
};
use crate::config::ServerUrl;

/// Each step of a connection must succeed within this time.
const STEP: Duration = Duration::from_secs(10);

/// Why a tunnel could not be set up.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The machine answers, the port does not: the server is down or restarting.
    Away(String),
    /// The server does not want this client as it is: a person must change something.
    Unwanted(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Away(text) | DialError::Unwanted(text) | DialError::Other(text) => {
                f.write_str(text)
            }
        }
    }
}

fn other(text: impl Into<String>) -> DialError {
    DialError::Other(text.into())
}

/// What is dialled.
pub(crate) struct Dialer {
    pub(crate) server: ServerUrl,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) credential: Option<HeaderValue>,
}

impl Dialer {
    /// Connects and opens the call on which `session` lives.
    ///
    /// # Errors
    /// Which step failed, and what to do.
    pub(crate) async fn dial(&self, session: &Session) -> Result<Received, DialError> {
        match self.connect().await? {
            Connected::Clear(stream) => self.call(stream, session).await,
            Connected::Tls(stream) => self.call(*stream, session).await,
        }
    }

    async fn connect(&self) -> Result<Connected, DialError> {
        let stream = self.reach().await?;
        tune(&stream);
        let Some(tls) = &self.tls else { return Ok(Connected::Clear(stream)) };
        let name = ServerName::try_from(self.server.host.clone())
            .map_err(|_| other(format!("{} is not a server name", self.server.host)))?;
        let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        match timeout(STEP, handshake).await {
            Ok(Ok(stream)) => Ok(Connected::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(other(self.tls_hint(&error))),
            Err(_) => Err(other(format!("{}: the TLS handshake took too long", self.server))),
        }
    }

    async fn reach(&self) -> Result<TcpStream, DialError> {
        let server = &self.server;
        match timeout(STEP, TcpStream::connect(server.authority())).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(
                DialError::Away(format!("{server}: nothing listens there (connection refused)")),
            ),
            Ok(Err(error)) => Err(other(format!("{server}: {error}"))),
            Err(_) => Err(other(format!("{server}: no answer to the connection attempt"))),
        }
    }

    fn tls_hint(&self, error: &io::Error) -> String {
        let text = error.to_string();
        if text.contains("InvalidContentType") || text.contains("handshake eof") {
            let server = &self.server;
            return format!(
                "{server}: it does not speak TLS there; use http:// if the tunnel runs without TLS"
            );
        }
        let hint = if text.contains("UnknownIssuer") {
            "; give its certificate with --ca, or the pin that the server printed with --pin"
        } else if text.contains("ApplicationVerificationFailure") {
            "; its certificate is not the one that --pin names: compare it with what the server prints"
        } else {
            ""
        };
        format!("{}: {text}{hint}", self.server)
    }

    async fn call(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        session: &Session,
    ) -> Result<Received, DialError> {
        let server = &self.server;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .max_frame_size(FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(Shared::new(io)));
        let (sender, connection) = timeout(STEP, handshake)
            .await
            .map_err(|_| other(format!("{server}: no answer in HTTP/2: not a Strait server?")))?
            .map_err(|error| other(format!("{server}: {error}")))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the tunnel's connection ended");
            }
        });
        let origin = Uri::builder()
            .scheme(if server.tls { "https" } else { "http" })
            .authority(server.authority())
            .path_and_query("/")
            .build()
            .map_err(|error| other(format!("{server}: {error}")))?;
        let mut request = tonic::Request::new(Outgoing(session.clone()));
        if let Some(credential) = self.credential.as_ref().and_then(|c| c.to_str().ok()) {
            let value = credential
                .parse()
                .map_err(|_| other("the token has characters that headers cannot carry"))?;
            request.metadata_mut().insert(header::AUTHORIZATION.as_str(), value);
        }
        let mut grpc = tonic::client::Grpc::with_origin(Connection(sender), origin)
            .max_decoding_message_size(MAX_MESSAGE);
        let path = PathAndQuery::from_static(PATH);
        match timeout(STEP, grpc.streaming(request, path, FrameCodec)).await {
            Ok(Ok(response)) => Ok(Received(response.into_inner())),
            Ok(Err(status)) if is_broken(&status) => Err(self.stranger(&status).await),
            Ok(Err(status)) => Err(self.refusal(&status)),
            Err(_) => Err(other(format!("{server}: no answer to the call: not a Strait server?"))),
        }
    }

    /// Whoever is there does not speak gRPC: asks him who he is.
    async fn stranger(&self, status: &Status) -> DialError {
        let authority = self.server.authority();
        let mut words = answered(status);
        if words.is_none() {
            words = match self.connect().await {
                Ok(Connected::Clear(stream)) => who_answers(stream, &authority).await,
                Ok(Connected::Tls(stream)) => who_answers(*stream, &authority).await,
                Err(_) => None,
            };
        }
        let words = words.unwrap_or_else(|| describe(status));
        let hint = if self.server.tls { "" } else { "; or it expects https://" };
        other(format!("{}: not a Strait server ({words}){hint}", self.server))
    }

    fn refusal(&self, status: &Status) -> DialError {
        let server = &self.server;
        match status.code() {
            Code::Unauthenticated => DialError::Unwanted(format!(
                "{server}: {}; check --token (or STRAIT_TOKEN) against what the server printed",
                status.message()
            )),
            // An entry, or somebody else's gRPC server.
            Code::Unimplemented => other(format!(
                "{server}: gRPC is spoken there, but no Strait tunnels are taken; is it the tunnel's port? ({})",
                status.message()
            )),
            _ => other(format!("{server}: {}", describe(status))),
        }
    }
}

/// A connection to the server.
enum Connected {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What an HTTP/2 server answered that is no gRPC.
fn answered(status: &Status) -> Option<String> {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if let Some(NotATunnel(words)) = error.downcast_ref() {
            return Some(words.clone());
        }
        next = error.source();
    }
    None
}

/// An HTTP/2 connection as the service that tonic calls.
struct Connection(SendRequest<Body>);

/// The server answered something that is not gRPC.
#[derive(Debug)]
struct NotATunnel(String);

impl fmt::Display for NotATunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotATunnel {}

type Called = Pin<
    Box<
        dyn Future<Output = Result<Response<HttpBody>, Box<dyn std::error::Error + Send + Sync>>>
            + Send,
    >,
>;

impl Service<Request<Body>> for Connection {
    type Response = Response<HttpBody>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Called;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Called {
        let response = self.0.send_request(request);
        Box::pin(async move {
            let response = response.await?;
            let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
            if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
                return Ok(response);
            }
            let status = response.status().as_u16();
            Err(NotATunnel(format!("HTTP {status}, {}", kind.unwrap_or("no content type"))).into())
        })
    }
}
