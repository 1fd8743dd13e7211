"""How soon an editor hears of a mistake: from a keystroke in a .snet file of 500 lines to its diagnostics.

    python bench/editor.py

Types into a file of 500 lines, of layers as GoogLeNet's are written, through a sparknet-lsp that runs, at its
beginning, middle and end, and prints the median and the worst of the times: of the analysis alone (parsing, expansion,
checks, dry run in both phases), and over the protocol, the server's wait for a pause (QUIET) included.
"""

import importlib.util
import pathlib
import statistics
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES = 500
TIMES = 10


def text() -> str:
    """A net of inception modules written out, seven lines each."""
    lines = [
        "default Convolution, InnerProduct (lr_mult=[1, 2], decay_mult=[1, 0], weight_filler=xavier)",
        "",
        "net long {",
        '  data, label: RDDData([[32, 64, 28, 28], [32]], source="digits:")',
    ]
    x = "data"
    for n in range((LINES - 10) // 7):
        lines += [
            f"  {x} -> a{n}: Convolution(64, 1) -> relu_a{n}: ReLU!",
            f"  {x} -> b_reduce{n}: Convolution(96, 1) -> relu_b_reduce{n}: ReLU!",
            f"    -> b{n}: Convolution(128, 3, pad=1) -> relu_b{n}: ReLU!",
            f"  {x} -> c{n}: Convolution(16, 5, pad=2) -> relu_c{n}: ReLU!",
            f"  {x} -> pool{n}: Pooling(MAX, 3, 1, pad=1)",
            f"    -> pool_proj{n}: Convolution(32, 1) -> relu_pool_proj{n}: ReLU!",
            f"  relu_a{n}, relu_b{n}, relu_c{n}, relu_pool_proj{n} -> out{n}: Concat",
        ]
        x = f"out{n}"
    lines += [f"  {x} -> ip: InnerProduct(10)", "  ip, label -> loss: SoftmaxWithLoss", "}", ""]
    lines += ['solver (base_lr=0.01, lr_policy="fixed", max_iter=100)', "spark (tau=50, workers=2)", ""]
    return "\n".join(lines)


def main() -> None:
    from sparknet_dsl.compile import analyse

    spec = importlib.util.spec_from_file_location("lsp_client", ROOT / "tests" / "lsp" / "client.py")
    assert spec is not None and spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    written = text()
    last = (LINES - 10) // 7 - 1
    places = [f"a{n}: Convolution(64, 1)" for n in (0, last // 2, last)]
    path = pathlib.Path(tempfile.mkdtemp()) / "long.snet"

    before = analyse(written, path)
    assert before.diagnostics == [] and before.network is not None
    print(f"{len(written.splitlines())} lines, {len(written):,} characters, {len(before.network.layers)} layers")
    changes = {"a number": "65", "a slip (no such value)": "sixty", "a syntax error": "6 4"}
    for what, new in changes.items():
        alone = []
        for place in places * TIMES:
            changed = written.replace(place, place.replace("64", new))
            start = time.perf_counter()
            analyse(changed, path, before)
            alone.append(1000 * (time.perf_counter() - start))
        editor = client.Editor()
        editor.open(path, written)
        heard = []
        for place in places * TIMES:
            other = place.replace("64", new)
            start = time.perf_counter()
            editor.replace(place, other)
            heard.append(1000 * (time.perf_counter() - start))
            editor.replace(other, place)
        editor.close()
        print(
            f"{what:24} analysis {statistics.median(alone):5.0f} ms (worst {max(alone):.0f}),"
            f" keystroke to diagnostics {statistics.median(heard):5.0f} ms (worst {max(heard):.0f})"
        )


if __name__ == "__main__":
    main()
