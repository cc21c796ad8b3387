"""float64: everything is computed in it, near float32, and nothing is rounded on the way."""

import pytest
import torch
from aprilgan_cases import SMALL as APRILGAN_SMALL
from micro import MICRO, add_config
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from vcpclip_cases import SMALL as VCPCLIP_SMALL
from vcpclip_cases import masks_of, pictures

from clipad_core import maps
from clipad_core.clip.backbone import Backbone, check_has_float64, load_backbone
from clipad_core.clip.features import encode_all
from clipad_core.clip.preprocess import make_views
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.methods.anomalyclip import detector as anomalyclip
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.aprilgan import detector as aprilgan
from clipad_core.methods.coop import detector as coop
from clipad_core.methods.coop.config import CoOpConfig
from clipad_core.methods.vcpclip import detector as vcpclip
from clipad_core.methods.winclip import scoring as winclip_scoring
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.detector import WinCLIP

ANOMALYCLIP_SMALL = AnomalyCLIPConfig().changed(
    {"image_size": 48, "blocks": [1, 3], "dpam_from_layer": 2, "prompt_depth": 2, "sigma": 1.0}
)
LEARNED = {
    "anomalyclip": (anomalyclip, ANOMALYCLIP_SMALL),
    "aprilgan": (aprilgan, APRILGAN_SMALL.changed({"class_name": "object"})),
    "vcpclip": (vcpclip, VCPCLIP_SMALL),
    "coop": (coop, CoOpConfig().changed({"image_size": 48, "sigma": 1.0})),
}
DETECTORS = {
    "anomalyclip": anomalyclip.AnomalyCLIP,
    "aprilgan": lambda backbone, config, learner: aprilgan.APRILGAN(backbone, config, learner, ""),
    "vcpclip": vcpclip.VCPCLIP,
    "coop": lambda backbone, config, learner: coop.CoOp(backbone, config, learner, "nut"),
}


@pytest.fixture(scope="module")
def precisions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    """One random CLIP in both precisions."""
    add_config(tmp_path_factory.mktemp("both"), "clipad-micro-both", MICRO | {"embed_dim": 32})
    return {
        precision: load_backbone("clipad-micro-both", "random:0", precision=precision)
        for precision in ("float32", "float64")
    }


def test_the_weights_are_the_same_and_so_is_their_digest(precisions: dict[str, Backbone]) -> None:
    exact, single = precisions["float64"], precisions["float32"]
    assert (exact.precision, single.precision) == ("float64", "float32")
    assert (exact.dtype, single.dtype) == (torch.float64, torch.float32)
    assert exact.digest == single.digest
    assert torch.equal(exact.vision.patch_weight.float(), single.vision.patch_weight)


@pytest.mark.parametrize("rule", ["tiles", "stretch_float", "stretch_1024"])
def test_views_are_made_in_the_precision_they_are_read_in(rule: str) -> None:
    image = pictures([(40, 52)])[0]
    exact = make_views(image, 32, rule, multi_crop="five", dtype=torch.float64)
    single = make_views(image, 32, rule, multi_crop="five")
    for exact_views, single_views in ((exact.pixels, single.pixels), (exact.crops, single.crops)):
        assert exact_views.dtype == torch.float64 and single_views.dtype == torch.float32
        assert_close(exact_views.float(), single_views, atol=1e-5, rtol=0)
        # More than float32 rounded and widened: the rounding is not there to begin with.
        assert not torch.equal(exact_views, exact_views.float().double())


def same_but_for_rounding(exact: Detection, single: Detection) -> None:
    for exact_scores, single_scores in (
        (exact.image_score, single.image_score),
        (exact.anomaly_map, single.anomaly_map),
    ):
        assert exact_scores.dtype == torch.float64 and single_scores.dtype == torch.float32
        assert_close(exact_scores.float(), single_scores, atol=2e-5, rtol=0)
        assert not torch.equal(exact_scores, exact_scores.float().double())


@pytest.mark.parametrize("changes", [{}, {"map_source": "patch_tokens"}, {"multi_crop": "ten"}])
@pytest.mark.parametrize("shots", [0, 2])
def test_winclip_in_float64_is_near_float32(
    precisions: dict[str, Backbone], changes: dict, shots: int
) -> None:
    config, images = (
        WinCLIPConfig().changed({"prompts": "two_class", **changes}),
        pictures([(40, 52)] * 4),
    )
    detections = {
        name: WinCLIP(backbone, config, "bottle", images[:shots])(images[2:])
        for name, backbone in precisions.items()
    }
    same_but_for_rounding(detections["float64"], detections["float32"])


