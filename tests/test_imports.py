"""The house plan's import directions hold: a package imports only from levels below its own."""

import ast
from pathlib import Path

import pytest

COMMON = Path(__file__).parent.parent / "common"
LEVELS = [
    {"engines", "handlers"},
    {"inferers"},
    {"transforms", "networks", "losses", "metrics", "data"},
    {"frequency", "diffusion"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
PURE = {"frequency", "diffusion"}
HEAVY = {"itk", "av", "diffusers", "open_clip", "timm", "lpips", "matplotlib", "torchvision", "skimage"}
FILES = sorted(COMMON.rglob("*.py"))


def imported_modules(path: Path, *, top_level_only: bool = False) -> list[str]:
    """Absolute names of all modules that ``path`` imports; relative imports are resolved to ``common....``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["common", *path.relative_to(COMMON).parent.parts]
    names = []
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)] if node.level else [module]
    return names


def kind_of(path: Path) -> str | None:
    parts = path.relative_to(COMMON).parts
    return parts[0] if len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(COMMON)))
def test_imports_point_downwards(path: Path) -> None:
    kind = kind_of(path)
    for module in imported_modules(path):
        root, *rest = module.split(".")
        assert root not in {"bundles", "scripts", "tests"}, f"{path} imports {module}"
        if root != "common" or not rest or rest[0] not in LEVEL or kind is None or rest[0] == kind:
            continue
        assert LEVEL[rest[0]] > LEVEL[kind], f"{kind}/ must not import {module}: only lower levels are allowed"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(COMMON)))
def test_project_imports_are_relative(path: Path) -> None:
    """The export renames the package, so ``import common`` inside it would break there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "common" for alias in node.names), path
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] != "common", path


@pytest.mark.parametrize("path", [p for p in FILES if kind_of(p) in PURE], ids=lambda p: p.name)
def test_mathematics_knows_only_torch(path: Path) -> None:
    roots = {module.split(".")[0] for module in imported_modules(path)}
    assert not roots & {"monai", "ignite", "nibabel", "PIL"}, roots


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(COMMON)))
def test_heavy_packages_are_imported_where_used(path: Path) -> None:
    roots = {module.split(".")[0] for module in imported_modules(path, top_level_only=True)}
    assert not roots & HEAVY, f"{path} imports {roots & HEAVY} at import time"


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    """The reader of import statements is itself right: relative levels resolve to the package's full name."""
    source = COMMON / "frequency" / "_example.py"
    names = {"from ..engines import x": "common.engines.x", "from . import dct": "common.frequency.dct"}
    for statement, expected in names.items():
        tree = ast.parse(statement).body[0]
        assert isinstance(tree, ast.ImportFrom)
        package = ["common", *source.relative_to(COMMON).parent.parts]
        base = package[: len(package) - tree.level + 1]
        assert ".".join([*base, *([tree.module] if tree.module else []), tree.names[0].name]) == expected


def test_scripts_is_no_package() -> None:
    """A top-level ``scripts/__init__.py`` would hide the ``scripts`` package of exported bundles."""
    assert not (COMMON.parent / "scripts" / "__init__.py").exists()
    assert not list((COMMON.parent / "bundles").rglob("*.py")), "bundles hold configs, no Python"
