"""An integration whose package is not installed says so in one line, which names its extra."""

import pytest


@pytest.mark.parametrize(
    ("module", "package"),
    [("sentence_transformers", "sentence_transformers"), ("mteb", "mteb"), ("mteb_tasks", "mteb"), ("lancedb", "lancedb")],
)
def test_a_missing_package_is_one_line(module, package, python):
    code = f"import sys; sys.modules[{package!r}] = None; import imagebind_cli.integrations.{module}"
    process = python("-c", code)
    extra = package.replace("_", "-")
    assert process.stderr.splitlines()[-1].endswith(f"is not installed; install it with: pip install 'imagebind-cli[{extra}]'")


def test_the_lance_format_names_its_extra(tmp_path, python):
    (tmp_path / "a.lance" / "_versions").mkdir(parents=True)
    code = (
        f"import sys; sys.modules['lancedb'] = None; from imagebind_cli.store import open_store; open_store({str(tmp_path / 'a.lance')!r})"
    )
    process = python("-c", code)
    assert process.stderr.splitlines()[-1].endswith("pip install 'imagebind-cli[lancedb]'")
