"""`python -m clipad_harness ...` is `clipad ...`; stages of dvc.yaml are run this way."""

import sys

from clipad_harness.cli.entry import main

sys.exit(main())
