//! TLS on both legs.

use std::sync::Arc;

use http_body_util::BodyExt;
use strait_edge::tls::{self, Pin, Trust};
use strait_edge::{Backend, BackendAddress, Entry, Settings};
use strait_engine::{Budget, Upstream};

use crate::world::{
    Door, Service, Visitor, dispatch, door_to, entry, full, http_service, open, soon, task,
};

/// A TLS entry in front of the service, and its certificate.
async fn secure_door(service: &Service) -> (Door, String) {
    secure_door_by(&format!("http://{}", service.address)).await
}

async fn secure_door_by(to: &str) -> (Door, String) {
    secure_door_to(Arc::new(crate::world::backend(to, Settings::default()))).await
}

async fn secure_door_to(upstream: Arc<dyn Upstream>) -> (Door, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = tls::server(certificate.as_bytes(), key.as_bytes(), tls::BOTH).unwrap();
    let entry = Entry { tls: Some(tls), ..entry(upstream, Settings::default()) };
    (open(entry).await, certificate)
}

async fn status_with(address: std::net::SocketAddr, trust: &Trust) -> (u16, String) {
    let text = format!("https://localhost:{}", address.port());
    let address: BackendAddress = text.parse().unwrap();
    let settings = Settings::default();
    let backend =
        Backend::new(address, Arc::new(settings.clone()), Budget::new(1 << 30), trust).unwrap();
    let door = door_to(Arc::new(backend), settings).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn https_backends_are_believed_by_root_pin_or_not_at_all() {
    let service = http_service(false, |request: http::Request<_>| async move {
        let proto = request.headers()["x-forwarded-proto"].to_str().unwrap().to_owned();
        http::Response::new(full(proto))
    })
    .await;
    let (door, certificate) = secure_door(&service).await;
    let pin = Pin::of_pem(certificate.as_bytes()).unwrap();
    let roots = Trust { extra_roots: Some(certificate.into_bytes()), ..Trust::default() };
    assert_eq!(status_with(door.address, &roots).await, (200, "https".into()));
    let pinned = Trust { pin: Some(pin), ..Trust::default() };
    assert_eq!(status_with(door.address, &pinned).await.0, 200);
    let wrong = Trust { pin: Some(Pin::of(b"another")), insecure: true, ..Trust::default() };
    assert_eq!(status_with(door.address, &wrong).await.0, 502, "a pin is never overridden");
    let insecure = Trust { insecure: true, ..Trust::default() };
    assert_eq!(status_with(door.address, &insecure).await.0, 200);
}

#[tokio::test]
async fn grpc_and_websocket_pass_over_tls_on_every_leg() {
    // Plain entry, TLS backend, TLS entry, plain backend.
    async fn chain(address: &str) -> (Door, Door) {
        let (secure, certificate) = secure_door_by(address).await;
        let trust = Trust { extra_roots: Some(certificate.into_bytes()), ..Trust::default() };
        let address: BackendAddress =
            format!("https://localhost:{}", secure.address.port()).parse().unwrap();
        let settings = Settings::default();
        let backend =
            Backend::new(address, Arc::new(settings.clone()), Budget::new(1 << 30), &trust)
                .unwrap();
        (secure, door_to(Arc::new(backend), settings).await)
    }
    let service = crate::grpc::service().await;
    let (_secure, door) = chain(&format!("http://{}", service.address)).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let call = crate::grpc::call(&visitor, "/t/Echo", full(crate::grpc::message(b"hello")));
    let answer = visitor.send(call).await;
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), crate::grpc::message(b"hello"));

    let service = crate::websocket::echo("").await;
    let (_secure, door) = chain(&format!("ws://{}", service.address)).await;
    crate::websocket::echoes(&door).await;
}

#[tokio::test]
async fn a_host_that_is_not_served_on_another_ones_connection_is_misdirected() {
    let service = http_service(false, |_| async { http::Response::new(full("fine")) }).await;
    let hosts = vec!["localhost".to_owned(), "also.example".to_owned()];
    let (door, certificate) =
        secure_door_to(dispatch(Vec::new(), hosts, "http", &service, Settings::default())).await;
    let roots = Trust { extra_roots: Some(certificate.into_bytes()), ..Trust::default() };
    let connector = tokio_rustls::TlsConnector::from(tls::client(&roots, tls::HTTP2).unwrap());
    let tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = soon(connector.connect(name, tcp)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let _connection = task(async move { drop(connection.await) });
    for (host, status) in [
        ("localhost", 200),
        ("localhost:443", 200),
        // Browsers share connections between the names of one certificate.
        ("also.example", 200),
        ("other.example", 421),
    ] {
        let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(soon(answer).await.unwrap().status(), status, "{host}");
    }
    // On a connection of its own it is no route like any other.
    let door = crate::world::door_to(
        dispatch(Vec::new(), vec!["a".to_owned()], "http", &service, Settings::default()),
        Settings::default(),
    )
    .await;
    let mut visitor = Visitor::new(door.address, true).await;
    assert_eq!(visitor.send(visitor.request("GET", "/", full(""))).await.status(), 404);
}
