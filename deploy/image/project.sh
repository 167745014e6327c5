#!/bin/sh
# Install the project into the environment of an image: deploy/image/project.sh DIRECTORY
#
# Runs in the project's root, reaches no network, and leaves in DIRECTORY nothing that builds or installs.
set -eu
target=$1

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
pip() { "$tools/bin/pip" --python "$target/bin/python" "$@"; }

pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-index --no-build-isolation .
# The playground looks for the samples beside the packages, where they are in a checkout too.
cp -R samples "$("$target/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/samples"
pip uninstall --quiet --disable-pip-version-check --yes setuptools

# Compiled here, since nothing can be written there; and not compared with the sources at every start.
"$target/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$target/lib"

# What is installed answers, from elsewhere than the sources; on x86-64 what is written in C is there too.
cd /
[ "$(uname -m)" != x86_64 ] || "$target/bin/python" -c 'import service.decoder.baseline as b; exit(not b.built())'
"$target/bin/squint" --version
"$target/bin/squint" models list
