"""The shape of the code: who may import whom, and what no module may do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = [
    {"errors"},
    {"thread_safety"},
    {"distribution", "files", "page", "progress", "statistics", "thread_pool", "registry"},
    {"options", "keywords"},
    {"config", "search_options"},
    {"corpus"},
    {"documents"},
    {"queries"},
    {"model"},
    {"curvature"},
    {"vectors"},
    {"store"},
    {"ann"},
    {"exact"},
    {"search"},
    {"build"},
    {"change", "check"},
    {"index"},
    {"http"},
    {"client", "serve"},
    {"lab"},
    {"cli"},
]
"""Components, each importing only from itself and from the sets before its own."""

LEVEL = {component: level for level, components in enumerate(ORDER) for component in components}


def modules() -> dict[str, Path]:
    """All modules by their dotted name."""
    found = {}
    for folder in ("gindex", "cli"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}


def component(module: str) -> str:
    """`gindex.corpus.records` is of `corpus`, `cli.build` of `cli`; `gindex` itself only names the others."""
    top, *rest = module.split(".")
    return "cli" if top == "cli" else rest[0] if rest else "gindex"


def imports(module: str) -> Iterator[str]:
    """Yield the modules of ours that a module imports, wherever in it the import stands."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) + 1 - node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            names = [name if (name := f"{origin}.{a.name}") in MODULES else origin for a in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("gindex", "cli"))


def calls(tree: ast.AST) -> Iterator[str]:
    """Yield the names of what is called: `print`, `torch.load`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_imports_are_seen_wherever_they_stand():
    """What the other tests rest on: relative imports, those in functions and those for types alone."""
    assert "cli.command" in set(imports("cli.build"))
    assert "gindex.build.run" in set(imports("cli.build"))
    assert "gindex.build.plan" in set(imports("cli.build"))
    assert component("gindex.corpus.records") == "corpus" and component("cli.main") == "cli"


def test_every_component_has_a_place_in_the_order():
    assert {component(name) for name in MODULES} - {"gindex"} == set(LEVEL)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "gindex"])
def test_imports_go_one_way(module):
    own = component(module)
    for imported in imports(module):
        assert imported in MODULES, f"{module} imports {imported}, which is no module"
        other = component(imported)
        assert other == own or LEVEL[other] < LEVEL[own], f"{module} imports {imported}"


def reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    """What can be reached from a component along arrows."""
    found: set[str] = set()
    ahead = list(arrows[start])
    while ahead:
        if (other := ahead.pop()) not in found:
            found.add(other)
            ahead += arrows[other]
    return found


def arrows_of_the_code() -> dict[str, set[str]]:
    """The imports between components, without those that follow from others."""
    direct: dict[str, set[str]] = {name: set() for name in LEVEL}
    for module in MODULES:
        if module != "gindex":
            direct[component(module)] |= {component(name) for name in imports(module)} - {component(module)}
    return {
        name: {other for other in others if not any(other in reached(direct, via) for via in others - {other})}
        for name, others in direct.items()
    }


def arrows_of_the_page() -> dict[str, set[str]]:
    """The diagram of ARCHITECTURE.md: `a --> b & c`, or `a` alone."""
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```", page, re.S | re.M)
    rows = [line.strip().split(" --> ") for line in diagram.splitlines()[1:] if line.strip()]
    return {name: set(others[0].split(" & ")) if others else set() for name, *others in rows}


def test_the_diagram_is_what_is_imported():
    """All arrows together, so that a failure shows the diagram as it has to be."""
    right = arrows_of_the_code()
    order = [name for components in reversed(ORDER) for name in sorted(components)]
    lines = [" --> ".join((name, " & ".join(sorted(right[name])))) if right[name] else name for name in order]
    diagram = "\n".join(f"    {line}" for line in lines)
    assert arrows_of_the_page() == right, f"write these lines into the diagram of ARCHITECTURE.md:\n{diagram}"


def test_the_page_has_a_row_for_each_room():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/.]+)` \| \S", page, re.MULTILINE)
    assert {Path(row).stem for row in rows} == set(LEVEL), "one row `gindex/ROOM/` or `gindex/MODULE.py` each"
    assert len(rows) == len(LEVEL) and all((ROOT / row).exists() for row in rows)


CORE = [name for name in MODULES if component(name) not in ("lab", "cli")]

LABORATORY = re.compile(
    r"(?<!e)k-?fac|rademacher|kronecker(?!-(factored|shaped))|second.level|lissa|conjugate", re.IGNORECASE
)
"""Kinds that the laboratory registers. EK-FAC is the core's own, and its curvature Kronecker-factored."""

