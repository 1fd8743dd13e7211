"""Runs many short rounds and looks at the memory of every process on the way, and at what is left on disk.

    python bench/long_run.py --data mnist:DIR [--model lenet] [--rounds 500] [--tau 5] [--json FILE]

A run is `sparknet-run` with two workers, tests and all, once by each strategy of averaging. Its processes are the
driver (Python), Java, PySpark's daemon and the workers that this forks. Resident memory includes the rows, which are
mapped from files: it grows until each row has been used once. Java's is bounded by its heap's limit
(spark.driver.memory). Files are those in Spark's local directory and in the one for temporary files, at the last look
and after the end; snapshots go elsewhere.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
from typing import Any

COMMAND = pathlib.Path(sysconfig.get_path("scripts")) / "sparknet-run"


def status(process: int) -> dict[str, str]:
    """What /proc says of a process; {} of one that has ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def family(process: int) -> dict[int, list[int]]:
    """`process` and all that it has started, and they, in turn: the children of each."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").iterdir():
        if path.name.isdigit() and (parent := status(int(path.name)).get("PPid")):
            children.setdefault(int(parent), []).append(int(path.name))
    found: dict[int, list[int]] = {}
    new = [process]
    while new:
        each = new.pop()
        found[each] = children.get(each, [])
        new += found[each]
    return found


def memory(driver: int) -> dict[str, float]:
    """Resident memory of the processes of a run, in MB; of the workers, the largest."""
    sizes: dict[str, float] = {}
    tree = family(driver)
    for process, children in tree.items():
        said = status(process)
        if "VmRSS" not in said:
            continue
        if process == driver:
            kind = "driver"
        elif said["Name"] == "java":
            kind = "java"
        else:
            kind = "daemon" if children else "worker"
        sizes[kind] = max(sizes.get(kind, 0.0), int(said["VmRSS"].split()[0]) / 1024)
    return sizes


def files(*folders: pathlib.Path) -> list[str]:
    return sorted(str(path) for folder in folders for path in folder.rglob("*") if not path.is_dir())


def run(args: argparse.Namespace, average: str) -> dict[str, Any]:
    """A run with the strategy `average`: its memory every so many rounds, and files."""
    with tempfile.TemporaryDirectory(prefix="sparknet-long-") as name:
        local, temporary = pathlib.Path(name, "local"), pathlib.Path(name, "temporary")
        temporary.mkdir()
        read, write = os.pipe()
        command = [COMMAND, args.model, "--workers", "2", "--train", args.data, "--test", args.data, "--seed", "1"]
        command += ["--tau", args.tau, "--rounds", args.rounds, "--average", average]
        process = subprocess.Popen(
            [*map(str, command), "--snapshot-dir", f"{name}/snapshots", "--json", f"/dev/fd/{write}"],
            env={**os.environ, "SPARK_LOCAL_DIRS": str(local), "TMPDIR": str(temporary)},
            stdout=subprocess.DEVNULL,
            pass_fds=[write],
        )
        os.close(write)
        sizes, during, end = {}, [], {}
        with os.fdopen(read) as events:
            for line in events:
                event = json.loads(line)
                if event["event"] == "round" and event["round"] % args.every == 0:
                    sizes[event["round"]] = memory(process.pid)
                    during = files(local, temporary)
                elif event["event"] == "end":
                    end = event
        if process.wait():
            sys.exit(f"sparknet-run --average {average} ended with status {process.returncode}")
        return {
            "average": average,
            "seconds": end["seconds"],
            "metrics": end["metrics"],
            "memory": sizes,
            "files": len(during),
            "left": files(local, temporary),
        }


def show(result: dict[str, Any]) -> None:
    print(f"--average {result['average']}: {result['seconds']:.0f} s, {result['metrics']}")
    sizes = result["memory"]
    kinds = list(dict.fromkeys(kind for each in sizes.values() for kind in each))
    print(f"  {'round':>6}" + "".join(f"{kind:>10}" for kind in kinds) + "   MB")
    for round, each in sizes.items():
        print(f"  {round:6}" + "".join(f"{each.get(kind, 0):10.1f}" for kind in kinds))
    print(f"  files in Spark's local directories: {result['files']} at the last look, {len(result['left'])} left")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="SRC", required=True, help="mnist:DIR")
    parser.add_argument("--model", default="lenet", help="a .snet file, or a model of the library")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--tau", type=int, default=5)
    parser.add_argument("--averages", nargs="+", choices=["spark", "ring"], default=["spark", "ring"])
    parser.add_argument("--every", type=int, default=50, help="rounds between two looks at the memory (50)")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    results = []
    for average in args.averages:
        results.append(run(args, average))
        show(results[-1])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
