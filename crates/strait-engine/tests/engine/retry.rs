//! Who carries a request when the first tunnel cannot: which faults are tried again, by
//! whom, and what the caller gets in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use strait_engine::*;
use strait_wire::{Announcement, Service};
use tokio::time::timeout;

use crate::records::Kept;
use crate::world::{Pieces, World, ok, request, soon, world, world_of, worlds};

/// A far node that counts what it is asked, and fails with `fault` or answers.
struct Far {
    asked: AtomicUsize,
    fails: Option<Fault>,
    /// It never answers.
    hangs: bool,
}

impl Far {
    fn new(fails: Option<Fault>, hangs: bool) -> Arc<Far> {
        Arc::new(Far { asked: AtomicUsize::new(0), fails, hangs })
    }

    fn good() -> Arc<Far> {
        Far::new(None, false)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Upstream for Far {
    fn carry(&self, _: Exchange) -> Carried<'_> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            match &self.fails {
                _ if self.hangs => std::future::pending().await,
                Some(fault) => Err(fault.clone().into()),
                None => ok(Box::new(EmptyBody)),
            }
        })
    }
}

/// The near node: what comes in at its entry goes to whoever announced the service.
struct Near {
    directory: Arc<Directory>,
    dispatch: Arc<Dispatch>,
}

impl Near {
    fn new(hold: Duration) -> Near {
        let patience = Patience { hold, room: hold };
        let directory = Arc::new(Directory::new(Vec::new(), patience));
        let dispatch = Dispatch::new(directory.clone(), Arc::new(Kept::default()), 100);
        Near { directory, dispatch: Arc::new(dispatch) }
    }

    /// The tunnel offers the only service.
    fn join(&self, tunnel: &World) {
        let service = Service {
            name: "only".into(),
            protocols: Vec::new(),
            hosts: Vec::new(),
            path_prefix: String::new(),
        };
        let announcement = Announcement { revision: 1, services: vec![service] };
        let answer = self.directory.announce(&tunnel.server, announcement);
        assert!(answer.refused.is_empty(), "{answer:?}");
    }

    fn leave(&self, tunnel: &World) {
        tunnel.server.lose(Reason::ClientLost);
        self.directory.withdraw(&tunnel.server);
    }

    /// Begins to carry; the result is the answer's status or the reason of the fault.
    fn carry(&self, method: Method, body: BoxBody) -> tokio::task::JoinHandle<Result<u16, Reason>> {
        self.carry_on(request("/", body), method)
    }

    /// The same of a request whose caller waits to be asked for the body.
    fn carry_unasked(&self, method: Method) -> tokio::task::JoinHandle<Result<u16, Reason>> {
        let mut exchange = request("/", some());
        exchange.context.awaits_continue = true;
        self.carry_on(exchange, method)
    }

    fn carry_on(
        &self,
        mut exchange: Exchange,
        method: Method,
    ) -> tokio::task::JoinHandle<Result<u16, Reason>> {
        let head = Arc::get_mut(&mut exchange.head).expect("is not shared yet");
        head.method = method;
        let dispatch = self.dispatch.clone();
        tokio::spawn(async move {
            match dispatch.carry(exchange).await {
                Ok(answer) => Ok(answer.head.status.as_u16()),
                Err(failure) => Err(failure.fault.reason),
            }
        })
    }
}

fn none() -> BoxBody {
    Box::new(EmptyBody)
}

fn some() -> BoxBody {
    Box::new(Pieces { left: 3, size: 1000 })
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), wait).await.unwrap_or_else(|_| panic!("not soon: {what}"));
}

#[tokio::test]
async fn a_request_waits_for_a_tunnel_to_come_back() {
    let (first, second) = (world(Far::good()).await, world(Far::good()).await);
    let near = Near::new(Duration::from_secs(4));
    near.join(&first);
    near.leave(&first);
    let waiting = [near.carry(Method::GET, none()), near.carry(Method::POST, some())];
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "refused at once");
    near.join(&second);
    for waiting in waiting {
        assert_eq!(soon(waiting).await.unwrap(), Ok(200));
    }
}

#[tokio::test]
async fn a_request_is_refused_when_no_tunnel_comes_back_in_time() {
    let tunnel = world(Far::good()).await;
    let near = Near::new(Duration::from_millis(100));
    assert_eq!(soon(near.carry(Method::GET, none())).await.unwrap(), Err(Reason::NoRoute));
    near.join(&tunnel);
    near.leave(&tunnel);
    let began = Instant::now();
    assert_eq!(soon(near.carry(Method::GET, none())).await.unwrap(), Err(Reason::ClientOffline));
    assert!(began.elapsed() >= Duration::from_millis(100), "it was not held");
}

