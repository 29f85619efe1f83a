//! Every input that was worth keeping does what it shall: what once crashed and what
//! reaches every corner that a fuzzer has found.

#![allow(clippy::panic)] // how a test fails

use std::fs;
use std::path::{Path, PathBuf};

use strait_fuzz::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Files in `folder`, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a known target");
    let files = files(&fuzz().join("corpus").join(target));
    assert!(files.len() >= 10, "{target}: only {} inputs", files.len());
    for file in files {
        // Captured unless the test fails: the last line names the input.
        println!("{}", file.display());
        body(&fs::read(&file).expect("an input"));
    }
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*

        #[test]
        fn every_target_is_wrapped_and_replayed() {
            let mut replayed = vec![$(stringify!($target)),*];
            replayed.sort_unstable();
            let mut targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            targets.sort_unstable();
            assert_eq!(targets, replayed);
            let wrappers: Vec<String> = files(&fuzz().join("fuzz_targets"))
                .iter()
                .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
                .collect();
            assert_eq!(targets, wrappers);
        }
    };
}

replays!(wire_decode mux_end mux_pair grpc_messages websocket_frames request_head service_answer
    visitor_requests);
