#!/usr/bin/env bash
# Builds the engine with AddressSanitizer and UndefinedBehaviorSanitizer, apart from the usual build, and runs the
# engine's tests and the fuzzer on it. Whatever they find ends the run.
#
#   tools/sanitize.sh [SECONDS [PYTEST ARGUMENTS]]      SECONDS of fuzzing, 60 if not said
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
python=${PYTHON:-python}
library=$PWD/build/sanitized/lib

# Also numbers that no integer holds, which `undefined` leaves out.
SPARKNET_SANITIZE=address,undefined,float-cast-overflow "$python" setup.py -q build \
  --build-base build/sanitized --build-lib "$library"

# Safe path: the package in this folder has the engine of the usual build.
export PYTHONSAFEPATH=1 PYTHONPATH=$library:$PWD/tools OMP_WAIT_POLICY=passive
# The interpreter keeps what it has to its end: no leaks are looked for. Memory that cannot be had is the engine's to
# refuse.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_segv=1
export UBSAN_OPTIONS=print_stacktrace=1
# libstdc++ must be there before them: else the first C++ exception ends in a check of their own.
preload="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so):$(g++ -print-file-name=libstdc++.so)"

LD_PRELOAD=$preload "$python" -c "from sparknet_dsl.caffe_ext import _native; print(_native.__file__)"
# The benches find their neighbours by the path that is not safe; memory that is freed is held back for a while.
LD_PRELOAD=$preload "$python" -m pytest -q -x tests/engine --ignore tests/engine/test_bench.py \
  --deselect tests/engine/test_binding.py::test_steps_do_not_leak "${@:2}"
LD_PRELOAD=$preload "$python" tools/fuzz_engine.py "$seconds"
