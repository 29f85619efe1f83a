//! What services by HTTP/2 may do to a stream or a connection, and what becomes of it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response};
use http_body_util::BodyExt;
use strait_edge::Settings;
use strait_engine::{Body, Carried, Data, Exchange, Fault, Part, Reason, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{
    Service, Visitor, backend, channel, door, door_to, full, raw_service, soon, until,
};

/// A service that does with each request what `handle` says, and leaves its connection after
/// `served` of them.
async fn service<F, Fut>(served: usize, handle: F) -> Service
where
    F: Fn(Request<h2::RecvStream>, SendResponse<Bytes>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    raw_service(move |tcp, _| {
        let handle = handle.clone();
        async move {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            let mut left = served;
            while let Some(Ok((request, answer))) = connection.accept().await {
                tokio::spawn(handle(request, answer));
                left -= 1;
                if left == 0 {
                    connection.graceful_shutdown();
                }
            }
        }
    })
    .await
}

/// Answers with "some" of `announced` bytes, and with nothing more but a reset of this code.
fn breaks_off(answer: &mut SendResponse<Bytes>, announced: Option<u64>, code: h2::Reason) {
    let mut head = Response::new(());
    if let Some(length) = announced {
        head.headers_mut().insert("content-length", length.into());
    }
    let mut body = answer.send_response(head, false).unwrap();
    body.send_data(Bytes::from_static(b"some"), false).unwrap();
    tokio::spawn(async move {
        // Once it is on its way; a reset takes back what is not.
        tokio::time::sleep(Duration::from_millis(50)).await;
        body.send_reset(code);
    });
}

#[tokio::test]
async fn a_reset_is_an_end_only_without_error_and_when_all_has_come() {
    for (announced, code, whole) in [
        (Some(4), h2::Reason::NO_ERROR, true),
        (None, h2::Reason::NO_ERROR, true),
        (Some(9), h2::Reason::NO_ERROR, false),
        (None, h2::Reason::CANCEL, false),
        (None, h2::Reason::INTERNAL_ERROR, false),
    ] {
        let service = service(100, move |_, mut answer| async move {
            breaks_off(&mut answer, announced, code);
        })
        .await;
        let door = door("h2c", &service, Settings::default()).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
            let taken = soon(answer.into_body().collect()).await;
            assert_eq!(taken.is_ok(), whole, "{announced:?} {code:?}");
            assert!(taken.is_err() || taken.unwrap().to_bytes() == "some");
        }
        assert_eq!(service.connections.load(SeqCst), 1, "a reset costs its stream only");
    }
}