#[tokio::test]
async fn what_a_lost_tunnel_was_not_given_goes_to_another_whatever_its_method() {
    let (far, other) = (Far::good(), Far::good());
    let (first, second) = (world(far.clone()).await, world(other.clone()).await);
    let near = Near::new(Duration::from_secs(4));
    near.join(&first);
    first.stalled.store(true, Ordering::SeqCst);
    let post = near.carry(Method::POST, none());
    let upload = near.carry(Method::POST, some());
    until("both are on the tunnel", || first.server.stats().opened == 2).await;
    near.leave(&first);
    near.join(&second);
    assert_eq!(soon(post).await.unwrap(), Ok(200));
    // Its body is used up: it was being queued for the tunnel.
    assert_eq!(soon(upload).await.unwrap(), Err(Reason::ClientLost));
    assert_eq!((far.asked(), other.asked()), (0, 1));
    // A tunnel that is gone before a request comes is not given anything, body or not.
    near.join(&first);
    assert_eq!(soon(near.carry(Method::POST, some())).await.unwrap(), Ok(200));
}

#[tokio::test]
async fn what_was_sent_goes_again_once_and_only_if_it_is_safe() {
    let hanging = || Far::new(None, true);
    let (far, other) = (hanging(), Far::good());
    let (first, second) = (world(far.clone()).await, world(other.clone()).await);
    let near = Near::new(Duration::from_secs(4));
    near.join(&first);
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS].map(|m| near.carry(m, none()));
    let unsafe_ = [Method::POST, Method::PUT, Method::DELETE].map(|m| near.carry(m, none()));
    let body = near.carry(Method::GET, some());
    until("all were asked", || far.asked() == 7).await;
    near.leave(&first);
    near.join(&second);
    for safe in safe {
        assert_eq!(soon(safe).await.unwrap(), Ok(200));
    }
    for other in unsafe_.into_iter().chain([body]) {
        assert_eq!(soon(other).await.unwrap(), Err(Reason::ClientLost));
    }
    assert_eq!(other.asked(), 3);
    // Once: the second loss is told.
    let (third, fourth) = (world(hanging()).await, world(hanging()).await);
    near.leave(&second);
    near.join(&third);
    let get = near.carry(Method::GET, none());
    until("it is on its first tunnel", || third.server.stats().opened == 1).await;
    near.join(&fourth);
    near.leave(&third);
    until("it is on its second tunnel", || fourth.server.stats().opened == 1).await;
    near.join(&world(Far::good()).await);
    near.leave(&fourth);
    assert_eq!(soon(get).await.unwrap(), Err(Reason::ClientLost));
}

#[tokio::test]
async fn a_service_that_refuses_is_tried_at_another_tunnel_once() {
    let fails = |reason| Far::new(Some(Fault::new(reason).retry_safe()), false);
    for (reason, again) in [
        (Reason::BackendRefused, true),
        (Reason::Overloaded, true),
        (Reason::Draining, true),
        (Reason::BackendConnectTimeout, false),
        (Reason::BackendTimeout, false),
        (Reason::NoRoute, false),
        (Reason::Internal, false),
    ] {
        let (bad, good) = (fails(reason), Far::good());
        let (first, second) = (world(bad.clone()).await, world(good.clone()).await);
        let near = Near::new(Duration::from_millis(300));
        near.join(&first);
        let began = Instant::now();
        assert_eq!(soon(near.carry(Method::POST, none())).await.unwrap(), Err(reason));
        // The same tunnel may have room in a moment, and nobody would tell.
        let times = bad.asked();
        let expected = if reason == Reason::Overloaded { 2..=4 } else { 1..=1 };
        assert!(expected.contains(&times), "{reason}: {times} times");
        // No other tunnel would be better than this one, unless it is the tunnel that leaves.
        let waited = began.elapsed() >= Duration::from_millis(300);
        assert_eq!(waited, matches!(reason, Reason::Draining | Reason::Overloaded), "{reason}");
        near.join(&second);
        let outcomes = [
            soon(near.carry(Method::POST, none())).await.unwrap(),
            soon(near.carry(Method::POST, none())).await.unwrap(),
        ];
        let refused = outcomes.iter().filter(|outcome| **outcome == Err(reason)).count();
        assert_eq!(refused, usize::from(!again), "{reason}: {outcomes:?}");
        let asked = (times + 1, if again { 2 } else { 1 });
        assert_eq!((bad.asked(), good.asked()), asked, "{reason}");
    }
    // All of them refuse: two are asked and no more.
    let all: Vec<_> = (0..3).map(|_| fails(Reason::BackendRefused)).collect();
    let near = Near::new(Duration::from_millis(50));
    let mut tunnels = Vec::new();
    for far in &all {
        tunnels.push(world(far.clone()).await);
        near.join(&tunnels[tunnels.len() - 1]);
    }
    let outcome = soon(near.carry(Method::POST, none())).await.unwrap();
    assert_eq!(outcome, Err(Reason::BackendRefused));
    assert_eq!(all.iter().map(|far| far.asked()).sum::<usize>(), 2);
}

