"""The contract of a method: every room keeps it, and a detector says what is missing or in vain."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aprilgan_cases import SMALL as APRILGAN_SMALL
from micro import MICRO, add_config
from torch import nn
from torch.testing import assert_close
from vcpclip_cases import SMALL as VCPCLIP_SMALL
from vcpclip_cases import pictures

from clipad_core import methods
from clipad_core.clip.backbone import Backbone, load_backbone
from clipad_core.clip.features import Features, Images, Recipe, encode_all, join
from clipad_core.clip.preprocess import Placement, make_views
from clipad_core.detection import Detection
from clipad_core.errors import ClipadError
from clipad_core.methods import find_method, rooms
from clipad_core.methods.anomalyclip.config import AnomalyCLIPConfig
from clipad_core.methods.anomalyclip.detector import METHOD as ANOMALYCLIP
from clipad_core.methods.anomalyclip.detector import AnomalyCLIP
from clipad_core.methods.anomalyclip.text import text_embeddings
from clipad_core.methods.aprilgan.detector import APRILGAN
from clipad_core.methods.aprilgan.detector import METHOD as APRILGAN_METHOD
from clipad_core.methods.method import Category, Detector, Method, Needs
from clipad_core.methods.vcpclip.detector import METHOD as VCPCLIP_METHOD
from clipad_core.methods.vcpclip.detector import VCPCLIP
from clipad_core.methods.winclip.config import WinCLIPConfig
from clipad_core.methods.winclip.detector import METHOD as WINCLIP
from clipad_core.methods.winclip.detector import WinCLIP, WindowRecipe, prototypes

FOLDER = Path(methods.__file__).parent
ANOMALYCLIP_SMALL = AnomalyCLIPConfig().changed(
    {"image_size": 48, "blocks": [1, 3], "dpam_from_layer": 2, "prompt_depth": 2, "sigma": 1.0}
)
WINCLIP_SMALL = WinCLIPConfig().changed({"prompts": "two_class"})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random CLIP of 32 px that fits every method: as wide as its joint space."""
    add_config(tmp_path_factory.mktemp("all"), "clipad-micro-all", MICRO | {"embed_dim": 32})
    return load_backbone("clipad-micro-all", "random:0")


def learner_of(method: Method, backbone: Backbone, config: Any) -> nn.Module | None:
    """A learner with its initial values, where the method learns."""
    return method.training and method.training.make_learner(backbone, config, 3)


SMALL: dict[str, Any] = {
    "anomalyclip": ANOMALYCLIP_SMALL,
    "aprilgan": APRILGAN_SMALL,
    "vcpclip": VCPCLIP_SMALL,
    "winclip": WINCLIP_SMALL,
}


def test_a_room_is_found_by_its_folder_and_an_unknown_one_is_one_message() -> None:
    assert set(SMALL) <= set(rooms()) and rooms() == sorted(rooms())
    assert find_method("winclip") is WINCLIP
    titles = ["AnomalyCLIP", "APRIL-GAN", "VCP-CLIP", "WinCLIP"]
    assert [find_method(name).title for name in SMALL] == titles
    for name in ("blip", "method", "../winclip", ""):
        with pytest.raises(ClipadError) as raised:
            find_method(name)
        assert str(raised.value) == f"method: found {name!r}, expected one of {', '.join(rooms())}."


@pytest.mark.parametrize("name", rooms())
def test_every_room_keeps_the_contract(name: str) -> None:
    method = find_method(name)
    config = method.config()
    assert is_dataclass(method.config) and config in method.presets.values()
    assert hash(config) == hash(method.config())  # frozen
    for preset, setting in method.presets.items():
        assert isinstance(setting, method.config) and method.preset(preset) is setting
        assert isinstance(method.recipe(setting, 0), Recipe)
        assert method.mask_rule(setting) in ("nearest", "bilinear_half")
    with pytest.raises(ClipadError, match=f"expected one of {', '.join(method.presets)}"):
        method.preset("best")
    names = {field.name for field in fields(method.config)}
    assert "precision" in names and (method.weights in names or method.weights == "")
    assert ({"seed", "epochs"} <= names) == (method.training is not None)
    assert config.changed({"precision": "float64"}) == replace(config, precision="float64")
    if method.references is not None:
        assert isinstance(method.references.recipe(config), Recipe)
        assert method.references.choice(config) in ("seeded", "first", "with_replacement")


