//! Timeouts, draining, and connections that come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use strait_edge::Settings;
use strait_engine::Workers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{
    Visitor, backend, channel, dispatch, door, door_to, entry, full, http_service, open_on,
    raw_service, read_until, soon, task, until,
};

#[tokio::test]
async fn silent_slow_and_idle_visitors_are_let_go() {
    let service = http_service(false, |_| async { Response::new(full("fine")) }).await;
    let short = Duration::from_millis(150);
    let settings = Settings { first_byte: short, headers: short, ..Settings::default() };
    let gate = door("http", &service, settings).await;
    for begin in ["", "P", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut tcp = TcpStream::connect(gate.address).await.unwrap();
        let _ = tcp.write_all(begin.as_bytes()).await;
        let mut rest = Vec::new();
        soon(tcp.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty(), "{begin:?}: {}", String::from_utf8_lossy(&rest));
    }
    let settings = Settings { keep_alive_idle: short, ..Settings::default() };
    let gate = door("http", &service, settings).await;
    let mut idle = TcpStream::connect(gate.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "fine").await;
    soon(idle.read_to_end(&mut Vec::new())).await.unwrap();
    let settings = Settings { headers: short, ..Settings::default() };
    let gate = door("http", &service, settings).await;
    let mut second = TcpStream::connect(gate.address).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut second, "fine").await;
    second.write_all(b"GET / HTTP").await.unwrap();
    soon(second.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn a_long_request_is_not_idle() {
    let service = http_service(false, |_| async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Response::new(full("late"))
    })
    .await;
    let short = Duration::from_millis(500);
    let settings = Settings { headers: short, keep_alive_idle: short, ..Settings::default() };
    let door = door("http", &service, settings).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "late");
    }
}

#[tokio::test]
async fn a_drain_finishes_what_has_begun_and_takes_nothing_new() {
    let (tx, body) = channel();
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let service = http_service(false, move |_| {
        let body = body.lock().unwrap().take();
        async move { Response::new(body.unwrap_or_else(|| full("fine"))) }
    })
    .await;
    for http2 in [false, true] {
        let mut door = door("http", &service, Settings::default()).await;
        let mut idle = TcpStream::connect(door.address).await.unwrap();
        let mut busy = Visitor::new(door.address, http2).await;
        let answer = busy.send(busy.request("GET", "/", full(""))).await;
        door.drain.cancel();
        soon(idle.read_to_end(&mut Vec::new())).await.unwrap();
        until("the port is closed", || std::net::TcpStream::connect(door.address).is_err()).await;
        if !http2 {
            assert!(!door.served.0.is_finished(), "a request is still going on");
            tx.send(Ok(http_body::Frame::data("rest".into()))).await.unwrap();
            let mut body = answer.into_body();
            let seen = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(seen, "rest");
            // The end of the answer is the end of the service's channel.
            drop(body);
        } else {
            soon(answer.into_body().collect()).await.unwrap();
        }
        soon(&mut door.served.0).await.unwrap();
    }
}

