#!/bin/sh
# Install a C compiler, where the builder's base has none: deploy/image/compiler.sh
# What is written in C is compiled with it; it stays behind in the builder.
set -eu

if ! command -v cc >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev
fi