def test_what_a_method_needs_depends_on_its_config() -> None:
    assert WINCLIP.needs(WinCLIPConfig()) == Needs(True, True, False, False)
    assert not WINCLIP.needs(WinCLIPConfig(class_name="object")).class_name
    assert ANOMALYCLIP.needs(AnomalyCLIPConfig()) == Needs(False, True, True, False)
    assert ANOMALYCLIP.needs(AnomalyCLIPConfig(object_word="category")).class_name
    assert VCPCLIP_METHOD.needs(VCPCLIP_SMALL) == Needs(False, True, True, False)
    assert APRILGAN_METHOD.needs(APRILGAN_SMALL) == Needs(True, True, True, True)
    alone = APRILGAN_SMALL.changed({"few_shot_image_score": "added", "class_name": "object"})
    assert APRILGAN_METHOD.needs(alone) == Needs(False, True, True, False)


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere, by their full names."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: a relative import"
            modules |= {str(node.module)} | {f"{node.module}.{a.name}" for a in node.names}
    return modules


def room_of(module: str) -> str | None:
    parts = module.split(".")
    within = parts[:2] == ["clipad_core", "methods"] and len(parts) > 2 and parts[2] in rooms()
    return parts[2] if within else None


def test_no_room_imports_another_and_nothing_of_the_core_imports_a_room() -> None:
    core = FOLDER.parent
    paths = [path for path in core.rglob("*.py") if path != core / "__init__.py"]
    assert len(paths) > 40
    for path in paths:
        own = path.relative_to(FOLDER).parts[0] if FOLDER in path.parents else None
        foreign = {module for module in imported(path) if room_of(module) not in (None, own)}
        assert not foreign, path


RECIPES = [
    Recipe(blocks=(2,), scales=(3,)),
    Recipe(blocks=(3,), scales=(2,)),
    Recipe(blocks=(1,), image_size=48),
    Recipe(blocks=(1,), resize="tiles"),
    Recipe(blocks=(1,), tiles=4),
]


def test_a_shared_recipe_keeps_what_is_read_of_the_same_pass_alone() -> None:
    shared = Recipe(blocks=(6,)).shared(RECIPES)
    assert shared == Recipe(blocks=(2, 3, 6), scales=(2, 3))
    assert Recipe(blocks=(6,)).shared([]) == Recipe(blocks=(6,))
    own = ANOMALYCLIP.recipe(ANOMALYCLIP_SMALL, 0)
    qq_branch = ANOMALYCLIP.recipe(ANOMALYCLIP_SMALL.changed({"branch": "qq", "blocks": [2]}), 0)
    like = ANOMALYCLIP.recipe(ANOMALYCLIP_SMALL.changed({"blocks": [2]}), 0)
    assert own.shared([qq_branch, *RECIPES]) == own  # another branch is another pass
    assert own.shared([like]) == replace(own, blocks=(1, 2, 3))


def test_square_images_have_one_name_for_the_rules_that_cut_them_alike() -> None:
    alike = [Recipe(resize=rule).for_squares() for rule in ("stretch", "tiles", "centre_crop")]
    assert len(set(alike)) == 1
    for rule in ("stretch_float", "stretch_1024"):
        assert Recipe(resize=rule).for_squares() == Recipe(resize=rule)


