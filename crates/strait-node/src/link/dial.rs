//! The dialling end of a tunnel's transport.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming as HttpBody;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use strait_engine::Session;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};

use super::near::{Distance, OverTcp};
use super::stranger::who_answers;
use super::{
    CONTENT_TYPE, FRAME, Outgoing, PATH, Received, SEND_BUFFER, Shared, WINDOW, deepest, told, tune,
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
        io: impl AsyncRead + AsyncWrite + OverTcp + Unpin + Send + 'static,
        session: &Session,
    ) -> Result<Received, DialError> {
        let server = &self.server;
        let distance = Arc::<Distance>::default();
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .max_frame_size(FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(Shared::new(io, &distance)));
        let (mut sender, connection) = timeout(STEP, handshake)
            .await
            .map_err(|_| other(format!("{server}: no answer in HTTP/2: not a Strait server?")))?
            .map_err(|error| other(format!("{server}: {error}")))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the tunnel's connection ended");
            }
        });
        let target = Uri::builder()
            .scheme(if server.tls { "https" } else { "http" })
            .authority(server.authority())
            .path_and_query(PATH)
            .build()
            .map_err(|error| other(format!("{server}: {error}")))?;
        let mut request = Request::post(target)
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(Outgoing::request(session.clone(), Arc::clone(&distance)))
            .map_err(|error| other(format!("{server}: {error}")))?;
        if let Some(credential) = &self.credential {
            request.headers_mut().insert(header::AUTHORIZATION, credential.clone());
        }
        match timeout(STEP, sender.send_request(request)).await {
            Ok(Ok(response)) => self.answered(response, distance),
            Ok(Err(error)) => Err(self.stranger(&error).await),
            Err(_) => Err(other(format!("{server}: no answer to the call: not a Strait server?"))),
        }
    }

    /// The head of the answer to the call.
    fn answered(
        &self,
        response: Response<HttpBody>,
        distance: Arc<Distance>,
    ) -> Result<Received, DialError> {
        let headers = response.headers();
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_grpc = kind.is_some_and(|kind| kind.starts_with("application/grpc"));
        match Status::from_header_map(headers) {
            Some(status) if is_grpc && status.code() != Code::Ok => Err(self.refusal(&status)),
            _ if is_grpc && response.status() == StatusCode::OK => {
                Ok(Received::new(response.into_body(), distance))
            }
            _ => {
                let (status, kind) =
                    (response.status().as_u16(), kind.unwrap_or("no content type"));
                Err(self.no_tunnel(&format!("HTTP {status}, {kind}")))
            }
        }
    }

    /// Whoever is there does not speak HTTP/2: asks him who he is.
    async fn stranger(&self, error: &hyper::Error) -> DialError {
        let authority = self.server.authority();
        let words = match self.connect().await {
            Ok(Connected::Clear(stream)) => who_answers(stream, &authority).await,
            Ok(Connected::Tls(stream)) => who_answers(*stream, &authority).await,
            Err(_) => None,
        };
        self.no_tunnel(&words.unwrap_or_else(|| deepest(error)))
    }

    fn no_tunnel(&self, words: &str) -> DialError {
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
            _ => other(format!("{server}: {}", told(status))),
        }
    }
}

/// A connection to the server.
enum Connected {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}
