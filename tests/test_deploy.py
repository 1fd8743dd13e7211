"""The files for clusters, rendered from settings: each is what its own tool takes, and says what the settings say."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

pytest.importorskip("jinja2")
DEPLOY = pathlib.Path(__file__).resolve().parent.parent / "deploy"
# With what could break a format that is not quoted.
SETTINGS = """
[package]
requirement = "sparknet-dsl[data] @ https://example.org/it's a/wheel.whl"
environment = "/opt/spark-net"
[job]
name = "lenet-5"
model = "le net.snet"
workers = 3
arguments = ["--train", "mnist:s3://bucket/${mnist}", "-D", "note=\\"%{x}\\" & 'y'"]
snapshots = "s3a://bucket/snap shots"
[executor]
cores = 8
[standalone]
master = "host0"
workers = ["host1", "host2", "host2"]
[ec2]
spot = true
"""


def tool(name: str) -> str:
    """The path of a program of this environment, or of the system."""
    found = shutil.which(name, path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no {name}")
    return found


@pytest.fixture(scope="module")
def module() -> Any:
    spec = importlib.util.spec_from_file_location("render", DEPLOY / "render.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module", params=["defaults", "settings"])
def folder(module: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """All files, by the settings of this file and by the defaults."""
    out = tmp_path_factory.mktemp(request.param)
    path = out / "my.toml"
    path.write_text(SETTINGS if request.param == "settings" else "")
    module.render(module.settings(path), out)
    return out


@pytest.fixture(scope="module")
def mine(module: Any, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """All files by the settings of this file."""
    out = tmp_path_factory.mktemp("mine")
    (out / "my.toml").write_text(SETTINGS)
    module.render(module.settings(out / "my.toml"), out)
    return out


def lint(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_scripts(folder: pathlib.Path) -> None:
    scripts = sorted(folder.rglob("*.sh"))
    assert len(scripts) == 6 and all(os.access(path, os.X_OK) for path in scripts)
    # Arguments of the settings that hold a dollar sign are in single quotes so that nothing expands.
    lint(tool("shellcheck"), "--exclude=SC2016", *scripts)


def test_yaml(folder: pathlib.Path) -> None:
    files = sorted(folder.rglob("*.yaml"))
    assert len(files) == 3
    rules = "{extends: default, rules: {line-length: {max: 200}, comments: {require-starting-space: false}, "
    lint(tool("yamllint"), "--strict", "-d", rules + "document-start: disable}}", *files)


def test_dockerfile(folder: pathlib.Path) -> None:
    lint(tool("hadolint"), folder / "docker" / "Dockerfile")
    compile((folder / "docker" / "run.py").read_text(), "run.py", "exec")


def test_terraform(folder: pathlib.Path) -> None:
    hcl2 = pytest.importorskip("hcl2")
    with (folder / "ec2" / "main.tf").open() as file:
        found = hcl2.load(file)
    machines = {name.strip('"') for each in found["resource"] for kind in each.values() for name in kind}
    assert machines == {"cluster", "master", "worker"}


def test_kubernetes_knows_the_kinds(folder: pathlib.Path) -> None:
    lint(tool("kubernetes-validate"), folder / "kubernetes" / "rbac.yaml")


def test_cloud_init(folder: pathlib.Path) -> None:
    lint(tool("cloud-init"), "schema", "--config-file", folder / "ec2" / "cloud-init.yaml")


def test_the_spark_application_says_what_the_settings_say(mine: pathlib.Path) -> None:
    yaml = pytest.importorskip("yaml")
    application = yaml.safe_load((mine / "kubernetes" / "sparkapplication.yaml").read_text())
    assert (application["apiVersion"], application["kind"]) == ("sparkoperator.k8s.io/v1beta2", "SparkApplication")
    assert application["metadata"]["name"] == "sparknet-lenet-5"
    spec = application["spec"]
    assert spec["mainApplicationFile"] == "local:///opt/spark-net/run.py"
    assert spec["arguments"] == [
        *("le net.snet", "--workers", "3", "--snapshot-dir", "s3a://bucket/snap shots"),
        *("--train", "mnist:s3://bucket/${mnist}", "-D", "note=\"%{x}\" & 'y'"),
    ]
    assert spec["executor"] == {"instances": 3, "cores": 8, "memory": "2g", "memoryOverhead": "6g"}


def test_machines_on_ec2_install_the_package_and_run_the_job(mine: pathlib.Path) -> None:
    yaml = pytest.importorskip("yaml")
    # What Terraform's templatefile makes of it.
    text = (mine / "ec2" / "cloud-init.yaml").read_text()
    text = re.sub(r"(?<!\$)\$\{class\}", "worker.Worker", text)
    text = re.sub(r"(?<!\$)\$\{arguments\}", "spark://10.0.0.5:7077", text)
    assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", text)
    config = yaml.safe_load(text.replace("$${", "${").replace("%%{", "%{"))
    assert config["runcmd"][1] == [
        *("/opt/spark-net/bin/pip", "install", "sparknet-dsl[data] @ https://example.org/it's a/wheel.whl")
    ]
    scripts = {file["path"]: file["content"] for file in config["write_files"]}
    daemon, job = scripts["/usr/local/bin/sparknet-spark"], scripts["/usr/local/bin/sparknet-job"]
    assert 'org.apache.spark.deploy.worker.Worker --host "$address" spark://10.0.0.5:7077\n' in daemon
    assert words(job) == [
        *("le net.snet", "--master", "spark://10.0.0.9:7077", "--workers", "3", "--conf", "spark.executor.memory=2g"),
        *("--snapshot-dir", "s3a://bucket/snap shots", "--train", "mnist:s3://bucket/${mnist}"),
        *("-D", "note=\"%{x}\" & 'y'", "--resume"),
    ]
    for script in (daemon, job):
        done = subprocess.run(
            [tool("shellcheck"), "--exclude=SC2016", "-"], input=script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    terraform = (mine / "ec2" / "main.tf").read_text()
    assert 'market_type = "spot"' in terraform and "workers = 3\n" in terraform


def test_yarn_trains_what_the_settings_say(mine: pathlib.Path) -> None:
    given = words((mine / "yarn" / "train.sh").read_text())
    assert given[:5] == ["le net.snet", "--master", "yarn", "--workers", "3"]
    assert {"spark.executor.instances=3", "spark.executor.cores=8", "spark.executor.memoryOverhead=6g"} < set(given)
    assert given[-5:] == ["--train", "mnist:s3://bucket/${mnist}", "-D", "note=\"%{x}\" & 'y'", "--resume"]


def words(script: str) -> list[str]:
    """What `sparknet-run` is given by a script that is started with --resume."""
    fake = 'exec() { shift; python3 -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"; exit; }\n'
    fake += "hostname() { echo 10.0.0.9 fe80::1; }\n"
    first, rest = script.split("\n", 1)
    done = subprocess.run(
        ["bash", "-s", "--", "--resume"], input=f"{first}\n{fake}{rest}", capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_clusters_in_the_cloud_have_as_many_machines(mine: pathlib.Path) -> None:
    assert "--instance-count 4 " in (mine / "emr" / "create.sh").read_text()
    assert "--num-workers 3 " in (mine / "dataproc" / "create.sh").read_text()


FAKE = """#!/usr/bin/env bash
echo "$@" >> "{log}"
exec sleep 60
"""


def wait_for_lines(path: pathlib.Path, number: int) -> list[str]:
    until = time.monotonic() + 30
    while not path.exists() or len(path.read_text().splitlines()) < number:
        assert time.monotonic() < until
        time.sleep(0.05)
    return path.read_text().splitlines()


@pytest.mark.parametrize("host", ["localhost", "host0"])
def test_a_cluster_starts_and_ends(host: str, module: Any, tmp_path: pathlib.Path) -> None:
    """With a `spark-class` that only waits, and an `ssh` that stays here: what is started, and whether it is ended."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\n[ "$1 $2 $3" = "-o BatchMode=yes host0" ] && exec sh -c "$4"\n')
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    spark = tmp_path / "pyspark" / "bin"
    spark.mkdir(parents=True)
    (spark / "spark-class").write_text(FAKE.format(log=tmp_path / "started"))
    python = environment / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho {tmp_path}/pyspark\n")
    for program in (ssh, spark / "spark-class", python):
        program.chmod(0o755)
    settings = module.settings(None)
    settings["package"]["environment"] = str(environment)
    settings["standalone"] |= {"folder": str(tmp_path / "a folder"), "master": host, "workers": [host, host]}
    module.render(settings, tmp_path / "out", ["standalone"])

    def cluster(word: str) -> list[str]:
        done = subprocess.run(
            [tmp_path / "out" / "standalone" / "cluster.sh", word],
            env={**os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    names = ["master", "worker0", "worker1"]
    assert cluster("start")[-1] == f"spark://{host}:7077"
    try:
        processes = [int((tmp_path / "a folder" / f"{name}.pid").read_text()) for name in names]
        assert [line.split(" runs on ")[0] for line in cluster("status")] == names
        assert [line.split(" runs already ")[0] for line in cluster("start")[:-1]] == names
        started = wait_for_lines(tmp_path / "started", 3)
    finally:
        cluster("stop")
    assert all(" does not run on " in line for line in cluster("status"))
    for process in processes:
        state = pathlib.Path(f"/proc/{process}/stat")
        assert not state.exists() or state.read_text().split(") ")[1][0] == "Z"
    assert sorted(started) == [
        f"org.apache.spark.deploy.master.Master --host {host} --port 7077",
        *(
            "org.apache.spark.deploy.worker.Worker --cores 4 --memory 2g "
            f"--work-dir {tmp_path}/a folder/worker{number} spark://{host}:7077"
            for number in (0, 1)
        ),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[jobs]\nname = 'a'", "there is no table [jobs]: did you mean job?"),
        ("job = 3", "there is no table [job]"),
        ("[job]\nworker = 3", "[job] has no worker: did you mean workers?"),
        ("[job]\nworkers = '3'", "[job] workers = '3': something like 2 is wanted"),
        ("[job]\narguments = [3]", "[job] arguments = [3]: something like [] is wanted"),
        ("[job]\nname = 'A b'", "[job] name = 'A b': small letters, digits and hyphens is wanted"),
        ("[package]\nenvironment = '/opt/a b'", "an absolute path of plain characters is wanted"),
        ("[job", "my.toml: "),
    ],
)
def test_settings_that_are_wrong_are_told(text: str, said: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "my.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, DEPLOY / "render.py", tmp_path / "my.toml", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and said in done.stderr
    assert not (tmp_path / "out").exists()
