#!/bin/sh
# Runs all plans of the folder above this one, on a Debian 12, as root or where sudo asks for no password.
# Exit status: that of `hil run`. Afterwards hil-results/junit.xml is for the CI's report, and the folders beside
# it are the evidence. Call it from the top folder of the repository.
set -eu
plans=$(dirname -- "$0")/..

# What pip installs: a version, or the path of a wheel, or git+https://...
install=${HIL_INSTALL:-hil-hotplug==@VERSION@}
# What was built and booted is kept here, about a gigabyte for each version. Have the CI keep the folder: without
# it a run begins with some minutes of building.
HIL_CACHE=${HIL_CACHE:-$PWD/.hil-cache}
export HIL_CACHE

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update --quiet
$as_root apt-get install --quiet --yes --no-install-recommends @PACKAGES@
python3 -m venv .hil-venv
.hil-venv/bin/pip install --quiet "$install"

# As many plans at once as there is room for.
exec .hil-venv/bin/hil run -n auto --results hil-results "$plans"
