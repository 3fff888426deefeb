"""The first module of the binary."""

import sys

from sidecar.__main__ import main

sys.exit(main())
