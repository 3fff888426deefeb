"""The build backend: setuptools, told where greenlet keeps its C header.

The compiled channel switches greenlets through greenlet's C API. The header travels inside the
greenlet package, whose folder is only known at build time, which a static table cannot say.
"""

import os
from pathlib import Path

import greenlet
from setuptools.build_meta import *  # noqa: F403

_include = f"-I{Path(greenlet.__file__).parent}"
os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {_include}".strip()
