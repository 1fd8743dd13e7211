"""What spark-submit runs: `sparknet-run`, under a name that it takes for Python."""

from sparknet_dsl.cli import run_command

run_command()
