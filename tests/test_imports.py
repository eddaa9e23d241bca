"""Who may import whom. Static tests read every import of every file, also those inside functions
and under TYPE_CHECKING; two processes show that either half runs without the other's libraries.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

from generator.emit.outputs import outputs
from generator.lower.program import Selection, program
from generator.spec.load import load
from tests.blocked import python, without

ROOT = Path(__file__).parents[1]
GENERATOR = ROOT / "generator"
BUNDLED = {"errors", "files", "formats", "conditions", "packing"}  # leaves that a bundle holds
LEAVES = BUNDLED | {"resources"}
EVERYTHING = {path.stem for path in GENERATOR.iterdir()}

# Parts of `generator`, or files of one (`runtime.entry`), and third-party packages that a file may
# import, beside the standard library. The row of a file goes before the row of its folder.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "__init__.py": (set(), set()),
    "__main__.py": ({"cli"}, set()),
    "cli.py": ({"arguments", "errors", "verbs"}, set()),
    "verbs": (EVERYTHING - {"__main__", "arguments", "cli"}, set()),
    "data.py": ({"errors"}, set()),
    "arguments.py": (set(), set()),
    "errors.py": (set(), set()),
    "files.py": (set(), set()),
    "formats.py": (set(), set()),
    "conditions.py": (set(), set()),
    "packing.py": (set(), set()),
    "resources.py": ({"errors"}, set()),
    "version.py": (set(), set()),
    "aot/__init__.py": (set(), set()),
    "aot/bundle.py": ({"aot.bundle_text", "emit.sync", "errors"}, set()),
    "aot/bundle_text.py": (set(), set()),
    # In the process of the command line, which asks workers for what torch and triton know.
    "aot/check.py": (
        {
            *("aot.gates", "aot.jobs", "aot.pool"),
            *("errors", "resources", "runtime.entry", "runtime.manifest"),
        },
        set(),
    ),
    "aot/jobs.py": ({"aot.pool", "errors", "runtime.entry", "runtime.manifest"}, set()),
    "aot/gates.py": ({"resources", "runtime.entry", "runtime.manifest"}, set()),
    "aot/pool.py": ({"errors"}, set()),
    "aot/prefill.py": ({"aot.jobs", "aot.pool", "errors", "runtime.manifest"}, set()),
    "aot/record.py": ({"errors", "files", "resources", "runtime.manifest"}, set()),
    # In workers, which have both.
    "aot/binary.py": ({"aot.disassembly", "aot.unset", "resources"}, set()),
    "aot/disassembly.py": (set(), set()),
    "aot/unset.py": ({"aot.disassembly"}, set()),
    "aot/launches.py": ({"conditions", "errors", "packing", "runtime"}, {"torch"}),
    "aot/looking.py": (set(), {"triton"}),
    "aot/offline.py": (set(), {"triton"}),
    "aot/worker.py": ({"aot", "errors", "runtime.manifest"}, {"torch", "triton"}),
    "spec": (LEAVES | {"spec"}, {"pydantic", "pydantic_core", "yaml"}),
    "lower": (LEAVES | {"spec", "lower"}, set()),
    "emit/render.py": (BUNDLED | {"spec", "lower", "emit"}, {"jinja2"}),
    "emit": (BUNDLED | {"spec", "lower", "emit"}, set()),
    "runtime": (BUNDLED | {"runtime"}, {"torch", "triton", "numpy", "safetensors"}),
    "verify": (BUNDLED | {"runtime", "verify"}, {"torch"}),
    "tune/compiled.py": (
        {
            *("aot.check", "aot.gates", "aot.jobs", "aot.pool"),
            *("resources", "runtime.entry", "runtime.manifest"),
        },
        set(),
    ),
    "tune/plots.py": ({"errors", "tune.rows"}, {"matplotlib"}),
    "tune/read_kernel.py": (set(), {"triton"}),
    "tune/vllm_layer.py": ({"runtime", "verify"}, {"torch", "triton", "vllm"}),
    "tune": (BUNDLED | {"runtime", "verify", "tune"}, {"torch"}),
}

IMPORTS_OF_AN_EMITTED_MODULE = ["import triton", "import triton.language as tl"]
GLUON = "from triton.experimental.gluon.language.nvidia.hopper import"
IMPORTS_OF_A_SPECIALIZED_MODULE = [  # the second where no sum goes from one turn to the next
    [
        "from triton.experimental import gluon",
        "from triton.experimental.gluon import language as gl",
        f"{GLUON} mbarrier, tma, warpgroup_mma, {waits}",
    ]
    for waits in ("warpgroup_mma_init, warpgroup_mma_wait", "warpgroup_mma_wait")
]
HIDDEN_IMPORTS = {"__import__", "importlib.import_module", "import_module", "exec", "eval"}
PRINTS = {"print", "sys.stdout", "sys.stderr"}
EXITS = {"sys.exit", "os._exit", "exit", "quit", "SystemExit"}


def files() -> list[Path]:
    return sorted(GENERATOR.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[list[str]]:
    """The parts of every dotted name that a file imports."""
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from ([*module.split("."), alias.name] for alias in node.names)


def names(path: Path) -> set[str]:
    """Every name and dotted name that a file uses."""
    return {
        ast.unparse(n) for n in ast.walk(tree(path)) if isinstance(n, (ast.Name, ast.Attribute))
    }


def row(path: Path) -> tuple[set[str], set[str]]:
    name = path.relative_to(GENERATOR).as_posix()
    for prefix, allowed in ALLOWED.items():
        if name == prefix or name.startswith(f"{prefix}/"):
            return allowed
    raise AssertionError(f"generator/{name}: state in ALLOWED what it may import")


def test_files_import_only_what_their_row_allows() -> None:
    wrong = []
    for path in files():
        parts, libraries = row(path)
        for name, *rest in imported(path):
            own = name == "generator"
            inside = {".".join(rest[:1]), ".".join(rest[:2])}
            allowed = bool(inside & parts) if own else name in libraries
            if not allowed and name not in sys.stdlib_module_names:
                wrong.append(f"{path.relative_to(ROOT)} imports {'.'.join([name, *rest])}")
    assert wrong == []


def test_what_is_copied_into_a_bundle_imports_its_own_package_relatively() -> None:
    """A bundle is a package of another name."""
    runtime = sorted((GENERATOR / "runtime").rglob("*.py"))
    copied = [*runtime, *(GENERATOR / f"{name}.py" for name in sorted(BUNDLED))]
    named = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in copied
        for node in ast.walk(tree(path))
        for module in absolute(node)
        if module.partition(".")[0] in ("generator", "generated")
    ]
    assert copied and named == []


def absolute(node: ast.AST) -> list[str]:
    """The modules that a statement imports by their whole name."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []


