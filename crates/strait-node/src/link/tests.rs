//! What a raw gRPC peer gets that does not play by the rules.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use strait_engine::{Budget, Session, Settings, Turns, Workers, drive};
use strait_wire::{Frame, Hello, Side, codec};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use super::accept::{Gate, Refused, listen};
use super::{PATH, Received};

/// Lets in whoever says `Bearer good`.
struct Door;

impl Gate for Door {
    fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        None
    }

    fn admit(&self, credential: Option<&HeaderValue>, _: SocketAddr) -> Result<Session, Refused> {
        if credential.is_none_or(|c| c != "Bearer good") {
            let status = Status::unauthenticated("no");
            return Err(Refused { status, pause: Duration::from_millis(100) });
        }
        let (settings, budget) = (Settings::default(), Budget::new(1 << 20));
        Ok(Session::new(
            "peer".into(),
            Side::Listener,
            settings,
            budget,
            Hello::default(),
            Turns::start(&tokio::runtime::Handle::current()),
        ))
    }

    fn attach(&self, session: Session, incoming: Received, _: SocketAddr) {
        tokio::spawn(async move { drive(&session, incoming).await });
    }
}

/// Calls the tunnel with `messages` and returns the call's grpc-status, which must come
/// within two seconds although this side never ends its half.
async fn status_of(credential: &str, messages: &[Bytes]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(listen(listener, Arc::new(Door), Workers::start(1).unwrap().0, stop.clone()));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (messages_in, out) = mpsc::channel(16);
    for message in messages {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.put_slice(message);
        let frame = http_body::Frame::data(framed.freeze());
        messages_in.try_send(Ok::<_, Infallible>(frame)).unwrap();
    }
    let request = Request::post(format!("http://{address}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", credential)
        .body(StreamBody::new(ReceiverStream::new(out)))
        .unwrap();
    let ended = async {
        let response = sender.send_request(request).await.unwrap();
        let head = response.headers().clone();
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
        let status =
            |map: &HeaderMap| map.get("grpc-status").map(|v| v.to_str().unwrap().to_owned());
        trailers.as_ref().and_then(status).or_else(|| status(&head)).unwrap_or_default()
    };
    let status = timeout(Duration::from_secs(2), ended).await.expect("an end within two seconds");
    drop(messages_in);
    status
}

fn encoded(frame: Frame) -> Bytes {
    let mut bytes = BytesMut::new();
    codec::encode(frame, &mut bytes);
    bytes.freeze()
}

fn hello(min: u32, max: u32) -> Bytes {
    let hello = Hello { version_min: min, version_max: max, ..Hello::default() };
    encoded(Frame::Hello(Box::new(hello)))
}

#[tokio::test]
async fn a_wrong_credential_is_unauthenticated() {
    assert_eq!(status_of("Bearer bad", &[hello(1, 1)]).await, "16");
}

#[tokio::test]
async fn data_before_hello_is_unauthenticated() {
    assert_eq!(status_of("Bearer good", &[encoded(Frame::Ping(1))]).await, "16");
}

#[tokio::test]
async fn no_common_version_and_a_second_hello_are_failed_preconditions() {
    assert_eq!(status_of("Bearer good", &[hello(2, 9)]).await, "9");
    assert_eq!(status_of("Bearer good", &[hello(1, 1), hello(1, 1)]).await, "9");
}

#[tokio::test]
async fn what_is_no_message_is_internal() {
    let nonsense = Bytes::from_static(b"\xff\xff\xff\xff\xff");
    assert_eq!(status_of("Bearer good", &[hello(1, 1), nonsense]).await, "13");
}

#[tokio::test]
async fn a_message_over_the_limit_is_resource_exhausted() {
    let large = Bytes::from(vec![0; codec::MAX_MESSAGE + 1]);
    assert_eq!(status_of("Bearer good", &[hello(1, 1), large]).await, "8");
}