/// Whether `sent` by a client, from its preface on, has the head of a request.
fn has_head(sent: &[u8]) -> bool {
    let mut frames = sent.get(24..).unwrap_or_default();
    while let Some(&[a, b, c, kind, ..]) = frames.first_chunk::<9>() {
        if kind == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        frames = frames.get(9 + length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn an_answer_that_breaks_a_rule_is_invalid_and_no_reset_of_the_services() {
    // A status of 200 with `connection: close`, which HTTP/2 has no place for (RFC 9113 8.2.2).
    const HEAD: &[u8] = b"\0\0\x13\x01\x05\0\0\0\x01\x88\0\x0aconnection\x05close";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let service = raw_service(|mut tcp, _| async move {
        tcp.write_all(SETTINGS).await.unwrap();
        let mut sent = Vec::new();
        while !has_head(&sent) {
            assert!(tcp.read_buf(&mut sent).await.unwrap() > 0);
        }
        tcp.write_all(HEAD).await.unwrap();
        while tcp.read_buf(&mut sent).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let door = door("h2c", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["x-strait-error"], "backend_invalid");
}

#[tokio::test]
async fn a_service_that_leaves_is_met_on_a_new_connection() {
    let service = service(1, |request, mut answer| async move {
        let mut body = request.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            length += data.unwrap().len();
        }
        let mut sending = answer.send_response(Response::new(()), false).unwrap();
        sending.send_data(format!("{length}").into(), true).unwrap();
    })
    .await;
    let door = door("h2c", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    for turn in 1..6 {
        // What is not safe is not tried twice: nothing of it may go where nobody takes it.
        let answer = visitor.send(visitor.request("POST", "/", full("once"))).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "4");
        assert_eq!(service.connections.load(SeqCst), turn);
    }
}

#[tokio::test]
async fn a_service_that_leaves_ends_what_it_has_and_gets_the_rest_elsewhere() {
    let service = service(1, |request, mut answer| async move {
        let mut sending = answer.send_response(Response::new(()), false).unwrap();
        sending.send_data(Bytes::from_static(b"some"), false).unwrap();
        if request.uri().path() == "/long" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        sending.send_data(Bytes::from_static(b" and all"), true).unwrap();
    })
    .await;
    let door = door("h2c", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let long = visitor.send(visitor.request("GET", "/long", full(""))).await;
    // Its connection serves no more, and lives.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = visitor.send(visitor.request("POST", "/", full("once"))).await;
    assert_eq!((answer.status().as_u16(), service.connections.load(SeqCst)), (200, 2));
    for answer in [answer, long] {
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "some and all");
    }
}

/// A body that fails when it is asked for, and one that says a piece before.
struct Fails(bool);

impl Body for Fails {
    fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        if std::mem::take(&mut self.0) {
            return Poll::Ready(Some(Ok(Part::Data(Data::plain(Bytes::from_static(b"piece"))))));
        }
        Poll::Ready(Some(Err(Fault::because(Reason::RequestTimeout, "it stopped"))))
    }
}

#[tokio::test]
async fn an_upload_that_breaks_is_reset_and_its_fault_is_the_answers() {
    struct Broken(strait_edge::Backend, bool);
    impl Upstream for Broken {
        fn carry(&self, mut exchange: Exchange) -> Carried<'_> {
            exchange.body = Box::new(Fails(self.1));
            self.0.carry(exchange)
        }
    }
    for speaks in [false, true] {
        let ends = Arc::<Mutex<Vec<Option<h2::Reason>>>>::default();
        let noted = ends.clone();
        let service = service(100, move |request, answer| {
            let noted = noted.clone();
            async move {
                let (mut body, _answer) = (request.into_body(), answer);
                let mut end = None;
                while let Some(data) = body.data().await {
                    end = data.err().and_then(|error| error.reason());
                    if end.is_some() {
                        break;
                    }
                }
                noted.lock().unwrap().push(end);
            }
        })
        .await;
        let backend = backend(&format!("h2c://{}", service.address), Settings::default());
        let door = door_to(Arc::new(Broken(backend, speaks)), Settings::default()).await;
        let mut visitor = Visitor::new(door.address, true).await;
        let answer = visitor.send(visitor.request("DELETE", "/", full(""))).await;
        assert_eq!(answer.status(), 408);
        if speaks {
            until("the service has seen the cut", || !ends.lock().unwrap().is_empty()).await;
            assert!(ends.lock().unwrap()[0].is_some(), "a cut must not look like an end");
        }
    }
}

#[tokio::test]
async fn an_upload_ends_with_its_answer_whatever_the_service_takes() {
    let open = Arc::<AtomicUsize>::default();
    let counted = open.clone();
    let service = service(100, move |request, mut answer| {
        let counted = counted.clone();
        async move {
            counted.fetch_add(1, SeqCst);
            // No room is given back, so that the upload fills its window and stays there.
            let mut sending = answer.send_response(Response::new(()), false).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            sending.send_data(Bytes::from_static(b"enough"), true).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            counted.fetch_sub(1, SeqCst);
        }
    })
    .await;
    let door = door("h2c", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let (tx, body) = channel();
    let upload = tokio::spawn(async move {
        let piece = || Ok(http_body::Frame::data(Bytes::from_static(&[b'u'; 1 << 14])));
        while tx.send(piece()).await.is_ok() {}
    });
    let answer = visitor.send(visitor.request("POST", "/", body)).await;
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "enough");
    until("the service's stream is over", || open.load(SeqCst) == 0).await;
    soon(upload).await.unwrap();
    assert_eq!(service.connections.load(SeqCst), 1);
}
