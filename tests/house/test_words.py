"""Content that is banned from the repository: unfinished work, paths of one machine, tests that test nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import modules, texts

UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK|NotImplemented" + r"Error)\b")
ONE_MACHINE = re.compile(
    r"(?<![\w./:<>~-])/(?:home|root|work|opt|mnt|Users|scratch)/\w|file:///(?:home|root|work|opt)/"
)


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("pattern", [UNFINISHED, ONE_MACHINE], ids=["unfinished work", "a path of one machine"])
def test_no_line_holds(pattern):
    assert not lines_with(pattern)


def test_no_error_is_swallowed_whole():
    bare = [
        f"{module.path}:{node.lineno}"
        for module in modules("lorgnette", "corpus", "scripts", "benchmarks")
        for node in module.nodes
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
    ]
    assert not bare, "say which error is meant, or report it"


ASSERTING = {"raises", "warns", "assert_close", "assert_allclose", "assert_equal", "suppress"}


def asserting(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Each test of a file, and whether it or a function of its file that it calls asserts anything.

    To suppress some errors and no others, as a fuzzer does, is to assert that there are no others.
    """
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    def asserts(name: str, seen: frozenset[str]) -> bool:
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Assert):
                return True
            called = ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else ""
            if called in ASSERTING:
                return True
            if called in functions.keys() - seen and asserts(called, seen | {called}):
                return True
        return False

    return ((name, asserts(name, frozenset({name}))) for name in functions if name.startswith("test_"))


@pytest.mark.parametrize("module", modules("tests"), ids=lambda module: module.path)
def test_every_test_asserts_something(module):
    assert [name for name, real in asserting(module.tree) if not real] == []


def test_only_a_missing_gpu_linux_kernel_compiler_or_processor_skips_a_test():
    skips = [
        f"{module.path}:{node.lineno}"
        for module in modules("tests")
        for node in module.nodes
        if isinstance(node, ast.Call)
        and re.search(r"\b(skip|skipif|importorskip|xfail)$", ast.unparse(node.func))
        and not re.search("cuda|/proc/|supported_engines|gcc|platform.machine", ast.unparse(node))
    ]
    assert not skips


def test_model_files_leave_kernels_and_devices_to_their_room():
    """A model file says what a VLM is; tiles, threads, devices and backward passes by hand are in `model/ops/`."""
    pattern = re.compile(r"device\.type|get_num_threads|autograd\.Function")
    found = [
        f"{module.path}: {match[0]}"
        for module in modules("lorgnette")
        if re.fullmatch(r"lorgnette/model/\w+\.py", module.path)
        for match in pattern.finditer(module.text)
    ]
    assert not found
