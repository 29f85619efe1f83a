//! Runs every fuzz target for a while, from the corpus that is committed.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Largest input in bytes: what a target does with more it does with less.
const MAX_INPUT: &str = "-max_len=4096";
/// Memory in MiB that one allocation, and the whole process, may take.
const MEMORY: [&str; 2] = ["-malloc_limit_mb=256", "-rss_limit_mb=1024"];

/// Fuzzes each target for `seconds`. What is found worth keeping goes to `fuzz/corpus/`,
/// where git shows it; what crashes stays in `fuzz/artifacts/`.
pub(crate) fn run(root: &Path, seconds: &str) -> Result<(), String> {
    let seconds: u32 =
        seconds.parse().map_err(|_| format!("{seconds} is not a number of seconds"))?;
    let fuzz = root.join("fuzz");
    if !succeeds(Command::new("cargo").args(["fuzz", "--version"])) {
        println!("installing cargo-fuzz");
        let mut install = Command::new("cargo");
        if !succeeds(install.args(["install", "--locked", "--quiet", "cargo-fuzz"])) {
            return Err("cargo-fuzz could not be installed; see above".to_owned());
        }
    }
    let mut failed = Vec::new();
    for target in targets(&fuzz)? {
        println!("\n== {target}, {seconds} s");
        let mut cargo = Command::new("cargo");
        cargo.args(["fuzz", "run", "--fuzz-dir"]).arg(&fuzz).arg(&target);
        if let Some(folder) = env::var_os("CARGO_TARGET_DIR") {
            cargo.arg("--target-dir").arg(Path::new(&folder).join("fuzz"));
        }
        cargo.args(["--", MAX_INPUT, &format!("-max_total_time={seconds}")]).args(MEMORY);
        // Sanitizers are an unstable option of a compiler that is stable.
        if !succeeds(cargo.env("RUSTC_BOOTSTRAP", "1").current_dir(root)) {
            failed.push(target);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let folder = "fuzz/artifacts/<target>";
    let advice = "mend it, then move the input to fuzz/corpus/<target>, where tests replay it";
    Err(format!("{} failed; the input is in {folder}: {advice}", failed.join(", ")))
}

/// The targets, by their wrappers.
fn targets(fuzz: &Path) -> Result<Vec<String>, String> {
    let folder = fuzz.join("fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
