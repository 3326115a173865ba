"""The bill of materials of a release lists what users get, and nothing else."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from sbom import needs, released  # noqa: E402

# As the metadata of packages has it.
_REQUIRES = {
    "torch": ["sympy>=1", "opt-einsum>=3; extra == 'opt-einsum'", "gone; os_name == 'nowhere'"],
    "sympy": ["mpmath<2", "pytest>=7; extra == 'dev'"],
    "pillow": [],
    "mpmath": ["numpy; extra == 'fast'"],
    "onnx": ["numpy[fast]>=1", "typing_extensions"],
    "numpy": ["mpmath[fast]; extra == 'fast'"],
    "typing-extensions": [],
    "opt-einsum": [],
    "gone": [],
    "pytest": ["pluggy"],
    "pluggy": [],
    "distillnet": ["torch"],
}
_NEEDS = {
    "": ["numpy", "onnx", "pillow", "torch"],
    "torch": ["sympy"],
    "sympy": ["mpmath"],
    "mpmath": ["numpy"],
    "onnx": ["numpy", "typing-extensions"],
    "numpy": ["mpmath"],
    "pillow": [],
    "typing-extensions": [],
}


def test_what_only_developers_need_is_not_released() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert needs(project, _REQUIRES.get) == _NEEDS
    found = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [
            {"bom-ref": f"{name}==1", "name": name.title().replace("-", "_")} for name in _REQUIRES
        ],
        "dependencies": [{"ref": "pytest==1", "dependsOn": ["pluggy==1"]}],
    }
    bill = released(found, _NEEDS)
    assert {c["bom-ref"] for c in bill["components"]} == {f"{n}==1" for n in _NEEDS if n}
    depends = {d["ref"]: d["dependsOn"] for d in bill["dependencies"]}
    assert depends["root"] == ["numpy==1", "onnx==1", "pillow==1", "torch==1"]
    assert depends["onnx==1"] == ["numpy==1", "typing-extensions==1"]
    assert "pytest==1" not in depends


def test_a_licence_in_words_is_kept_where_there_is_no_identifier() -> None:
    mit = [{"license": {"id": "MIT"}}]
    found = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [
            {"bom-ref": "onnx", "name": "onnx"},
            {"bom-ref": "numpy", "name": "numpy", "licenses": mit},
            {"bom-ref": "torch", "name": "torch"},
        ],
    }
    told = {"onnx": "Apache License v2.0", "numpy": "whatever"}
    bill = released(found, {"": ["torch"], "onnx": [], "numpy": [], "torch": []}, told.get)
    licences = {c["name"]: c.get("licenses") for c in bill["components"]}
    words = [{"license": {"name": "Apache License v2.0"}}]
    assert licences == {"onnx": words, "numpy": mit, "torch": None}