def test_crops_alone_are_as_many_as_the_recipe_or_its_like_reads() -> None:
    five = Recipe(multi_crop="five", blocks=(3,), scales=(2,), tiles=4)
    assert five.crops_alone([]) == Recipe(multi_crop="five")
    alike = Recipe(multi_crop="ten", blocks=(1,), tiles=4)
    assert five.crops_alone([alike, Recipe(tiles=4)]) == Recipe(multi_crop="ten")
    assert five.crops_alone([replace(alike, channels="bgr")]) == Recipe(multi_crop="five")
    assert five.without_crops() == replace(five, multi_crop="none")


def features_of(views: int, start: float, crops: int) -> Features:
    numbers = torch.arange(views * 12, dtype=torch.float32).reshape(views, 12) + start
    place = Placement(((0, 0),), (8, 8), crops // views)
    return Features(
        numbers[:, :2],
        {3: numbers.reshape(views, 4, 3)},
        {2: numbers.reshape(views, 2, 6)},
        numbers.reshape(-1, 2)[:crops] if crops else None,
        (place,) * views,
    )


def test_features_are_joined_one_after_the_other() -> None:
    first, second = features_of(2, 0.0, 2), features_of(1, 100.0, 1)
    joined = join([first, second])
    assert len(joined) == 3 and joined.placements == first.placements + second.placements
    assert torch.equal(joined.crops, torch.cat([first.crops, second.crops]))
    for part, expected in ((joined[:2], first), (joined[torch.tensor([2])], second)):
        assert torch.equal(part.image_embedding, expected.image_embedding)
        assert torch.equal(part.patch_tokens[3], expected.patch_tokens[3])
        assert torch.equal(part.window_embeddings[2], expected.window_embeddings[2])
        assert part.crops is None and part.placements == ()
    assert join([features_of(1, 0.0, 0), features_of(1, 0.0, 0)]).crops is None
    alone = join([first])
    assert alone.image_embedding is first.image_embedding  # nothing is copied


def by_hand(
    method: Method,
    backbone: Backbone,
    config: Any,
    images: Sequence[np.ndarray],
    shots: Sequence[np.ndarray],
    learner: Any,
) -> Detection:
    """Encode every image alone -> know -> detect: what a pipeline does."""
    prepared = method.prepare(backbone, config)
    references = None
    if shots:
        assert method.references is not None
        recipe = method.references.recipe(config)
        references = join([encode_all(method.encode, prepared, [image], recipe) for image in shots])
    recipe = method.recipe(config, len(shots))
    features = join([encode_all(method.encode, prepared, [image], recipe) for image in images])
    knowledge = method.know(prepared, config, Category("metal_nut"), references, learner)
    detection = method.detect(prepared, config, knowledge, features)
    rescore = method.whole_category(config, len(shots))
    return detection if rescore is None else rescore(detection)


MADE: dict[str, Callable[[Backbone, Any, Any, Any], Detector]] = {
    "anomalyclip": lambda b, c, shots, learner: AnomalyCLIP(b, c, learner, "metal_nut"),
    "aprilgan": lambda b, c, shots, learner: APRILGAN(b, c, learner, "metal_nut", shots),
    "vcpclip": lambda b, c, shots, learner: VCPCLIP(b, c, learner, shots),
    "winclip": lambda b, c, shots, learner: WinCLIP(b, c, "metal_nut", shots),
}


@pytest.mark.parametrize(
    ("name", "changes", "shots"),
    [
        ("anomalyclip", {}, 0),
        ("anomalyclip", {"object_word": "category"}, 0),
        ("aprilgan", {}, 0),
        ("aprilgan", {}, 2),
        ("aprilgan", {"few_shot_image_score": "text"}, 1),
        ("vcpclip", {}, 0),
        ("vcpclip", {}, 2),
        ("vcpclip", {"head": "decoder", "reference_use": "state", "state_length": 1}, 2),
        ("winclip", {}, 0),
        ("winclip", {}, 2),
        ("winclip", {"test_channels": "bgr"}, 1),
        ("winclip", {"multi_crop": "five", "map_source": "tiles"}, 1),
    ],
)
def test_a_detector_is_encode_know_and_detect(
    backbone: Backbone, name: str, changes: dict, shots: int
) -> None:
    method, config = find_method(name), SMALL[name].changed(changes)
    images, learner = pictures([(40, 52)] * 5), learner_of(method, backbone, config)
    expected = by_hand(method, backbone, config, images[2:], images[:shots], learner)
    room = MADE[name](backbone, config, images[:shots], learner)
    general = Detector(method, backbone, config, "metal_nut", images[:shots], learner)
    for detector in (room, general):
        detection = detector(images[2:])
        assert_close(detection.image_score, expected.image_score, atol=1e-5, rtol=0)
        assert_close(detection.anomaly_map, expected.anomaly_map, atol=1e-5, rtol=0)
    assert expected.image_score.std() > 0


def test_anomalyclip_knows_the_category_where_its_prompts_name_it(backbone: Backbone) -> None:
    aware = ANOMALYCLIP_SMALL.changed({"object_word": "category"})
    learner: Any = learner_of(ANOMALYCLIP, backbone, aware)
    embeddings = [
        ANOMALYCLIP.know(backbone, aware, Category(name), None, learner).text
        for name in ("metal_nut", "metal nut", "bolt")
    ]
    assert embeddings[0].shape == (1, 2, 32)
    assert torch.equal(embeddings[0], text_embeddings(learner, backbone, aware, ["metal_nut"]))
    assert torch.equal(embeddings[0], embeddings[1]) and not torch.allclose(
        embeddings[0], embeddings[2]
    )
    with pytest.raises(ClipadError, match="categories: found none"):
        Detector(ANOMALYCLIP, backbone, aware, learner=learner)


def test_without_a_branch_one_pass_serves_whichever_layer_it_would_start_from() -> None:
    bare = ANOMALYCLIP_SMALL.changed({"branch": "none"})
    recipes = [
        ANOMALYCLIP.recipe(bare.changed(changes), 0)
        for changes in ({}, {"dpam_from_layer": 3}, {"local_stream": "mlp"})
    ]
    assert len(set(recipes)) == 1 and recipes[0] != ANOMALYCLIP.recipe(ANOMALYCLIP_SMALL, 0)


def test_winclip_puts_every_image_together_on_its_own_canvas(backbone: Backbone) -> None:
    """Images of different shapes: each gives what it gives alone, and is refused only at the end."""
    config = WINCLIP_SMALL.changed({"multi_crop": "five", "map_size": 24})
    images = pictures([(40, 40), (40, 70), (90, 32)])
    detector = WinCLIP(backbone, config, "bottle", images[:1])
    together = detector(images)
    for place, image in enumerate(images):
        alone = detector([image])
        assert_close(alone.image_score[0], together.image_score[place], atol=1e-6, rtol=0)
        assert_close(alone.anomaly_map[0], together.anomaly_map[place], atol=1e-6, rtol=0)
    whole = WinCLIP(backbone, WINCLIP_SMALL, "bottle")
    assert whole(pictures([(40, 70), (80, 140)])).anomaly_map.shape == (2, 32, 56)
    with pytest.raises(ClipadError, match=r"shapes \[\(32, 32\), \(32, 56\)\], expected one"):
        whole(images[:2])


def test_the_kinds_of_damage_of_a_category_join_its_prompts(backbone: Backbone) -> None:
    config = WINCLIP_SMALL.changed({"extra_anomalous_states": "defects"})
    category = Category("metal_nut", ("bent", "bad_paint", "bent"))
    named = WINCLIP_SMALL.changed({"extra_anomalous_states": ["{} with bad paint", "{} with bent"]})
    embeddings = prototypes(backbone, config, category)
    assert torch.equal(embeddings, prototypes(backbone, named, Category("metal_nut")))
    nobody = prototypes(backbone, config, Category("metal_nut"))
    assert torch.equal(nobody, prototypes(backbone, WINCLIP_SMALL, category))
    assert not torch.allclose(embeddings, nobody, atol=1e-4)


@pytest.mark.parametrize("name", ["anomalyclip", "vcpclip"])
def test_a_learner_is_asked_for_and_references_that_are_not_read_are_refused(
    backbone: Backbone, name: str
) -> None:
    method, config = replace(find_method(name), references=None), SMALL[name]
    with pytest.raises(ClipadError) as raised:
        Detector(method, backbone, config)
    assert str(raised.value) == (
        f"learner: found none for {method.title}, expected what its training or a checkpoint gives."
    )
    learner = learner_of(method, backbone, config)
    with pytest.raises(ClipadError) as raised:
        Detector(method, backbone, config, references=pictures([(40, 40)] * 2), learner=learner)
    assert str(raised.value) == (
        f"references: found 2, which {method.title} does not read, expected none."
    )


def test_a_learner_in_vain_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ClipadError) as raised:
        Detector(WINCLIP, backbone, WINCLIP_SMALL, "nut", learner=nn.Linear(1, 1))
    assert str(raised.value) == "learner: found one for WinCLIP, expected none."


