"""Checkpoints of CoOp: the official file, of which the context alone is read."""

from __future__ import annotations

from pathlib import Path

from clipad_core.clip.backbone import Backbone
from clipad_core.learned.checkpoint_files import check_fit, fill, flatten, read_pth
from clipad_core.methods.coop.config import CoOpConfig
from clipad_core.methods.coop.learner import CoOpLearner, empty_learner

NAME = "coop"
# Beside the tensors stand epoch, optimizer and schedule; the words around the context are CLIP's own.
STATE, CONTEXT, WORDS = "state_dict", "ctx", ("token_prefix", "token_suffix")


def read_official(path: Path, backbone: Backbone, config: CoOpConfig) -> CoOpLearner:
    """Read ``prompt_learner/model.pth.tar-50`` of the official code, or the tensors in it alone.

    Raises:
        ClipadError: no file, truncated, code inside, another method, or a context of another length
            or width; a context a class, which knows the classes of its training alone.
    """
    content = read_pth(path)
    tensors = flatten(content.get(STATE, content), path)
    context = {name: value for name, value in tensors.items() if name not in WORDS}
    learner = empty_learner(backbone, config, {})
    check_fit(context, {CONTEXT: tuple(learner.context_tokens.shape)}, path, NAME)
    fill(learner, {"context_tokens": context[CONTEXT]}, backbone)
    return learner
