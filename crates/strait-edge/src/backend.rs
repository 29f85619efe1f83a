//! Backends: services that answer exchanges.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, StatusCode, Uri, Version};
use strait_engine::{
    Budget, Carried, Exchange, Fault, Protocol, Reason, RequestHead, ResponseHead, Upstream,
};

use crate::classify::{fits, is_authority};
use crate::dial::{BackendAddress, Scheme};
use crate::http::hop::strip;
use crate::pool::{Pool, Tls};
use crate::settings::Settings;
use crate::tls::{self, Trust};
use crate::{grpc, http1, http2, websocket};

/// Why an answer's head is not taken.
pub(crate) const OVER_THE_LIMIT: &str = "the header fields of the answer are over the limit";

/// A service and the connections to it.
#[derive(Clone)]
pub struct Backend {
    pool: Arc<Pool>,
    /// Sent as the authority in place of the visitor's.
    host: Option<Bytes>,
}

impl Backend {
    /// A backend at `address`. `trust` matters for `https` only. Connects when needed. What
    /// backends may send by HTTP/2 before it is taken comes from `windows`.
    ///
    /// # Errors
    /// When TLS is wanted and cannot be set up.
    pub fn new(
        address: BackendAddress,
        settings: Arc<Settings>,
        windows: Budget,
        trust: &Trust,
    ) -> Result<Backend, tls::TlsError> {
        let tls = match address.scheme {
            Scheme::Https => Tls {
                http1: Some(tls::client(trust, tls::HTTP1)?),
                http2: Some(tls::client(trust, tls::HTTP2)?),
            },
            Scheme::Http | Scheme::H2c => Tls::default(),
        };
        Ok(Backend { pool: Pool::new(address, settings, windows, tls), host: None })
    }

    /// The same backend, which is told `host[:port]` instead of what the visitor asked for.
    ///
    /// # Errors
    /// When `host` is no authority.
    pub fn with_host(mut self, host: &str) -> Result<Backend, crate::AddressError> {
        if !is_authority(host.as_bytes()) {
            return Err(crate::AddressError::no_host(host));
        }
        self.host = Some(Bytes::copy_from_slice(host.as_bytes()));
        Ok(self)
    }

    /// Where it is.
    pub fn address(&self) -> &BackendAddress {
        self.pool.address()
    }

    /// Tries to connect, for a check at start: nothing is sent.
    ///
    /// # Errors
    /// `BackendRefused` or `BackendConnectTimeout`.
    pub async fn probe(&self) -> Result<(), Fault> {
        self.pool.dial().await.map(drop)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whom and what a request with this head, which came from an entry or from a tunnel and is
    /// checked in either case, asks this backend for.
    pub(crate) fn target<'a>(
        &'a self,
        head: &'a RequestHead,
    ) -> Result<(&'a Bytes, PathAndQuery), Fault> {
        let bad = |what| Fault::because(Reason::BadRequest, what);
        let authority = self.host.as_ref().unwrap_or(&head.authority);
        if !is_authority(authority) {
            return Err(bad("malformed authority"));
        }
        let path = PathAndQuery::from_maybe_shared(head.path.clone());
        Ok((authority, path.map_err(|_| bad("malformed path"))?))
    }

    /// A request by HTTP/2 to this backend with the fields of `head`.
    pub(crate) fn request(
        &self,
        head: &RequestHead,
        finish: impl FnOnce(&mut HeaderMap),
    ) -> Result<Request<()>, Fault> {
        let bad = |what| Fault::because(Reason::BadRequest, what);
        let (authority, path) = self.target(head)?;
        let secure = self.address().scheme == Scheme::Https;
        let uri = Uri::builder()
            .scheme(if secure { "https" } else { "http" })
            .authority(&authority[..])
            .path_and_query(path)
            .build()
            .map_err(|_| bad("malformed target"))?;
        let mut headers = HeaderMap::with_capacity(head.headers.len() + 6);
        for (name, value) in &head.headers {
            if name != http::header::HOST {
                headers.try_append(name, value.clone()).map_err(|_| bad("too many fields"))?;
            }
        }
        strip(&mut headers);
        finish(&mut headers);
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The head of an answer without the fields of the connection that it came by.
    pub(crate) fn answered(
        &self,
        status: StatusCode,
        headers: HeaderMap,
    ) -> Result<ResponseHead, Fault> {
        if status.is_informational() || status.as_u16() > 599 {
            let detail = format!("status {status} was not asked for");
            return Err(Fault::because(Reason::BackendInvalid, detail));
        }
        Ok(ResponseHead { status, headers: self.passed(headers)? })
    }

    /// The fields of an answer's head without those of the connection that it came by.
    pub(crate) fn passed(&self, mut headers: HeaderMap) -> Result<HeaderMap, Fault> {
        if !fits(&headers, self.pool.settings()) {
            return Err(Fault::because(Reason::BackendInvalid, OVER_THE_LIMIT));
        }
        strip(&mut headers);
        Ok(headers)
    }

    /// Whether plain HTTP goes by HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.address().scheme == Scheme::H2c
    }
}

impl Upstream for Backend {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        match exchange.context.protocol {
            Protocol::Http if self.speaks_http2() => Box::pin(http2::carry::carry(self, exchange)),
            Protocol::Http => Box::pin(http1::carry::carry(self, exchange)),
            Protocol::Grpc => Box::pin(grpc::backend::carry(self, exchange)),
            Protocol::WebSocket => Box::pin(websocket::backend::carry(self, exchange)),
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.address())
    }
}
