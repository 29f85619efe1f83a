//! gRPC's interoperability tests with tonic
//! (<https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>). The same
//! messages as in `tests/real/interop/test.proto`.

pub(crate) mod client;
pub(crate) mod server;

use prost::Message;

/// The service that every server has.
const SERVICE: &str = "/grpc.testing.TestService/";
/// Metadata that comes back with the answer's head.
const INITIAL: &str = "x-grpc-test-echo-initial";
/// Metadata that comes back in the trailers.
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct EchoStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct SimpleRequest {
    #[prost(int32, tag = "2")]
    response_size: i32,
    #[prost(message, optional, tag = "3")]
    payload: Option<Payload>,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

/// Also a `StreamingInputCallRequest` and a `StreamingOutputCallResponse`.
#[derive(Clone, PartialEq, Message)]
struct Carrier {
    #[prost(message, optional, tag = "1")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Message)]
struct Sum {
    #[prost(int32, tag = "1")]
    aggregated_payload_size: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Wanted {
    #[prost(int32, tag = "1")]
    size: i32,
    #[prost(int32, tag = "2")]
    interval_us: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OutputRequest {
    #[prost(message, repeated, tag = "2")]
    response_parameters: Vec<Wanted>,
    #[prost(message, optional, tag = "3")]
    payload: Option<Payload>,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

/// So many zeros.
fn payload(size: i32) -> Option<Payload> {
    Some(Payload { body: vec![0; usize::try_from(size).unwrap_or_default()] })
}
