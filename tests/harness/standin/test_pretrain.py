"""The stand-in CLIP: captions, views, both contrasts, exact resume, the stored file."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from micro import encode_windows
from project import REPOSITORY, settings, with_one_bit_changed
from torch.testing import assert_close

from clipad_core.clip.backbone import load_backbone
from clipad_core.clip.open_clip import open_clip
from clipad_core.errors import ClipadError
from clipad_core.methods.winclip.windows import window_index
from clipad_harness.standin import loop
from clipad_harness.standin.batch import PretrainConfig, Round, choose_batch, loader
from clipad_harness.standin.captions import (
    UNKNOWN,
    CompactTokenizer,
    Subject,
    caption_pair,
    vocabulary,
)
from clipad_harness.standin.drawing import PRETRAINING, TARGET, TARGET_ONLY_DEFECTS, draw_pair
from clipad_harness.standin.loop import (
    average,
    begin,
    planned,
    rate,
    train_step,
)
from clipad_harness.standin.model import (
    MEAN,
    STD,
    batch_contrast,
    build,
    embed_captions,
    embed_view,
    pair_contrast,
    patch_tokens,
    sound_contrast,
    store,
    whiten,
)
from clipad_harness.standin.pairs import PairStore, drawn_ahead
from clipad_harness.standin.train import pretrain, read_config
from clipad_harness.standin.views import (
    VISIBLE_PIXELS,
    choose_crop,
    choose_places,
    damaged_blocks,
    keep_tokens,
    place,
    relight,
    visible,
    visible_threshold,
)

MICRO = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
SUBJECT = Subject("metal lid", "dark blue", "painted metal", "missing part")


@pytest.fixture
def config() -> PretrainConfig:
    return PretrainConfig(
        seed=3,
        rounds=(Round(2, 0.004, 2), Round(2, 0.002, 2)),
        batch_pairs=8,
        first_pairs=60,
        pairs_per_step=1,
        draw_size=48,
        smallest_crop=0.5,
        least_pixels=((0, 20),),
        keep=((0, 12), (3, 36)),
        block_sides=(2, 3),
        blocks_per_step=1,
        weight_decay=0.02,
        warmup_steps=2,
        smoothing=0.05,
        batch_weight=0.3,
        largest_scale=30.0,
        held_out=("metal_lid",),
        threads=1,
        drawers=0,
        loaders=0,
        checkpoint_every=2,
        architecture=MICRO,
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairStore:
    """Sound and damaged drawings of twenty categories."""
    return PairStore(tmp_path_factory.mktemp("pairs"), PRETRAINING[:20], 48, 0, shard=200)


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return vocabulary([SUBJECT])


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    noise = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=noise, dtype=torch.float64), dim=-1)


def every_patch(model: open_clip.CLIP, count: int) -> torch.Tensor:
    return torch.arange(model.visual.grid_size[0] ** 2).expand(count, -1)


# Captions


def test_captions_of_a_pair_differ_in_the_state_alone() -> None:
    states = {
        "flawless",
        "perfect",
        "unblemished",
        "damaged",
        "without",
        "with",
        "flaw",
        "defect",
        "damage",
        "missing",
        "part",
    }
    for seed in range(300):
        pair = caption_pair(SUBJECT, Random(seed))
        sound, damaged = pair.sound.rstrip(".").split(), pair.damaged.rstrip(".").split()
        assert pair.sound != pair.damaged
        remaining = [[word for word in text if word not in states] for text in (sound, damaged)]
        assert remaining[0] == remaining[1]


def test_damaged_captions_say_so_and_sound_ones_never_do() -> None:
    for seed in range(300):
        pair = caption_pair(SUBJECT, Random(seed))
        says = ("damaged ", " with flaw", " with defect", " with damage", " with missing part")
        assert any(word in pair.damaged for word in says)
        assert not any(word in pair.sound for word in says)


def test_captions_never_hold_a_target_name_or_a_defect_of_the_target_alone() -> None:
    chance = Random(0)
    drawn = [draw_pair(name, seed, 48) for seed, name in enumerate(PRETRAINING)]
    subjects = [Subject(pair.name, pair.colour, pair.material, pair.defect) for pair in drawn]
    text = " ".join(
        f"{pair.sound} {pair.damaged}"
        for subject in subjects * 10
        for pair in [caption_pair(subject, chance)]
    )
    for hidden in (*TARGET, *TARGET_ONLY_DEFECTS, "normal", "anomalous"):
        assert f" {hidden.replace('_', ' ')} " not in text.replace(".", " ")


def test_a_recoloured_drawing_keeps_no_colour_word() -> None:
    texts = [caption_pair(SUBJECT, Random(seed), recoloured=True).sound for seed in range(300)]
    assert not any("blue" in text for text in texts)
    assert any("blue" in caption_pair(SUBJECT, Random(seed)).sound for seed in range(300))


def test_the_vocabulary_knows_every_caption_but_the_unknown_word(rows: torch.Tensor) -> None:
    tokenizer = CompactTokenizer(rows)
    for seed in range(200):
        pair = caption_pair(SUBJECT, Random(seed))
        ids, ends = tokenizer([pair.sound, pair.damaged])
        for line, end in zip(ids, ends, strict=True):
            assert bool((line[: int(end) + 1] == 0).any()) == (UNKNOWN in pair.sound)


def test_ids_are_those_of_clips_own_tokenizer(rows: torch.Tensor) -> None:
    tokenizer, whole = CompactTokenizer(rows), open_clip.SimpleTokenizer()
    place_of = {int(row): place for place, row in enumerate(rows, start=1)}
    for seed in range(100):
        pair = caption_pair(SUBJECT, Random(seed))
        ids, ends = tokenizer([pair.sound, pair.damaged])
        for line, text, end in zip(ids.tolist(), (pair.sound, pair.damaged), ends, strict=True):
            expected = [place_of.get(token, 0) for token in whole(text)[0].tolist()]
            assert line == expected[: len(line)]
            assert whole(text)[0].argmax() == end


# Views


def test_a_crop_holds_the_whole_defect_where_it_fits() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:18, 25:31] = True
    for seed in range(200):
        left, top, side = choose_crop(mask, Random(seed), 0.4)
        assert left <= 25 / 40 and left + side >= 31 / 40 - 1e-9
        assert top <= 10 / 40 and top + side >= 18 / 40 - 1e-9
        assert left >= 0 and top >= 0 and left + side <= 1 + 1e-9 and top + side <= 1 + 1e-9


def test_a_placed_mask_still_lies_on_the_damage() -> None:
    images = np.full((6, 2, 40, 40, 3), 90, np.uint8)
    masks = np.zeros((6, 40, 40), bool)
    masks[:, 8:20, 22:34] = True
    images[:, 1][masks] = 250
    places = choose_places(masks, Random(1), 0.5)
    views, placed = place(torch.from_numpy(images), torch.from_numpy(masks), places, 48)
    change = (views[:, 1] - views[:, 0]).amax(dim=1) > 0.3
    assert change.any(dim=(1, 2)).all()
    assert (change == placed).float().mean() > 0.99


def test_light_changes_both_images_of_a_pair_alike() -> None:
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(5, 1, 3, 16, 16, generator=drawn).expand(-1, 2, -1, -1, -1)
    channels = torch.tensor([[0, 1, 2]] * 4 + [[2, 0, 1]])
    lit = relight(images, channels, torch.Generator().manual_seed(2))
    assert_close(lit[:, 0], lit[:, 1])
    assert (lit - images).abs().mean() > 0.01
    reordered = images[4, 0, [2, 0, 1]].flatten(1)
    for channel, pixels in zip(lit[4, 0].flatten(1), reordered, strict=True):
        assert torch.corrcoef(torch.stack([channel, pixels]))[0, 1] > 0.9


def test_the_caption_of_a_damaged_block_is_true() -> None:
    views = torch.full((4, 2, 3, 48, 48), 0.5)
    masks = torch.zeros(4, 48, 48, dtype=torch.bool)
    masks[:3, 20:30, 33:40] = True
    masks[2, 20:30, 33:40] = False
    views[:, 1, :, 20:30, 33:40] = 0.9
    seen = visible(views, masks, 8)
    for seed in range(50):
        blocks, has_block = damaged_blocks(seen, 2, 8, torch.Generator().manual_seed(seed))
        assert has_block.tolist() == [True, True, False, False]
        inside = seen.flatten(1).gather(1, blocks).sum(dim=1)
        assert (inside[:2] >= visible_threshold(16 * 16)).all()


def test_a_change_that_nobody_sees_is_no_damage() -> None:
    views = torch.full((1, 2, 3, 48, 48), 0.5)
    views[:, 1] += 0.01
    assert visible(views, torch.ones(1, 48, 48, dtype=torch.bool), 8).sum() == 0


def test_dropping_patches_keeps_the_one_that_shows_the_defect_best() -> None:
    seen = torch.zeros(3, 6, 6)
    seen[0, 2, 3], seen[1, 5, 5], seen[2, 0, 0] = 40, VISIBLE_PIXELS, 64
    best = seen.flatten(1).argmax(dim=1)
    for seed in range(50):
        numbers = keep_tokens(seen, 9, torch.Generator().manual_seed(seed))
        assert numbers.shape == (3, 9)
        assert (numbers == best[:, None]).any(dim=1).all()
        assert all(len(set(row)) == 9 for row in numbers.tolist())


# Model and losses


def test_the_training_forward_equals_open_clip() -> None:
    torch.manual_seed(0)
    model = build(MICRO, 50).eval()
    images = torch.rand(3, 3, 48, 48)
    embeddings = embed_view(model, patch_tokens(model, images), every_patch(model, 3))
    assert_close(embeddings, model.encode_image((images - MEAN) / STD, normalize=True))
    ids = torch.zeros(3, 77, dtype=torch.long)
    for row in range(3):
        ids[row, : 4 + row] = torch.randint(1, 49, (4 + row,))
        ids[row, 4 + row] = 50
    ends = ids.argmax(dim=1)
    embeddings = embed_captions(model, ids[:, : int(ends.max()) + 1], ends)
    assert_close(embeddings, model.encode_text(ids, normalize=True))


def test_a_kept_block_is_a_window_of_winclip(rows: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(MICRO, len(rows)).eval()
    store(model, rows, MICRO, tmp_path / "micro-window")
    tower = load_backbone("micro-window", tmp_path / "micro-window.safetensors").vision
    images = torch.rand(2, 3, 48, 48)
    windows = encode_windows(tower, (images - MEAN) / STD, scales=(2,)).window_embeddings[2]
    index = window_index((6, 6), 2)
    for window in (0, 7, 24):
        numbers = index[window].expand(2, -1)
        embeddings = embed_view(model, patch_tokens(model, images), numbers)
        assert_close(embeddings, windows[:, window], atol=1e-5, rtol=1e-5)


def test_whitened_patches_differ_as_much_in_detail_as_in_colour() -> None:
    torch.manual_seed(0)
    model = build(MICRO, 50)
    model.visual.positional_embedding.data.zero_()
    colour = torch.rand(40, 3, 1, 1)
    images = (0.1 + 0.8 * colour + 0.1 * torch.randn(40, 3, 48, 48)).clamp(0, 1)
    before = torch.cov(patch_tokens(model, images).flatten(0, 1).T)
    whiten(model, images)
    after = torch.cov(patch_tokens(model, images).flatten(0, 1).T)
    assert torch.linalg.cond(before) > 20
    assert torch.linalg.cond(after) < 1.2


def naive_pair_contrast(images, captions, counted, scale, smoothing):
    """One pair at a time, each of its two images and two captions as a question of its own."""
    total, pairs = 0.0, 0
    for image, caption, counts in zip(images, captions, counted, strict=True):
        if not counts:
            continue
        pairs += 1
        for own in (0, 1):
            for logits in (
                [scale * image[own] @ caption[state] for state in (0, 1)],
                [scale * image[state] @ caption[own] for state in (0, 1)],
            ):
                chance = torch.stack(logits).softmax(dim=0).log()
                right = (1 - smoothing) * chance[own] + smoothing * chance.mean()
                total = total - right / 4
    return total / pairs


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_contrast_inside_pairs_matches_a_naive_loop(smoothing: float) -> None:
    images, captions = unit(5, 2, 8), unit(5, 2, 8, seed=1)
    counted = torch.tensor([True, False, True, True, False])
    scale = torch.tensor(7.0, dtype=torch.float64)
    loss = pair_contrast(images, captions, counted, scale, smoothing)
    assert_close(
        loss.double(),
        naive_pair_contrast(images, captions, counted, scale, smoothing),
        atol=1e-6,
        rtol=1e-6,
    )


def test_the_contrast_inside_pairs_prefers_the_true_order() -> None:
    captions = unit(4, 2, 8)
    counted, scale = torch.ones(4, dtype=torch.bool), torch.tensor(10.0)
    true = pair_contrast(captions, captions, counted, scale, 0.0)
    flipped = pair_contrast(captions.flip(1), captions, counted, scale, 0.0)
    assert true < 0.1 < flipped
    assert sound_contrast(captions[:, 0], captions, scale, 0.0) < 0.1
    assert sound_contrast(captions[:, 1], captions, scale, 0.0) > 1


def test_an_equal_caption_is_no_negative() -> None:
    images, captions = unit(3, 8), unit(3, 8, seed=1)
    captions[2] = captions[0]
    same = torch.eye(3, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    scale = torch.tensor(5.0, dtype=torch.float64)
    total = 0.0
    for own in range(3):
        candidates = [column for column in range(3) if column == own or not same[own, column]]
        for logits in (
            {column: scale * images[own] @ captions[column] for column in candidates},
            {column: scale * images[column] @ captions[own] for column in candidates},
        ):
            chance = torch.stack(list(logits.values())).softmax(dim=0)
            total = total - chance[list(logits).index(own)].log() / 6
    assert_close(batch_contrast(images, captions, same, scale), total)


# Training


def test_a_few_steps_lower_the_loss(
    config: PretrainConfig, pairs: PairStore, rows: torch.Tensor
) -> None:
    config = replace(config, rounds=(Round(60, 0.003, 1),), pairs_per_step=0)
    torch.manual_seed(0)
    run = begin(config, build(MICRO, len(rows)))
    totals = []
    for _ in range(24):
        batch = choose_batch(config, CompactTokenizer(rows), pairs, run.step)
        quantities = train_step(config, run, batch)
        totals.append(float(quantities["batch"] + quantities["pair"] + quantities["blocks"]))
    assert np.mean(totals[-8:]) < 0.9 * np.mean(totals[:4])


def test_the_unknown_word_stays_zero(
    config: PretrainConfig, pairs: PairStore, rows: torch.Tensor
) -> None:
    run = begin(config, build(MICRO, len(rows)))
    before = run.model.token_embedding.weight.detach().clone()
    for step in range(2):
        train_step(config, run, choose_batch(config, CompactTokenizer(rows), pairs, step))
    after = run.model.token_embedding.weight.detach()
    assert (after[0] == 0).all()
    assert (after[1:] != before[1:]).any()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few drawings, for trainings from end to end."""
    monkeypatch.setattr("clipad_harness.standin.train.FIRST_LOOK", 50)
    small_store = partial(PairStore, shard=50)
    monkeypatch.setattr("clipad_harness.standin.train.PairStore", small_store)
    monkeypatch.setattr("clipad_harness.standin.validation.IMAGES", 3)


