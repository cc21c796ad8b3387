"""One frozen CLIP: both towers, tokenizer, pixel statistics and a digest, loaded together.

Weights come by open_clip's published name, from a local file with a known SHA-256 (the bundled
stand-in is one), or from a seed (random, for tests and for timing architectures).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipad_core.clip.device import (
    attention_backend,
    compute_exactly,
    computing,
    find_device,
    moved,
)
from clipad_core.clip.published import (
    Published,
    architecture_config,
    cached_file,
    check_pixels,
    check_reachable,
    create_architecture,
    find_published,
    has_own_repository,
    is_tag,
    not_here,
    uses_quick_gelu,
)
from clipad_core.clip.state_dict import weights_file
from clipad_core.clip.text import TextTower, Tokenizer, read_text_tower
from clipad_core.clip.vision import VisionTower, optimise, plain, read_vision_tower
from clipad_core.clip.weights import LOOKS, WeightsFile
from clipad_core.errors import ClipadError

# float32 weights under torch's autocast to float16: how VCP-CLIP (xiaozhen228/VCP-CLIP@4dd96ec, train.py
# line 204, test.py line 154) and APRIL-GAN (train.py line 99, test.py line 141) were trained and tested.
AUTOCAST = "float16_autocast"
PRECISIONS = {
    "float64": torch.float64,
    "float32": torch.float32,
    AUTOCAST: torch.float32,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP.

    Attributes:
        label: what a report calls these weights, e.g. "ViT-B-16-plus-240 (laion400m_e31)".
        kind: "published" (by tag), "file" (yours to vouch for), "stand-in" or "random"; the last two
            are never comparable with a paper.
        digest: SHA-256 over every tensor and the architecture; part of every cache key.
        image_size: side in pixels of the square input that the weights were made for; of a rectangle
            the shorter one. What the tower takes now is `input_size`.
        temperature: CLIP's own learned temperature, 1 / logit_scale.
        autocast: whether products are made in float16, by torch's autocast.
    """

    label: str
    kind: str
    digest: str
    image_size: int
    temperature: float
    vision: VisionTower
    text: TextTower
    tokenizer: Tokenizer
    autocast: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of images, embeddings and scores: float64 where asked for, else float32."""
        return self.vision.proj.dtype

    @property
    def device(self) -> torch.device:
        """Where the towers lie."""
        return self.vision.proj.device

    @property
    def precision(self) -> str:
        """Of the matrix products: a key of `PRECISIONS`."""
        if self.autocast:
            return AUTOCAST
        return str(self.vision.transformer.dtype).removeprefix("torch.")

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images it takes."""
        return self.vision.input_size

    @property
    def attention(self) -> str:
        """The kernels that may compute attention; see `attention_backend`."""
        return attention_backend(self.device, self.vision.transformer.dtype, self.autocast)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a result depends on of it: digest, precision, kind of device and attention kernels."""
        return self.digest, self.precision, self.device.type, self.attention

    def computing(self) -> AbstractContextManager[None]:
        """Around everything that a method computes with it: the attention kernels, and autocast."""
        return computing(self.device, self.vision.transformer.dtype, self.autocast)

    def to(self, device: str | torch.device) -> Backbone:
        """The same on another device.

        Raises:
            ClipadError: there is no such device here, or it lacks this precision.

        >>> import pathlib
        >>> folder = pathlib.Path("data/weights")
        >>> backbone = load_backbone("clipad-tiny", folder / "clipad-tiny.safetensors")
        >>> backbone.to("auto").device.type in ("cpu", "cuda", "mps")
        True
        """
        target = find_device(device)
        if target == self.device:
            return self
        if self.dtype == torch.float64:
            check_has_float64(target)
        compute_exactly(target)
        vision, text = moved((plain(self.vision), self.text), target)
        dtype = self.vision.transformer.dtype
        vision = optimise(vision, dtype, packs=not self.autocast)
        return replace(self, vision=vision, text=text)


def load_backbone(
    name: str,
    weights: str | Path,
    sha256: str | None = None,
    precision: str = "float32",
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load a frozen CLIP and everything that must match it.

    Args:
        name: an open_clip architecture, or the name of a ``<name>.json`` config beside the file.
        weights: a published tag ("laion400m_e31"), a file, a folder with one file of weights in it, or
            "random:SEED".
        sha256: expected digest of the file, at least its first 8 digits; unchecked where None.
        precision: "float32", as published; "float64", in which the order of additions, and so the
            CPU, no longer reaches a digit that anybody reads; "bfloat16" (about twice as fast with
            AVX-512, slower without; error about 1e-3); or "float16_autocast", as VCP-CLIP and APRIL-GAN
            were trained and tested.
        device: as `find_device` takes it: "auto" is the accelerator of this machine, else its CPU.

    Raises:
        ClipadError: unknown name or tag, missing or wrong file, tensors that do not fit, no network;
            a precision that is unknown or that the device does not have; no such device.
    """
    target = find_device(device)
    if precision not in PRECISIONS:
        raise ClipadError(
            f"precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}."
        )
    if precision == "float64":
        check_has_float64(target)
    path = Path(weights)
    if seed := re.fullmatch(r"random:(\d+)", str(weights)):
        model = _random_model(name, int(seed[1]))
        label, kind = f"{name} (random weights, seed {seed[1]})", "random"
    elif path.suffix or path.is_file() or (path.exists() and not is_tag(name, str(weights))):
        model, kind, label = _model_from_file(name, weights_file(path), sha256)
    else:
        published = find_published(name, str(weights))
        model, kind, label = _published_model(published), "published", published.label
    return _freeze(model.eval(), name, label, kind, precision).to(target)


