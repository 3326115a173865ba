"""Class tables, aliases and missions."""

import csv
import os
from pathlib import Path

import pytest

from distillnet.classes import (
    ClassTable,
    Mission,
    imagenet_table,
    mission_of_folders,
    numbered_table,
    parse_mission,
    read_class_table,
)
from distillnet.errors import InputError

PETS = ClassTable(
    ("cat", "guinea pig", "crane bird", "crane"),
    (("n01", "house cat"), ("n02",), ("n03", "crane"), ("n04",)),
)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("0", 0),
        ("003", 3),
        ("Cat", 0),
        ("HOUSE_CAT", 0),
        ("house--cat", 0),
        (" guinea\tpig ", 1),
        ("guinea-pig", 1),
        ("n04", 3),
        ("crane bird", 2),
    ],
)
def test_resolve(text, index):
    assert PETS.resolve(text) == index
    assert PETS.lookup(text) == index
    assert PETS.matches(text) == (index,)


def test_every_spelling_leads_back():
    for index in range(len(PETS)):
        spellings = PETS.spellings(index)
        assert spellings[:2] == (str(index), PETS.names[index])
        assert all(index in PETS.matches(text) for text in spellings)


def test_accented_names_compare_composed():
    table = numbered_table(2, ["caf\u00e9", "bar"])
    assert table.resolve("cafe\u0301") == 0


def test_unknown_class_is_none_or_an_error_with_suggestions():
    assert PETS.lookup("ginea pig") is None
    with pytest.raises(InputError, match=r"no class 'ginea pig'.*from 0 to 3.*'guinea pig' \(1\)"):
        PETS.resolve("ginea pig")
    with pytest.raises(InputError, match=r"no class '4'.*Check the spelling"):
        PETS.resolve("4")


def test_ambiguous_class_lists_all():
    assert PETS.matches("crane") == (2, 3)
    for ask in (PETS.lookup, PETS.resolve):
        with pytest.raises(InputError, match=r"2 crane bird \(n03, crane\); 3 crane \(n04\)"):
            ask("Crane")


def test_numbered_table():
    assert numbered_table(3).names == ("0", "1", "2")
    assert numbered_table(2, ["no", "yes"]).spellings(1) == ("1", "yes")
    with pytest.raises(InputError, match="3 class names for a network of 2"):
        numbered_table(2, ["a", "b", "c"])


def test_equal_names_are_told_apart():
    table = numbered_table(3, ["crane", "crane", "dog"])
    assert table.names == ("crane (0)", "crane (1)", "dog")
    assert table.matches("crane") == (0, 1)
    assert table.resolve("crane (1)") == 1


# Tables from files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "spelled"),
    [
        ("index\tname\n0\tcat\n1\tdog\n", ("cat", "dog"), {"cat": 0}),
        ("index\twnid\tname\n1\tn02\tdog\n0\tn01\tcat\n", ("cat", "dog"), {"n02": 1}),
        ("index\tcode\tlabel\n0\tn01\tcat\n1\tn02\tdog\n", ("cat", "dog"), {"n02": 1}),
        ("index\tlatin\tname\n0\tfelis\tcat\n1\tcanis\tdog\n", ("cat", "dog"), {"felis": 0}),
        ("\ufeffIndex\tname\r\n0\tcat\r\n\r\n1\tdog\r\n", ("cat", "dog"), {"dog": 1}),
        ("name\tindex\tb\tc\ncat\t0\ndog\t1\thound\tpup\n", ("cat", "dog"), {"pup": 1}),
        ('index\tname\n0\t"A" cat\n1\tdog, wolf\n', ('"A" cat', "dog, wolf"), {"dog, wolf": 1}),
        ("index\twnid\n0\tn01\n1\tn02\n", ("n01", "n02"), {"n01": 0}),
        ("index\tname\n0\t\n1\tdog\n", ("0", "dog"), {"0": 0}),
        ("index\n0\n1\n", ("0", "1"), {"1": 1}),
        ('index,name\n1,"dog, wolf"\n0,cat\n', ("cat", "dog, wolf"), {"dog, wolf": 1}),
        ("index;name;latin\n0;cat;felis\n1;dog;canis\n", ("cat", "dog"), {"canis": 1}),
        ("cat\n\ndog\n", ("cat", "dog"), {"cats": 0, "dog": 1}),
        ("cat, felis\r\ndog\r\n", ("cat, felis", "dog"), {"felis": 0, "cat, felis": 0}),
    ],
)
def test_read_class_table(tmp_path, text, names, spelled):
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    table = read_class_table(path, 2)
    assert table.names == names
    assert read_class_table(path) == table  # as many classes as the file has
    assert {alias: table.resolve(alias) for alias in spelled} == spelled


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with nothing; expected a first line with a column 'index'"),
        (b"number\tname\n0\tcat\n", "begins with 'number', 'name'; expected"),
        (b"number,name\n0,cat\n1,dog\n", "begins with 'number', 'name'; expected"),
        (b"index\tindex\n0\t0\n", "a column 'index'"),
        (b"name\ncat\ndog\n", "has 3 lines for the network's 2 outputs; .* one name per line"),
        (b"cat\n\n", "names 1 class, but the network has 2 outputs; .*--class-names"),
        (b"index,name\n0,a\n1,b\n2,c\n3,d\n", "names 4 classes, but the network has 2 outputs"),
        (b"index,name\n" + b"9" * 200_000, "expected|found"),
        (b"index\tname\n0\tcaf\xe9\n1\tdog\n", "not UTF-8 \\(byte 16\\)"),
        (b"index\tname\n0\tcat\n2\tdog\n", "has the index 2, and no line for 1; .* from 0 to 1"),
        (b"index\tname\n0\tcat\n-1\tdog\n", "line 3: found index '-1'"),
        (b"index\tname\n0\tcat\nx\tdog\n", "line 3: found index 'x'"),
        (b"index\tname\n0\tcat\n0\tdog\n", "line 3: index 0 appears a second time"),
        (b"index\tname\n0\tcat\n", "names 1 class, but the network has 2 outputs"),
        (b"index\tname\n1\tcat\n", "has 1 of the network's 2 classes; add 0"),
        (b"index\tname\n0\tcat\tkitten\n1\tdog\n", "line 2: found 3 cells"),
    ],
)
def test_malformed_class_table(tmp_path, data, message):
    path = tmp_path / "classes.tsv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_class_table(path, 2)
    assert str(path) in str(caught.value)


