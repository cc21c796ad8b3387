"""What is known of architectures and published weights: names, digests, activations, addresses.

All of it is read from open_clip's own list, so nothing here can go out of date. open_clip takes
seconds to import, so it is where it is asked: a page that only names weights does not wait for it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from clipad_core.errors import ClipadError

# CLIP's pixel statistics (openai/CLIP, clip.py); every backbone of the three papers uses them.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Published:
    """One set of weights in open_clip's list.

    Attributes:
        name, tag: as open_clip spells them.
        sha256: of the file at ``url``: all 64 digits (OpenAI) or the first 8 (open_clip), "" where
            its address does not hold any.
        quick_gelu: trained with QuickGELU, x * sigmoid(1.702 x), instead of GELU.
        url: the file as it was published.
        repository: where the Hugging Face hub has a copy in another format, "" where none.
    """

    name: str
    tag: str
    sha256: str
    quick_gelu: bool
    url: str
    repository: str

    @property
    def label(self) -> str:
        """As a report calls these weights."""
        return f"{self.name} ({self.tag})"


def is_tag(name: str, tag: str) -> bool:
    """Whether open_clip lists weights of this tag for an architecture.

    >>> is_tag("ViT-B-16", "openai"), is_tag("ViT-B-16", "data")
    (True, False)
    """
    from clipad_core.clip.open_clip import open_clip

    return tag in open_clip.list_pretrained_tags_by_model(name)


def find_published(name: str, tag: str) -> Published:
    """Look a published set of weights up.

    Raises:
        ClipadError: open_clip lists no such tag for this architecture.
    """
    from clipad_core.clip.open_clip import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        if name not in open_clip.list_models():
            raise ClipadError(
                f"weights: found {tag!r}, which is no file, and {name!r} as their backbone, of which "
                "open_clip has no published weights; name a file, or a backbone such as "
                "ViT-B-16-plus-240 with one of its tags."
            )
        architecture_config(name)
        raise ClipadError(
            f"weights: found {tag!r} for {name}, expected a published tag ({', '.join(tags) or 'none'}), "
            "a file, or random:SEED."
        )
    config = open_clip.get_pretrained_cfg(name, tag)
    url = config.get("url", "")
    # OpenAI's addresses hold the digest as a folder, open_clip's its first digits before the suffix.
    digest = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.pt$", url)
    return Published(
        name=name,
        tag=tag,
        sha256=(digest[1] or digest[2]) if digest else "",
        quick_gelu=bool(config.get("quick_gelu")) or tag == "openai",
        url=url,
        repository=config.get("hf_hub", "").rstrip("/"),
    )


def check_pixels(weights: Published) -> None:
    """Refuse weights that were trained with other pixel statistics than CLIP's.

    Raises:
        ClipadError: such weights; ViT-L-14 (laion2b_s32b_b82k) is a case.
    """
    from clipad_core.clip.open_clip import open_clip

    config = open_clip.get_pretrained_cfg(weights.name, weights.tag)
    for statistic, expected in (("mean", MEAN), ("std", STD)):
        trained = tuple(config.get(statistic) or expected)
        if trained != expected:
            raise ClipadError(
                f"weights: {weights.label} was trained on pixels with {statistic} {trained}, expected CLIP's "
                f"{expected}, with which all images are normalised here; choose another tag."
            )


def has_own_repository(weights: Published) -> bool:
    """Whether the hub's copy is of these weights: open_clip 3.3.0 lists e31's for e32 as well.

    >>> has_own_repository(find_published("ViT-B-16-plus-240", "laion400m_e31"))
    True
    """
    from clipad_core.clip.open_clip import open_clip

    sharing = [
        tag
        for tag in open_clip.list_pretrained_tags_by_model(weights.name)
        if find_published(weights.name, tag).repository == weights.repository
    ]
    return len(sharing) == 1 or weights.tag in weights.repository


def cached_file(weights: Published) -> Path | None:
    """The hub's copy of published weights on this machine; None where there is none, or none of its own."""
    if not weights.repository or not has_own_repository(weights):
        return None
    import huggingface_hub

    from clipad_core.clip.open_clip import open_clip

    constants = open_clip.constants
    for name in (constants.HF_SAFE_WEIGHTS_NAME, constants.HF_WEIGHTS_NAME):
        file = huggingface_hub.try_to_load_from_cache(weights.repository, name)
        if isinstance(file, str):
            return Path(file)
    return None


