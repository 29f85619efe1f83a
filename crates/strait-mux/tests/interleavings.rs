//! The budget under every order of steps of the threads that share it. Run by
//! `tests/interleavings.sh`; an ordinary build has nothing here.
#![cfg(interleavings)]

use loom::thread;
use strait_mux::Budget;

#[test]
fn a_budget_is_never_overdrawn_and_comes_back_whole() {
    loom::model(|| {
        let process = Budget::new(10);
        let sessions = [process.child(8), process.child(8)];
        let work = |own: Budget, all: Budget, bytes: usize| {
            move || {
                let got = own.reserve(bytes);
                assert!(own.used() <= own.limit() && all.used() <= all.limit());
                assert!(own.free(16) <= 16);
                if got {
                    own.release(bytes);
                }
                got
            }
        };
        let other = thread::spawn(work(sessions[0].clone(), process.clone(), 6));
        let ours = work(sessions[1].clone(), process.clone(), 4)();
        let theirs = other.join().unwrap();
        assert!(ours && theirs, "both fit, whoever comes first");
        assert_eq!((process.used(), sessions[0].used(), sessions[1].used()), (0, 0, 0));
    });
}

#[test]
fn of_two_that_do_not_fit_together_one_gets_it_or_none_is_harmed() {
    loom::model(|| {
        let process = Budget::new(10);
        let own = process.child(20);
        let (first, second) = (own.clone(), process.child(20));
        let other = thread::spawn(move || second.reserve(7));
        let ours = first.reserve(7);
        let theirs = other.join().unwrap();
        assert!(ours ^ theirs, "exactly one");
        assert_eq!(process.used(), 7);
        // Who was refused holds nothing of its own either.
        assert_eq!(own.used(), if ours { 7 } else { 0 });
    });
}

#[test]
fn two_that_share_one_session_split_it() {
    loom::model(|| {
        let own = Budget::new(100).child(10);
        let shared = own.clone();
        let other = thread::spawn(move || shared.reserve(6));
        let ours = own.reserve(6);
        let theirs = other.join().unwrap();
        assert!(ours ^ theirs, "exactly one");
        own.release(6);
        assert_eq!(own.used(), 0);
    });
}
