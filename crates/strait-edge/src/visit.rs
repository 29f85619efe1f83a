//! One request at an entry, from its head to its answer.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use strait_engine::{
    Answer, Context, EmptyBody, Exchange, Fault, Origin, Protocol, Reason, RequestHead, RequestId,
    fault,
};

use crate::activity::{Active, Activity};
use crate::backend::OVER_THE_LIMIT;
use crate::classify::{self, Classified, Refusal, classify, fits};
use crate::grpc::web::Web;
use crate::http::hop::Fields;
use crate::http::incoming::{Incoming, Upgrade};
use crate::http::outgoing::Outgoing;
use crate::listen::{Entry, Tasks};
use crate::peer::Peer;
use crate::{forwarded, grpc, http as plain, websocket};

/// What is known about a visitor's connection.
pub(crate) struct Door {
    pub(crate) entry: Arc<ArcSwap<Entry>>,
    pub(crate) peer: Peer,
    pub(crate) secure: bool,
    /// The host that the connection was made for, as its TLS handshake said.
    pub(crate) server_name: Option<String>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) tasks: Tasks,
}

impl Door {
    /// Whether the connection was made for another host than this one.
    fn is_for_another(&self, head: &RequestHead) -> bool {
        self.server_name
            .as_deref()
            .is_some_and(|name| !name.as_bytes().eq_ignore_ascii_case(head.host()))
    }
}

/// What is known about a visitor's request beside its exchange.
pub(crate) struct Visit {
    pub(crate) door: Arc<Door>,
    /// As it was when the request began.
    pub(crate) entry: Arc<Entry>,
    pub(crate) active: Active,
    pub(crate) id: RequestId,
    /// The visitor's address, see [`forwarded::visitor`].
    address: SocketAddr,
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// Refusing this request leaves the connection in an unknown state.
    must_close: bool,
}

impl Visit {
    /// Of a request whose head is `parts`.
    fn begin(door: Arc<Door>, active: Active, parts: &Parts) -> Visit {
        let entry = door.entry.load_full();
        Visit {
            active,
            id: RequestId::new(),
            address: forwarded::visitor(&parts.headers, &door.peer, &entry.trusted_proxies),
            version: parts.version,
            is_head: parts.method == http::Method::HEAD,
            must_close: false,
            entry,
            door,
        }
    }