@pytest.mark.usefixtures("brief")
def test_a_resumed_run_ends_in_the_same_bits(config: PretrainConfig, tmp_path: Path) -> None:
    whole = pretrain(config, tmp_path / "a", tmp_path / "one" / "micro")
    with pytest.raises(KeyboardInterrupt):
        _stop_at_second_checkpoint(config, tmp_path / "b", tmp_path / "two" / "micro")
    resumed = pretrain(config, tmp_path / "b", tmp_path / "two" / "micro")
    assert resumed.step == whole.step == 4
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for ending in (".safetensors", ".json", "-training.csv", "-training.json"):
        files = [tmp_path / run / f"micro{ending}" for run in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes(), ending


@pytest.mark.usefixtures("brief")
def test_a_round_can_be_appended(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *a: taken.append(a[1].step) or step(*a))
    longer = replace(config, rounds=(*config.rounds, Round(2, 0.001, 1)))
    stem = tmp_path / "out" / "micro"
    pretrain(config, tmp_path / "a", stem)
    shutil.copytree(tmp_path / "out", tmp_path / "stored")
    pretrain(longer, tmp_path / "a", stem)
    pretrain(longer, tmp_path / "b", tmp_path / "stored" / "micro", extend=True)
    assert taken == [0, 1, 2, 3, 4, 5, 4, 5]
    for ending in (".safetensors", "-training.csv", "-training.json"):
        files = [stem.with_name(f"micro{ending}"), tmp_path / "stored" / f"micro{ending}"]
        assert files[0].read_bytes() == files[1].read_bytes(), ending


@pytest.mark.usefixtures("brief")
def test_what_cannot_be_extended_is_refused(config: PretrainConfig, tmp_path: Path) -> None:
    stem = tmp_path / "micro"
    with pytest.raises(ClipadError, match="micro-training.json: not found; train from the start"):
        pretrain(config, tmp_path / "a", stem, extend=True)
    assert not list(tmp_path.iterdir())  # told before anything is drawn
    first = replace(config, rounds=config.rounds[:1])
    pretrain(first, tmp_path / "a", stem)
    with pytest.raises(
        ClipadError, match=r"found 2 steps, expected the end of a round .* \(none\)"
    ):
        pretrain(first, tmp_path / "b", stem, extend=True)
    wider = replace(config, architecture=MICRO | {"embed_dim": 8})
    with pytest.raises(ClipadError, match="tensors of another pretrain.architecture"):
        pretrain(wider, tmp_path / "b", stem, extend=True)
    slower = replace(config, rounds=(Round(2, 0.001, 2), *config.rounds[1:]))
    smaller = replace(config, least_pixels=((0, 10),))
    for changed in (slower, smaller):
        with pytest.raises(ClipadError, match="checkpoint.pt: found 2 steps of other pretrain"):
            pretrain(changed, tmp_path / "a", stem)


@pytest.mark.usefixtures("brief")
def test_a_checkpoint_with_a_changed_bit_or_of_another_folder_is_refused_by_name(
    config: PretrainConfig, tmp_path: Path
) -> None:
    first = replace(config, rounds=config.rounds[:1])
    pretrain(first, tmp_path, tmp_path / "micro")
    [path] = tmp_path.rglob("checkpoint.pt")
    for _ in with_one_bit_changed(path, every=1, samples=3):
        with pytest.raises(ClipadError, match=f"{path}: damaged, or of another folder"):
            pretrain(first, tmp_path, tmp_path / "micro")
    duplicate = path.parents[1] / "other" / path.name
    duplicate.parent.mkdir()
    duplicate.write_bytes(path.read_bytes())
    with pytest.raises(ClipadError, match=f"{duplicate}: damaged, or of another folder"):
        loop.load_checkpoint(first, pretrain(first, tmp_path, tmp_path / "micro"), duplicate)


def _stop_at_second_checkpoint(config: PretrainConfig, work: Path, output: Path) -> None:
    original, calls = loop.save_checkpoint, []

    def stop(config, run, path):
        if calls:
            raise KeyboardInterrupt
        calls.append(run.step)
        original(config, run, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stop)
        pretrain(config, work, output)


def test_batches_made_ahead_are_the_same(
    config: PretrainConfig, rows: torch.Tensor, tmp_path: Path
) -> None:
    tokenizer, categories = CompactTokenizer(rows), PRETRAINING[:3]
    plain_store, ahead_store = (
        PairStore(tmp_path / name, categories, 48, 0, shard=50) for name in "ab"
    )
    plain = list(loader(config, tokenizer, plain_store, 1))
    with drawn_ahead(ahead_store, 64, 1):
        ahead = list(loader(replace(config, loaders=2), tokenizer, ahead_store, 1))
    assert len(plain) == len(ahead) == config.steps - 1
    for plain_batch, ahead_batch in zip(plain, ahead, strict=True):
        assert torch.equal(plain_batch.images, ahead_batch.images)
        assert torch.equal(plain_batch.ids, ahead_batch.ids)
        assert plain_batch.noise == ahead_batch.noise


def test_what_a_killed_process_left_half_drawn_is_drawn_again(tmp_path: Path) -> None:
    pairs = PairStore(tmp_path, PRETRAINING[:1], 48, 0, shard=5)
    (tmp_path / ".00000.tmp").mkdir()
    pairs.clean()
    assert pairs.draw(0) == tmp_path / "00000"
    assert not list(tmp_path.glob(".*"))


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    records = [{"pair": torch.tensor(1.0)}, {"pair": torch.tensor(float("nan"))}]
    assert average(records[:1], 1) == {"pair": 1.0}
    with pytest.raises(ClipadError, match="pair was not finite before step 2; lower learning_rate"):
        average(records, 2)


def test_the_rate_rises_stays_and_falls_to_zero_in_every_round(config: PretrainConfig) -> None:
    config = replace(config, rounds=(Round(100, 0.2, 20), Round(50, 0.1, 50)), warmup_steps=10)
    rates = [rate(config, step) for step in range(151)]
    assert config.steps == 150
    assert rates[0] == pytest.approx(0.02)
    assert rates[9] == rates[50] == rates[80] == 0.2
    assert rates[90] == pytest.approx(0.1)
    assert rates[99] == pytest.approx(0.01)
    assert rates[100] == pytest.approx(0.01)
    assert rates[125] == pytest.approx(0.05)
    assert rates[150] == 0.0
    assert [planned(config.keep, step) for step in (0, 2, 3, 99)] == [12, 12, 36, 36]


def test_a_round_starts_with_new_optimisers(
    config: PretrainConfig, pairs: PairStore, rows: torch.Tensor
) -> None:
    run = begin(config, build(MICRO, len(rows)))
    steps = []
    for step in range(4):
        train_step(config, run, choose_batch(config, CompactTokenizer(rows), pairs, step))
        state = next(iter(run.others.state_dict()["state"].values()))
        steps.append(int(state["step"]))
    assert steps == [1, 2, 1, 2]


def test_pairs_are_the_same_whenever_they_are_drawn(tmp_path: Path) -> None:
    numbers = [3, 21]
    first = PairStore(tmp_path / "a", PRETRAINING[:2], 48, 7, shard=20)[numbers]
    PairStore(tmp_path / "b", PRETRAINING[:2], 48, 7, shard=20)[[20]]
    again = PairStore(tmp_path / "b", PRETRAINING[:2], 48, 7, shard=20)[numbers]
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[2] == again[2]
    drawn = draw_pair(PRETRAINING[1], 7 + 21, 48)
    assert np.array_equal(first[0][1, 1], drawn.damaged)
    assert np.array_equal(first[1][1], drawn.mask)


# Files


def test_the_settings_are_refused_where_one_is_missing_or_unknown(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"pretrain": {"seed": 1, "colour": "red"}}))
    with pytest.raises(ClipadError, match="colour"):
        read_config(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "rounds",
            [[2, 0.1]],
            r"rounds\[0\]: found .* expected \[steps, learning_rate, decay_steps\]",
        ),
        ("rounds", [], "rounds: found .* expected at least one round"),
        ("keep", [["all", 3]], r"keep\[0\]\[0\]: found 'all', expected int"),
        (
            "least_pixels",
            83,
            r"least_pixels: found 83, expected a list, each entry \[step, value\]",
        ),
    ],
)
def test_a_table_of_another_shape_is_refused(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    section = settings()["pretrain"] | {name: value}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"pretrain": section}))
    with pytest.raises(ClipadError, match=f"pretrain.{message}"):
        read_config(path)


