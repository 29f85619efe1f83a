//! Frames of every kind, at random.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm};
use strait_wire::{
    Announced, Announcement, Data, First, Frame, GoAway, Hello, MessageStart, Opening, Protocol,
    Reason, Refusal, RequestHead, RequestId, Reset, ResponseHead, Service, Settings, StreamFrame,
    StreamNo,
};

/// `cases` of them, unless `PROPTEST_CASES` says how many.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        rng_algorithm: RngAlgorithm::XorShift,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let value = prop::collection::vec(prop_oneof![Just(9u8), 32..=126u8, 128..=255u8], 0..20);
    prop::collection::vec(("[a-z0-9!#$%&'*+.^_`|~-]{1,12}", value), 0..6).prop_map(|pairs| {
        let field = |(name, value): (String, Vec<u8>)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_bytes(&value).expect("a value"))
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.into_iter().map(field) {
            map.append(name, value);
        }
        map
    })
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    // On both sides of the size up to which payloads are copied.
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..most.min(50)),
        1 => (2_000..2_100usize, any::<u8>()).prop_map(|(n, byte)| vec![byte; n]),
    ]
    .prop_map(Bytes::from)
}

fn piece(protocol: Protocol) -> impl Strategy<Value = Data> {
    let tag = match protocol {
        Protocol::Grpc => 0..=1u8,
        _ => 0..=255u8,
    };
    // A gRPC message has 32 bits of length, a WebSocket frame 63.
    let length = prop_oneof![0..100u64, Just(u64::from(u32::MAX))];
    (bytes(50), prop::option::of((tag, length)), any::<bool>()).prop_map(
        move |(bytes, start, ends_message)| {
            if protocol == Protocol::Http {
                return Data::plain(bytes);
            }
            let start = start.map(|(tag, length)| MessageStart { tag, length });
            Data { bytes, start, ends_message }
        },
    )
}

fn says_something(data: &Data, protocol: Protocol) -> bool {
    !data.bytes.is_empty()
        || protocol == Protocol::Grpc
        || (protocol == Protocol::WebSocket && (data.start.is_some() || data.ends_message))
}

fn opening(protocol: Protocol) -> impl Strategy<Value = Opening> {
    let method = match protocol {
        Protocol::Http => prop::sample::select(vec![Method::GET, Method::POST, Method::PATCH]),
        Protocol::Grpc => prop::sample::select(vec![Method::POST]),
        Protocol::WebSocket => prop::sample::select(vec![Method::GET]),
    };
    let context = ("[ -~]{0,128}", "[ -~é]{0,60}", "[a-z]{0,64}");
    let numbers = (any::<u32>(), 0..8u8, any::<u32>(), prop::option::of(1..=u64::MAX));
    let target = (any::<bool>(), bytes(50), bytes(50), fields());
    (method, context, numbers, target).prop_map(
        |(method, (trace, client_id, service), (hops, urgency, answer_credit, left), target)| {
            let (tls, authority, path, headers) = target;
            let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
            Opening {
                id: Some(RequestId::new()),
                client_id,
                trace: trace.into(),
                deadline: left.map(Duration::from_micros),
                hops,
                urgency,
                service: service.into(),
                answer_credit,
                awaits_continue: answer_credit % 2 == 1,
                head: Arc::new(RequestHead { method, scheme, authority, path, headers }),
            }
        },
    )
}

fn first(protocol: Protocol, is_request: bool) -> BoxedStrategy<First> {
    if is_request {
        return opening(protocol).prop_map(|o| First::Request(Box::new(o))).boxed();
    }
    let lowest = if protocol == Protocol::WebSocket { 199 } else { 200 };
    (lowest..1000u16, fields())
        .prop_map(|(status, headers)| {
            let status = if status == 199 { 101 } else { status };
            let status = StatusCode::from_u16(status).expect("a status");
            First::Response(Box::new(ResponseHead { status, headers }))
        })
        .boxed()
}

