#!/bin/sh
# Make the peers' environment beside the benchmarks' other output: benchmarks/peers/setup.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/../out/peers-venv}
python3 -m venv "$venv"
"$venv/bin/python" -m pip install -r "$here/requirements-peers.txt"
"$venv/bin/python" -m pip install -e "$here/../.."
echo "PEERS_PYTHON=$venv/bin/python python $here/run.py"
