"""The whole job on data that comes with a library: digits, 28 x 28, distilled for three of them.

Nothing is downloaded. The network is trained on one half of scikit-learn's digits; the other half,
which it has never seen, is left as image folders beside the result, so that each step can be
repeated by hand.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from distillnet.classes import parse_mission
from distillnet.files.layout import files_in
from distillnet.images import open_images
from distillnet.images.preprocessing import preprocess
from distillnet.job.distill import distill
from distillnet.job.distillation import Distillation, Options
from distillnet.job.partition import split_images
from distillnet.job.runs import write_run
from distillnet.models import load_model
from distillnet.models.train import (
    DIGITS_RECIPE,
    Epoch,
    bundled_digits,
    save_weights,
    train_on_tensors,
)
from distillnet.models.zoo.tensorflow import TF_MNIST_PREPROCESSING, tf_mnist

__all__ = ["run_demo"]

_MISSION = "0,1,2"


def run_demo(
    directory: Path, *, on_progress: Callable[[str, int, int], None] = lambda stage, done, of: None
) -> Distillation:
    """Train ``zoo:tf_mnist`` on digits, distill it for three of them, write the run.

    ``directory`` is an existing folder; besides the run it gets ``weights.safetensors`` and
    ``data/``, the images that the network was not trained on.
    """
    images_nhw, labels_n = bundled_digits()
    order = torch.randperm(len(labels_n), generator=torch.Generator().manual_seed(0))
    seen, unseen = order[: len(order) // 2], order[len(order) // 2 :]

    def tensors(index: Tensor) -> tuple[Tensor, Tensor]:
        pictures = (Image.fromarray(images_nhw[i].numpy()) for i in index)
        x = torch.stack([preprocess(p, TF_MNIST_PREPROCESSING) for p in pictures])
        return x, labels_n[index]

    def report(epoch: Epoch) -> None:
        on_progress("train", epoch.number, epoch.of)

    trained = train_on_tensors(
        tf_mnist, tensors(seen), tensors(unseen), DIGITS_RECIPE, seed=0, on_epoch=report
    )
    weights = directory / "weights.safetensors"
    save_weights(weights, trained.state_dict)
    data = directory / "data"
    for n, i in enumerate(unseen.tolist()):  # by chance: the file's order goes by class and writer
        part = "train" if n % 2 else "val"
        folder = data / part / str(int(labels_n[i]))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images_nhw[i].numpy()).save(folder / f"{i:04}.png")

    model = load_model("zoo:tf_mnist", weights=weights)
    mission = parse_mission(_MISSION, model.classes)
    images = split_images(open_images(data, model.classes, mission.indices))
    (directory / "atlas").mkdir()
    options = Options(seen=False)  # the network was trained on the other half
    done = distill(model, mission, images, directory / "atlas", options, on_progress=on_progress)
    write_run(done, directory, {"data": data, "weights": weights})
    marker = {"files": files_in(directory)}
    (directory / "demo.json").write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    return done