/// A frame as a mux makes it.
fn stream(protocol: Protocol, is_request: bool) -> impl Strategy<Value = Frame> {
    let pieces = if protocol == Protocol::Grpc { 0..5usize } else { 0..2 };
    (
        (any::<u64>(), any::<u32>(), any::<bool>()),
        prop::option::of(first(protocol, is_request)),
        prop::collection::vec(piece(protocol), pieces),
        prop::option::of(fields()),
    )
        .prop_map(move |((no, sequence, end), first, mut data, trailers)| {
            let alone = first.is_some() && protocol.head_travels_alone();
            data.retain(|data| says_something(data, protocol) && !alone);
            let end = end && !alone;
            let has_trailers = match protocol {
                Protocol::Http => true,
                Protocol::Grpc => !is_request,
                Protocol::WebSocket => false,
            };
            let trailers = trailers.filter(|map| end && has_trailers && !map.is_empty());
            let trailers = trailers.map(Box::new);
            let no = StreamNo(no);
            Frame::Stream(StreamFrame {
                no,
                sequence,
                protocol,
                is_request,
                first,
                data: data.into_iter().collect(),
                trailers,
                end,
            })
        })
}

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL)
}

fn service() -> impl Strategy<Value = Service> {
    let protocols = prop::sample::subsequence(Protocol::ALL.to_vec(), 0..=3);
    ("[a-zA-Z0-9._-]{0,64}", protocols, prop::collection::vec("[a-z.*]{0,9}", 0..3), "/[a-z]{0,9}")
        .prop_map(|(name, protocols, hosts, path_prefix)| Service {
            name,
            protocols,
            hosts,
            path_prefix,
        })
}

fn hello() -> impl Strategy<Value = Frame> {
    let texts = ("[a-z]{0,32}", "[a-z]{0,128}", "[ -~]{0,128}");
    let features = prop::collection::vec("[a-z]{0,5}", 0..3);
    (any::<[u32; 6]>(), any::<u64>(), bytes(20), texts, features).prop_map(
        |(numbers, connection, instance, (role, client_id, software), features)| {
            let [version_min, version_max, initial_credit, max_piece, max_requests, tunnel] =
                numbers;
            Frame::Hello(Box::new(Hello {
                version_min,
                version_max,
                features,
                role,
                client_id,
                instance,
                connection,
                initial_credit,
                max_piece,
                max_requests,
                software,
                tunnel,
            }))
        },
    )
}

fn control() -> impl Strategy<Value = Frame> {
    let reset = (any::<u64>(), reason(), any::<bool>(), "[ -~]{0,256}");
    let goaway = (prop::option::of(any::<u64>()), reason(), "[ -~]{0,256}");
    let refused = prop::collection::vec(("[a-z]{0,64}", "[ -~]{0,99}"), 0..3);
    prop_oneof![
        (any::<u64>(), any::<u32>()).prop_map(|(no, bytes)| Frame::Credit(StreamNo(no), bytes)),
        reset.prop_map(|(no, reason, retry_safe, message)| {
            Frame::Reset(Reset { no: StreamNo(no), reason, retry_safe, message })
        }),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        goaway.prop_map(|(last, reason, message)| {
            Frame::GoAway(GoAway { last: last.map(StreamNo), reason, message })
        }),
        any::<[u32; 2]>().prop_map(|[initial_credit, max_requests]| {
            Frame::Settings(Settings { initial_credit, max_requests })
        }),
        (any::<u64>(), prop::collection::vec(service(), 0..4)).prop_map(|(revision, services)| {
            Frame::Announce(Announcement { revision, services })
        }),
        (any::<u64>(), refused, prop::collection::vec("[ -~]{0,99}", 0..3)).prop_map(
            |(revision, refused, addresses)| {
                let refusal = |(service, message)| Refusal { service, message };
                let refused = refused.into_iter().map(refusal).collect();
                Frame::Announced(Announced { revision, refused, addresses })
            }
        ),
    ]
}

/// Any frame that this side may send.
pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let streams: Vec<BoxedStrategy<Frame>> = Protocol::ALL
        .into_iter()
        .flat_map(|protocol| [stream(protocol, true).boxed(), stream(protocol, false).boxed()])
        .collect();
    prop_oneof![3 => prop::strategy::Union::new(streams), 1 => control(), 1 => hello()]
}