def test_class_table_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # which would never end
    for path in (tmp_path, tmp_path / "missing.tsv", tmp_path / "pipe"):
        with pytest.raises(InputError, match="cannot read the class names"):
            read_class_table(path, 2)


# ImageNet ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("tench", 0),
        ("English springer", 217),
        ("cassette player", 482),
        ("chain saw", 491),
        ("chainsaw", 491),
        ("church", 497),
        ("n03028079", 497),
        ("golden_retriever", 207),
    ],
)
def test_imagenet_aliases(text, index):
    assert imagenet_table().resolve(text) == index


@pytest.mark.parametrize(("text", "indices"), [("crane", (134, 517)), ("maillot", (638, 639))])
def test_imagenet_ambiguities(text, indices):
    table = imagenet_table()
    with pytest.raises(InputError) as caught:
        table.resolve(text)
    for index in indices:
        assert f"{index} {table.names[index]} (n0" in str(caught.value)


def test_imagenet_table_is_torchvisions():
    from torchvision.models import ResNet18_Weights

    table = imagenet_table()
    assert list(table.names) == ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(table.names)) == 1000
    assert all(table.resolve(str(index)) == index for index in range(1000))


def test_imagenet_table_agrees_with_an_independent_one(data_dir):
    path = data_dir / "imagenet_classes.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    table = imagenet_table()
    assert [table.resolve(row["wnid"]) for row in rows] == [int(row["index"]) for row in rows]
    assert all(int(row["index"]) in table.matches(row["name"]) for row in rows)
    # And the file itself is a valid --class-names, although two pairs of its names are equal.
    other = read_class_table(path, 1000)
    assert other.resolve("n02102040") == 217
    assert other.names[217] == "English springer"
    assert other.matches("crane") == (134, 517)


# Missions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("cat,guinea pig", (0, 1)),
        ("guinea_pig, 0", (1, 0)),
        ("3,2,1,0", (3, 2, 1, 0)),
        ('"crane bird", "cat",', (2, 0)),
        ("cat\n3\n", (0, 3)),
        (["n02", 3], (1, 3)),
        ((1, 0), (1, 0)),
    ],
)
def test_parse_mission(text, indices):
    mission = parse_mission(text, PETS)
    assert mission.indices == indices
    assert mission.names == tuple(PETS.names[index] for index in indices)
    assert len(mission) == len(indices)


def test_mission_of_names_with_commas():
    table = numbered_table(2, ["dog, wolf", "cat"])
    assert parse_mission('cat,"dog, wolf"', table).indices == (1, 0)


def test_an_int_is_an_index_even_where_the_text_is_ambiguous():
    table = numbered_table(3, ["1", "2", "3"])
    assert parse_mission([1, 0], table).indices == (1, 0)
    with pytest.raises(InputError, match="'1' fits 2 classes"):
        parse_mission("1,2", table)
    with pytest.raises(InputError, match="no class '3'"):
        parse_mission([0, 3], table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 classes"),
        (" , ", "0 classes"),
        ("cat", "1 class .*at least 2"),
        ([], "0 classes"),
        ("cat,0", r"class 0 \(cat\) twice, as 'cat' and as '0'"),
        ("cat,house cat", "twice, as 'cat' and as 'house cat'"),
        ("cat,unicorn", "no class 'unicorn'"),
        ("cat,crane", "'crane' fits 2 classes"),
        ([0, 4], "no class '4'"),
        ([0, -1], "no class '-1'"),
        ("0,-1", "no class '-1'"),
    ],
)
def test_bad_mission(text, message):
    with pytest.raises(InputError, match=message):
        parse_mission(text, PETS)