def test_importing_the_package_imports_nothing_else() -> None:
    assert list(imported(GENERATOR / "__init__.py")) == []


def test_no_import_hides_in_a_call() -> None:
    hiding = [path.relative_to(ROOT) for path in files() if names(path) & HIDDEN_IMPORTS]
    assert hiding == []


def test_only_the_command_line_prints_and_exits() -> None:
    printing = {path.relative_to(GENERATOR).parts[0] for path in files() if names(path) & PRINTS}
    assert printing == {"cli.py", "verbs"}
    assert [path.name for path in files() if names(path) & EXITS] == ["__main__.py"]


def test_nothing_but_the_pool_starts_the_worker() -> None:
    """It activates a driver without device, which nobody else may have in its process."""
    importing = [
        path.name
        for path in files()
        if ["generator", "aot", "worker"] in [i[:3] for i in imported(path)]
    ]
    assert importing == []


def test_emitted_modules_import_triton_alone() -> None:
    wrong = {}
    for path in sorted((ROOT / "generated").rglob("*.py")):
        nodes = [n for n in ast.walk(tree(path)) if isinstance(n, (ast.Import, ast.ImportFrom))]
        expected = [[] if path.name == "__init__.py" else IMPORTS_OF_AN_EMITTED_MODULE]
        if "_specialized" in path.name or "_pingpong" in path.name:
            expected = IMPORTS_OF_A_SPECIALIZED_MODULE
        if [ast.unparse(node) for node in nodes] not in expected:
            wrong[path.name] = [ast.unparse(node) for node in nodes]
    assert wrong == {}


def test_runtime_needs_no_library_of_the_generator(tmp_path: Path) -> None:
    environment = without(tmp_path, "jinja2", "yaml", "pydantic", path=ROOT)
    assert "blocked: yaml" in python("-c", "import yaml", environment=environment).stderr
    done = python("-c", "import generator.runtime.module", environment=environment)
    assert done.returncode == 0, done.stderr


def test_build_needs_neither_torch_nor_triton(tmp_path: Path) -> None:
    environment = without(tmp_path, "torch", "triton", path=ROOT)
    assert "blocked: torch" in python("-c", "import torch", environment=environment).stderr
    out = tmp_path / "generated"
    done = python("-m", "generator", "build", "--out", str(out), environment=environment)
    assert done.returncode == 0, done.stderr
    expected = outputs(program(load(ROOT / "specs"), Selection()), ROOT / "templates")
    written = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert written == {path: text.encode() for path, text in expected.items()}