@pytest.mark.parametrize("name", LEARNED)
def test_learned_methods_in_float64_are_near_float32(
    precisions: dict[str, Backbone], name: str
) -> None:
    method, config = LEARNED[name]
    detections = {}
    for precision, backbone in precisions.items():
        learner = method.make_learner(backbone, config, 3)
        assert all(value.dtype == backbone.dtype for value in learner.state_dict().values())
        detections[precision] = DETECTORS[name](backbone, config, learner)(
            pictures([(40, 52), (48, 48)])
        )
    same_but_for_rounding(detections["float64"], detections["float32"])


@pytest.mark.parametrize("name", LEARNED)
def test_a_step_of_training_in_float64_is_near_float32(
    precisions: dict[str, Backbone], name: str
) -> None:
    method, config = LEARNED[name]
    images, parts, grads = pictures([(48, 48)] * 3), {}, {}
    for precision, loaded in precisions.items():
        backbone = method.prepare_backbone(loaded, config)
        features = encode_all(method.METHOD.encode, backbone, images, method.recipe(config))
        learner = method.make_learner(loaded, config, 3)
        masks, draws = masks_of().to(backbone.dtype), torch.Generator().manual_seed(0)
        inputs = (features, torch.tensor([0, 1, 1]), masks, draws)
        parts[precision] = method.loss(learner, backbone, config, *inputs, ["nut"] * 3)
        parts[precision]["total"].backward()
        grads[precision] = {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}
    for part, value in parts["float64"].items():
        assert value.dtype == torch.float64
        assert_close(value.float(), parts["float32"][part], atol=1e-5, rtol=1e-5)
    assert grads["float64"].keys() == grads["float32"].keys()
    assert all(grad.dtype == torch.float64 for grad in grads["float64"].values())


NARROWER = (torch.float32, torch.float16, torch.bfloat16)


class Roundings(TorchFunctionMode):
    """Notes every call of torch that gives numbers in less than float64."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for output in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(output, torch.Tensor) and output.dtype in NARROWER:
                self.names.add(getattr(function, "__name__", str(function)))
        return result


@pytest.fixture
def roundings() -> Roundings:
    maps._weights.cache_clear()  # what is made once is made here
    winclip_scoring._cover.cache_clear()
    return Roundings()


@pytest.mark.parametrize("changes", [{}, {"map_source": "patch_tokens"}, {"multi_crop": "five"}])
def test_nothing_of_winclip_is_rounded_on_the_way(
    precisions: dict[str, Backbone], roundings: Roundings, changes: dict
) -> None:
    config = WinCLIPConfig().changed({"prompts": "two_class", "resize": "stretch_float", **changes})
    images = pictures([(40, 52)] * 3)
    with roundings:
        WinCLIP(precisions["float64"], config, "bottle", images[:1])(images[1:])
    # The matrix of windows and patches holds zeros and ones.
    assert roundings.names <= {"zeros", "__setitem__"}


@pytest.mark.parametrize("name", LEARNED)
def test_nothing_of_a_learned_method_is_rounded_on_the_way(
    precisions: dict[str, Backbone], roundings: Roundings, name: str
) -> None:
    method, config = LEARNED[name]
    exact = {"half_prompts": False} if name == "anomalyclip" else {}
    config, images = config.changed(exact), pictures([(48, 48)] * 3)
    # Drawn in float32, as officially.
    learner = method.make_learner(precisions["float64"], config, 3)
    backbone = method.prepare_backbone(precisions["float64"], config)
    masks, draws = masks_of().double(), torch.Generator().manual_seed(0)
    with roundings:
        DETECTORS[name](precisions["float64"], config, learner)(images)
        features = encode_all(method.METHOD.encode, backbone, images, method.recipe(config))
        inputs = (features, torch.tensor([0, 1, 1]), masks, draws)
        method.loss(learner, backbone, config, *inputs, ["nut"] * 3)["total"].backward()
    # Which vectors drop out is drawn in float32: a comparison, not a number.
    assert roundings.names <= {"rand"}


def test_float64_where_the_device_has_none_is_refused() -> None:
    with pytest.raises(ClipadError, match="found float64 on the device 'mps'"):
        check_has_float64(torch.device("mps"))
