//! The laws of the house, checked: imports point one way, files stay small, and the page
//! that tells what is tested tells the truth.

use std::fs;
use std::path::{Path, PathBuf};

use crate::coverage;

/// A source file over this many lines wants to be two.
const LINES: usize = 500;

/// Which of our crates each crate may import, and which libraries it may never know.
const LAWS: &[(&str, &[&str], &[&str])] = &[
    ("strait-wire", &[], &["tokio", "hyper", "tonic"]),
    ("strait-mux", &["strait-wire"], &["tokio", "hyper", "tonic", "getrandom"]),
    ("strait-engine", &["strait-wire", "strait-mux"], &["hyper", "tonic", "h2", "prost"]),
    ("strait-edge", &["strait-wire", "strait-engine"], &["tonic", "prost"]),
    ("strait-node", &["strait-wire", "strait-mux", "strait-engine", "strait-edge"], &["clap"]),
];

/// Checks every law and reports all that is broken at once.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut broken = Vec::new();
    for (name, may, never) in LAWS {
        let manifest = root.join("crates").join(name).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).map_err(|e| format!("{name}: {e}"))?;
        for dependency in dependencies(&text) {
            let ours = dependency.starts_with("strait-") && !may.contains(&dependency.as_str());
            if ours || never.contains(&dependency.as_str()) {
                broken.push(format!(
                    "{name} must not depend on {dependency} (see ARCHITECTURE.md, laws)"
                ));
            }
        }
    }
    let mut sources = Vec::new();
    walk(&root.join("crates"), &mut sources)?;
    walk(&root.join("xtask"), &mut sources)?;
    walk(&root.join("tests"), &mut sources)?;
    broken.extend(coverage::check(root, &sources)?);
    for path in sources {
        let lines = fs::read_to_string(&path).map_err(|e| e.to_string())?.lines().count();
        if lines > LINES && !path.components().any(|c| c.as_os_str() == "generated") {
            broken.push(format!("{}: {lines} lines, the limit is {LINES}", path.display()));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("tidy:\n  {}", broken.join("\n  "))) }
}

/// Names in the `[dependencies]` table; a line-based reading is enough for our manifests.
fn dependencies(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['=', '.', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.is_dir() {
            // What others wrote, and what tests write.
            let foreign = ["target", "node_modules", "real/out"];
            if !foreign.iter().any(|name| path.ends_with(name)) {
                walk(&path, found)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs" || e == "py" || e == "js") {
            found.push(path);
        }
    }
    Ok(())
}
