"""What pycaffe sets for the whole process: device, random numbers, log."""

import logging
import random
import secrets
import sys
import warnings

# Of the Caffe whose behaviour and names this engine has.
CAFFE_VERSION = "1.0.0"

_log = logging.getLogger(__package__)
_seeds: random.Random | None = None


def set_mode_cpu() -> None:
    """Does nothing: the engine always computes on the CPU."""


def set_mode_gpu() -> None:
    """Warns, and does nothing else: the engine computes on the CPU, with the same results."""
    _warn_of_gpu("set_mode_gpu()")


def set_device(device: int) -> None:
    """Warns, and does nothing else: there are no GPUs to choose from."""
    _warn_of_gpu(f"set_device({device})")


def _warn_of_gpu(call: str) -> None:
    # Python itself shows a warning once for each place.
    warnings.warn(f"{call} changes nothing: this engine computes on the CPU", RuntimeWarning, stacklevel=3)


def has_nccl() -> bool:
    """False: several machines train together through Spark."""
    return False


def set_random_seed(seed: int) -> None:
    """Makes the seeds of nets and solvers that are built without one, from here on, a function of `seed`."""
    global _seeds
    _seeds = random.Random(seed)


def next_seed() -> int:
    """The seed for the next net that is built without one: by `set_random_seed`, else by chance."""
    return secrets.randbits(63) if _seeds is None else _seeds.getrandbits(63)


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Shows the engine's log from `level` on (0 info, 1 warnings, 2 errors) on standard error, unless `stderr` is off.

    Until then the records go where the `logging` module sends those of `sparknet_dsl.caffe_ext`.
    """
    _log.setLevel({0: logging.INFO, 1: logging.WARNING}.get(level, logging.ERROR))
    if stderr and not _log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname).1s%(asctime)s %(message)s", "%m%d %H:%M:%S"))
        _log.addHandler(handler)


def log(text: str) -> None:
    """Writes a line into the engine's log."""
    _log.info("%s", text)
