#!/bin/sh
# Runs every compiled test, or those whose path holds one of the words:  sh test/run.sh unit/selection kernel/nat
# With --quick unit tests, property tests and scenarios, with --long whole campaigns, with --name=<regular expression> by name.
set -eu
cd "$(dirname "$0")/.."
if [ ! -e build/test/runner/main.js ]; then
  echo 'the tests are not compiled: run npm run build:tests first' >&2
  exit 1
fi
exec node build/test/runner/main.js "$@"
