"""How long compiling takes: whole processes, and the time per layer of nets of 100, 1,000 and 10,000 layers.

python bench/compile.py [MODEL.snet ...]
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from sparknet_dsl import compile_text

MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"
PROCESSES = 7
SIZES = (100, 1_000, 10_000)
LAYERS = "Convolution(8, 3, pad=1, weight_filler=xavier) -> {relu}: ReLU!"


def written_out(layers: int) -> str:
    """A net whose every layer stands in the text."""
    lines, last = ["net N {", "  data: Input([8, 3, 16, 16])"], "data"
    for i in range(layers // 2):
        lines.append(f"  {last} -> conv{i}: {LAYERS.format(relu=f'relu{i}')}")
        last = f"relu{i}"
    return "\n".join([*lines, "}", ""])


def by_a_loop(layers: int) -> str:
    """The same net, made by a `for`."""
    stages = "`conv{i}`: " + LAYERS.replace("{relu}", "`relu{i}`")
    return f"net N {{\n  data: Input([8, 3, 16, 16])\n  data -> for i in range({layers // 2}) {{ {stages} }}\n}}\n"


def process(model: pathlib.Path) -> float:
    """Seconds of one `sparknet-compile`, interpreter start included."""
    command = pathlib.Path(sys.executable).parent / "sparknet-compile"
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run([command, model.resolve(), "-o", folder], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for model in [pathlib.Path(name) for name in sys.argv[1:]] or [MODELS / "lenet.snet", MODELS / "googlenet.snet"]:
        process(model)
        seconds = statistics.median(process(model) for _ in range(PROCESSES))
        print(f"sparknet-compile {model.name:<32} {seconds:6.2f} s  (median of {PROCESSES} processes)")
    compile_text(written_out(10))
    for kind in (written_out, by_a_loop):
        for layers in SIZES:
            text = kind(layers)
            begin = time.process_time()
            compile_text(text)
            seconds = time.process_time() - begin
            print(
                f"{layers:6,} layers, {kind.__name__.replace('_', ' '):<12} {seconds:6.2f} s CPU"
                f" {1e6 * seconds / layers:6.0f} µs a layer"
            )


if __name__ == "__main__":
    main()
