"""`python -m clipad_harness ...` is `clipad ...`; stages of dvc.yaml are run this way."""

import sys

from clipad_harness.base.quick_start import start_quickly
from clipad_harness.cli.main import main

start_quickly()
sys.exit(main())
