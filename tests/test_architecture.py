"""The rules of the design that a machine can hold: who may import whom, what may be imported at the top of a module,
function length, declared names, no output from the library."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(p for p in (ROOT / "sdk").rglob("*.py"))
IDS = [str(p.relative_to(ROOT)) for p in MODULES]
MAY_IMPORT = {  # room -> the rooms it may import, beside itself and the shared words
    "": set(),
    "networks": set(),
    "runtime": set(),
    "media": {"runtime"},
    "people": {"runtime", "media"},
    "live": {"runtime", "media", "people"},
    "scale": {"runtime", "media", "people"},
    "toolchain": {"networks", "runtime", "media", "people"},
    "evaluate": {"networks", "runtime", "media", "people", "toolchain"},
    "training": {"networks", "runtime", "media", "toolchain", "evaluate"},
    "serving": {"runtime", "people"},
    "cli": {"networks", "runtime", "media", "people", "toolchain", "evaluate", "training", "live", "scale", "serving"},
}
EVALUATE_MAY_IMPORT = {  # the same within `sdk.evaluate`, in the order in which data goes; "" walks it
    "datasets": set(),
    "predictions": {"datasets"},
    "scores": {"datasets"},
    "speed": set(),
    "": {"datasets", "predictions", "scores", "speed"},
    "pages": {"datasets", "predictions", "scores", "speed", ""},
}
RUN_TIME = ("", "runtime", "media", "people", "live", "scale")  # what a device needs: no torch, no onnx
BUILD_TIME_ONLY = {"torch", "onnx", "onnxscript", "onnxslim", "safetensors"}
RUNTIME_OPTIONAL = {
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cuda",
    "cv2",
    "pycocotools",
    "matplotlib",
    "tqdm",
    "av",
    "fsspec",
    "pyarrow",
    "ray",
    "rerun",
    "supervision",
}
FLAVOURS = {"tensorrt", "tensorrt_rtx"}


def room_of(path):
    parts = path.relative_to(ROOT / "sdk").parts
    return parts[0] if len(parts) > 1 else ""


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(tree, *, top_level_only):
    """Names of imported modules; imports under `if TYPE_CHECKING` do not count."""
    nodes = []
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes.extend((id(n)) for n in ast.walk(node))
            continue
        if id(node) in nodes:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_rooms_import_only_what_they_may(path):
    room = room_of(path)
    if path == ROOT / "sdk" / "__init__.py":  # the face of the package: it names what each room offers
        return
    for name in imports_of(ast.parse(path.read_text()), top_level_only=False):
        parts = name.split(".")
        if parts[0] == "sdk" and len(parts) > 1 and parts[1] in MAY_IMPORT:
            assert parts[1] in {room, *MAY_IMPORT[room]}, f"{room or 'shared words'} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) == "evaluate"], ids=lambda p: p.stem)
def test_rooms_of_evaluate_import_only_what_they_may(path):
    def inner(name):
        parts = name.split(".")[2:]
        return parts[0] if len(parts) > 1 else ""

    room, known = inner(module_name(path)), {module_name(each) for each in MODULES}
    for name in imports_of(ast.parse(path.read_text()), top_level_only=False):
        if name.startswith("sdk.evaluate.") and name in known:
            assert inner(name) in {room, *EVALUATE_MAY_IMPORT[room]}, f"{room or 'the walk'} imports {name}"


def test_the_page_of_the_architecture_tells_these_arrows_and_names_only_what_is_there():
    page = (ROOT / "docs/architecture.md").read_text()
    told = {}
    for line in re.findall(r"^\| (`sdk/.*) \|$", page, re.M):
        rooms, arrows = (re.findall(r"`(?:sdk/)?(\w+)`", cell) for cell in line.split("|"))
        told.update({room: set(arrows) for room in rooms})
    assert told == {room: arrows for room, arrows in MAY_IMPORT.items() if room not in ("", "cli")}
    named = re.findall(r"`((?:sdk|cpp_ext|tests|engines)/[\w/.]*)`", page)
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_no_module_imports_one_that_imports_it():
    """Neither at the top nor inside functions: whatever a module knows does not know it."""
    names = {module_name(path): path for path in MODULES}
    graph = {
        name: {found for found in imports_of(ast.parse(path.read_text()), top_level_only=False) if found in names}
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    finished = set()

    def visit(name, walked):
        assert name not in walked, f"a circle: {' -> '.join([*walked[walked.index(name) :], name])}"
        if name in graph and name not in finished:
            for found in sorted(graph[name]):
                visit(found, [*walked, name])
            finished.add(name)

    for name in sorted(graph):
        visit(name, [])


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_heavy_packages_are_imported_where_used(path):
    top = {name.split(".")[0] for name in imports_of(ast.parse(path.read_text()), top_level_only=True)}
    if room_of(path) in (*RUN_TIME, "cli"):
        assert not top & (BUILD_TIME_ONLY | RUNTIME_OPTIONAL)
    if room_of(path) == "evaluate":
        assert not top & BUILD_TIME_ONLY


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_the_run_time_never_imports_build_time_packages(path):
    if room_of(path) in RUN_TIME:
        names = {name.split(".")[0] for name in imports_of(ast.parse(path.read_text()), top_level_only=False)}
        assert not names & BUILD_TIME_ONLY


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_one_module_names_tensorrt(path):
    if path.name != "trt.py":
        names = {name.split(".")[0] for name in imports_of(ast.parse(path.read_text()), top_level_only=False)}
        assert not names & FLAVOURS


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_one_module_imports_onnxruntime(path):
    names = {name.split(".")[0] for name in imports_of(ast.parse(path.read_text()), top_level_only=False)}
    assert "onnxruntime" not in names


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_one_module_parses_what_others_wrote(path):
    if path.name != "reading.py":
        named = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not named & {"json.load", "json.loads", "tomllib.load", "tomllib.loads", "csv.reader", "csv.DictReader"}


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_functions_are_short_and_documented_modules_declare_their_names(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module opens with what it is"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
    has_names = any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree.body)
    declared = any(isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__" for n in tree.body)
    assert declared or not has_names or room_of(path) == "cli", "__all__ is missing"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_the_library_neither_prints_nor_catches_everything(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and room_of(path) != "cli":
            assert ast.unparse(node.func) != "print"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "a bare except hides causes"
            assert ast.unparse(node.type) not in ("Exception", "BaseException") or _re_raises(node)


def _re_raises(handler):
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_users_paths_are_resolved_in_one_place(path):
    """`Path.resolve` raises a RuntimeError for links in a loop before Python 3.13; `sdk.files.real_path` does not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "resolve":
            assert ast.unparse(node.func.value) == "Path(__file__)"
