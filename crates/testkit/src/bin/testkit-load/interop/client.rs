//! The client: tonic over a connection of our own.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request as HttpRequest, Response as HttpResponse, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::tokio_stream::{self, wrappers::ReceiverStream};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{
    Carrier, EchoStatus, Empty, INITIAL, OutputRequest, SERVICE, SimpleRequest, Sum, TRAILING,
    Wanted, payload,
};
use crate::Failure;

const PATIENCE: Duration = Duration::from_secs(10);
const REQUESTS: [i32; 4] = [27182, 8, 1828, 45904];
const RESPONSES: [i32; 4] = [31415, 9, 2653, 58979];
const LARGE: (i32, i32) = (271_828, 314_159);
const TEXT: &str = "test_initial_metadata_value";
const RAW: &[u8] = &[0xAB; 3];
const SPECIAL: &str =
    "\t\ntest with whitespace\r\nand Unicode BMP \u{263A} and non-BMP \u{1F608}\t\n";

type Outcome = Result<(), Failure>;

/// Tries every case at the address in `words`; whether all of them passed.
pub(crate) async fn run(words: &[String]) -> Result<bool, Failure> {
    let [address] = words else { return Err(crate::HELP.into()) };
    let stub = Stub::dial(address).await?;
    let mut report = Report(true);
    report.tell("empty_unary", empty_unary(stub.clone())).await;
    report.tell("large_unary", large_unary(stub.clone())).await;
    report.tell("client_streaming", client_streaming(stub.clone())).await;
    report.tell("server_streaming", server_streaming(stub.clone())).await;
    report.tell("ping_pong", ping_pong(stub.clone())).await;
    report.tell("empty_stream", empty_stream(stub.clone())).await;
    report.tell("cancel_after_begin", cancel_after_begin(stub.clone())).await;
    report.tell("cancel_after_first_response", cancel_after_first_response(stub.clone())).await;
    report.tell("timeout_on_sleeping_server", timeout_on_sleeping_server(stub.clone())).await;
    report.tell("custom_metadata", custom_metadata(stub.clone())).await;
    report.tell("status_code_and_message", status_code_and_message(stub.clone())).await;
    report.tell("special_status_message", special_status_message(stub.clone())).await;
    let absent = "/grpc.testing.TestService/UnimplementedCall";
    report.tell("unimplemented_method", unimplemented(stub.clone(), absent)).await;
    let absent = "/grpc.testing.UnimplementedService/UnimplementedCall";
    report.tell("unimplemented_service", unimplemented(stub, absent)).await;
    Ok(report.0)
}

/// Prints a line for each case; holds whether all passed so far.
struct Report(bool);

impl Report {
    async fn tell(&mut self, name: &str, case: impl Future<Output = Outcome>) {
        let outcome = timeout(PATIENCE, case).await.unwrap_or_else(|_| Err("no end".into()));
        match outcome {
            Ok(()) => println!("ok {name}"),
            Err(error) => println!("FAIL {name}: {}", error.to_string().replace('\n', " ")),
        }
    }
}

/// An HTTP/2 connection as the service that tonic calls.
#[derive(Clone)]
struct Connection(SendRequest<Body>);

impl Service<HttpRequest<Body>> for Connection {
    type Response = HttpResponse<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Calls by method.
#[derive(Clone)]
struct Stub(tonic::client::Grpc<Connection>);

impl Stub {
    async fn dial(address: &str) -> Result<Stub, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        let origin: Uri = format!("http://{address}").parse()?;
        Ok(Stub(tonic::client::Grpc::with_origin(Connection(sender), origin)))
    }

