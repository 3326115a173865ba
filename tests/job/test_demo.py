"""The demo from end to end: what it leaves behind is complete, true and repeatable."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import distillnet as dn
from commands import run_command
from distillnet.cut.times import built_in_times, read_times
from distillnet.images import load_all
from distillnet.job.evaluating import evaluate_scores
from distillnet.job.front import take_from_front
from distillnet.job.runs import seal_run
from distillnet.models.weights import read_weights
from targets import run_on_a_cortex_m

pytestmark = pytest.mark.slow  # the demo takes as long as all that is quick

# Runs the compact network as a device would: with torch and nothing of this package.
_TORCH_ALONE = """
import sys
import torch
network = torch.export.load(sys.argv[1]).module()
y = network(torch.load(sys.argv[2], weights_only=True))
torch.save(y.detach(), sys.argv[3])
assert not any(name.startswith("distillnet") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo that took the place of an earlier one."""
    out = tmp_path_factory.mktemp("home") / "demo"
    out.mkdir()
    for name in ("mission.json", "report.html"):
        (out / name).write_text("of an earlier run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_command(monkeypatch, "demo", "--out", str(out), "--overwrite")
    return out


def _json(path: Path) -> dict[str, object]:
    loaded = json.loads(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_folder_is_complete(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        *("atlas", "data", "bitmaps.safetensors", "mission.json", "model.pt2", "result.json"),
        *("demo.json", "front", "images.safetensors", "manifest.json", "times.json"),
        "weights.safetensors",
    }
    assert [path.name for path in run.parent.iterdir()] == ["demo"]
    for path in run.rglob("*"):
        assert path.stat().st_mode & 0o444 == 0o444, f"{path} cannot be read by others"


def test_what_is_searched_on_and_what_is_reported_on_are_drawn_alike(run: Path) -> None:
    # Digits come as they were written, in forms and by class: each form has to be in both parts.
    early = {
        part: [int(path.stem) < 1797 / 2 for path in (run / "data" / part).glob("*/*.png")]
        for part in ("train", "val")
    }
    odd = {
        part: [int(path.stem) % 2 for path in (run / "data" / part).glob("*/*.png")]
        for part in early
    }
    for part in early:
        assert 0.4 < sum(early[part]) / len(early[part]) < 0.6
        assert 0.4 < sum(odd[part]) / len(odd[part]) < 0.6


def test_the_figures_say_what_the_networks_are(run: Path) -> None:
    result = dn.open_run(run).result
    before, after = result["baseline"], result["distilled"]
    assert before["params"] == sum(
        t.numel() for t in read_weights(run / "weights.safetensors").values()
    )
    assert after["params"] == sum(
        tensor.numel()
        for name, tensor in torch.export.load(run / "model.pt2").state_dict.items()
        if not name.endswith("mask_keep")
    )
    assert result["mac_ratio"] == pytest.approx(before["macs"] / after["macs"])
    assert result["mac_ratio"] > 2
    assert result["param_ratio"] == pytest.approx(before["params"] / after["params"])
    assert result["loss_pp"] == pytest.approx(100 * (before["accuracy"] - after["accuracy"]))
    low, high = result["loss_ci95_pp"]
    assert low < result["loss_pp"] < high
    counts = result["n_images"]
    found = sum(len(list((run / "data").glob(f"*/{c}/*.png"))) for c in "012")
    assert counts["statistics"] + counts["search"] + counts["val"] == found
    assert counts["unreadable"] == 0


def test_its_mission_runs_on_a_cortex_m(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF-MNIST, trained and distilled, in the memory of an emulated board."""
    out = tmp_path / "c"
    run_command(monkeypatch, "export", str(run), "--format", "c", "--out", str(out))
    assert "PASS" in run_on_a_cortex_m(out)


def test_evaluate_repeats_the_figures(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in ((), ("--data", str(run / "data")), ("--data", str(run / "data/val"))):
        run_command(monkeypatch, "evaluate", str(run), *data, "--json")
        printed = json.loads(capsys.readouterr().out)
        result = dn.open_run(run).result
        assert printed["accuracy"] == pytest.approx(result["distilled"]["accuracy"])
        assert printed["per_class"] == pytest.approx(result["distilled"]["per_class"])
        assert printed["n"] == result["n_images"]["val"]


def test_the_run_finds_its_images_and_weights_from_anywhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    for name in ("data", "weights.safetensors"):
        (tmp_path / name).mkdir()  # of something else
    monkeypatch.chdir(tmp_path)
    for opened in (dn.open_run(run), dn.open_run(moved), dn.open_run(Path("elsewhere"))):
        for name in ("data", "weights"):
            source = opened.sources[name]
            assert source is not None
            assert Path(source).resolve() == (opened.directory / Path(source).name).resolve()
            assert Path(source).exists()


def test_the_network_runs_without_this_package(run: Path, tmp_path: Path) -> None:
    opened = dn.open_run(run)
    images = dn.open_images(run / "data", opened.classes, opened.mission.indices).val
    assert images is not None
    val = load_all(images, opened.preprocessing)
    torch.save(val.x_nchw, tmp_path / "x.pt")
    (tmp_path / "alone.py").write_text(_TORCH_ALONE)
    arguments = ["alone.py", run / "model.pt2", "x.pt", "y.pt"]
    subprocess.run([sys.executable, *map(str, arguments)], cwd=tmp_path, check=True)
    best_n = torch.load(tmp_path / "y.pt", weights_only=True).argmax(1)
    right = [opened.mission.indices[k] == c for k, c in zip(best_n, val.labels_n, strict=True)]
    assert sum(right) / len(right) == pytest.approx(opened.result["distilled"]["accuracy"])


def test_the_mission_says_how_to_do_it_again(run: Path, tmp_path: Path) -> None:
    mission, result = _json(run / "mission.json"), dn.open_run(run).result
    model = dn.load_model(mission["model"], weights=run / mission["sources"]["weights"])
    assert model.weights_sha256 == mission["weights_sha256"]
    assert {"distillnet", "torch", "torchvision"} <= set(mission["versions"])
    wanted = dn.parse_mission([entry["index"] for entry in mission["classes"]], model.classes)
    options = dict(mission["options"], budget=dn.Budget(**mission["options"]["budget"]))
    asked = asdict(dn.Options(seen=False)) | {"budget": dn.Budget()}
    assert read_times(run / "times.json") == built_in_times()
    assert asked.pop("times") == asdict(built_in_times())
    assert options == asked
    folders = dn.open_images(run / mission["sources"]["data"], model.classes, wanted.indices)
    images = dn.split_images(folders, seed=mission["seed"])
    again = dn.distill(model, wanted, images, tmp_path, dn.Options(**options))
    assert again.mac_ratio == pytest.approx(result["mac_ratio"])
    assert again.loss_pp == pytest.approx(result["loss_pp"])
    assert dict(again.n_images) == result["n_images"]


def test_another_budget_needs_no_search(run: Path, tmp_path: Path) -> None:
    """The smallest network of the front within it, whole: figures, bitmaps, programme."""
    points = [_json(path) for path in sorted((run / "front").glob("*/result.json"))]
    assert points == sorted(points, key=lambda point: -point["mac_ratio"])
    wide = dn.Budget(max_loss_pp=100.0)
    taken = take_from_front(dn.open_run(run), wide, tmp_path)
    assert taken["mac_ratio"] == points[0]["mac_ratio"]
    assert _json(tmp_path / "result.json") == taken
    opened = dn.open_run(tmp_path)
    assert list(opened.preprocessing.input_size) == taken["distilled"]["input_size"]
    images = dn.open_images(run / "data", opened.classes, opened.mission.indices).val
    assert images is not None
    result = dn.evaluate_run(opened, dn.load_batches(images, opened.preprocessing))
    assert result.accuracy == pytest.approx(taken["distilled"]["accuracy"])


@pytest.fixture
def made_up(run: Path, tmp_path: Path) -> Path:
    """A run with a front of three networks whose figures are known."""
    shutil.copytree(run, made := tmp_path / "made up")
    shutil.rmtree(made / "front")
    for i, (ratio, loss) in enumerate(((4.29, 1.6), (3.0, 0.8), (2.0, 0.2))):
        shutil.copytree(run / "front" / "00", point := made / "front" / f"{i:02}")
        result = _json(point / "result.json")
        result |= {"mac_ratio": ratio, "param_ratio": 10 * ratio}
        result["search"] |= {"loss_pp": loss, "estimate_pp": loss, "divergence": loss / 10}
        result["search"] |= {"estimate_uncertain_pp": 0.1, "seen": False, "budget_met": loss < 1}
        result["search"] |= {"class_estimates_pp": [loss] * 3}
        (point / "result.json").write_text(json.dumps(result))
    seal_run(made, 3)
    return made


@pytest.mark.parametrize(
    ("budget", "ratio"),
    [
        (dn.Budget(max_loss_pp=1.0), 3.0),
        (dn.Budget(max_loss_pp=3.0), 4.29),
        (dn.Budget(max_loss_pp=0.5), 2.0),
        (dn.Budget(target_macs=2.5), 3.0),  # 4.29 reaches it, too, and changes more
        (dn.Budget(target_macs=4.0), 4.29),  # whatever it loses
        (dn.Budget(target_params=15.0), 2.0),
    ],
)
def test_the_front_gives_what_the_budget_asks_for(
    made_up: Path, tmp_path: Path, budget: dn.Budget, ratio: float
) -> None:
    (taken := tmp_path / "taken").mkdir()
    result = take_from_front(dn.open_run(made_up), budget, taken)
    assert result["mac_ratio"] == ratio
    assert result["search"]["budget_met"]
    opened = dn.open_run(taken)
    assert opened.sources["data"] == str(made_up / "data")
    assert opened.sources["weights"] == str(made_up / "weights.safetensors")


def test_what_the_front_gives_is_warned_of_by_its_own_budget(made_up: Path, tmp_path: Path) -> None:
    point = made_up / "front" / "01"
    result = _json(point / "result.json")
    name, share = next(iter(result["baseline"]["per_class"].items()))
    result["distilled"]["per_class"][name] = share - 0.05
    old = (
        f"The class {name} loses 5.0 points on the report images, more than the 3 that a class "
        "may be expected to lose."
    )
    result["warnings"] = [old, "another"]
    (point / "result.json").write_text(json.dumps(result))
    seal_run(made_up, 3)
    for limit, said in ((3.0, [old]), (8.0, []), (4.0, [old.replace("than the 3", "than the 4")])):
        (taken := tmp_path / str(limit)).mkdir()
        budget = dn.Budget(max_loss_pp=1.0, max_class_loss_pp=limit)
        result = take_from_front(dn.open_run(made_up), budget, taken)
        assert result["mac_ratio"] == 3.0
        assert result["warnings"] == [*said, "another"]


def test_a_front_that_was_changed_is_not_chosen_from(made_up: Path, tmp_path: Path) -> None:
    path = made_up / "front" / "00" / "result.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(dn.InputError, match="not the file that was written"):
        take_from_front(dn.open_run(made_up), dn.Budget(max_loss_pp=1.0), tmp_path)


def test_a_budget_that_no_network_of_the_front_meets_is_refused(
    run: Path, made_up: Path, tmp_path: Path
) -> None:
    opened = dn.open_run(made_up)
    for budget, message in (
        (dn.Budget(target_macs=5.0), r"reaches a mac ratio of 5; there are: 4\.29, 3\.00, 2\.00"),
        (dn.Budget(max_loss_pp=0.1), r"within 0\.1 points .* there are: 4\.29x with 1\.60"),
    ):
        with pytest.raises(dn.InputError, match=message):
            take_from_front(opened, budget, tmp_path)
    (run_without := tmp_path / "paper").mkdir()
    for path in run.iterdir():
        if path.is_file():
            shutil.copyfile(path, run_without / path.name)
    with pytest.raises(dn.InputError, match="no front"):
        take_from_front(dn.open_run(run_without), dn.Budget(), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "RUN"), "would be replaced, but it is read"),
        (("--out", "new", "--method", "paper", "--seed", "1"), "--method, --seed with --from"),
        (("--out", "new", "zoo:tf_mnist"), "MODEL with --from"),
    ],
)
def test_from_keeps_its_run_and_refuses_what_it_would_leave_aside(
    made_up: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    words = [str(made_up) if word == "RUN" else word for word in arguments]
    run_command(monkeypatch, "distill", "--from", str(made_up), *words, status=2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert (made_up / "weights.safetensors").exists()


def test_a_result_does_not_take_the_place_of_what_it_is_made_of(
    made_up: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data = made_up / "weights.safetensors", made_up / "data"
    words = ["distill", "zoo:tf_mnist", "--weights", str(weights), "--data", str(data)]
    run_command(monkeypatch, *words, "--classes", "0,1", "--out", str(made_up), status=2)
    assert f"but {data} in it is read" in " ".join(capsys.readouterr().err.split())
    assert weights.exists()
    assert data.exists()


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda y: y[:, :2], r"the shape \(\d+, 2\)"),
        (lambda y: y.index_fill(0, torch.tensor([0]), math.nan), "NaN or infinity"),
    ],
)
def test_scores_that_are_none_are_no_accuracy(
    run: Path, wrong: Callable[[torch.Tensor], torch.Tensor], found: str
) -> None:
    """Whatever runtime gives them."""
    opened = dn.open_run(run)
    images = dn.open_images(run / "data", opened.classes, opened.mission.indices).val
    assert images is not None
    batches = list(dn.load_batches(images, opened.preprocessing))
    network = torch.export.load(run / "model.pt2").module()
    right = evaluate_scores(opened, Path("file"), network, batches)
    assert right.accuracy == pytest.approx(opened.result["distilled"]["accuracy"])
    with pytest.raises(dn.InputError, match=f"file gives {found} as scores"):
        evaluate_scores(opened, Path("file"), lambda x: wrong(network(x)), batches)
