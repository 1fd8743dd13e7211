"""Builds the native engine; everything that is not code stands in setup.cfg."""

import concurrent.futures
import importlib.metadata
import os
import pathlib
import shlex
import subprocess
import sys
import sysconfig
from typing import Any

from Cython.Build import cythonize
from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext

HERE = pathlib.Path(__file__).resolve().parent
# Whoever changes the engine builds with SPARKNET_WERROR=1, as .ci/run does. A user's newer compiler, with warnings that
# nobody has seen yet, still builds it.
WARNINGS = ["-Wall", "-Wextra"] + (["-Werror"] if os.environ.get("SPARKNET_WERROR") else [])
# SPARKNET_SANITIZE=address,undefined builds an engine that stops at the first mistake; tools/sanitize.sh uses it.
SANITIZE = os.environ.get("SPARKNET_SANITIZE", "")
CHECKS = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"] if SANITIZE else []
OPTIMISE = ["-O1", "-g1", *CHECKS] if SANITIZE else ["-O3", "-g0"]
# Of a wheel that holds oneDNN itself (tools/make_wheel.sh), which then does not ask for oneDNN's own wheel.
SELF_CONTAINED = bool(os.environ.get("SPARKNET_SELF_CONTAINED"))


def installed_file(distribution: str, ending: str) -> pathlib.Path:
    """The file of an installed distribution whose path ends so; StopIteration where it has none."""
    files = importlib.metadata.files(distribution) or []
    located = (pathlib.Path(str(path.locate())).resolve() for path in files)
    return next(path for path in located if path.as_posix().endswith(ending))


def onednn_flags() -> tuple[list[str], list[str]]:
    """The compiler's and the linker's flags for oneDNN 3: ONEDNN_ROOT, else the wheel, else pkg-config."""
    root = os.environ.get("ONEDNN_ROOT")
    if root:
        return [f"-I{root}/include"], [f"-L{root}/lib", f"-Wl,-rpath,{root}/lib", "-ldnnl"]
    try:
        # importlib.metadata also finds the files under pip's build isolation, where sys.prefix is elsewhere.
        header = installed_file("onednn-devel-cpu-gomp", "include/dnnl.hpp")
        library = installed_file("onednn-cpu-gomp", "lib/libdnnl.so.3")
        return [f"-I{header.parent}"], [str(library)]
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        pass
    try:
        query = ["pkg-config", "--cflags", "--libs", "dnnl >= 3.0"]
        flags = shlex.split(subprocess.run(query, check=True, capture_output=True, text=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(
            "oneDNN 3 was not found: pip install onednn-devel-cpu-gomp==2023.2.0 (x86-64), or install it on the system "
            "(libdnnl-dev, or conda's onednn), or point ONEDNN_ROOT at it"
        )
    return [flag for flag in flags if flag[:2] in ("-I", "-D")], [
        flag for flag in flags if flag[:2] not in ("-I", "-D")
    ]


class Requirements(Distribution):
    """What setup.cfg requires, less what the wheel holds itself."""

    def parse_config_files(self, *arguments: Any, **options: Any) -> None:
        """Reads setup.cfg and pyproject.toml."""
        super().parse_config_files(*arguments, **options)
        if SELF_CONTAINED:
            mine: Any = self  # mypy does not see what setuptools has read
            kept = [requirement for requirement in mine.install_requires if not requirement.startswith("onednn-")]
            mine.install_requires = mine.metadata.install_requires = kept


class ParallelBuild(build_ext):
    """Compiles the sources of an extension side by side, and only those that changed."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles what is older than its source or any header, then lets setuptools link."""
        newest_header = max(pathlib.Path(path).stat().st_mtime for path in [*ext.depends, __file__])
        folder = f"build/objects/{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        folder += f"-{SANITIZE.replace(',', '-')}" if SANITIZE else ""
        objects: list[str] = []
        stale: list[str] = []
        for source in ext.sources:
            target = str(self.compiler.object_filenames([source], output_dir=folder)[0])
            objects.append(target)
            made = pathlib.Path(target).stat().st_mtime if pathlib.Path(target).exists() else 0.0
            if made < max(newest_header, pathlib.Path(source).stat().st_mtime):
                stale.append(str(source))

        def compile_one(source: str) -> None:
            # What Cython writes is not ours to mend, and only hands calls on: optimising it takes long for nothing.
            own = WARNINGS if source.startswith("caffe_ext") else ["-w", "-O1"]
            self.compiler.compile(
                [source],
                output_dir=folder,
                include_dirs=ext.include_dirs,
                extra_postargs=[*ext.extra_compile_args, *own],
            )

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, stale))
        ext.sources, ext.extra_objects = [], objects + ext.extra_objects
        # setuptools would take the old library for current: it no longer sees the sources.
        self.force = True
        super().build_extension(ext)


def find(pattern: str) -> list[str]:
    """The files of the project that match, sorted, so that every build links them in the same order."""
    return sorted(path.relative_to(HERE).as_posix() for path in HERE.glob(pattern))


def extensions() -> list[Extension]:
    """The engine, and the few lines that load oneDNN where the run path does not reach it."""
    include, link = onednn_flags()
    # From site-packages/sparknet_dsl/caffe_ext to the lib/ that holds libdnnl.so.3; the second for lib64 layouts.
    # DT_RPATH, since a foreign LD_LIBRARY_PATH would win over DT_RUNPATH.
    rpaths = ["-Wl,-rpath,$ORIGIN/../../../..", "-Wl,-rpath,$ORIGIN/../../../../../lib"]
    engine = Extension(
        "sparknet_dsl.caffe_ext._native",
        [
            "caffe_ext/_native.pyx",
            *find("caffe_ext/core/*.cpp"),
            *find("caffe_ext/layers/*.cpp"),
        ],
        include_dirs=["caffe_ext"],
        depends=find("caffe_ext/**/*.h") + find("caffe_ext/*.pxd"),
        language="c++",
        extra_compile_args=[
            "-std=c++17",
            *OPTIMISE,
            "-fno-math-errno",
            "-fno-trapping-math",
            "-fopenmp",
            "-fvisibility=hidden",
            *include,
        ],
        extra_link_args=["-fopenmp", *CHECKS, "-Wl,--disable-new-dtags", *rpaths, *link],
    )
    loader = Extension("sparknet_dsl.caffe_ext._dlopen", ["caffe_ext/_dlopen.pyx"], libraries=["dl"])
    return cythonize(
        [engine, loader],
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "embedsignature": True},
        force=False,
    )


os.chdir(HERE)
setup(ext_modules=extensions(), cmdclass={"build_ext": ParallelBuild}, distclass=Requirements)
