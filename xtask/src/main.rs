//! Chores of this repository. `cargo xtask` without arguments lists them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

mod coverage;
mod fuzz;
mod tidy;

const HELP: &str = "\
usage: cargo xtask <chore>

  gen          write the code generated from proto/
  gen --check  fail when the committed code is stale
  fuzz [N]     run every fuzz target for N seconds, 60 if not said
  tidy         check the laws of the house: who imports whom, file lengths, and that
               the tests named in docs/reference/coverage.md exist
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["gen"] => generate(false),
        ["gen", "--check"] => generate(true),
        ["fuzz"] => fuzz::run(&root(), "60"),
        ["fuzz", seconds] => fuzz::run(&root(), seconds),
        ["tidy"] => tidy::check(&root()),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Generates the protobuf types with protox, so that nobody needs protoc.
fn generate(check: bool) -> Result<(), String> {
    let root = root();
    let target = root.join("crates/strait-wire/src/generated/tunnel.rs");
    let scratch = env::temp_dir().join(format!("strait-gen-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let descriptors = protox::compile(["strait/v1/tunnel.proto"], [root.join("proto")])
        .map_err(|e| format!("proto: {e}"))?;
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(&scratch)
        .compile_fds(descriptors)
        .map_err(|e| format!("prost: {e}"))?;
    let fresh = fs::read_to_string(scratch.join("strait.v1.rs")).map_err(|e| e.to_string())?;
    fs::remove_dir_all(&scratch).map_err(|e| e.to_string())?;
    if check {
        let committed = fs::read_to_string(&target).unwrap_or_default();
        if committed != fresh {
            return Err(format!(
                "{} is stale: run `cargo xtask gen` and commit the result",
                target.display()
            ));
        }
        return Ok(());
    }
    fs::write(&target, fresh).map_err(|e| format!("{}: {e}", target.display()))
}