def detector_of(name: str, backbone: Backbone, changes: dict, shots: Images = ()) -> Detector:
    method, config = find_method(name), SMALL[name].changed(changes)
    learner = learner_of(method, backbone, config)
    return Detector(method, backbone, config, "metal_nut", shots, learner)


@pytest.mark.parametrize(
    ("name", "changes", "shots"),
    [
        ("anomalyclip", {}, 0),
        ("vcpclip", {}, 0),
        ("winclip", {}, 2),
        ("winclip", {"multi_crop": "ten"}, 1),
    ],
)
def test_a_normalised_tensor_is_scored_like_the_images_it_was_made_from(
    backbone: Backbone, name: str, changes: dict, shots: int
) -> None:
    side = 32 if name == "winclip" else 48
    images = pictures([(side, side)] * 5)
    pixels = torch.cat([make_views(image, side).pixels for image in images])
    expected = detector_of(name, backbone, changes, images[:shots])(images[shots:])
    detector = detector_of(name, backbone, changes, pixels[:shots])
    for tensor in (pixels, pixels.double()):
        detection = detector(tensor[shots:])
        assert_close(detection.image_score, expected.image_score, atol=1e-6, rtol=0)
        assert_close(detection.anomaly_map, expected.anomaly_map, atol=1e-6, rtol=0)
    stacked = detector(np.stack(images[shots:]))
    assert_close(stacked.anomaly_map, expected.anomaly_map)


