//! TLS on both legs.

use std::sync::Arc;

use http_body_util::BodyExt;
use strait_edge::tls::{self, Pin, Trust};
use strait_edge::{Backend, BackendAddress, Entry, Settings, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::world::{Door, Service, Visitor, door_to, full, http_service, task};

/// A TLS entry in front of the service, and its certificate.
async fn secure_door(service: &Service) -> (Door, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = tls::server(certificate.as_bytes(), key.as_bytes(), tls::BOTH).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Settings::default();
    let upstream =
        Arc::new(crate::world::backend(&format!("http://{}", service.address), settings.clone()));
    let entry =
        Entry { name: "tls".into(), upstream, settings: Arc::new(settings), tls: Some(tls) };
    let drain = CancellationToken::new();
    let served = task(serve(listener, entry, drain.clone()));
    (Door { address, drain, served }, certificate)
}

async fn status_with(address: std::net::SocketAddr, trust: &Trust) -> (u16, String) {
    let text = format!("https://localhost:{}", address.port());
    let address: BackendAddress = text.parse().unwrap();
    let settings = Settings::default();
    let backend = Backend::new(address, Arc::new(settings.clone()), trust).unwrap();
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
