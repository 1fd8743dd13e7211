#!/usr/bin/env bash
# A bootstrap action of EMR (Amazon Linux 2023): Python, Java 17 and the package, on every machine.
set -euo pipefail
sudo dnf install -y python3.11 java-17-amazon-corretto-headless
sudo python3.11 -m venv {{ package.environment | sh }}
sudo {{ package.environment | sh }}/bin/pip install {{ package.requirement | sh }}