OF_THE_FORMAT = {"gindex.store.manifest"}
"""What reads indexes of older versions, which name a kind of the laboratory."""


@pytest.mark.parametrize("module", CORE)
def test_the_core_neither_imports_nor_names_what_the_laboratory_adds(module):
    assert not [name for name in imports(module) if component(name) == "lab"]
    text = MODULES[module].read_text().replace("EK-FAC", "").replace("EKFAC", "")
    assert module in OF_THE_FORMAT or not LABORATORY.search(text), module


def test_modules_import_each_other_without_cycles():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in set(imports(module)) - {module}:
                visit(imported, (*path, module))
            done.add(module)

    for module in MODULES:
        if module != "gindex":  # it names what users take from the package, and nothing imports it
            visit(module, ())
    assert not any("gindex" in set(imports(name)) for name in MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle_and_no_print_in_the_library(module):
    called = set(calls(TREES[module]))
    assert not called & {"torch.load", "torch.save", "np.load", "np.save", "eval", "exec"}
    # Joblib, shelve and dill are pickle by another name.
    tops = {node.names[0].name for node in ast.walk(TREES[module]) if isinstance(node, ast.Import)}
    tops |= {node.module for node in ast.walk(TREES[module]) if isinstance(node, ast.ImportFrom) and node.module}
    assert not {name.split(".")[0] for name in tops} & {"pickle", "joblib", "shelve", "dill", "marshal"}
    if module.startswith("gindex"):
        assert "print" not in called and "click" not in tops


MAKERS = {f"torch.{name}" for name in ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros")}
"""What makes tensors on the caller's default device, of the caller's default number format."""


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("gindex")])
def test_tensors_are_made_where_and_as_the_code_says(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in MAKERS:
            said = {keyword.arg for keyword in node.keywords}
            wanted = {"device"} if name == "torch.arange" else {"device", "dtype"}
            assert wanted <= said, f"{module}, line {node.lineno}: {name} without {wanted - said}"
        assert not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.tensor", "torch.as_tensor"))


def public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield public functions and classes, and the public methods of public classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module):
    assert ast.get_docstring(TREES[module]), f"{module} has no header"
    missing = [node.name for node in public(TREES[module]) if not ast.get_docstring(node)]
    assert not missing, f"{module}: no docstring on {missing}"


def test_every_folder_is_a_package_with_a_header():
    for path in (ROOT / "gindex").rglob("*"):
        if path.is_dir() and any(path.glob("*.py")):
            assert ast.get_docstring(ast.parse((path / "__init__.py").read_text())), path


def test_every_error_is_in_the_tree_of_the_header():
    tree = TREES["gindex.errors"]
    header = ast.get_docstring(tree) or ""
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert names and all(f" {name} " in f"{header} " or f"{name}\n" in header for name in names)


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("gindex.ann")])
def test_faiss_lives_in_one_room(module):
    names = {alias.name for node in ast.walk(TREES[module]) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(TREES[module]) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] == "faiss"}


MOST_BRANCHES = 12
ROOMS = ("gindex.ann.", "gindex.exact.", "gindex.queries.", "gindex.search.")


def branches(function: ast.AST) -> int:
    """Cyclomatic complexity, to which loops and conditions within expressions count, as they do not for ruff."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler)):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(ROOMS)])
def test_functions_of_a_search_are_simple(module):
    functions = [node for node in ast.walk(TREES[module]) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert not {of.name: branches(of) for of in functions if branches(of) > MOST_BRANCHES}
