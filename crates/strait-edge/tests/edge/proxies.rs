//! Proxies before an entry that speak the PROXY protocol.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use strait_edge::{Entry, ProxyProtocol, Settings, TrustedProxies};

use crate::world::{Door, Service, backend, entry, full, http_service, open, raw_exchange};

/// What the visitor says of somebody else.
const ASK: &str =
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";

/// A service that tells who asked.
async fn teller() -> Service {
    http_service(false, |request| async move {
        Response::new(full(request.headers()["x-forwarded-for"].as_bytes().to_vec()))
    })
    .await
}

/// An entry that wants a header, from these proxies or from anybody.
async fn door(service: &Service, trusted: &[&str]) -> (Door, ProxyProtocol) {
    let settings = Settings { first_byte: Duration::from_millis(200), ..Settings::default() };
    let upstream = backend(&format!("http://{}", service.address), settings.clone());
    let protocol = ProxyProtocol::default();
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let entry = Entry {
        trusted_proxies: TrustedProxies::new(trusted),
        proxy_protocol: Some(protocol.clone()),
        ..entry(Arc::new(upstream), settings)
    };
    (open(entry).await, protocol)
}

async fn told(door: &Door, header: &str) -> Option<String> {
    let answer = raw_exchange(door.address, format!("{header}{ASK}").as_bytes()).await;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

const NAMED: &str = "PROXY TCP4 198.51.100.7 192.0.2.1 4000 80\r\n";

#[tokio::test]
async fn the_visitor_is_whom_the_header_names() {
    let service = teller().await;
    for trusted in [&[][..], &["127.0.0.1/32"]] {
        let (door, protocol) = door(&service, trusted).await;
        assert_eq!(told(&door, NAMED).await.as_deref(), Some("198.51.100.7"));
        // Nobody is named: what the visitor writes is not the proxy's word.
        assert_eq!(told(&door, "PROXY UNKNOWN\r\n").await.as_deref(), Some("127.0.0.1"));
        assert_eq!(protocol.refused(), 0);
    }
    let (door, _) = door(&service, &["127.0.0.1/32", "198.51.100.0/24"]).await;
    assert_eq!(told(&door, NAMED).await.as_deref(), Some("6.6.6.6, 198.51.100.7"));
}

#[tokio::test]
async fn without_a_good_header_nothing_is_served() {
    let service = teller().await;
    let (any, protocol) = door(&service, &[]).await;
    for header in ["", "PROXY TCP4 198.51.100.7\r\n", "\r\n\r\n"] {
        assert_eq!(told(&any, header).await, None, "{header:?}");
    }
    assert_eq!(protocol.refused(), 3);
    // Late, or cut.
    assert_eq!(raw_exchange(any.address, b"PROXY TCP4 ").await, "");
    assert_eq!(protocol.refused(), 4);
    // From somebody who may send none.
    let (other, protocol) = door(&service, &["192.0.2.0/24"]).await;
    assert_eq!(told(&other, NAMED).await, None);
    assert_eq!(protocol.refused(), 1);
}
