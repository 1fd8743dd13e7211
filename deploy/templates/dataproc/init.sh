#!/usr/bin/env bash
# An initialization action of Dataproc (Debian 12): Python, Java 17 and the package, on every machine.
set -euo pipefail
apt-get update
apt-get install -y --no-install-recommends python3-venv openjdk-17-jre-headless
/usr/bin/python3 -m venv {{ package.environment | sh }}
{{ package.environment | sh }}/bin/pip install {{ package.requirement | sh }}
