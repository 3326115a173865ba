"""Tensors as pictures, and charts as SVG."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image

from distillnet.pages.html import environment, policy
from distillnet.pages.pictures import bitmap_tiles, colour, png, tiles
from distillnet.pages.report.charts import AFTER, chart


def test_a_bitmap_of_whole_channels_has_a_pixel_for_each() -> None:
    keep = torch.arange(10) % 3 == 0
    picture = np.asarray(bitmap_tiles(keep[:, None, None].expand(10, 4, 4)))
    assert picture.flatten()[:10].tolist() == [255 * bool(k) for k in keep]


def test_a_bitmap_of_single_neurons_has_a_tile_for_each_channel() -> None:
    keep = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    picture = np.asarray(bitmap_tiles(keep))
    columns = 4  # twice the root of 4 channels
    assert picture.shape == (5, columns * 6 - 1)
    for i in range(4):
        assert (picture[:, 6 * i : 6 * i + 5] == 255 * keep[i].numpy()).all()


def test_pictures_are_png_without_losses() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    data = base64.b64decode(png(tiles(values[None], 1, 8)).removeprefix("data:image/png;base64,"))
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(data))), np.round(values.numpy() / 11 * 255)
    )
    ends = np.asarray(colour(values, 11.0))[[0, 2], [0, 3]].tolist()
    assert ends == [[68, 1, 84], [253, 231, 37]]


def test_a_chart_takes_the_pages_colours_and_keeps_names_as_text() -> None:
    name = "<script>$x_1$ & \"q\" id='a' #010205"

    def draw(axes) -> None:  # type: ignore[no-untyped-def]
        axes.barh([0], [1.0], color=AFTER)
        axes.set_yticks([0], [name])

    one, two = (chart(draw, 3, 1, prefix) for prefix in ("a", "b"))
    root = ElementTree.fromstring(one)
    assert name in [element.text for element in root.iter()]
    assert "fill: var(--after)" in one
    assert AFTER not in one.replace(name.partition("#")[1] + "010205</", "")
    ids = [re.findall(r'\bid="([^"]*)"', ElementTree.tostring(root).decode()) for root in
           map(ElementTree.fromstring, (one, two))]  # fmt: skip
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    assert set(re.findall(r"url\(#([^)]*)\)", one)) <= set(ids[0])
    assert "http" not in one.replace("http://www.w3.org/", "")


def test_values_are_escaped_and_missing_ones_are_errors() -> None:
    made = environment().from_string("{{ name }}").render(name="<b>&\"'")
    assert made == "&lt;b&gt;&amp;&#34;&#39;"
    assert "connect-src 'self'" in policy("x", connect_src="'self'")
    assert "default-src 'none'" in policy()