/// Answers with the length of the body, which it asks for.
struct Asks(AtomicUsize);

impl Upstream for Asks {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        Box::pin(async move {
            assert!(exchange.context.awaits_continue, "the expectation travels");
            let body = collect_small(exchange.body, 1 << 20).await?;
            self.0.store(body.len(), Ordering::SeqCst);
            ok(Box::new(EmptyBody))
        })
    }
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_goes_to_another_tunnel_with_its_request() {
    let refusing = Far::new(Some(Fault::new(Reason::BackendRefused).retry_safe()), false);
    let asks = Arc::new(Asks(AtomicUsize::new(0)));
    let (bad, good) = (world(refusing.clone()).await, world(asks.clone()).await);
    let near = Near::new(Duration::from_secs(4));
    near.join(&bad);
    assert_eq!(soon(near.carry_unasked(Method::POST)).await.unwrap(), Err(Reason::BackendRefused));
    near.join(&good);
    for _ in 0..4 {
        asks.0.store(0, Ordering::SeqCst);
        assert_eq!(soon(near.carry_unasked(Method::POST)).await.unwrap(), Ok(200));
        assert_eq!(asks.0.load(Ordering::SeqCst), 3000, "all of the body, once");
    }
    assert!(refusing.asked() > 1, "some were refused first");
    // What a service may have seen goes again only if it is safe to ask twice.
    let hanging = world(Far::new(None, true)).await;
    near.leave(&bad);
    near.leave(&good);
    near.join(&hanging);
    let (get, post) = (near.carry_unasked(Method::GET), near.carry_unasked(Method::POST));
    until("both are there", || hanging.client.stats().accepted == 2).await;
    let asks = Arc::new(Asks(AtomicUsize::new(0)));
    let other = world(asks.clone()).await;
    near.leave(&hanging);
    near.join(&other);
    assert_eq!(soon(get).await.unwrap(), Ok(200));
    assert_eq!(asks.0.load(Ordering::SeqCst), 3000);
    assert_eq!(soon(post).await.unwrap(), Err(Reason::ClientLost));
    for world in [&bad, &good, &hanging, &other] {
        world.settled().await;
    }
}

#[tokio::test]
async fn what_a_leaving_tunnel_refuses_goes_to_another() {
    let (far, other) = (Far::good(), Far::good());
    let (first, second) = (world(far.clone()).await, world(other.clone()).await);
    let near = Near::new(Duration::from_millis(50));
    near.join(&first);
    first.client.leave();
    assert!(matches!(soon(first.server.news()).await, Some(News::Leaving(_))));
    assert_eq!(soon(near.carry(Method::POST, some())).await.unwrap(), Err(Reason::Draining));
    near.join(&second);
    for _ in 0..4 {
        assert_eq!(soon(near.carry(Method::POST, some())).await.unwrap(), Ok(200));
    }
    assert_eq!((far.asked(), other.asked()), (0, 4));
}

/// Enough memory for one request, and not for two.
const FOR_ONE: usize = 10 * 1024;

#[tokio::test]
async fn a_burst_beyond_the_memory_of_a_tunnel_waits_for_room() {
    let far = Far::good();
    let tunnel = world_of(far.clone(), FOR_ONE).await;
    let near = Near::new(Duration::from_secs(4));
    near.join(&tunnel);
    let burst: Vec<_> = (0..100).map(|_| near.carry(Method::GET, none())).collect();
    // Who leaves while he waits holds nobody up.
    burst[50].abort();
    for (at, waiting) in burst.into_iter().enumerate().filter(|(at, _)| *at != 50) {
        assert_eq!(soon(waiting).await.unwrap(), Ok(200), "request {at}");
    }
    let stats = tunnel.server.stats();
    assert_eq!((stats.refusals, stats.budget_used), (Refusals::default(), 0));
}

