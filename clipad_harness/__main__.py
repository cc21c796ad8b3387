"""`python -m clipad_harness ...` is `clipad ...`; stages of dvc.yaml are run this way."""

import sys

from clipad_harness.cli import main
from clipad_harness.quick_start import start_quickly

start_quickly()
sys.exit(main())
