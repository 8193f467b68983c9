"""Nothing in the package executes what it reads: no pickles, no unsafe YAML, no evaluated text."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.source import Module, modules

FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "marshal.load", "marshal.loads"),
    *("shelve.open", "joblib.load", "pandas.read_pickle", "eval", "exec", "os.system", "os.popen", "compile"),
    *("yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load_all", "yaml.load_all"),
    *("torch.hub.load", "numpy.load", "np.load", "torch.load", "yaml.load", "FileSystemReader"),
}
"""Calls that may run code of the data, unless their arguments say otherwise; see `is_safe`."""

EXCEPTIONS = {
    ("lorgnette/data/processes.py", "pickle.loads"): "an error of this process, to see whether it can travel",
    ("lorgnette/data/prepare/pool.py", "pickle.loads"): "tasks that this process gave to its own workers",
    (
        "lorgnette/train/checkpoint/metadata.py",
        "pickle.Unpickler",
    ): "admits the few classes of a checkpoint's metadata alone",
    ("lorgnette/train/checkpoint/metadata.py", "FileSystemReader"): "the base of the reader that does not execute",
}


def named(node: ast.expr) -> str:
    """A dotted name as it is written; empty for what is none."""
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := named(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


def is_safe(call: ast.Call, name: str) -> bool:
    """Return whether the arguments make a call of a forbidden name safe."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "torch.load":
        return isinstance(given.get("weights_only"), ast.Constant) and given["weights_only"].value is True
    if name in ("np.load", "numpy.load"):
        return "allow_pickle" not in given  # numpy's own default refuses
    if name == "yaml.load":
        loader = given.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
        return loader is not None and named(loader).split(".")[-1] in ("SafeLoader", "CSafeLoader", "_PlainLoader")
    return False


def executes(module: Module) -> Iterator[str]:
    """Every forbidden name that a module calls or builds on."""
    for node in module.nodes:
        if isinstance(node, ast.Call) and (name := named(node.func)) in FORBIDDEN and not is_safe(node, name):
            yield name
        if isinstance(node, ast.ClassDef):
            yield from (name for base in node.bases if (name := named(base)) in FORBIDDEN)
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "dill", "joblib", "shelve"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", modules("lorgnette", "corpus"), ids=lambda module: module.path)
def test_nothing_that_is_read_is_executed(module):
    assert {name for name in executes(module) if (module.path, name) not in EXCEPTIONS} == set()


@pytest.mark.parametrize(("path", "name"), EXCEPTIONS, ids=str)
def test_every_exception_is_still_needed(path, name):
    assert any(name in executes(module) for module in modules("lorgnette") if module.path == path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch.load(p)", ["torch.load"]),
        ("torch.load(p, weights_only=False)", ["torch.load"]),
        ("torch.load(p, weights_only=True)", []),
        ("np.load(p, allow_pickle=True)", ["np.load"]),
        ("np.load(p)", []),
        ("yaml.load(t, yaml.Loader)", ["yaml.load"]),
        ("yaml.load(t, Loader=yaml.SafeLoader)", []),
        ("from pickle import loads", ["pickle.loads"]),
        ("eval('1')", ["eval"]),
        ("model.eval()", []),
        ("re.compile('a')", []),
    ],
)
def test_the_search_finds_what_it_looks_for(text, expected):
    assert list(executes(Module("a.py", text))) == expected