def _freeze(model: Any, name: str, label: str, kind: str, precision: str) -> Backbone:
    """Keep the tensors and drop the module: nothing can run its forward by accident."""
    # Late: it takes seconds, and many programs only name a Backbone.
    from clipad_core.clip.open_clip import open_clip

    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    if precision == "float64":
        model = model.double()
    vision, text = read_vision_tower(model.visual), read_text_tower(model)
    return Backbone(
        label=label,
        kind=kind,
        digest=_digest(state, vision, text),
        image_size=min(vision.input_size),
        temperature=float(torch.exp(-model.logit_scale.detach())),
        vision=optimise(vision, PRECISIONS[precision], packs=precision != AUTOCAST),
        text=text,
        tokenizer=open_clip.get_tokenizer(name),
        autocast=precision == AUTOCAST,
    )


def check_has_float64(device: torch.device) -> None:
    """Refuse float64 where the device has none: Apple's.

    >>> check_has_float64(torch.device("cpu"))
    """
    if device.type == "mps":
        raise ClipadError(
            f"precision: found float64 on the device {device.type!r}, which has no such numbers, expected "
            "float32 there; set `precision: float32`, or compute on the CPU."
        )


def _digest(state: Mapping[str, Tensor], vision: VisionTower, text: TextTower) -> str:
    """Of every tensor, and of what the tensors do not say: the same ones run in other ways."""
    about: list[Any] = [vision.grid]
    for tower in (vision.transformer, text.transformer):
        about += [tower.heads, tower.quick_gelu, tower.blocks[0].ln_1.eps]
    return hashlib.sha256(f"{digest_tensors(state)}{about}".encode()).hexdigest()


def digest_tensors(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, independent of order and file format."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _random_model(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_architecture(name)


def _published_model(weights: Published) -> nn.Module:
    from clipad_core.clip.open_clip import open_clip

    architecture_config(weights.name)  # refuses some, before gigabytes are fetched
    check_pixels(weights)
    if weights.quick_gelu and not uses_quick_gelu(weights.name):
        raise ClipadError(
            f"backbone: found {weights.name}, which computes GELU, for {weights.tag} weights trained "
            f"with QuickGELU; set `backbone: {weights.name}-quickgelu`."
        )
    source = weights.tag
    if (file := cached_file(weights)) is not None:
        source = str(file)
    elif has_own_repository(weights):
        check_reachable(weights)
    # open_clip and the hub log every attempt; the message below says it once.
    logging.disable(logging.ERROR)
    try:
        if not has_own_repository(weights):
            source = open_clip.download_pretrained_from_url(weights.url)
        return open_clip.create_model(weights.name, pretrained=source)
    except (RuntimeError, OSError) as error:
        raise not_here(weights, error) from error
    finally:
        logging.disable(logging.NOTSET)


def _model_from_file(name: str, path: Path, sha256: str | None) -> tuple[nn.Module, str, str]:
    """The model, its kind and its label."""
    file = WeightsFile(path, name, sha256)
    for look in LOOKS:
        look.see(file)
    if file.published is not None:
        return file.model, "published", f"{name} ({file.published.tag})"
    return file.model, file.state.kind, f"{name} ({path.name})"