#[tokio::test]
async fn a_drain_tells_connections_to_end() {
    let service = http_service(false, |_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Response::new(full("fine"))
    })
    .await;
    // HTTP/1: with the answer that is under way.
    let gate = door("http", &service, Settings::default()).await;
    let mut tcp = TcpStream::connect(gate.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until("the backend has it", || service.open.load(SeqCst) == 1).await;
    gate.drain.cancel();
    let mut answer = String::new();
    soon(tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    // HTTP/2: by GOAWAY without an error, at once, and the request still ends.
    let gate = door("http", &service, Settings::default()).await;
    let tcp = TcpStream::connect(gate.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
    let ended = tokio::spawn(connection);
    let request = || http::Request::get("http://a.example/").body(()).unwrap();
    let (answer, _) = client.send_request(request(), true).unwrap();
    until("the backend has it", || service.open.load(SeqCst) >= 1).await;
    gate.drain.cancel();
    assert_eq!(soon(answer).await.unwrap().status(), 200);
    assert!(soon(ended).await.unwrap().is_ok(), "GOAWAY without an error");
    assert!(soon(client.ready()).await.is_err(), "no more requests are taken");
}

#[tokio::test]
async fn dropping_the_entry_ends_everything() {
    let service = raw_service(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    for http2 in [false, true] {
        let door = door("http", &service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, http2).await;
        let mut sending = Box::pin(visitor.try_send(visitor.request("GET", "/", full(""))));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut sending).await.is_err());
        until("the backend has it", || service.open.load(SeqCst) == 1).await;
        drop(door);
        assert!(soon(sending).await.is_err());
        until("the backend is let go", || service.open.load(SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn unused_connections_to_a_backend_are_closed() {
    for (http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(http2, |_| async { Response::new(full("fine")) }).await;
        let settings = Settings { backend_idle: Duration::from_millis(100), ..Settings::default() };
        let door = door(scheme, &service, settings).await;
        let mut visitor = Visitor::new(door.address, false).await;
        for turn in 1..3 {
            let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
            soon(answer.into_body().collect()).await.unwrap();
            assert_eq!(service.connections.load(SeqCst), turn);
            until("the unused connection is closed", || service.open.load(SeqCst) == 0).await;
        }
    }
}

#[tokio::test]
async fn each_worker_has_its_own_visitors_and_its_own_connections_to_a_backend() {
    for (http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(http2, |_| async { Response::new(full("fine")) }).await;
        let upstream = dispatch(Vec::new(), Vec::new(), scheme, &service, Settings::default());
        let (workers, _threads) = Workers::start(2).unwrap();
        let (there, also) = ([workers.tunnel(), workers.tunnel()], workers.clone());
        let up = there[1].runtime().spawn(async move { also.tunnel_up() });
        let _tunnels = [workers.tunnel_up(), up.await.unwrap()];
        let door = open_on(entry(upstream, Settings::default()), workers).await;
        let (mut one, mut other) =
            (Visitor::new(door.address, false).await, Visitor::new(door.address, true).await);
        for _ in 0..3 {
            for visitor in [&mut one, &mut other] {
                let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
                soon(answer.into_body().collect()).await.unwrap();
            }
        }
        assert_eq!(service.connections.load(SeqCst), 2, "{scheme}");
    }
}

#[tokio::test]
async fn an_unused_connection_that_its_backend_has_closed_is_closed_here_too() {
    let service = raw_service(|mut tcp, _| async move {
        read_until(&mut tcp, "\r\n\r\n").await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await.unwrap();
        // It is kept for another request: then this side closes, and waits for the other.
        tokio::time::sleep(Duration::from_millis(50)).await;
        tcp.shutdown().await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let settings = Settings { backend_idle: Duration::from_secs(600), ..Settings::default() };
    let door = door("http", &service, settings).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "fine");
    // Nobody asks for anything more.
    until("both sides have closed it", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn many_at_once_share_connections_and_none_is_mixed_up() {
    for (service_http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(service_http2, |request: http::Request<_>| async move {
            Response::new(full(request.uri().path().to_owned()))
        })
        .await;
        let door = door(scheme, &service, Settings::default()).await;
        let mut all = tokio::task::JoinSet::new();
        for worker in 0..20 {
            let address = door.address;
            all.spawn(async move {
                let mut visitor = Visitor::new(address, worker % 2 == 0).await;
                for turn in 0..50 {
                    let path = format!("/{worker}/{turn}");
                    let answer = visitor.send(visitor.request("GET", &path, full(""))).await;
                    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), path);
                }
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        let connections = service.connections.load(SeqCst);
        assert!(connections <= if service_http2 { 2 } else { 40 }, "{connections} connections");
    }
}

#[tokio::test]
async fn a_backend_that_leaves_its_connection_is_met_on_a_new_one() {
    // Each HTTP/2 connection takes one request and then says goodbye.
    let service = raw_service(|tcp, number| async move {
        let mut server = h2::server::handshake(tcp).await.unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(number.to_string().into(), true).unwrap();
        server.graceful_shutdown();
        while server.accept().await.is_some() {}
    })
    .await;
    let door = door("h2c", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    for turn in 0..5 {
        let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
        assert_eq!(answer.status(), 200);
        let seen = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(seen, turn.to_string());
    }
}

#[tokio::test]
async fn a_unix_socket_is_a_backend_like_any_other() {
    let path = std::env::temp_dir().join(format!("strait-edge-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let _service = task(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(Response::new(full("by file")))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        }
    });
    let upstream = backend(&format!("unix:{}", path.display()), Settings::default());
    let door = door_to(Arc::new(upstream), Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "by file");
    std::fs::remove_file(&path).unwrap();
}
