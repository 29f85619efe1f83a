#!/usr/bin/env python3
"""Builds the program for production: laid out by what it does under load.

    python3 bench/release.py          # or `make release`; some ten minutes on two cores

The compiler builds it twice. The first build counts what runs while it carries a load of every
kind; the second puts that in front of the rest (profile-guided optimization), which takes about
a fifth off the instructions of a request. The program does the same; only faster. Its place is
printed at the end.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import peers
from process import LOAD, ROOT, TARGET, Failed, drive, end_all, install_debian, on_signals

FOLDER = TARGET.parent / "guided"
PROFILE = FOLDER / "strait.profdata"

# What it carries while it is watched: kind of load, streams, connections.
LOADS = [
    ("get", 64, 64),
    ("get", 1, 1),
    ("new", 64, 64),
    ("echo", 64, 64),
    ("unary", 64, 1),
    ("unary", 64, 8),
    ("stream", 16, 4),
    ("down", 8, 8),
    ("up", 8, 8),
]
SECONDS = 4


def compiler() -> dict[str, str]:
    """What the compiler says of itself."""
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)


def merger(about: dict[str, str]) -> str:
    """The program that reads the compiler's profiles: of the same LLVM, or one that is newer."""
    major = re.match(r"\d+", about["LLVM version"])[0]
    root = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True, cwd=ROOT)
    own = pathlib.Path(root.stdout.strip(), "lib", "rustlib", about["host"], "bin", "llvm-profdata")
    command = f"llvm-profdata-{major}"
    if not own.exists() and not shutil.which(command):
        try:
            install_debian([f"llvm-{major}"])
        except (OSError, subprocess.CalledProcessError) as wrong:
            raise Failed(f"{command} is needed: install Debian's llvm-{major}, or rustup's llvm-tools") from wrong
    return str(own) if own.exists() else command


def build(host: str, name: str, flag: str) -> pathlib.Path:
    """Builds the program with `flag`, apart from other builds."""
    # With a target, flags are for the program alone, not for what runs at build time.
    words = ["cargo", "build", "--release", "--locked", "--quiet", "-p", "strait", "--target", host]
    folder = {"CARGO_TARGET_DIR": str(FOLDER / name), "RUSTFLAGS": flag}
    subprocess.run(words, check=True, cwd=ROOT, env=os.environ | folder)
    return FOLDER / name / host / "release" / "strait"


def watch(program: pathlib.Path, profiles: pathlib.Path, tls: bool, loads: list) -> None:
    """Has `program` carry `loads`; both sides write down what ran."""
    with tempfile.TemporaryDirectory(prefix="strait-release-") as name:
        told = ["env", f"LLVM_PROFILE_FILE={profiles}/%p.profraw", program]
        with peers.tunnel(pathlib.Path(name), lambda words: [*told, *words[1:]], tls) as peer:
            for kind, streams, connections in loads:
                words = [kind, peer.http, "--streams", streams, "--connections", connections]
                found, _ = drive([*words, "--seconds", SECONDS], SECONDS + 30)
                if found["failed"]:
                    raise Failed(f"{kind}: {found['failed']} failed, first with: {found['error']}")


def main() -> int:
    on_signals()
    try:
        about = compiler()
        merge = merger(about)
        if not pathlib.Path(LOAD).exists():
            subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "-p", "testkit"], check=True, cwd=ROOT)
        profiles = FOLDER / "profiles"
        shutil.rmtree(profiles, ignore_errors=True)
        profiles.mkdir(parents=True)
        print("1 of 3: building a program that counts what runs", flush=True)
        counting = build(about["host"], "counting", f"-Cprofile-generate={profiles}")
        print("2 of 3: watching it carry a load of every kind", flush=True)
        watch(counting, profiles, False, LOADS)
        watch(counting, profiles, True, [load for load in LOADS if load[0] in ("get", "down", "up")])
        found = sorted(str(file) for file in profiles.glob("*.profraw"))
        subprocess.run([merge, "merge", "-o", PROFILE, *found], check=True)
        print("3 of 3: building the program", flush=True)
        program = build(about["host"], "guided", f"-Cprofile-use={PROFILE}")
    except (Failed, subprocess.CalledProcessError) as failure:
        print(f"release: {failure}", file=sys.stderr)
        return 1
    finally:
        end_all()
    shutil.copy2(program, FOLDER / "strait")
    print(f"{FOLDER / 'strait'}: {(FOLDER / 'strait').stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
