"""`clipad data new`: a card from a folder of one's own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dataset_folders import FOLDERS, mvtec, pairs, write, write_mask

from clipad_core.errors import ClipadError
from clipad_harness.cli.main import main
from clipad_harness.data import cards as cards_module
from clipad_harness.data.cards import DatasetCard, read_card
from clipad_harness.data.dataset_check import check
from clipad_harness.data.datasets import read_index
from clipad_harness.data.new_card import new_card

COLUMNS = ["split", "label", "image", "mask"]


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    (tmp_path / "cards").mkdir()
    return tmp_path / "cards"


def card_of(tmp_path: Path, cards: Path, name: str = "own_parts") -> DatasetCard:
    new_card(name, tmp_path, cards)
    return read_card(name, cards)


@pytest.mark.parametrize(
    "name", ["mvtec", "btad", "visa", "dagm", "cvc_colondb", "brain_mri", "covid19"]
)
def test_a_folder_in_a_known_layout_gets_a_card_that_reads_it_without_a_change(
    tmp_path, cards, name
):
    root = tmp_path / "own_parts"
    root.mkdir()
    FOLDERS[name][0](root)
    card, published = card_of(tmp_path, cards), read_card(name)
    assert (card.layout, card.levels) == (published.layout, published.levels)
    index, expected = read_index(root, "own_parts", cards=cards), read_index(root, name)
    assert index[COLUMNS].equals(expected[COLUMNS])
    assert check(root, "own_parts", cards)[1] == []
    counted = (card.counts.train, card.counts.normal, card.counts.anomalous)
    assert counted == FOLDERS[name][1]


def test_the_card_says_in_comments_what_to_write(tmp_path, cards):
    mvtec(tmp_path / "own_parts", "01")
    path, index = new_card("own_parts", tmp_path, cards)
    assert len(index) == 6
    lines = path.read_text(encoding="utf-8").splitlines()
    fields = [line.partition(":")[0] for line in lines if line[:1].isalpha()]
    assert fields == list(DatasetCard.__dataclass_fields__)
    assert sum(line.startswith("# ") for line in lines) >= len(fields) - 2
    assert "categories: ['01']" in lines
    assert not any(line != line.rstrip() for line in lines)


def test_names_that_yaml_would_misread_or_break_survive(tmp_path, cards):
    root = tmp_path / "2024"
    for category in ("no", "a: b", "画像 1", "it's, {x}"):
        mvtec(root, category, good="null")
    card = card_of(tmp_path, cards, "2024")
    assert card.name == "2024"
    assert set(card.categories) == {"no", "a: b", "画像 1", "it's, {x}"}
    assert card.folders == {"good": "null"}
    assert len(read_index(root, "2024", cards=cards)) == 24


def test_masks_named_after_their_image_are_recognised(tmp_path, cards):
    pairs(tmp_path / "own_parts", "img", "GT", "{}_seg.png")
    card = card_of(tmp_path, cards)
    assert card.folders["mask"] == "{}_seg"
    assert card.folders["images"] == ["img"] and card.folders["masks"] == ["GT"]
    assert card.levels == ("pixel",)


def test_without_masks_there_are_image_metrics_alone(tmp_path, cards):
    root = tmp_path / "own_parts"
    write(root / "nut" / "test" / "good" / "000.png")
    write(root / "nut" / "test" / "crack" / "000.png")
    assert card_of(tmp_path, cards).levels == ("image",)
    assert check(root, "own_parts", cards)[1] == []


def test_a_card_is_not_written_over_another(tmp_path, cards):
    mvtec(tmp_path / "own_parts", "nut")
    path, _ = new_card("own_parts", tmp_path, cards)
    text = path.read_text(encoding="utf-8")
    with pytest.raises(ClipadError, match=r"own_parts\.yaml: is there already"):
        new_card("own_parts", tmp_path, cards)
    assert path.read_text(encoding="utf-8") == text


def nothing(root: Path) -> str:
    return r"dataset own_parts: found none in .*own_parts \(does not exist\)"


def no_category(root: Path) -> str:
    for part in ("train/good", "test/good", "test/crack"):
        write(root / part / "000.png")
    return "found test in it, expected a folder for every category .* move test, train into"


def no_layout(root: Path) -> str:
    write(root / "a" / "000.png")
    write(root / "b" / "000.png")
    return r"found a, b, expected one of these layouts:\n  <category>/train"


def only_normal(root: Path) -> str:
    write(root / "nut" / "test" / "good" / "000.png")
    return "found normal test images only and no masks, expected normal and anomalous"


def no_test(root: Path) -> str:
    write(root / "nut" / "train" / "good" / "000.png")
    (root / "nut" / "test").mkdir()
    return "found no test images"


def capitals(root: Path) -> str:
    for part in ("Train/Good", "Test/Good", "Test/Bad"):
        write(root / "part" / part / "000.png")
    return r"found part/Test, part/Train, expected test, train in small letters .* rename them"


def labels_in_small_letters(root: Path) -> str:
    write(root / "part" / "Test" / "0001.PNG")
    write_mask(root / "part" / "Test" / "label" / "0001_label.PNG")
    return "found part/Test/label, expected Label for the masks .* rename them"


def no_labels(root: Path) -> str:
    write(root / "part" / "Test" / "0001.PNG")
    return "found normal test images only and no masks, expected normal and anomalous"


def capital_masks(root: Path) -> str:
    mvtec(root, "part")
    (root / "part" / "ground_truth").rename(root / "part" / "Ground Truth")
    return r"found part/Ground Truth, expected ground_truth in small letters"


def capitals_alone(root: Path) -> str:
    write(root / "Test" / "Good" / "000.png")
    return "found Test in it, expected a folder for every category .* move Test into"


def two_names_in_a_category(root: Path) -> str:
    mvtec(root, "nut")
    write(root / "nut" / "test" / "ok" / "000.png")
    return r"found nut/test/ok, expected normal .* in folders of one name, good; rename these"


def normal_by_another_word(root: Path) -> str:
    mvtec(root, "nut")
    for name in ("no_defect", "Normal parts", "defect-free"):
        write(root / "nut" / "test" / name / "000.png")
    return "found nut/test/Normal parts, nut/test/defect-free, nut/test/no_defect, expected normal"


def table_with(change: Callable[[str], str]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        root.mkdir()
        FOLDERS["visa"][0](root)
        table = root / "split_csv" / "1cls.csv"
        table.write_text(change(table.read_text()), encoding="utf-8")
        return table

    return make


def semicolons(root: Path) -> str:
    table_with(lambda text: text.replace(",", ";"))(root)
    return r"1cls\.csv: semicolons between its columns instead of commas"


def an_extra_comma(root: Path) -> str:
    table_with(lambda text: f"{text}pcb1,test,normal,a,b,c\n")(root)
    return r"1cls\.csv: no readable table \(Expected 5 fields in line 16, saw 6\)"


def images_elsewhere(root: Path) -> str:
    table_with(lambda text: text.replace("/Data/", "/Other/"))(root)
    return r"found no test images, expected .*\n  candle/Other/Images/Normal/0000\.JPG: named in"


def other_letters_in_a_category(root: Path) -> str:
    mvtec(root, "bolt")
    mvtec(root, "nut", good="Good")
    return "found nut/train/Good, nut/test/Good, expected normal .* of one name, good;"


def other_name_of_training_images(root: Path) -> str:
    write(root / "nut" / "train" / "images" / "000.png")
    for name in ("good", "crack"):
        write(root / "nut" / "test" / name / "000.png")
    return "found nut/train/images, expected normal .* of one name, good;"


def unknown_names_of_training_images(root: Path) -> str:
    for name in ("a", "b"):
        write(root / "nut" / "train" / name / "000.png")
    write(root / "nut" / "test" / "c" / "000.png")
    return "found nut/train/a, nut/train/b, expected normal .* of one name, good;"


REFUSED = [
    nothing,
    no_category,
    no_layout,
    only_normal,
    no_test,
    capitals,
    labels_in_small_letters,
    no_labels,
    capital_masks,
    capitals_alone,
    two_names_in_a_category,
    normal_by_another_word,
    semicolons,
    an_extra_comma,
    images_elsewhere,
    other_letters_in_a_category,
    other_name_of_training_images,
    unknown_names_of_training_images,
]


@pytest.mark.parametrize("fault", REFUSED, ids=lambda fault: fault.__name__)
def test_a_folder_that_cannot_be_a_dataset_is_refused_and_no_card_is_written(
    tmp_path, cards, fault
):
    message = fault(tmp_path / "own_parts")
    with pytest.raises(ClipadError, match=message):
        new_card("own_parts", tmp_path, cards)
    assert list(cards.iterdir()) == []


def capital_names(root: Path) -> tuple[int, int, int]:
    for category in ("bolt", "nut"):
        mvtec(root, category, good="Good")
    return 4, 4, 4


def a_table_with_a_byte_order_mark(root: Path) -> tuple[int, int, int]:
    table_with(lambda text: f"\ufeff{text}")(root)
    return 4, 4, 6


def a_table_with_backslashes(root: Path) -> tuple[int, int, int]:
    table_with(lambda text: text.replace("/", "\\"))(root)
    return 4, 4, 6


def anomalous_training_images(root: Path) -> tuple[int, int, int]:
    mvtec(root, "nut")
    write(root / "nut" / "train" / "crack" / "000.png")
    return 2, 2, 2


def training_images_of_a_defect_alone(root: Path) -> tuple[int, int, int]:
    mvtec(root, "nut")
    (root / "nut" / "train" / "good").rename(root / "nut" / "train" / "crack")
    return 0, 2, 2


def blank_masks_of_normal_images(root: Path) -> tuple[int, int, int]:
    mvtec(root, "nut")
    write_mask(root / "nut" / "ground_truth" / "good" / "000_mask.png", slice(0, 0))
    return 2, 2, 2


def blank_masks_alone(root: Path) -> tuple[int, int, int]:
    blank_masks_of_normal_images(root)
    shutil.rmtree(root / "nut" / "ground_truth" / "crack")
    return 2, 2, 2


AGREE = [
    capital_names,
    a_table_with_a_byte_order_mark,
    a_table_with_backslashes,
    anomalous_training_images,
    training_images_of_a_defect_alone,
    blank_masks_of_normal_images,
    blank_masks_alone,
]


@pytest.mark.parametrize("folder", AGREE, ids=lambda folder: folder.__name__)
def test_the_card_the_command_the_check_and_the_index_count_alike(
    tmp_path, cards, monkeypatch, capsys, folder
):
    monkeypatch.setattr(cards_module, "CARDS", cards)
    counts = folder(tmp_path / "own_parts")
    assert main(["data", "new", "own_parts", "--data", str(tmp_path)]) == 0
    printed = f"({counts[0]} training images, {counts[1] + counts[2]} test images)"
    assert printed in capsys.readouterr().out
    card = read_card("own_parts", cards)
    assert (card.counts.train, card.counts.normal, card.counts.anomalous) == counts
    assert ("pixel" in card.levels) == (folder is not blank_masks_alone)
    index, problems, _ = check(tmp_path / "own_parts", "own_parts", cards)
    assert problems == []
    assert read_index(tmp_path / "own_parts", "own_parts", cards=cards).equals(index)
    assert len(index) == sum(counts)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "two words", "a\nb"])
def test_a_name_that_is_no_plain_word_is_refused(tmp_path, cards, name):
    with pytest.raises(ClipadError, match="expected a word of letters, digits"):
        new_card(name, tmp_path, cards)


def test_a_folder_with_faults_gets_its_card_and_check_names_them(tmp_path, cards):
    mvtec(tmp_path / "own_parts", "nut")
    write_mask(tmp_path / "own_parts" / "nut" / "ground_truth" / "crack" / "009_mask.png")
    card_of(tmp_path, cards)
    problems = check(tmp_path / "own_parts", "own_parts", cards)[1]
    assert problems == ["nut/ground_truth/crack/009_mask.png: mask without an image"]


def test_the_command_writes_the_card_and_says_how_to_go_on(tmp_path, cards, monkeypatch, capsys):
    monkeypatch.setattr(cards_module, "CARDS", cards)
    mvtec(tmp_path / "own_parts", "nut")
    assert main(["data", "new", "own_parts", "--data", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "(2 training images, 4 test images), then `clipad data check own_parts`" in output
    assert output.rstrip().endswith("own_parts.yaml")
    assert read_card("own_parts", cards).title == "Own parts"
