"""The PTX that nvcc makes of the kernels, as C++ that the emulated GPU runs: calls of what emulated_cuda/ptx.h defines.

files = ptx_files(folder, 75)                                    # of crop.cu and decode.cu, for compute_75
with in_force(ptx_libraries(files, emulated), emulated): ...     # launches run them in place of the kernels as C++

A line of PTX becomes the same line of C++, so that a compiler's error and an emulated fault name the PTX. A statement
that no rule reads is an error here, an instruction that ptx.h lacks is one of the compiler.
"""

import ctypes
import re
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.emulated_gpu import FLAGS, ROOT, SHIM, compiler, run_together

PTX_FLAGS = (*FLAGS, "-fno-operator-names", "-fwrapv", "-fmax-errors=1", f"-I{SHIM}", "-shared")
GUARD_BYTES = 64  # between shared variables, so that no access strays from one into the next
ENTRIES = """
extern "C" const std::vector<Entry>* entries() {{
    static const std::vector<SharedVariable> shared = {{{shared}}};
    static const std::vector<Entry> all = {{{entries}}};
    return &all;
}}
"""


def toolkit():
    """The nvcc that would build the extension, and for which architectures; None without one."""
    from cpp_ext.build_native import find_toolkit

    return find_toolkit()


def ptx_files(folder, architecture):
    """The PTX of each kernel file, made with the flags of the build."""
    from cpp_ext.build_native import CUDA_SOURCES, NVCC_FLAGS

    sources = [ROOT / "cpp_ext" / name for name in CUDA_SOURCES]
    files = [folder / f"{source.stem}.{architecture}.ptx" for source in sources]
    command = [toolkit().nvcc, *NVCC_FLAGS, f"-arch=compute_{architecture}", "-ptx"]
    run_together([*command, source, "-o", file] for source, file in zip(sources, files, strict=True))
    return files


def ptx_libraries(files, emulated):
    """Each file compiled as C++, beside it and above the emulated GPU."""
    for file in files:
        file.with_suffix(".cpp").write_text(cpp_from_ptx(file.read_text(), file))
    names = [file.with_suffix(".so") for file in files]
    run_together([compiler(), *PTX_FLAGS, name.with_suffix(".cpp"), emulated.path, "-o", name] for name in names)
    return [ctypes.CDLL(str(name)) for name in names]


@contextmanager
def in_force(libraries, emulated):
    """Launches run the entries of these libraries; the launch of a kernel that has none is an error."""
    for library in libraries:
        library.entries.restype = ctypes.c_void_p
        emulated.library.emulated_entries(ctypes.c_void_p(library.entries()))
    try:
        yield
    finally:
        emulated.library.emulated_entries(None)


# ---- translation ---------------------------------------------------------------------------------------------------

PREDICATE = r"(?:@(?P<predicate>!?%\w+)\s+)?"
OPCODE = r"(?P<name>[a-z][a-z\d.]*?)(?:\.v[24])?(?P<types>(?:\.(?:pred|f16x2|[busf](?:8|16|32|64))\b)*)"
VARIABLE = (
    r"(?:\.align\s+(?P<align>\d+)\s+)?\.[busf](?P<bits>\d+)\s+(?:\.ptr\s+\.align\s+\d+\s+)?"
    r"(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?"
)
FLOAT_LITERAL = re.compile(r"\b0[fd](?=[0-9A-F]{8})")  # the bits of a float


@dataclass
class Module:
    """What a file has declared so far: its entries as C++ initialisers, its shared variables as (begin, bytes)."""

    entries: list[str] = field(default_factory=list)
    shared: list[tuple[int, int]] = field(default_factory=list)


def cpp_from_ptx(text, path):
    """The C++ of one file; `path` is what errors call it."""
    module = Module()
    functions = translated(text, module)
    shared = ", ".join(f"{{{begin}, {size}}}" for begin, size in module.shared)
    entries = ENTRIES.format(shared=shared, entries=", ".join(module.entries))
    return f'#include "ptx.h"\n#line 1 "{path}"\n{functions}{entries}'


