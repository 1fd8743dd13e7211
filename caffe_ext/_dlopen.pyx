"""Loads a shared library for all that is loaded after it; needed where the run path does not reach oneDNN's."""

cdef extern from "dlfcn.h":
    const int RTLD_NOW
    const int RTLD_GLOBAL
    void* dlopen(const char* path, int flags)
    char* dlerror()


def load(path: str) -> None:
    """Loads `path`, its symbols visible to all; raises ImportError."""
    if dlopen(path.encode(), RTLD_NOW | RTLD_GLOBAL) == NULL:
        raise ImportError(f"cannot load {path}: {dlerror().decode()}")
