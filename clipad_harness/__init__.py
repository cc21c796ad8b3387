"""The harness of clipad: data, stages, reports. It imports the core, never the other way round."""

import os

from clipad_harness.base.quick_start import VARIABLE, start_quickly

if VARIABLE in os.environ:  # the kernel or a worker of a stage
    start_quickly()
