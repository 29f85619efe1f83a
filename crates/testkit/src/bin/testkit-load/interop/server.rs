//! The server: tonic over a connection of our own.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request as HttpRequest;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{
    Carrier, EchoStatus, Empty, INITIAL, OutputRequest, SERVICE, SimpleRequest, Sum, TRAILING,
    payload,
};
use crate::Failure;

/// Serves for ever at the port in `words`.
pub(crate) async fn serve(words: &[String]) -> Result<(), Failure> {
    let [port] = words else { return Err(crate::HELP.into()) };
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
        // A caller who goes away is no news.
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(request: HttpRequest<Incoming>) -> http::Response<Body> {
    match request.uri().path().strip_prefix(SERVICE) {
        Some("EmptyCall") => Grpc::new(ProstCodec::default()).unary(Method(empty), request).await,
        Some("UnaryCall") => {
            Grpc::new(ProstCodec::default()).server_streaming(Method(unary), request).await
        }
        Some("StreamingOutputCall") => {
            Grpc::new(ProstCodec::default()).server_streaming(Method(output), request).await
        }
        Some("StreamingInputCall") => {
            Grpc::new(ProstCodec::default()).client_streaming(Method(input), request).await
        }
        Some("FullDuplexCall") => {
            Grpc::new(ProstCodec::default()).streaming(Method(duplex), request).await
        }
        _ => Status::unimplemented("no such method").into_http(),
    }
}

/// A function as the service that tonic calls.
struct Method<F>(F);

impl<F, Q, A, Fut> Service<Request<Q>> for Method<F>
where
    F: FnMut(Request<Q>) -> Fut,
    Fut: Future<Output = Result<Response<A>, Status>>,
{
    type Response = Response<A>;
    type Error = Status;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Fut {
        (self.0)(request)
    }
}

type Answers = Pin<Box<ReceiverStream<Result<Carrier, Status>>>>;

async fn empty(_: Request<Empty>) -> Result<Response<Empty>, Status> {
    Ok(Response::new(Empty {}))
}

/// A stream of one answer: so tonic sends trailers of ours.
async fn unary(request: Request<SimpleRequest>) -> Result<Response<Answers>, Status> {
    let (metadata, _, request) = request.into_parts();
    ended(request.response_status)?;
    let (answers, stream) = mpsc::channel(2);
    // There is room for both.
    let _ = answers.try_send(Ok(Carrier { payload: payload(request.response_size) }));
    if let Some(end) = trailers(&metadata) {
        let _ = answers.try_send(Err(end));
    }
    let mut response: Response<Answers> = Response::new(Box::pin(ReceiverStream::new(stream)));
    echo(&metadata, response.metadata_mut());
    Ok(response)
}

async fn input(request: Request<Streaming<Carrier>>) -> Result<Response<Sum>, Status> {
    let (mut requests, mut size) = (request.into_inner(), 0);
    while let Some(request) = requests.message().await? {
        size += request.payload.map_or(0, |payload| payload.body.len() as i32);
    }
    Ok(Response::new(Sum { aggregated_payload_size: size }))
}

async fn output(request: Request<OutputRequest>) -> Result<Response<Answers>, Status> {
    let request = request.into_inner();
    let (answers, stream) = mpsc::channel(4);
    tokio::spawn(async move { say(&answers, &request).await });
    Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
}

async fn duplex(request: Request<Streaming<OutputRequest>>) -> Result<Response<Answers>, Status> {
    let (metadata, _, mut requests) = request.into_parts();
    let (answers, stream) = mpsc::channel(4);
    let (last, limit) = (metadata.clone(), left(&metadata));
    tokio::spawn(async move {
        let talk = async {
            while let Some(request) = requests.message().await? {
                ended(request.response_status.clone())?;
                say(&answers, &request).await;
            }
            Ok(())
        };
        let outcome = timeout(limit, talk).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Status::deadline_exceeded("too late")));
        if let Some(end) = outcome.err().or_else(|| trailers(&last)) {
            // The caller may have left.
            let _ = answers.send(Err(end)).await;
        }
    });
    let mut response: Response<Answers> = Response::new(Box::pin(ReceiverStream::new(stream)));
    echo(&metadata, response.metadata_mut());
    Ok(response)
}

/// Sends what a request wants.
async fn say(answers: &mpsc::Sender<Result<Carrier, Status>>, request: &OutputRequest) {
    for wanted in &request.response_parameters {
        sleep(Duration::from_micros(u64::try_from(wanted.interval_us).unwrap_or_default())).await;
        if answers.send(Ok(Carrier { payload: payload(wanted.size) })).await.is_err() {
            return;
        }
    }
}

/// The status with which a request wants its call to end.
fn ended(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        None => Ok(()),
        Some(status) => Err(Status::new(Code::from(status.code), status.message)),
    }
}

fn echo(from: &MetadataMap, to: &mut MetadataMap) {
    if let Some(value) = from.get(INITIAL) {
        to.insert(INITIAL, value.clone());
    }
}

/// The good end of a call that asks for trailing metadata: that is a status too.
fn trailers(metadata: &MetadataMap) -> Option<Status> {
    let mut trailers = MetadataMap::new();
    trailers.insert_bin(TRAILING, metadata.get_bin(TRAILING)?.clone());
    Some(Status::with_metadata(Code::Ok, "", trailers))
}

/// What `grpc-timeout` allows.
fn left(metadata: &MetadataMap) -> Duration {
    let text = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).unwrap_or("1H");
    let (digits, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = digits.parse().unwrap_or(u64::MAX);
    match unit {
        "n" => Duration::from_nanos(number),
        "u" => Duration::from_micros(number),
        "m" => Duration::from_millis(number),
        "S" => Duration::from_secs(number),
        _ => Duration::from_secs(3600),
    }
}