def check_reachable(weights: Published) -> None:
    """Ask the hub once whether it has some weights: its client would ask for a minute, line by line.

    Raises:
        ClipadError: it does not answer.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    from clipad_core.clip.open_clip import open_clip

    name = open_clip.constants.HF_SAFE_WEIGHTS_NAME
    try:
        url = huggingface_hub.hf_hub_url(weights.repository, name)
        huggingface_hub.get_hf_file_metadata(url, timeout=10)
    except HfHubHTTPError:
        return  # it answers; which of its files there are is open_clip's to find
    except Exception as error:  # of the client's network library, which is another in each version
        raise not_here(weights, error) from error


def not_here(weights: Published, error: Exception) -> ClipadError:
    """The error about weights that are not on this machine and could not be fetched."""
    why = str(error).strip().partition("\n")[0] or type(error).__name__
    source = weights.url or f"the file of {weights.repository} on the Hugging Face hub"
    return ClipadError(
        f"weights: {weights.label} is not on this machine and could not be fetched ({why}). Connect to "
        f"the network once, or get {source} elsewhere and set `weights` to its path and `sha256` to its "
        "SHA-256."
    )


def recognise(path: Path, digest: str) -> Published | None:
    """Which published file this is, by its SHA-256; None where it is none that open_clip lists.

    Raises:
        ClipadError: it has the file name of a published one and another digest.
    """
    expected = None
    for weights in _all_published():
        if weights.sha256 and digest.startswith(weights.sha256):
            return weights
        if weights.sha256 and path.name == weights.url.rpartition("/")[2]:
            expected = weights
    if expected is not None:
        raise ClipadError(
            f"weights: {path} is named like {expected.label} but has SHA-256 {digest}, expected "
            f"{expected.sha256}; it is damaged or another file. Fetch it again, or rename it."
        )
    return None


def _all_published() -> Iterator[Published]:
    from clipad_core.clip.open_clip import open_clip

    for name, tag in open_clip.list_pretrained():
        # Weights for QuickGELU are listed under both architectures; the fitting one is meant.
        published = find_published(name, tag)
        if not published.quick_gelu or uses_quick_gelu(name):
            yield published


def architecture_config(name: str) -> Mapping[str, object]:
    """The open_clip config of an architecture.

    Raises:
        ClipadError: there is none of that name, or its image tower is none of open_clip's own.
    """
    from clipad_core.clip.open_clip import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise ClipadError(
            f"backbone: found {name!r}, expected an open_clip architecture (for example "
            "ViT-B-16-plus-240) or a config file of that name beside the weights; check the spelling."
        )
    if "timm_model_name" in config.get("vision_cfg", {}):
        raise ClipadError(
            f"backbone: found {name!r}, whose image tower is one of timm, expected a CLIP vision "
            "transformer with a class token; choose a ViT backbone such as ViT-B-16-plus-240."
        )
    return config  # type: ignore[no-any-return]


def learn_architecture(name: str, weights: Path) -> None:
    """Tell open_clip of the config file ``<name>.json`` beside the weights, where there is one.

    Raises:
        ClipadError: it is not JSON.
    """
    from clipad_core.clip.open_clip import open_clip

    path = weights.parent / f"{name}.json"
    if not path.is_file():
        return
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ClipadError(
            f"backbone: {path} is no config of an architecture ({error}), expected JSON as open_clip has "
            "it; correct it, or move it away."
        ) from error
    open_clip.add_model_config(path)


def uses_quick_gelu(name: str) -> bool:
    """Whether an architecture computes QuickGELU."""
    return bool(architecture_config(name).get("quick_gelu", False))


def create_architecture(name: str, device: str = "cpu") -> nn.Module:
    """An open_clip model with random values; on the device "meta" with shapes alone.

    Raises:
        ClipadError: there is no architecture of that name, or open_clip cannot build it here.
    """
    from clipad_core.clip.open_clip import open_clip

    architecture_config(name)
    # open_clip warns that the model is random; whoever called this gives it weights or wants that.
    logging.disable(logging.WARNING)
    try:
        with torch.device(device):
            return open_clip.create_model(name, pretrained=None, device=device)
    except Exception as error:  # a config of one's own, or one that wants another package
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ClipadError(
            f"backbone: open_clip cannot build {name} ({reason}), expected an architecture that needs "
            "nothing else; correct its config, or choose another."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