def test_a_tensor_of_any_precision_reaches_the_tower_in_its_own(backbone: Backbone) -> None:
    precisions = []

    def spy(backbone: Backbone, pixels: torch.Tensor, recipe: Recipe) -> Features:
        precisions.append(pixels.dtype)
        return WINCLIP.encode(backbone, pixels, recipe)

    recipe = WindowRecipe(multi_crop="five")
    for dtype in (torch.float64, torch.float16):
        encode_all(spy, backbone, torch.zeros(1, 3, 32, 32, dtype=dtype), recipe)
    assert precisions == [torch.float32] * 4


PHOTO = np.zeros((40, 52, 3), np.uint8)
EXPECTED_IMAGES = (
    "expected RGB images in a list, each an array (height, width, 3) of uint8, or one tensor (images, "
    "3, 32, 32) of floats, normalised as CLIP's preprocessing does."
)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images: found none"),
        (torch.zeros(0, 3, 32, 32), "images: found none"),
        (None, "images: found NoneType"),
        (PHOTO, "images[0]: found (52, 3) of uint8"),
        ([PHOTO, PHOTO[..., 0]], "images[1]: found (40, 52) of uint8"),
        ([PHOTO / 255], "images[0]: found (40, 52, 3) of float64"),
        ([np.zeros((40, 52, 4), np.uint8)], "images[0]: found (40, 52, 4) of uint8"),
        ([PHOTO, PHOTO[:0]], "images[1]: found (0, 52, 3) of uint8, without pixels"),
        ([PHOTO[:, :0]], "images[0]: found (40, 0, 3) of uint8, without pixels"),
        (["photo.png"], "images[0]: found str"),
        ([torch.zeros(3, 32, 32)], "images[0]: found Tensor"),
        (torch.zeros(3, 32, 32), "images: found a tensor (3, 32, 32) of torch.float32"),
        (torch.zeros(1, 3, 32, 40), "images: found a tensor (1, 3, 32, 40) of torch.float32"),
        (torch.zeros(1, 1, 32, 32), "images: found a tensor (1, 1, 32, 32) of torch.float32"),
        (
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
            "images: found a tensor (1, 3, 32, 32) of torch.uint8",
        ),
    ],
)
def test_what_is_no_image_is_one_message(backbone: Backbone, images: Any, message: str) -> None:
    with pytest.raises(ClipadError) as raised:
        detector_of("winclip", backbone, {})(images)
    assert str(raised.value) == f"{message}, {EXPECTED_IMAGES}"