    async fn unary<Q, A>(mut self, path: &str, request: Request<Q>) -> Result<Response<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ready().await?;
        self.0.unary(request, at(path)?, ProstCodec::default()).await
    }

    /// A call of both directions; what follows `first` goes into the channel. Some servers
    /// send their head only when they have had a message.
    async fn duplex(
        mut self,
        first: OutputRequest,
        configure: impl FnOnce(&mut Request<ReceiverStream<OutputRequest>>),
    ) -> Result<(mpsc::Sender<OutputRequest>, Response<Streaming<Carrier>>), Status> {
        self.ready().await?;
        let (requests, stream) = mpsc::channel(4);
        requests.send(first).await.map_err(|_| Status::internal("nobody takes messages"))?;
        let mut request = Request::new(ReceiverStream::new(stream));
        configure(&mut request);
        let path = at(&method("FullDuplexCall"))?;
        Ok((requests, self.0.streaming(request, path, ProstCodec::default()).await?))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

fn method(name: &str) -> String {
    format!("{SERVICE}{name}")
}

fn at(path: &str) -> Result<PathAndQuery, Status> {
    path.parse().map_err(|_| Status::internal("not a path"))
}

fn same<T: PartialEq + Debug>(got: T, wanted: T) -> Outcome {
    match got == wanted {
        true => Ok(()),
        false => Err(format!("{got:.200?} instead of {wanted:.200?}").into()),
    }
}

fn is_zeros(carrier: Option<Carrier>, size: i32) -> Outcome {
    same(carrier.and_then(|carrier| carrier.payload) == payload(size), true)
}

fn large() -> SimpleRequest {
    SimpleRequest { response_size: LARGE.1, payload: payload(LARGE.0), ..SimpleRequest::default() }
}

fn output(size: i32, request: i32, interval_us: i32) -> OutputRequest {
    OutputRequest {
        response_parameters: vec![Wanted { size, interval_us }],
        payload: payload(request),
        ..OutputRequest::default()
    }
}

async fn empty_unary(stub: Stub) -> Outcome {
    let answer = stub.unary(&method("EmptyCall"), Request::new(Empty {})).await?;
    same(answer.into_inner(), Empty {})
}

async fn large_unary(stub: Stub) -> Outcome {
    let answer = stub.unary(&method("UnaryCall"), Request::new(large())).await?;
    is_zeros(Some(answer.into_inner()), LARGE.1)
}

async fn client_streaming(mut stub: Stub) -> Outcome {
    stub.ready().await?;
    let requests = tokio_stream::iter(REQUESTS.map(|size| Carrier { payload: payload(size) }));
    let path = at(&method("StreamingInputCall"))?;
    let answer: Response<Sum> =
        stub.0.client_streaming(Request::new(requests), path, ProstCodec::default()).await?;
    same(answer.into_inner().aggregated_payload_size, REQUESTS.iter().sum())
}

async fn server_streaming(mut stub: Stub) -> Outcome {
    stub.ready().await?;
    let response_parameters = RESPONSES.map(|size| Wanted { size, interval_us: 0 }).to_vec();
    let request = OutputRequest { response_parameters, ..OutputRequest::default() };
    let path = at(&method("StreamingOutputCall"))?;
    let answer =
        stub.0.server_streaming(Request::new(request), path, ProstCodec::default()).await?;
    let mut answers: Streaming<Carrier> = answer.into_inner();
    for size in RESPONSES {
        is_zeros(answers.message().await?, size)?;
    }
    same(answers.message().await?, None)
}

async fn ping_pong(stub: Stub) -> Outcome {
    let mut turns =
        RESPONSES.into_iter().zip(REQUESTS).map(|(size, sent)| (size, output(size, sent, 0)));
    let (size, first) = turns.next().ok_or("no turns")?;
    let (requests, answer) = stub.duplex(first, |_| ()).await?;
    let mut answers = answer.into_inner();
    is_zeros(answers.message().await?, size)?;
    for (size, next) in turns {
        requests.send(next).await?;
        is_zeros(answers.message().await?, size)?;
    }
    drop(requests);
    same(answers.message().await?, None)
}

async fn empty_stream(mut stub: Stub) -> Outcome {
    stub.ready().await?;
    let requests = Request::new(tokio_stream::empty::<OutputRequest>());
    let path = at(&method("FullDuplexCall"))?;
    let answer = stub.0.streaming(requests, path, ProstCodec::default()).await?;
    let mut answers: Streaming<Carrier> = answer.into_inner();
    same(answers.message().await?, None)
}

async fn cancel_after_begin(mut stub: Stub) -> Outcome {
    stub.ready().await?;
    let path = at(&method("StreamingInputCall"))?;
    let requests = Request::new(tokio_stream::pending::<Carrier>());
    let call = stub.0.client_streaming::<_, _, Sum, _>(requests, path, ProstCodec::default());
    // Dropping a call cancels it; what the server gets, other tests see.
    let ended = timeout(Duration::from_millis(50), call).await.is_ok();
    same(ended, false)
}

async fn cancel_after_first_response(stub: Stub) -> Outcome {
    let first = output(RESPONSES[0], REQUESTS[0], 0);
    let (requests, answer) = stub.clone().duplex(first, |_| ()).await?;
    let mut answers = answer.into_inner();
    is_zeros(answers.message().await?, RESPONSES[0])?;
    drop((requests, answers));
    // The connection lives.
    empty_unary(stub).await
}

async fn timeout_on_sleeping_server(stub: Stub) -> Outcome {
    // The server would answer after a second; whoever is on the way knows the deadline.
    let limit = Duration::from_millis(50);
    let late = async {
        let first = output(RESPONSES[0], REQUESTS[0], 1_000_000);
        let (_requests, answer) = stub.duplex(first, |request| request.set_timeout(limit)).await?;
        answer.into_inner().message().await
    };
    let ended = timeout(Duration::from_millis(700), late).await?;
    same(ended.map_err(|status| status.code()), Err(Code::DeadlineExceeded))
}

/// Metadata that a server sends back.
fn dress(metadata: &mut MetadataMap) {
    metadata.insert(INITIAL, MetadataValue::from_static(TEXT));
    metadata.insert_bin(TRAILING, MetadataValue::from_bytes(RAW));
}

fn is_dressed(first: &MetadataMap, last: &MetadataMap) -> Outcome {
    same(first.get(INITIAL).map(MetadataValue::as_bytes), Some(TEXT.as_bytes()))?;
    let raw = last.get_bin(TRAILING).and_then(|value| value.to_bytes().ok());
    same(raw.as_deref(), Some(RAW))
}

async fn custom_metadata(stub: Stub) -> Outcome {
    let mut request = Request::new(large());
    dress(request.metadata_mut());
    let answer: Response<Carrier> = stub.clone().unary(&method("UnaryCall"), request).await?;
    // tonic adds a unary answer's trailers to its head.
    is_dressed(answer.metadata(), answer.metadata())?;
    let first = output(LARGE.1, LARGE.0, 0);
    let (requests, answer) = stub.duplex(first, |request| dress(request.metadata_mut())).await?;
    let first = answer.metadata().clone();
    let mut answers = answer.into_inner();
    is_zeros(answers.message().await?, LARGE.1)?;
    drop(requests);
    same(answers.message().await?, None)?;
    is_dressed(&first, &answers.trailers().await?.unwrap_or_default())
}

async fn status_code_and_message(stub: Stub) -> Outcome {
    let wanted = EchoStatus { code: 2, message: "test status message".to_owned() };
    let response_status = Some(wanted.clone());
    ends_with(stub.clone(), wanted.clone()).await?;
    let first = OutputRequest { response_status, ..OutputRequest::default() };
    // A server may end a call with its head.
    let ended = match stub.duplex(first, |_| ()).await {
        Ok((_requests, answer)) => answer.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    let ended = ended.map_err(|status| (status.code(), status.message().to_owned()));
    same(ended, Err((Code::Unknown, wanted.message)))
}

async fn special_status_message(stub: Stub) -> Outcome {
    ends_with(stub, EchoStatus { code: 2, message: SPECIAL.to_owned() }).await
}

async fn ends_with(stub: Stub, wanted: EchoStatus) -> Outcome {
    let response_status = Some(wanted.clone());
    let request = Request::new(SimpleRequest { response_status, ..SimpleRequest::default() });
    match stub.unary::<_, Carrier>(&method("UnaryCall"), request).await {
        Ok(_) => Err("the call succeeded".into()),
        Err(ended) => {
            same((ended.code(), ended.message()), (Code::Unknown, wanted.message.as_str()))
        }
    }
}

async fn unimplemented(stub: Stub, path: &str) -> Outcome {
    let ended = stub.unary::<_, Empty>(path, Request::new(Empty {})).await;
    same(ended.map(|_| ()).map_err(|status| status.code()), Err(Code::Unimplemented))
}
