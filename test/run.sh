#!/bin/sh
# Runs every compiled test, or only those whose path holds the first argument:  sh test/run.sh unit/selection
set -eu
cd "$(dirname "$0")/.."
files=$(find build/test -name '*.test.js' -path "*${1:-}*" | sort)
if [ -z "$files" ]; then
  echo "no compiled test matches '${1:-}': run npm run build:tests first" >&2
  exit 1
fi
# shellcheck disable=SC2086
exec node --test --test-reporter=spec --test-concurrency="${TEST_CONCURRENCY:-2}" --test-timeout=300000 $files
