#!/bin/sh
# Make the environment of an image: deploy/image/libraries.sh DIRECTORY LOCK...
#
# The environment in DIRECTORY holds exactly what the LOCKs name, wheels only, every one with its hash. The installer stays
# outside: an image has no use for it.
set -eu
target=$1
shift

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
python3 -m venv --without-pip "$target"
for lock in "$@"; do
    set -- "$@" -r "$lock"
    shift
done
"$tools/bin/pip" --python "$target/bin/python" install --quiet --disable-pip-version-check --no-compile \
    --no-deps --only-binary :all: --require-hashes "$@"
