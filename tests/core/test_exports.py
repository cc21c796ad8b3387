"""The names that most programs need, at the top of the core."""

import pytest

import clipad_core
from clipad_core.clip.backbone import load_backbone
from clipad_core.clip.image_file import read_image
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.detector import AnomalyCLIP
from clipad_core.methods.aprilgan.config import APRILGANConfig
from clipad_core.methods.aprilgan.detector import APRILGAN
from clipad_core.methods.vcpclip.config import VCPCLIPConfig
from clipad_core.methods.vcpclip.detector import VCPCLIP
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.detector import WinCLIP

OFFERED = {
    "APRILGAN": APRILGAN,
    "APRILGANConfig": APRILGANConfig,
    "AnomalyCLIP": AnomalyCLIP,
    "AnomalyCLIPConfig": AnomalyCLIPConfig,
    "ClipadError": ClipadError,
    "Detection": Detection,
    "VCPCLIP": VCPCLIP,
    "VCPCLIPConfig": VCPCLIPConfig,
    "WinCLIP": WinCLIP,
    "WinCLIPConfig": WinCLIPConfig,
    "load_backbone": load_backbone,
    "read_image": read_image,
}


def test_the_core_offers_these_names_and_no_other() -> None:
    assert clipad_core.__all__ == sorted(OFFERED)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = clipad_core.nothing


@pytest.mark.parametrize("name", OFFERED)
def test_a_name_of_the_core_is_that_of_its_room(name: str) -> None:
    assert getattr(clipad_core, name) is OFFERED[name]