    /// The answer with this body, which keeps the connection busy until its end.
    pub(crate) fn respond(
        self,
        status: StatusCode,
        headers: http::HeaderMap,
        body: Outgoing,
        ends_with_connection: bool,
    ) -> Response<Outgoing> {
        let reset_on_cut = ends_with_connection && self.version == Version::HTTP_10;
        let unasked = self.version == Version::HTTP_11 && self.door.activity.awaits_continue();
        let mut response = Response::new(body.active(self.active, reset_on_cut));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if unasked {
            // Whether the body comes all the same is not known: it shall not be read as a request
            // (RFC 9110 10.1.1).
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The answer of our own that tells of `fault`.
    pub(crate) fn refuse(self, fault: &Fault) -> Response<Outgoing> {
        let face = fault.face();
        let status = face.status();
        let text = fault::line(fault.reason, &self.id);
        let close = face.closes() || (self.must_close && status.is_client_error());
        let mut response = self.tell(status, text, fault.reason.as_str(), close);
        if let Some(seconds) = face.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// What is known of the exchange before its head is read.
    fn context(&self, protocol: Protocol) -> Box<Context> {
        let origin = Origin::Entry(self.entry.name.clone());
        let mut context = Context::new(self.id, protocol, origin, Some(self.address));
        context.caller.version = Some(self.version);
        context
    }

    /// Has it recorded that this request is answered here, because of `fault`.
    pub(crate) fn record(&self, refused: &Exchange, fault: &Fault) {
        self.entry.upstream.refused(refused, fault.face().status(), fault);
    }

    fn tell(
        self,
        status: StatusCode,
        text: String,
        kind: &'static str,
        close: bool,
    ) -> Response<Outgoing> {
        let mut headers = http::HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_STRAIT_ERROR, HeaderValue::from_static(kind));
        if close && self.version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.respond(status, headers, Outgoing::full(text), false)
    }

    fn refuse_method(self) -> Response<Outgoing> {
        let text = format!("bad_request: CONNECT and TRACE are not served (request {})\n", self.id);
        let mut response = self.tell(StatusCode::METHOD_NOT_ALLOWED, text, "bad_request", true);
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");
        response.headers_mut().insert(http::header::ALLOW, allowed);
        response
    }

    fn refuse_expectation(self) -> Response<Outgoing> {
        let text = format!(
            "bad_request: no expectation but 100-continue can be met (request {})\n",
            self.id
        );
        let close = self.must_close;
        self.tell(StatusCode::EXPECTATION_FAILED, text, "bad_request", close)
    }

    fn refuse_version(self) -> Response<Outgoing> {
        let text = format!(
            "bad_request: this WebSocket version is not served; use 13 (request {})\n",
            self.id
        );
        // RFC 9110 15.5.22: a 426 names the protocol to upgrade to, which HTTP/2 has no field for.
        let upgrades = self.version < Version::HTTP_2;
        let status = if upgrades { StatusCode::UPGRADE_REQUIRED } else { StatusCode::BAD_REQUEST };
        let mut response = self.tell(status, text, "bad_request", false);
        let headers = response.headers_mut();
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        if upgrades {
            headers.insert(http::header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        response
    }

    fn refuse_protocol(self) -> Response<Outgoing> {
        let text =
            format!("bad_request: CONNECT is served for `websocket` only (request {})\n", self.id);
        self.tell(StatusCode::NOT_IMPLEMENTED, text, "bad_request", false)
    }
}

/// The header that names the kind of fault on answers of our own.
pub(crate) const X_STRAIT_ERROR: HeaderName = HeaderName::from_static("x-strait-error");

/// An answer on its way.
pub(crate) type Visiting = Pin<Box<dyn Future<Output = Response<Outgoing>> + Send>>;

/// Answers one request, whose head has `fields`.
pub(crate) fn visit(
    door: Arc<Door>,
    active: Active,
    (mut parts, fields): (Parts, Fields),
    body: Incoming,
    upgrade: Option<Upgrade>,
) -> Visiting {
    let mut visit = Visit::begin(door, active, &parts);
    let own = if visit.door.secure { Scheme::HTTPS } else { Scheme::HTTP };
    let scheme = forwarded::scheme(&parts.headers, &visit.door.peer, own);
    let settings = &visit.entry.settings;
    let Classified { protocol, mut head, length, websocket_key, must_close, awaits_continue } =
        match classify(&mut parts, fields, &scheme, settings) {
            Ok(classified) => classified,
            Err(refusal) => {
                if !body.is_end() {
                    visit.door.activity.left_unread();
                }
                return at_once(refuse(visit, &parts, refusal));
            }
        };
    visit.must_close = must_close;
    if let Some(headers) = preflight(&visit.entry, protocol, &head) {
        let preflight = visit.respond(StatusCode::NO_CONTENT, headers, Outgoing::full(""), false);
        return at_once(preflight);
    }
    let web = web(&visit.entry, protocol, &mut head);
    let protocol = if web.is_some() { Protocol::Grpc } else { protocol };
    let mut context = visit.context(protocol);
    context.awaits_continue = awaits_continue && protocol == Protocol::Http && !body.is_end();
    context.misdirected = visit.door.is_for_another(&head);
    context.trace = forwarded::trace(fields, &mut head.headers);
    context.hops = forwarded::hops(fields, &mut head.headers);
    if fields.have(Fields::PRIORITY) {
        context.urgency = classify::urgency(&head.headers);
    }
    forwarded::set(fields, &mut head.headers, &visit.door.peer, &scheme, &head.authority);
    let request = Requested { head: Arc::new(head), context, length };
    match protocol {
        Protocol::Http => Box::pin(plain::entry::carry(visit, request, body)),
        Protocol::Grpc => Box::pin(grpc::entry::carry(visit, request, body, web)),
        Protocol::WebSocket => {
            Box::pin(websocket::entry::carry(visit, request, upgrade, websocket_key))
        }
    }
}

/// An answer that is already there.
pub(crate) fn at_once(response: Response<Outgoing>) -> Visiting {
    Box::pin(ready(response))
}

/// Answers a request whose head is refused, and has that recorded.
fn refuse(mut visit: Visit, parts: &Parts, refusal: Refusal) -> Response<Outgoing> {
    let grpc = visit.version == Version::HTTP_2 && classify::is_grpc(&parts.headers);
    let protocol = if grpc { Protocol::Grpc } else { Protocol::Http };
    let refused = outline(parts, visit.context(protocol));
    let upstream = visit.entry.upstream.clone();
    visit.must_close = classify::must_close(&parts.headers) || matches!(refusal, Refusal::Fault(_));
    let bad = |why| Fault::because(Reason::BadRequest, why);
    let (fault, response) = match refusal {
        Refusal::Fault(fault) if grpc => {
            let response = grpc::entry::refuse(visit, &fault, None);
            upstream.refused(&refused, fault.face().status(), &fault);
            return response;
        }
        Refusal::Fault(fault) => (fault.clone(), visit.refuse(&fault)),
        Refusal::Method => (bad("CONNECT or TRACE"), visit.refuse_method()),
        Refusal::Expectation => {
            (bad("an expectation other than 100-continue"), visit.refuse_expectation())
        }
        Refusal::ConnectProtocol => {
            (bad("CONNECT for something else than WebSocket"), visit.refuse_protocol())
        }
        Refusal::WebSocketVersion => {
            (bad("a WebSocket version other than 13"), visit.refuse_version())
        }
    };
    upstream.refused(&refused, response.status(), &fault);
    response
}

/// Answers what is no request because of `fault`, and has that recorded.
pub(crate) fn refuse_unread(door: Arc<Door>, active: Active, fault: &Fault) -> Response<Outgoing> {
    let (parts, ()) = http::Request::new(()).into_parts();
    let mut visit = Visit::begin(door, active, &parts);
    visit.must_close = true;
    visit.record(&outline(&parts, visit.context(Protocol::Http)), fault);
    visit.refuse(fault)
}

/// What is recorded of a request whose head is refused.
fn outline(parts: &Parts, context: Box<Context>) -> Exchange {
    let authority = match (parts.uri.authority(), parts.headers.get(HOST)) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (None, None) => b"",
    };
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let head = RequestHead {
        method: parts.method.clone(),
        scheme: Scheme::HTTP,
        authority: Bytes::copy_from_slice(authority),
        path: Bytes::copy_from_slice(path.as_bytes()),
        headers: http::HeaderMap::new(),
    };
    Exchange { head: Arc::new(head), context, body: Box::new(EmptyBody) }
}

/// The answer to a browser that asks whether a page may call by gRPC-Web.
fn preflight(entry: &Entry, protocol: Protocol, head: &RequestHead) -> Option<http::HeaderMap> {
    let headers = entry.cors.preflight(head).filter(|_| protocol == Protocol::Http)?;
    entry.upstream.serves(Protocol::Grpc, head).then_some(headers)
}

/// How this caller speaks gRPC-Web; its head is one of gRPC afterwards. A service of HTTP
/// that speaks gRPC-Web itself gets it as it is.
fn web(entry: &Entry, protocol: Protocol, head: &mut RequestHead) -> Option<Web> {
    if protocol != Protocol::Http {
        return None;
    }
    let web = Web::of(head, &entry.cors)?;
    let serves = |protocol| entry.upstream.serves(protocol, head);
    if !serves(Protocol::Grpc) && serves(Protocol::Http) {
        return None;
    }
    web.ask(&mut head.headers);
    Some(web)
}

/// A request that was found valid.
pub(crate) struct Requested {
    pub(crate) head: Arc<RequestHead>,
    pub(crate) context: Box<Context>,
    pub(crate) length: Option<u64>,
}

impl Requested {
    /// The exchange with this body.
    pub(crate) fn exchange(self, body: strait_engine::BoxBody) -> Exchange {
        Exchange { head: self.head, context: self.context, body }
    }
}

/// Carries `exchange` to its answer. Its deadline is kept by whoever carries it.
pub(crate) async fn carry(visit: &Visit, exchange: Exchange) -> Result<Answer, Fault> {
    let entry = &visit.entry;
    let mut answer = entry.upstream.carry(exchange).await.map_err(|failure| failure.fault)?;
    // Backends are held to it where they are dialled; the other end of a tunnel may not be.
    if !fits(&answer.head.headers, &entry.settings) {
        let fault = Fault::because(Reason::BackendInvalid, OVER_THE_LIMIT);
        answer.body.give_up(&fault);
        return Err(fault);
    }
    Ok(answer)
}