def translated(text, module):
    """Statement by statement, with the text's line ends."""
    written = []
    for found, rule in statements(text):
        cpp = rule(module, **found.groupdict())
        written.append(cpp + "\n" * (found[0].count("\n") - cpp.count("\n")))
    return "".join(written)


def statements(text):
    """(match, its rule) of each statement and of what lies between."""
    at = 0
    while at < len(text):
        for pattern, rule in RULES:
            if found := pattern.match(text, at):
                yield found, rule
                at = found.end()
                break
        else:
            raise AssertionError(f"no rule reads this PTX: {text[at:].splitlines()[0]}")


def opcodes(text):
    """The kinds of instruction in it: {'add.s32', ...}, vectors as their elements."""
    return {found["name"] + found["types"] for found, rule in statements(text) if rule is instruction}


def space(_, space):
    return space


def without_effect(_):
    return ""


def entry(module, name, parameters):
    """A function; before it, the places of its parameters in the param space."""
    places, end = "", 0
    for align, bits, parameter, count in re.findall(rf"\.param\s+{VARIABLE}", parameters):
        begin, end = placed(end, align, bits, count)
        places += f"constexpr uint64_t {parameter} = {begin}; "
    module.entries.append(f'{{"{name}", {name}, {end}, shared}}')
    return f"{places}static void {name}() {{"


def shared(module, align, bits, name, count):
    """The place of a variable in the shared space."""
    after = sum(module.shared[-1]) + GUARD_BYTES if module.shared else 0
    begin, end = placed(after, align, bits, count)
    module.shared.append((begin, end - begin))
    return f"constexpr uint32_t {name} = {begin};"


def placed(after, align, bits, count):
    """(begin, end) of a variable at the next multiple of its alignment."""
    element = int(bits) // 8
    align = int(align or element)
    begin = -(-after // align) * align
    return begin, begin + element * int(count or 1)


def registers(_, type, names):
    """`%r<3>` is $r0, $r1, $r2."""
    every = re.sub(r"(\S+)<(\d+)>", lambda each: ", ".join(f"{each[1]}{i}" for i in range(int(each[2]))), names)
    return f"bits<{type}> {every};".replace("%", "$")


def brace(_, brace):
    return brace


def label(_, label):
    return f"{label}:;"


def instruction(_, predicate, name, types, operands):
    """A jump, a return, or a call of what ptx.h defines: the address first, the parts of a vector as operands."""
    if name in ("bra", "bra.uni"):
        done = f"goto {operands}"
    elif name == "ret":
        done = "return"
    else:
        operands = FLOAT_LITERAL.sub("0x", re.sub(r"[{}]", "", operands).replace("|", ","))
        ordered = sorted(operands.split(","), key=lambda operand: "[" not in operand)
        template = f"<{', '.join(types[1:].split('.'))}>" if types else ""
        done = f"{name.replace('.', '_')}{template}({re.sub(r'[][]', '', ','.join(ordered))})"
    return (f"if ({predicate}) {done};" if predicate else f"{done};").replace("%", "$")


RULES = [
    (re.compile(pattern), rule)
    for pattern, rule in (
        (r"(?P<space>\s+)", space),
        (r"//.*", without_effect),
        (r"\.(?:version|target|address_size)\s.*", without_effect),
        (r"\.pragma\s[^;]*;", without_effect),
        (r"\.entry\s+(?P<name>\w+)\((?P<parameters>[^)]*)\)\s*\.maxntid[\d,\s]+\{", entry),
        (rf"\.shared\s+{VARIABLE};", shared),
        (r"\.reg\s+\.(?P<type>\w+)\s+(?P<names>[^;]+);", registers),
        (r"(?P<brace>[{}])", brace),
        (r"(?P<label>\$\w+):", label),
        (rf"{PREDICATE}{OPCODE}(?:\s+(?P<operands>[^;]+))?;", instruction),
    )
]