@pytest.mark.parametrize("rows", [[[5, 36]], [[0, 36], [20, 72], [10, 144]], [[0, 36], [0, 72]]])
@pytest.mark.parametrize("name", ["keep", "least_pixels"])
def test_a_plan_that_leaves_a_step_open_is_refused(
    tmp_path: Path, name: str, rows: list[list[int]]
) -> None:
    section = settings()["pretrain"] | {name: rows}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"pretrain": section}))
    with pytest.raises(ClipadError, match=f"pretrain.{name}: found .* in the order of their steps"):
        read_config(path)


def test_a_held_out_category_must_exist(config: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ClipadError, match="pretrain.held_out: found no_such_thing"):
        pretrain(replace(config, held_out=("no_such_thing",)), tmp_path, tmp_path / "micro")


def test_a_stored_model_is_read_back_as_it_was(rows: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = build(MICRO, len(rows)).eval()
    store(model, rows, MICRO, tmp_path / "micro-store")
    backbone = load_backbone("micro-store", tmp_path / "micro-store.safetensors")
    assert backbone.kind == "stand-in"
    full = open_clip.create_model("micro-store", load_weights=False).token_embedding.weight
    assert backbone.text.token_embedding.shape == full.shape
    in_vocabulary = torch.zeros(len(full), dtype=torch.bool)
    in_vocabulary[rows] = True
    assert_close(backbone.text.token_embedding[rows], model.token_embedding.weight[1:].detach())
    assert (backbone.text.token_embedding[~in_vocabulary] == 0).all()


WEIGHTS = REPOSITORY / "data" / "weights" / "clipad-tiny.safetensors"


def test_the_bundled_stand_in_is_small_and_loads() -> None:
    assert WEIGHTS.stat().st_size <= 8_000_000
    backbone = load_backbone("clipad-tiny", WEIGHTS)
    assert backbone.kind == "stand-in"
    assert backbone.image_size == 96
