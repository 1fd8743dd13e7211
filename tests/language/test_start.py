"""What the commands import: the compiler starts without what it does not need."""

import pathlib
import subprocess
import sys

MODELS = pathlib.Path(__file__).parents[2] / "models"


def test_the_compiler_imports_no_numpy_and_no_spark(tmp_path: pathlib.Path) -> None:
    code = (
        "import sys\nfrom sparknet_dsl.cli_compile import compile_command\n"
        "try:\n    compile_command(sys.argv[1:])\nexcept SystemExit as left:\n    assert not left.code\n"
        "print(sorted({'numpy', 'pyspark', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, MODELS / "lenet.snet", "-o", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
