"""The house: imports go down only, configs import nothing of the package, every file says its purpose."""

import ast
import re
import sys

from tests import ROOT

PACKAGE = ROOT / "gensupcon_jax"


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PYTHON_FILES = list(MODULES.values())


def modules_of_the_package(path):
    """The modules of the package that a file imports, inside its functions too: the longest known prefix of each name."""
    for name in imported_modules(path):
        parts = name.split(".")
        known = [".".join(parts[:end]) for end in range(1, len(parts) + 1) if ".".join(parts[:end]) in MODULES]
        if len(known) > 1:  # `gensupcon_jax` alone is the version, and the public names
            yield known[-1]


def wing(module):
    return module.split(".")[1] if "." in module else module


def circles(graph):
    """The nodes that can reach themselves."""

    def reachable(start):
        found, waiting = set(), list(graph[start])
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += graph[node]
        return found

    return sorted(node for node in graph if node in reachable(node))


FILES = {module: set(modules_of_the_package(path)) - {module} for module, path in MODULES.items()}


def test_imports_go_down_only_between_files():
    assert circles(FILES) == []


def wings():
    """Each wing with those that it imports."""
    imported_by = {}
    for module, imported in FILES.items():
        if module != "gensupcon_jax":  # hands the public names on, and is imported by all
            imported_by.setdefault(wing(module), set()).update({wing(name) for name in imported} - {wing(module)})
    return imported_by


def test_imports_go_down_only_between_wings():
    assert circles(wings()) == []


def test_configs_import_nothing_of_the_package():
    for path in (ROOT / "configs").glob("*.py"):
        names = set(imported_modules(path))
        tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names
        assert tops <= {"gensupcon_jax", "ml_collections"}, path.name
        assert all(name.startswith("gensupcon_jax.configs.") for name in names if "gensupcon" in name), path.name
        # The losses take names from the declarations, and stay quick to import.
        assert path.name not in ("fields.py", "rules.py") or "ml_collections" not in tops


def test_the_first_line_says_the_purpose():
    without = [str(path) for path in PYTHON_FILES if not path.read_text().removeprefix("r").startswith('"""')]
    assert without == []


def test_few_wings_know_the_config():
    knowing = {
        wing(module)
        for module, path in MODULES.items()
        if re.search(r"import ConfigDict|import ml_collections$", path.read_text(), re.MULTILINE)
    }
    assert knowing == {"run", "store", "plan"}


def test_nothing_uses_the_private_part_of_jax():
    pattern = "jax" + "._src"
    files = [
        path
        for folder in ("gensupcon_jax", "configs", "launch", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*")
    ]
    texts = {path: path.read_text() for path in files if path.suffix in (".py", ".ipynb", ".sh")}
    assert len(texts) > 150
    assert [str(path) for path, text in texts.items() if pattern in text] == []


def slow_and_quick_tests(path):
    """(names of the tests marked `slow`, of the others) of a file."""
    tree = ast.parse(path.read_text())
    of_all = any(isinstance(node, ast.Assign) and "mark.slow" in ast.unparse(node) for node in tree.body)
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    slow = [test.name for test in tests if of_all or "mark.slow" in "".join(map(ast.unparse, test.decorator_list))]
    return slow, [test.name for test in tests if test.name not in slow]


def test_make_quick_has_tests_of_every_wing():
    wings = {path.parent.name for path in PYTHON_FILES} - {"gensupcon_jax"}
    tested = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert wings <= tested
    quick = {
        wing: [slow_and_quick_tests(path)[1] for path in (ROOT / "tests" / wing).glob("test_*.py")] for wing in tested
    }
    assert {wing for wing in wings if sum(map(len, quick[wing])) < 3} == set()
    assert {wing for wing in tested if not any(quick[wing])} == set()


# Names and sizes

# The same word for the same thing in each place: the parts of a command.
SEVERAL = {"main", "build_parser"}

# Public builders: their keyword arguments are fields of the config, or of the paper's formula, each with its own name.
BUILDERS = {
    "build_augment_fn",
    "chance_losses",
    "build_backbone",
    "build_schedule",
    "contrastive",
    "from_arrays",
    "generalized_contrastive_loss",
    "load_teacher",
}
MOST_PARAMETERS = 7
MOST_LINES = 60


def definitions(kinds):
    for path in PYTHON_FILES:
        tree = ast.parse(path.read_text())
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, kinds))


def code_lines(path, function):
    """Lines of a function that hold code: no blank ones, comments or docstrings."""
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    docstrings = [
        node.body[0] for node in ast.walk(function) if isinstance(node, documented) and ast.get_docstring(node)
    ]
    left_out = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(path.read_text().splitlines(), 1)
    own = [
        text.strip()
        for number, text in lines
        if function.lineno <= number <= function.end_lineno and number not in left_out
    ]
    return sum(bool(text) and not text.startswith("#") for text in own)


def test_no_public_name_means_two_things():
    places = {}
    for path in (*PYTHON_FILES, ROOT / "configs" / "fields.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1 and name not in SEVERAL} == {}


def test_no_file_is_named_like_one_of_the_standard_library():
    assert {path.stem for path in PYTHON_FILES} & sys.stdlib_module_names <= {"__main__"}


def test_nothing_takes_more_than_seven_parameters():
    found, builders = [], set()
    for path, function in definitions((ast.FunctionDef, ast.AsyncFunctionDef)):
        arguments = function.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        if len(set(names) - {"self", "cls"}) > MOST_PARAMETERS:
            builders |= {function.name} & BUILDERS
            found += [f"{path.relative_to(PACKAGE)}: {function.name}"] if function.name not in BUILDERS else []
    assert found == []
    assert builders == BUILDERS, "these take fewer by now: leave them out of BUILDERS"


def test_no_function_is_longer_than_sixty_lines():
    long = {
        f"{path.relative_to(PACKAGE)}: {function.name}": lines
        for path, function in definitions((ast.FunctionDef, ast.AsyncFunctionDef))
        if (lines := code_lines(path, function)) > MOST_LINES
    }
    assert long == {}


def test_code_lines_are_counted_without_comments_and_docstrings(tmp_path):
    file = tmp_path / "file.py"
    file.write_text('def f():\n    """Two\n    lines."""\n\n    # why\n    x = """a\n    b"""\n    return x\n')
    assert code_lines(file, ast.parse(file.read_text()).body[0]) == 4
