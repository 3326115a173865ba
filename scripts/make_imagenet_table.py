"""Write src/distillnet/classes/imagenet1k.tsv from what timm and torchvision know of ImageNet-1k.

    .venv/bin/python scripts/make_imagenet_table.py

Index and WordNet id come from timm's synset list and the aliases from its WordNet lemmas
(Apache-2.0); the canonical name is torchvision's category (BSD-3-Clause).
"""

from pathlib import Path

from timm.data import ImageNetInfo
from torchvision.models import ResNet18_Weights

TABLE = Path(__file__).parents[1] / "src" / "distillnet" / "classes" / "imagenet1k.tsv"


def main() -> None:
    info = ImageNetInfo("imagenet-1k")
    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    lemmas = [info.index_to_description(i, detailed=False).split(", ") for i in range(len(names))]
    # Both libraries order the classes by WordNet id. If one ever did not, the names would show it.
    for name, words in zip(names, lemmas, strict=True):
        if not any(name.startswith(word) for word in words):
            raise SystemExit(f"torchvision's {name!r} is none of timm's {words}: order changed?")
    aliases = [
        [word for word in words if word != name] for name, words in zip(names, lemmas, strict=True)
    ]
    width = max(map(len, aliases))
    rows = [["index", "wnid", "name", *(f"alias{n}" for n in range(1, width + 1))]]
    for i, name in enumerate(names):
        padding = [""] * (width - len(aliases[i]))
        rows.append([str(i), info.index_to_label_name(i), name, *aliases[i], *padding])
    text = "".join("\t".join(row).rstrip() + "\n" for row in rows)
    TABLE.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
