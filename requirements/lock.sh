#!/bin/sh
# Pin what pyproject.toml allows, with hashes and without index addresses, for Python 3.11 to 3.15 alike.
set -eu
cd "$(dirname "$0")/.."
pin() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade \
        "$@"
}
pin pyproject.toml --extra node --group build --output-file requirements/node.txt
# dev.txt contains node.txt, at the same versions.
pin pyproject.toml --extra node --group dev --constraint requirements/node.txt --output-file requirements/dev.txt
# Files alone, for every Python; the package that carries them wants 3.12, and more packages that nobody needs here.
uv pip compile --quiet --group schemas --no-deps --python-version 3.12 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements/schemas.txt
