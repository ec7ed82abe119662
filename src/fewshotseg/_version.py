"""The version of the package, which a checkout that is not installed does not know."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("fewshotseg")
except PackageNotFoundError:
    VERSION = "0+unknown"
