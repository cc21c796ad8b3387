"""APRIL-GAN at the size of a random CLIP of 40 px or less, for several tests."""

from clipad_core.methods.aprilgan.config import APRILGANConfig

SMALL = APRILGANConfig().changed(
    {
        "image_size": 48,
        "blocks": [1, 3],
        "memory_blocks": [2, 3],
        "normal_states": ["{}", "flawless {}"],
        "anomalous_states": ["damaged {}"],
        "templates": ["a photo of a {}.", "a {}"],
    }
)
