"""Builds the compiled kernel (riskmill/models/_kernel.c) with whatever C compiler there is; see kernel.py beside it.

    python setup.py build_ext --inplace      into the source tree, as `make kernel` and an editable install do

Python's headers are the same on all 64-bit Linux platforms, so a cross compiler is enough for the other architecture:
aarch64-linux-gnu-gcc or x86_64-linux-gnu-gcc on PATH, or the command in RISKMILL_CC_AARCH64 or RISKMILL_CC_X86_64.
Without any compiler the package installs and runs on numpy alone, with the same results.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from hashlib import blake2b
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = "layers/domain/riskmill/models/_kernel.c"

#: Sums must not be reordered nor products fused into them, and the build must run on any host of the architecture:
#: no fast-math, no contraction, no -march=native. No libm and only old glibc symbols, so an old host loads it too.
FLAGS = ["-std=c99", "-O3", "-ffp-contract=off", "-fno-fast-math", "-fPIC", "-shared", "-fvisibility=hidden", "-s"]

#: Architectures that AWS Lambda and Fargate offer.
ARCHITECTURES = ("x86_64", "aarch64")

OWN = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())


def file_name(architecture: str) -> str:
    """Return the name of a build."""
    return f"_kernel.{sys.platform}-{architecture}.bin"


def compiler(architecture: str) -> list[str] | None:
    """Return the command of a C compiler for an architecture, or None."""
    named = os.environ.get(f"RISKMILL_CC_{architecture.upper()}")
    candidates = [named] if named else [f"{architecture}-linux-gnu-gcc"]
    if architecture == OWN and not named:
        candidates = [os.environ.get("CC", ""), sysconfig.get_config_var("CC") or "", "cc", "gcc", "clang"]
    for candidate in candidates:
        command = shlex.split(candidate or "")
        if command and shutil.which(command[0]):
            return command
    return None


class BuildKernel(build_ext):
    """Compiles the kernel for this platform, and in place for other Linux architectures that can be compiled for."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the build for its platform, as kernel.py looks for it."""
        return str(Path(*fullname.split(".")).with_name(file_name(OWN)))

    def build_extension(self, ext: Extension) -> None:
        """Compile for this platform, or say why not: a package without the kernel works."""
        self.compile(OWN, Path(self.get_ext_fullpath(ext.name)))

    def copy_extensions_to_source(self) -> None:
        """Put the build beside its source, and those for other architectures that can be compiled for."""
        built, folder = Path(self.build_lib) / self.get_ext_filename("riskmill.models._kernel"), Path(SOURCE).parent
        (folder / built.name).unlink(missing_ok=True)
        if built.exists():
            shutil.copy2(built, folder / built.name)
        for architecture in ARCHITECTURES:
            if sys.platform == "linux" and architecture != OWN:
                self.compile(architecture, folder / file_name(architecture))

    def compile(self, architecture: str, target: Path) -> None:
        """Compile for one architecture; a stale build is removed first, so that none is left when this fails."""
        target.unlink(missing_ok=True)
        command = compiler(architecture)
        if command is None:
            self.warn(f"no C compiler for {architecture}: there riskmill runs on numpy alone")
            return
        digest = blake2b(Path(SOURCE).read_bytes().replace(b"\r\n", b"\n"), digest_size=16).hexdigest()
        target.parent.mkdir(parents=True, exist_ok=True)
        defined = [f'-DKERNEL_SOURCE="{digest}"', "-I", sysconfig.get_path("include")]
        arguments = [*FLAGS, *defined, SOURCE, "-o", str(target)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            target.unlink(missing_ok=True)
            self.warn(f"{command[0]} fails, so on {architecture} riskmill runs on numpy alone: {done.stderr.strip()}")

    def get_outputs(self) -> list[str]:
        """Name what was built, and nothing that was not."""
        return [path for path in super().get_outputs() if Path(path).exists()]


setup(ext_modules=[Extension("riskmill.models._kernel", [SOURCE], optional=True)], cmdclass={"build_ext": BuildKernel})