#[tokio::test]
async fn a_tunnel_that_stays_full_refuses_when_the_wait_is_over() {
    let far = Far::new(None, true);
    let tunnel = world_of(far.clone(), FOR_ONE).await;
    let near = Near::new(Duration::from_millis(100));
    near.join(&tunnel);
    let held = near.carry(Method::GET, none());
    until("the first is there", || far.asked() == 1).await;
    let began = Instant::now();
    let both = [near.carry(Method::POST, some()), near.carry(Method::GET, none())];
    for refused in both {
        assert_eq!(soon(refused).await.unwrap(), Err(Reason::Overloaded));
    }
    assert!(began.elapsed() >= Duration::from_millis(100), "it was waited for");
    assert_eq!((tunnel.server.stats().refusals.ours_budget, far.asked()), (2, 1));
    // Another tunnel that has room is not waited for.
    let other = world(Far::good()).await;
    near.join(&other);
    assert_eq!(soon(near.carry(Method::POST, some())).await.unwrap(), Ok(200));
    held.abort();
}

/// A peer that has so much memory, where this side has plenty.
async fn narrow(far: Arc<dyn Upstream>, budget: usize) -> World {
    worlds(far, [budget, 64 << 20]).await
}

/// Answers after a moment.
struct Slow(AtomicUsize);

impl Upstream for Slow {
    fn carry(&self, _: Exchange) -> Carried<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            ok(Box::new(EmptyBody))
        })
    }
}

#[tokio::test]
async fn a_burst_beyond_the_memory_of_the_peer_waits_for_room() {
    let slow = Arc::new(Slow(AtomicUsize::new(0)));
    let tunnel = narrow(slow.clone(), FOR_ONE).await;
    let near = Near::new(Duration::from_secs(4));
    near.join(&tunnel);
    let burst: Vec<_> = (0..100)
        .map(|at| match at % 2 {
            0 => near.carry(Method::POST, none()),
            _ => near.carry_unasked(Method::POST),
        })
        .collect();
    // Who leaves while he waits holds nobody up.
    burst[50].abort();
    for (at, waiting) in burst.into_iter().enumerate().filter(|(at, _)| *at != 50) {
        assert_eq!(soon(waiting).await.unwrap(), Ok(200), "request {at}");
    }
    assert!([99, 100].contains(&slow.0.load(Ordering::SeqCst)), "each once");
    // All of the burst, and then one or two for each that ended.
    let refused = tunnel.client.stats().refusals.theirs_budget;
    assert!((10..400).contains(&refused), "{refused} were refused");
    assert_eq!(tunnel.server.stats().refusals, Refusals::default());
    tunnel.settled().await;
}

#[tokio::test]
async fn a_peer_that_stays_full_refuses_when_the_wait_is_over() {
    let far = Far::new(None, true);
    // Two without a body.
    let tunnel = narrow(far.clone(), 1100).await;
    let near = Near::new(Duration::from_millis(100));
    near.join(&tunnel);
    let held = [(); 2].map(|()| near.carry(Method::GET, none()));
    until("they are there", || far.asked() == 2).await;
    let began = Instant::now();
    let refused: Vec<_> = (0..20).map(|_| near.carry(Method::GET, none())).collect();
    for refused in refused {
        assert_eq!(soon(refused).await.unwrap(), Err(Reason::Overloaded));
    }
    assert!(began.elapsed() >= Duration::from_millis(100), "it was waited for");
    assert_eq!((tunnel.client.stats().refusals.theirs_budget, far.asked()), (20, 2));
    // What uses up its body cannot wait.
    assert_eq!(soon(near.carry(Method::POST, some())).await.unwrap(), Err(Reason::Overloaded));
    held.into_iter().for_each(|held| held.abort());
    tunnel.settled().await;
}

#[tokio::test]
async fn whoever_waits_for_room_hears_that_the_tunnel_is_lost() {
    let far = Far::new(None, true);
    let tunnel = world_of(far.clone(), FOR_ONE).await;
    let near = Near::new(Duration::from_secs(60));
    near.join(&tunnel);
    let held = near.carry(Method::POST, some());
    until("the first is there", || far.asked() == 1).await;
    let waiting = near.carry(Method::GET, none());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    let other = world(Far::good()).await;
    near.join(&other);
    near.leave(&tunnel);
    assert_eq!(soon(waiting).await.unwrap(), Ok(200), "it goes to the other one");
    assert_eq!(soon(held).await.unwrap(), Err(Reason::ClientLost));
}
