//! Two sessions: exchanges in both directions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use strait_engine::*;
use tokio::time::timeout;

use crate::world::{Pieces, Sample, carried, read, request, world, world_of};

#[tokio::test]
async fn echoes_cross_in_both_directions_and_leave_nothing_behind() {
    let world = world(Arc::new(Sample::default())).await;
    let mut tasks = Vec::new();
    for i in 0..50 {
        for session in [&world.client, &world.server] {
            let session = session.clone();
            tasks.push(tokio::spawn(async move {
                let body = Pieces { left: 3 + i % 5, size: 100_000 };
                let bytes =
                    read(carried(session.carry(request("/echo", Box::new(body))).await)).await;
                let expected: Vec<u8> =
                    (0..3 + i % 5).rev().flat_map(|n| vec![n as u8; 100_000]).collect();
                assert!(bytes.expect("whole") == expected);
            }));
        }
    }
    for task in tasks {
        timeout(Duration::from_secs(20), task).await.expect("in time").expect("right");
    }
    world.settled().await;
}

/// Where memory is short, what is larger than its room goes in parts.
#[tokio::test]
async fn pieces_that_have_no_room_as_a_whole_cross_as_they_are() {
    let world = world_of(Arc::new(Sample::default()), 24 << 10).await;
    for left in [1, 5] {
        let body = Box::new(Pieces { left, size: 100_000 });
        let answer = carried(world.client.carry(request("/echo", body)).await);
        let bytes = timeout(Duration::from_secs(20), read(answer)).await.expect("in time");
        let expected: Vec<u8> = (0..left).rev().flat_map(|n| vec![n as u8; 100_000]).collect();
        assert!(bytes.expect("whole") == expected);
    }
    world.settled().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_stops_nobody() {
    let world = world(Arc::new(Sample::default())).await;
    let endless = || Box::new(Pieces { left: 100_000, size: 50_000 });
    let stalled = carried(world.client.carry(request("/echo", endless())).await);
    for _ in 0..100 {
        let answer =
            world.client.carry(request("/echo", Box::new(Pieces { left: 1, size: 10 }))).await;
        let bytes =
            timeout(Duration::from_secs(5), read(carried(answer))).await.expect("not blocked");
        assert_eq!(bytes.expect("whole").len(), 10);
    }
    let held = world.client.stats().buffered + world.server.stats().buffered;
    assert!(held < 2 << 20, "{held} bytes are held for one stalled exchange");
    drop(stalled);
    world.settled().await;
}

#[tokio::test]
async fn dropping_the_answer_or_the_future_cancels_on_the_far_side() {
    let sample = Arc::new(Sample::default());
    let world = world(sample.clone()).await;
    let answer = carried(world.server.carry(request("/silence", Box::new(EmptyBody))).await);
    drop(answer);
    let never = world.server.carry(request("/never", Box::new(EmptyBody)));
    assert!(timeout(Duration::from_millis(50), never).await.is_err());
    world.settled().await;
    assert_eq!(sample.dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_with_its_reason() {
    let world = world(Arc::new(Sample::default())).await;
    let failure = world.client.carry(request("/nowhere", Box::new(EmptyBody))).await.err();
    assert_eq!(failure.map(|f| f.fault.reason), Some(Reason::NoRoute));
    world.settled().await;
}

#[tokio::test]
async fn a_lost_link_ends_every_exchange_at_once() {
    let world = world(Arc::new(Sample::default())).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(carried(world.client.carry(request("/silence", Box::new(EmptyBody))).await));
    }
    let waiting = world.client.clone();
    let waiting =
        tokio::spawn(
            async move { waiting.carry(request("/never", Box::new(EmptyBody))).await.err() },
        );
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.cut.iter().for_each(|driver| driver.abort());
    world.client.lose(Reason::ClientLost);
    world.server.lose(Reason::ClientLost);
    for answer in answers {
        let fault = timeout(Duration::from_secs(1), read(answer)).await.expect("at once").err();
        assert_eq!(fault.map(|f| f.reason), Some(Reason::ClientLost));
    }
    let failure =
        timeout(Duration::from_secs(1), waiting).await.expect("at once").expect("no panic");
    assert_eq!(failure.map(|f| f.fault.reason), Some(Reason::ClientLost));
    world.settled().await;
    let late = world.client.carry(request("/echo", Box::new(EmptyBody))).await.err();
    assert!(
        late.is_some_and(|f| f.untouched.is_some()),
        "what was not sent may be tried elsewhere"
    );
}

#[tokio::test]
async fn draining_lets_what_is_open_finish_and_opens_no_more() {
    let world = world(Arc::new(Sample::default())).await;
    let open = carried(world.client.carry(request("/silence", Box::new(EmptyBody))).await);
    let draining = world.server.clone();
    let drained = tokio::spawn(async move { draining.drain().await });
    assert!(matches!(world.client.news().await, Some(News::Leaving(_))));
    let refused = world.client.carry(request("/echo", Box::new(EmptyBody))).await.err();
    assert_eq!(refused.map(|f| f.fault.reason), Some(Reason::Draining));
    assert!(!drained.is_finished());
    drop(open);
    timeout(Duration::from_secs(5), drained).await.expect("drained").expect("no panic");
    for driver in world.cut {
        let ending =
            timeout(Duration::from_secs(5), driver).await.expect("ended").expect("no panic");
        assert!(matches!(ending, Ending::Goodbye(_)), "{ending:?}");
    }
}