def test_all_that_does_not_fit_is_in_one_message():
    with pytest.raises(InputError) as caught:
        parse_mission("cat, unicorn, crane, pug=9, house cat, ginea pig", PETS)
    first, *listed = str(caught.value).splitlines()
    assert "5 of 6 names do not fit the network's 4 classes" in first
    assert [line.strip() for line in listed] == [
        "'unicorn' is not among them, and no name is close",
        "'crane' fits 2 classes: 2 crane bird (n03, crane); 3 crane (n04)",
        "'pug=9' is not among them, and no name is close",
        "the mission names class 0 (cat) twice, as 'cat' and as 'house cat'; name each class once",
        "'ginea pig' is not among them; nearest: 'guinea pig' (1)",
    ]


# Names of the user's own -----------------------------------------------------------------------


def test_own_names_are_the_missions():
    mission = parse_mission('"tom=house cat", pigs = 1, crane bird', PETS)
    assert mission == Mission((0, 1, 2), ("tom", "pigs", "crane bird"))
    table = mission.named(PETS)
    assert table.names == ("tom", "pigs", "crane bird", "crane")
    for text, index in {"Tom": 0, "cat": 0, "n01": 0, "pigs": 1, "guinea pig": 1}.items():
        assert table.resolve(text) == index
    assert mission.named(table) == table


@pytest.mark.parametrize("text", ["crane=2,cat", "cat, Crane = crane bird"])
def test_an_own_name_is_nobody_elses(text):
    """What was ambiguous is decided, and the other class still has its index and codes."""
    mission = parse_mission(text, PETS)
    table = mission.named(PETS)
    assert table.matches("crane") == (2,)
    assert table.resolve("n04") == table.resolve("3") == 3
    assert len(set(map(str.casefold, table.names))) == len(table)


def test_own_names_may_be_exchanged():
    fruit = numbered_table(2, ["lemon", "orange"])
    table = parse_mission("orange=lemon,lemon=orange", fruit).named(fruit)
    assert (table.resolve("orange"), table.resolve("lemon")) == (0, 1)


def test_a_name_that_holds_an_equals_sign_is_one():
    table = numbered_table(2, ["a=b", "b"])
    assert parse_mission("a=b,b", table).indices == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=cat,1", "an empty name"),
        ("3=cat,1", "the number '3' as its name"),
        ("tom=cat,TOM=1", "the name 'TOM', which class 0 already has"),
        ("guinea pig=cat,1", "the name 'guinea pig', which class 0 already has"),
        ("a=cat,b=cat", "twice, as 'a=cat' and as 'b=cat'"),
        ("tom=,1", "no class ''"),
        ("football,1", "write OWN=NAME"),
    ],
)
def test_own_names_that_cannot_be(text, message):
    with pytest.raises(InputError, match=message):
        parse_mission(text, PETS)


def test_folders_are_a_mission():
    mission = mission_of_folders(["Cats", "crane_bird", "n01", "n04"], PETS, "photos")
    assert mission == Mission((0, 2, 3), ("cat", "crane bird", "crane"))
    with pytest.raises(InputError, match=r"^without --classes, .* folder in photos, .*'notes'"):
        mission_of_folders(["cat", "n04", "notes"], PETS, "photos")
    with pytest.raises(InputError, match=r"photos has folders of 1 of .*'cat', 'n01'"):
        mission_of_folders(["cat", "n01"], PETS, "photos")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("leopard", "Leopards"),
        ("church", "churches"),
        ("butterfly", "butterflies"),
        ("wolf", "wolves"),
        ("knife", "knives"),
        ("fireman", "firemen"),
        ("sunglasses", "sunglass"),
        ("golf ball", "golf_balls"),
    ],
)
def test_a_plural_is_forgiven(name, text):
    assert numbered_table(2, [name, "other"]).resolve(text) == 0


def test_a_plural_is_forgiven_only_where_one_class_fits():
    table = numbered_table(4, ["cat", "cats", "crane", "Crane bird"])
    assert (table.resolve("cat"), table.resolve("cats")) == (0, 1)
    assert ClassTable(("a", "b"), (("bra",), ("bra",))).matches("bras") == (0, 1)
    assert numbered_table(2, ["n02012849", "bus"]).matches("n02012849s") == ()
    assert numbered_table(2, ["bu", "gas"]).matches("ga") == ()


def test_the_table_is_what_the_script_writes(tmp_path, monkeypatch):
    pytest.importorskip("timm", reason="timm is not installed")
    import runpy

    script = Path(__file__).parents[2] / "scripts" / "make_imagenet_table.py"
    names = runpy.run_path(str(script))
    committed = names["TABLE"].read_bytes()
    # The function's own globals: run_path has handed out a copy.
    monkeypatch.setitem(names["main"].__globals__, "TABLE", tmp_path / "table.tsv")
    names["main"]()
    assert (tmp_path / "table.tsv").read_bytes() == committed
