"""From Python: things in the forms that people have them in, and answers that fit a notebook."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import distillnet as dn
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import limit
from distillnet.job.runs import read_result

HOW = dn.Preprocessing((16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "photos"
    draw = np.random.default_rng(0)
    for c in "0123":
        (folder / c).mkdir(parents=True)
        for i in range(10):
            pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / c / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def done(net: nn.Module, photos: Path) -> dn.Distillation:
    """In four lines and with nothing but text for paths and classes."""
    model = dn.load_model(net, preprocessing=HOW)
    return dn.distill(model, "0,2", str(photos))


def test_a_module_is_a_model_and_stays_as_it_was(net: nn.Module) -> None:
    half = net.double().train().requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    model = dn.load_model(half, preprocessing=HOW)
    assert dn.load_model(half, input_size=16, mean=HOW.mean, std=HOW.std).preprocessing == HOW
    assert (half.training, next(half.parameters()).requires_grad) == (True, True)
    assert all(torch.equal(before[k], v) for k, v in half.state_dict().items())
    assert not model.module.training
    assert next(model.module.parameters()).dtype == torch.float32
    net.float().eval()


def test_every_form_of_mission_and_images_gives_the_same(
    net: nn.Module, photos: Path, done: dn.Distillation, tmp_path: Path
) -> None:
    model = dn.load_model(net, preprocessing=HOW)
    found = dn.open_images(photos, model.classes)  # of more classes than the mission's
    mission = dn.parse_mission("0,2", model.classes)
    parts = dn.split_images(dn.open_images(str(photos), model.classes, mission.indices))
    forms = (([0, "2"], found), (mission, photos), (mission, parts))
    for number, (classes, images) in enumerate(forms):
        (folder := tmp_path / str(number)).mkdir()
        again = dn.distill(model, classes, images, str(folder))
        assert again.mission == done.mission
        assert again.images == done.images
        assert again.mac_ratio == done.mac_ratio
        assert set(dn.open_atlas(str(folder)).counts) == {0, 2}


def test_a_run_folder_is_written_read_and_evaluated(
    done: dn.Distillation, photos: Path, tmp_path: Path
) -> None:
    run = dn.write_run(done, str(tmp_path / "deep" / "run"))
    assert run.sources["data"] == str(photos)
    want = done.distilled.accuracy
    of_all = dn.open_images(photos, run.classes)
    assert dn.evaluate_run(run).accuracy == want  # what was held out
    assert dn.evaluate_run(str(run.directory)).n == done.baseline.n
    assert dn.evaluate_run(run, done.images.val).accuracy == want
    assert dn.evaluate_run(run, of_all).n == dn.evaluate_run(run, str(photos)).n == 20
    with pytest.raises(dn.InputError, match="holds a run already"):
        dn.write_run(done, run.directory)


def test_images_of_other_classes_are_not_evaluated_on(
    done: dn.Distillation, photos: Path, tmp_path: Path
) -> None:
    run = dn.write_run(done, tmp_path / "run")
    of_all = dn.open_images(photos, run.classes).train
    with pytest.raises(dn.InputError, match=r"found images of class 1; expected .* 0, 2"):
        dn.evaluate_run(run, dn.load_batches(of_all, run.preprocessing))
    with pytest.raises(dn.InputError, match="there are no images"):
        dn.evaluate_run(run, [])


def test_an_atlas_leaves_its_images_to_the_statistics(
    net: nn.Module, photos: Path, tmp_path: Path
) -> None:
    model = dn.load_model(net, preprocessing=HOW)
    everything = dn.open_images(photos, model.classes, (0, 2))
    some = limit(everything.train, 4, 0)
    graph = capture_model(model)
    atlas = dn.collect(
        graph, analyse(graph), dn.load_batches(some, HOW), tmp_path,
        model=model.name, weights_sha256=model.weights_sha256,
    )  # fmt: skip
    images = dn.distill(model, "0,2", photos, atlas=atlas, whole_front=False).images
    assert not set(some.refs) & {*images.search.refs, *images.val.refs}
    parts = dn.split_images(everything)
    with pytest.raises(dn.InputError, match="among those that the atlas was made of"):
        dn.distill(model, "0,2", parts, atlas=atlas)


def test_representations_fit_a_notebook(
    done: dn.Distillation, photos: Path, tmp_path: Path
) -> None:
    run = dn.write_run(done, tmp_path / "run")
    found = dn.open_images(photos, done.model.classes)
    for shown, words in (
        (done.model, ("Sequential", "16 x 16", "4 classes")),
        (found, ("40 images", "0: 10, 1: 10")),
        (found.train, ("40 images",)),
        (done.images, ("8 for statistics", "8 to search on", "4 held out")),
        (done, ("for 0, 2", "x fewer MACs", "% right", "4 images")),
        (run, (str(tmp_path / "run"), "x fewer MACs", "2 warnings")),
        (done.distilled, ("accuracy",)),
    ):
        text = repr(shown)
        assert len(text) < 400
        for word in words:
            assert word in text


def test_results_are_tables_and_pictures(done: dn.Distillation, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    run = dn.write_run(done, tmp_path / "run")
    for result in (done, run):
        frame = result.frame()
        assert list(frame.index) == ["0", "2", "all"]
        assert frame.loc["all", "loss_pp"] == pytest.approx(done.loss_pp)
        assert frame.loc["2", "original"] == 100 * done.baseline.per_class["2"]
        axes = result.figures.plot()
        assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "2"]
        assert len(axes.patches) == 4
        assert result.figures.plot(axes) is axes


def test_a_run_plots_its_front_and_its_layers(done: dn.Distillation, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    run = dn.write_run(done, tmp_path / "run")
    folders = sorted((tmp_path / "run" / "front").glob("*"))
    assert run.front == tuple(read_result(folder) for folder in folders)
    for result in (done, run):
        front, layers = result.plot()
        shares = front.lines[0].get_xdata()
        own = 100 / run.result["work_ratio"]
        assert list(shares) == sorted(shares)
        assert any(abs(share - own) < 1e-9 for share in shares)
        assert len(shares) == max(1, len(run.front))
        sites = [layer["site"] for layer in run.result["layers"]]
        assert [label.get_text() for label in layers.get_yticklabels()] == sites
        kept = [bar.get_width() for bar in layers.patches[len(sites) :]]
        counts = [100 * x["neurons_kept"] / x["neurons"] for x in run.result["layers"]]
        assert kept == pytest.approx(counts)
        assert result.plot((front, layers)) == (front, layers)
        with pytest.raises(dn.InputError, match="expected two"):
            result.plot((front,))


def test_what_is_left_to_do_is_counted_as_the_search_counts(done: dn.Distillation) -> None:
    """Without time for written numbers, work is MACs, the mission's outputs alone on both sides."""
    macs_only = replace(done, options=replace(done.options, element_cost=0.0))
    nothing_cut = replace(done.found, plan=dn.Plan(), graph=done.graph)
    assert replace(macs_only, found=nothing_cut).work_ratio == pytest.approx(1.0)
    assert macs_only.work_ratio == pytest.approx(done.mac_ratio, rel=1e-6)
    assert done.work_ratio > 0


