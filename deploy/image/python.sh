#!/bin/sh
# Install packages of the distribution: deploy/image/python.sh PACKAGE...
# Only for bases without Python; what the service itself needs comes from the lock file.
set -eu

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
rm -rf /var/lib/apt/lists/* /tmp/python.sh
