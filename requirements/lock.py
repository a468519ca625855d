"""Print the installed versions of this project's dependencies, direct and indirect, as pip constraints."""

import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    found: dict[str, str] = {}
    asked = [(normal("sageserve-testbed"), frozenset({"dev"}))]
    while asked:
        name, extras = asked.pop()
        if name in found:
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = installed.version
        for line in installed.requires or ():
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if needed.marker is None or any(needed.marker.evaluate(environment) for environment in environments):
                asked.append((normal(needed.name), frozenset(needed.extras)))
    del found["sageserve-testbed"]
    print("# Versions that the tests passed with; rewritten by `make lock`.")
    for name, version in sorted(found.items()):
        print(f"{name}=={version}")


main()
