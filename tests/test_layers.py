"""Data flows one way: a room imports only what stands before it, and says what it offers."""

import ast
import doctest
import graphlib
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import distillnet

ROOT = Path(distillnet.__file__).parent
# The rooms, each importing only those before it.
ORDER = (
    "errors", "files", "classes", "images", "models", "graph", "cut", "playbook", "engine",
    "refit", "atlas", "evaluate", "search", "job", "missions", "deploy", "reproduce", "pages",
    "cli", "__main__",
)  # fmt: skip
# A kit is no module, but a script that a device runs by itself.
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent.name != "kit")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    return module.split(".")[1]


def _imports(path: Path) -> set[str]:
    """The modules of this package that a file, or its stub, names in an import, wherever it is."""
    found = set()
    stub = path.with_suffix(".pyi")
    if stub.exists():  # what lazy_loader imports on demand
        body = ast.parse(stub.read_text()).body
        found = {
            f"{_name(path)}.{node.module}" for node in body if isinstance(node, ast.ImportFrom)
        }
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "distillnet":
                found |= {f"distillnet.{alias.name}" for alias in node.names}
            elif node.module:
                found.add(node.module)
    return {name for name in found if name.startswith("distillnet.")}


@pytest.fixture(params=FILES, ids=_name)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(_name(request.param))


def test_the_package_is_the_rooms_in_order() -> None:
    found = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in FILES}
    found = {name for name in found if (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists()}
    assert found - {"__init__"} == set(ORDER)
    listed = {path.stem for path in ROOT.iterdir() if path.name != "__pycache__"}
    assert len(listed) <= 22, "a reader should take the package in at a glance"


@pytest.mark.parametrize("path", [p for p in FILES if p != ROOT / "__init__.py"], ids=_name)
def test_a_room_imports_only_what_stands_before_it(path: Path) -> None:
    name = _name(path)
    place = ORDER.index(_room(name))
    for imported in _imports(path):
        same_room = _room(imported) == _room(name)
        assert same_room or ORDER.index(_room(imported)) < place, f"{name}: {imported}"


def test_modules_of_a_room_do_not_import_each_other_in_circles() -> None:
    imports = {_name(path): _imports(path) for path in FILES}
    graph = {name: {i for i in found if i in imports} - {name} for name, found in imports.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle
    assert set(order) >= set(imports)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350, "cut it where it holds two things"


def test_what_all_lists_exists_and_is_documented(module: ModuleType) -> None:
    assert module.__doc__ or module.__name__ == "distillnet"
    if module.__name__ in ("distillnet", "distillnet.cli.main"):  # what commands do, --help says
        return
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            text = inspect.getdoc(thing) or ""
            assert text, f"{name} has no docstring"
            assert not text.startswith(f"{name}("), f"{name} has dataclass's own docstring"


def test_what_is_public_is_listed(module: ModuleType) -> None:
    if module.__name__.startswith("distillnet.cli"):
        return
    mine = {
        name
        for name, thing in vars(module).items()
        if (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    }
    assert mine <= set(getattr(module, "__all__", ()))


def test_doctests(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.failed == 0
