#!/usr/bin/env python3
"""Breaks one law of the tunnel at a time and requires that the tests notice.

    tests/mutations.py            run every mutation (about half an hour on two cores)
    tests/mutations.py WORDS      only those whose name contains all of the words
    tests/mutations.py --check    only see that every mutation still applies

Each mutation in tests/mutations.toml is a text that must stand exactly once in a file, and
what takes its place. It is made in a copy of the crates, never in this tree, and the tests of
the mux, or of the crates that it names, must fail with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutations.toml"
# Far more than the tests take, in seconds: a mutation that makes them hang is noticed too.
LIMIT = 90
# And than it takes to build them, everything they need included.
BUILD = 1200


def wanted(words):
    mutations = tomllib.loads(LIST.read_text())["mutation"]
    return [m for m in mutations if all(word in m["name"] for word in words)]


def mutated(mutation, root):
    """The text of the mutation's file below root with the mutation made."""
    text = (root / mutation["file"]).read_text()
    count = text.count(mutation["old"])
    if count != 1:
        raise LookupError(f"{mutation['name']}: the text stands {count} times in "
                          f"{mutation['file']}; bring tests/mutations.toml up to date")
    return text.replace(mutation["old"], mutation["new"])


def check(mutations):
    """Whether every mutation applies; says which do not."""
    stale = []
    for mutation in mutations:
        try:
            mutated(mutation, ROOT)
        except (LookupError, OSError) as error:
            stale.append(str(error))
    print("\n".join(stale) or f"{len(mutations)} mutations apply")
    return not stale


def cargo(copy, target, limit, *arguments):
    """Runs cargo in the copy: (status, output); status None when it took longer than `limit`."""
    env = dict(os.environ, CARGO_TARGET_DIR=str(target), PROPTEST_CASES=os.environ.get("PROPTEST_CASES", "1500"),
               RUST_BACKTRACE="0", CARGO_TERM_COLOR="never")
    process = subprocess.Popen(["cargo", *arguments], cwd=copy, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return None, ""


def tests(copy, target, packages):
    """(noticed, how): the verdict of the packages' tests."""
    names = [word for package in packages for word in ("-p", package)]
    status, output = cargo(copy, target, BUILD, "test", "--offline", "--quiet", "--no-run", "--lib",
                           "--tests", *names)
    if status != 0:
        return None, "does not compile\n" + output[-2000:]
    status, output = cargo(copy, target, LIMIT, "test", "--offline", "--quiet", "--lib", "--tests", *names)
    if status == 0:
        return False, "SURVIVED"
    if status is None:
        return True, f"the tests did not end within {LIMIT} s"
    # The last list of the first test program that failed names its tests.
    names = output.rpartition("failures:\n")[2].partition("\n\n")[0].split()
    return True, ", ".join(names) or "the tests ended badly"


def run(mutations, scratch):
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutations"
    copy = scratch / "strait"
    ignore = shutil.ignore_patterns("target", ".git", ".venv", "node_modules", "out")
    # With times of their own: what an earlier run built of a mutation is older than these.
    shutil.copytree(ROOT, copy, ignore=ignore, copy_function=shutil.copyfile)
    packages = sorted({p for m in mutations for p in m.get("packages", ["strait-mux"])})
    noticed, how = tests(copy, target, packages)
    if noticed is not False:
        print(f"the tests fail without any mutation: {how}")
        return False
    table = []
    for mutation in mutations:
        began = time.monotonic()
        path = copy / mutation["file"]
        whole = path.read_text()
        path.write_text(mutated(mutation, copy))
        noticed, how = tests(copy, target, mutation.get("packages", ["strait-mux"]))
        path.write_text(whole)
        table.append((mutation["name"], noticed))
        verdict = {True: "noticed", False: "SURVIVED", None: "BROKEN"}[noticed]
        print(f"{verdict:9}{time.monotonic() - began:5.0f} s  {mutation['name']:<62} {how[:200]}",
              flush=True)
    caught = sum(1 for _, noticed in table if noticed)
    print(f"\n{caught} of {len(table)} mutations noticed")
    return caught == len(table)


def main():
    words = [word for word in sys.argv[1:] if word != "--check"]
    mutations = wanted(words)
    if not mutations:
        sys.exit("no mutation has such a name; see tests/mutations.toml")
    if not check(mutations):
        sys.exit(1)
    if "--check" in sys.argv[1:]:
        return
    with tempfile.TemporaryDirectory(prefix="strait-mutations-") as scratch:
        sys.exit(0 if run(mutations, Path(scratch)) else 1)


if __name__ == "__main__":
    main()
