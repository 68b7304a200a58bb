"""sdk/_native.pyi says what the module is: the same names, the same parameters in the same order, the same defaults."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.native

native = pytest.importorskip("sdk._native", exc_type=ImportError)

STUB = ast.parse((Path(__file__).resolve().parents[1] / "sdk" / "_native.pyi").read_text())


def stubbed(body):
    """Function name -> parameter names of the stub, `self` left out."""
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    return {f.name: [a.arg for a in f.args.args if a.arg != "self"] for f in functions}


def constants(body):
    return {node.target.id for node in body if isinstance(node, ast.AnnAssign)}


def stub_class(name):
    return next(node.body for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == name)


def bound(owner):
    """Function name -> parameter names of the module, as nanobind tells them."""
    found = {}
    for name in dir(owner):
        signature = getattr(getattr(owner, name), "__nb_signature__", None)
        if signature and not name.startswith("_"):
            assert len(signature) == 1, f"{name} is overloaded"
            inside = re.search(r"\((.*)\) -> ", signature[0][0], re.DOTALL).group(1)
            found[name] = [p for p in re.findall(r"(?:^|, )(\w+)(?=[:,]|$)", without_brackets(inside)) if p != "self"]
    return found


def without_brackets(text):
    while (shorter := re.sub(r"\[[^\[\]]*\]|\([^()]*\)", "", text)) != text:
        text = shorter
    return text


def test_functions_and_constants_are_the_modules():
    assert stubbed(STUB.body) == bound(native)
    assert constants(STUB.body) == {"MAX_THREADS", "WITHOUT_CUDA", "cuda"} <= set(dir(native))


@pytest.mark.skipif(native.cuda is None, reason="this build has no CUDA half")
def test_the_cuda_half_is_as_stubbed():
    assert stubbed(stub_class("_Cuda")) == bound(native.cuda)
    assert {name: words for name, words in stubbed(stub_class("_Flight")).items() if name != "__init__"} == bound(
        native.cuda.Flight
    )
    assert stubbed(stub_class("_Graph")) == bound(native.cuda.Graph)
    assert stubbed(stub_class("_Mark")) == bound(native.cuda.Mark)
    assert (
        constants(stub_class("_Cuda"))
        == {"ARCHITECTURES", "COMPILER", "TOOLKIT", "Flight", "Graph", "Mark"}
        <= set(dir(native.cuda))
    )


def test_the_comparison_sees_a_difference():
    assert stubbed(ast.parse("def crop(out, frame): ...").body)["crop"] != bound(native)["crop"]