def test_what_is_not_installed_is_named(
    done: dn.Distillation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(dn.InputError, match="pip install pandas"):
        done.frame()


def test_a_wrong_type_is_told_what_to_pass(net: nn.Module, photos: Path) -> None:
    model = dn.load_model(net, preprocessing=HOW)
    for call, words in (
        (lambda: dn.load_model(3), "found an int as the network; expected a name such as"),
        (lambda: dn.load_model(net), "or, from Python, preprocessing"),
        (lambda: dn.load_model(net, preprocessing={}), "found a dict as preprocessing"),
        (lambda: dn.load_model("zoo:tf_mnist", weights=[1]), "found a list as the weights"),
        (lambda: dn.open_images(None, model.classes), "found a NoneType as the folder of images"),
        (lambda: dn.open_images(photos, ["cat"]), "found a list as the classes"),
        (lambda: dn.distill(net, "0,1", photos), r"load_model\(module, preprocessing"),
        (lambda: dn.distill("zoo:tf_mnist", "0,1", photos), "what distillnet.load_model gives"),
        (lambda: dn.distill(model, 5, photos), "found an int as the mission"),
        (lambda: dn.distill(model, [0.5, 1], photos), "found a float as a class"),
        (lambda: dn.distill(model, "0,1", [photos]), "found a list as images"),
        (lambda: dn.distill(model, "0,1", photos, 7), "found an int as the folder for statistics"),
        (lambda: dn.distill(model, "0,1", photos, None, {}), "found a dict as options"),
        (lambda: dn.write_run(model, "run"), "found a Model as a result"),
        (lambda: dn.open_run(None), "found a NoneType as the run's folder"),
        (lambda: dn.open_atlas(1), "found an int as the atlas"),
    ):
        with pytest.raises(dn.InputError, match=words):
            call()  # type: ignore[no-untyped-call]
