//! The page "What is tested where": each test that it names exists, each row names one.

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/reference/coverage.md";

/// What is wrong with the page, one line for each fault. `sources` are all source files.
pub(crate) fn check(root: &Path, sources: &[PathBuf]) -> Result<Vec<String>, String> {
    let page = fs::read_to_string(root.join(PAGE)).map_err(|e| format!("{PAGE}: {e}"))?;
    let mut tests = Vec::new();
    for path in sources {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        tests.extend(names(&text).map(|name| (path.as_path(), name.to_owned())));
    }
    let known = |file: &str, name: &str| {
        tests.iter().any(|(path, test)| test == name && path.ends_with(file))
    };
    Ok(faults(&page, known).into_iter().map(|fault| format!("{PAGE}:{fault}")).collect())
}

/// The tests of a source file: Rust functions under a test attribute, Python functions under
/// a decorator that begins with a name for people, as `@case("...")`.
fn names(source: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    source.lines().map(str::trim_start).filter_map(move |line| {
        let function = line.trim_start_matches("async ");
        let name = function.strip_prefix("fn ").or_else(|| function.strip_prefix("def "));
        match name {
            None => {
                let attribute =
                    line.strip_prefix("#[").and_then(|rest| rest.split(['(', ']']).next());
                let test = attribute.is_some_and(|path| path.rsplit("::").next() == Some("test"));
                let case = line.strip_prefix('@').and_then(|rest| rest.split_once('('));
                marked |= test || case.is_some_and(|(_, given)| given.starts_with('"'));
                None
            }
            Some(rest) => {
                std::mem::take(&mut marked).then(|| rest.split(['(', '<']).next()).flatten()
            }
        }
    })
}

/// Rows that name no test, or one that `known` does not know.
fn faults(page: &str, known: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            continue;
        };
        let Some((what, named)) = row.rsplit_once('|') else { continue };
        if matches!(named.trim(), "tests" | "---") {
            continue;
        }
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            faults.push(format!("{number}: no test is named for:{what}"));
        }
        for test in named {
            if !test.split_once("::").is_some_and(|(file, name)| known(file, name)) {
                faults.push(format!("{number}: there is no test {test}"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_other_functions() {
        let rust = "#[cfg(test)]\nmod tests {\n fn help() {}\n #[tokio::test]\n \
                    #[ignore]\n async fn a() {}\n #[test]\n fn b() {}\n fn c() {}";
        assert_eq!(names(rust).collect::<Vec<_>>(), ["a", "b"]);
        let python = "@case(\"x\",\n  seconds=1)\nasync def d(t):\n    def e():\n";
        assert_eq!(names(python).collect::<Vec<_>>(), ["d"]);
    }

    #[test]
    fn a_row_names_tests_that_exist() {
        let page = "| what | tests |\n|---|---|\n| fine | `f.rs::a` |\n\
                    | gone | `f.rs::a` `f.rs::b` |\n| bare | none |\n";
        let found = faults(page, |file, name| (file, name) == ("f.rs", "a"));
        assert_eq!(found, ["4: there is no test f.rs::b", "5: no test is named for: bare "]);
    }
}
