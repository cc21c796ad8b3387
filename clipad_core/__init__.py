"""The core of clipad: encoders and scoring. It knows tensors and nothing else."""

from clipad_core._torchvision import install_hook

__version__ = "0.1.0"

install_hook()
