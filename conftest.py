"""Runs the code of README.md, docs/ and the docstrings as part of the test suite, where sybil is installed."""

from contextlib import suppress

with suppress(ImportError):  # the tests of tests/ run without it, such as those marked cuda on a bare machine
    from sybil import Sybil
    from sybil.document import PythonDocStringDocument
    from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
    from sybil.parsers.rest import DocTestParser

    markdown = Sybil(
        parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["README.md", "docs/*.md", "docs/*/*.md"]
    )
    docstrings = Sybil(
        parsers=[DocTestParser()],
        patterns=["src/fewshotseg/*.py", "src/fewshotseg/*/*.py", "src/fewshotseg/*/*/*.py"],
        document_types={".py": PythonDocStringDocument},
    )
    pytest_collect_file = (markdown + docstrings).pytest()