@pytest.mark.usefixtures("without_shape_checks")
def test_references_that_are_no_images_are_named_as_such(backbone: Backbone) -> None:
    with pytest.raises(ClipadError, match=r"references\[1\]: found \(40, 52\) of uint8"):
        detector_of("winclip", backbone, {}, [PHOTO, PHOTO[..., 0]])


def test_several_images_are_cut_and_encoded_as_each_alone(backbone: Backbone) -> None:
    recipe = WindowRecipe(resize="tiles", multi_crop="five", blocks=(3,), scales=(2,))
    images = pictures([(40, 70), (40, 40)])
    features = encode_all(WINCLIP.encode, backbone, images, recipe)
    views = [make_views(image, 32, "tiles", multi_crop="five") for image in images]
    assert features.placements == tuple(view.placement for view in views)
    assert len(features) == 3 and features.crops is not None and len(features.crops) == 10
    plain = WINCLIP.encode(backbone, torch.cat([view.pixels for view in views]), recipe)
    assert_close(features.patch_tokens[3], plain.patch_tokens[3])
    crops = WINCLIP.encode(backbone, torch.cat([view.crops for view in views]), WindowRecipe())
    assert_close(features.crops, crops.image_embedding)
    without = encode_all(WINCLIP.encode, backbone, images, recipe.without_crops())
    assert without.crops is None and torch.equal(without.image_embedding, features.image_embedding)
    with pytest.raises(ClipadError, match="images: found none"):
        encode_all(WINCLIP.encode, backbone, [], recipe)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        (WINCLIP, WINCLIP_SMALL),
        (ANOMALYCLIP, ANOMALYCLIP_SMALL.changed({"object_word": "category"})),
        (
            ANOMALYCLIP,
            ANOMALYCLIP_SMALL.changed(
                {"object_word": "category", "context": "none", "prompt_depth": 1, "epochs": 0}
            ),
        ),
    ],
)
def test_a_name_that_is_too_long_for_the_text_tower_is_told_before_it_is_embedded(
    micro: Backbone, method: Method, config: Any
) -> None:
    prepared = method.prepare(micro, config)
    method.check_prompts(prepared, config, Category("metal_nut"))
    with pytest.raises(ClipadError, match="shorten"):
        method.check_prompts(prepared, config, Category("nut_" * 80))
    shortest = next(n for n in range(1, 80) if not _fits(prepared, method, config, "nut " * n))
    assert _fits(prepared, method, config, "nut " * (shortest - 1))
    if method is WINCLIP:  # what embedding refuses, and no more
        prototypes(prepared, config, Category("nut " * (shortest - 1)))
        with pytest.raises(ClipadError, match="shorten the name"):
            prototypes(prepared, config, Category("nut " * shortest))


def _fits(backbone: Backbone, method: Method, config: Any, name: str) -> bool:
    try:
        method.check_prompts(backbone, config, Category(name))
    except ClipadError:
        return False
    return True
