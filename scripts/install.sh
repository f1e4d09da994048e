#!/bin/sh
# Install topicd as a system service, or bring an installed one up to what is here: sudo scripts/install.sh [--dry-run]
# Changes only what differs, restarts the service only if it ran, and starts nothing by itself. docs/DEPLOYMENT.md has more.
set -eu
cd "$(dirname "$0")/.."
PREFIX=/opt/topicd STATE=/var/lib/topicd BACKUPS=/var/backups/topicd SETTINGS=/etc/topicd.env COMMAND=/usr/local/bin/topicd
UNITS=/etc/systemd/system CATALOG=/usr/local/lib/systemd/catalog
BLOCKS='base otel embedded'
python=${PYTHON:-python3}
dry='' changed=''

die() { echo "install.sh: $*" >&2; exit 1; }
# Tell what changes something, and do it unless this is a dry run.
run() {
    changed=yes
    echo "+ $*"
    [ -n "$dry" ] || "$@"
}
put() { cmp -s "$1" "$2" || run install -D -m 0644 "$1" "$2"; }
directory() { [ -d "$2" ] || run install -d -o topicd -g topicd -m "$1" "$2"; }
link() { [ "$(readlink "$2")" = "$1" ] || run ln -sfnT "$1" "$2"; }

case "${1-}" in
    --dry-run) dry=yes ;;
    '') ;;
    *) die "usage: scripts/install.sh [--dry-run]" ;;
esac
[ -n "$dry" ] || [ "$(id -u)" = 0 ] || die "run it as root; --dry-run shows what it would do"
command -v systemctl >/dev/null || die "systemd is not here"
"$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "needs Python 3.11 or newer with its venv module (apt install python3-venv); PYTHON=/path/to/python3 names another"
umask 022

# Each version has a virtual environment of its own, named by what it is made from: one that could not be made whole
# leaves the one in use as it is.
version=$(
    {
        "$python" -c 'import sys; print(sys.version, sys.executable)'
        # shellcheck disable=SC2086 # words
        scripts/pins.sh $BLOCKS build
        find daemon pyproject.toml README.md -type f ! -name '*.pyc' -exec sha256sum {} + | LC_ALL=C sort -k 2
    } | sha256sum | cut -c 1-12
)
new=$PREFIX/versions/$version

make_environment() {
    rm -rf "$new"
    mkdir -p "$PREFIX/versions"
    "$python" -m venv "$new"
    pip="$new/bin/python -m pip --quiet --disable-pip-version-check install --no-deps"
    # shellcheck disable=SC2086 # words
    scripts/pins.sh $BLOCKS | $pip --require-hashes -r /dev/stdin
    scripts/pins.sh build | $pip --require-hashes --target "$new/build" -r /dev/stdin
    PYTHONPATH=$new/build $pip --no-build-isolation .
    rm -r "$new/build"
    "$new/bin/topicd" --version >/dev/null
    touch "$new/whole"
}

getent group topicd >/dev/null || run groupadd --system topicd
getent passwd topicd >/dev/null ||
    run useradd --system --gid topicd --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin topicd
[ -e "$new/whole" ] || run make_environment
# A virtual environment at this very place, made by hand.
[ -L "$PREFIX/bin" ] || [ ! -d "$PREFIX/bin" ] ||
    run rm -rf "$PREFIX/bin" "$PREFIX/lib" "$PREFIX/lib64" "$PREFIX/include" "$PREFIX/share" "$PREFIX/pyvenv.cfg"
old=$(readlink "$PREFIX/bin" || true)
link "versions/$version/bin" "$PREFIX/bin"
[ -e "$COMMAND" ] || link "$PREFIX/bin/topicd" "$COMMAND"

directory 0750 "$STATE"
# What people drop gets the daemon's group, so that it may read it.
directory 2770 "$STATE/input"
directory 0750 "$BACKUPS"
[ -e "$SETTINGS" ] || run install -m 0640 -g topicd .env.example "$SETTINGS"
# Verbs that people run in the home find the daemon's settings.
[ -e "$STATE/.env" ] || link "$SETTINGS" "$STATE/.env"
for unit in topicd.service topicd-backup.service topicd-backup.timer; do put "systemd/$unit" "$UNITS/$unit"; done
put systemd/topicd.catalog "$CATALOG/topicd.catalog"

if [ -n "$changed" ]; then
    run systemctl daemon-reload
    run journalctl --update-catalog
    if systemctl is-active --quiet topicd; then
        run systemctl restart topicd || die "it does not start; the version before: ln -sfnT $old $PREFIX/bin, and systemctl restart topicd"
    fi
fi
for other in "$PREFIX"/versions/*; do
    [ "$other" = "$new" ] || [ ! -e "$other" ] || run rm -rf "$other"
done
[ -n "$changed" ] || echo "nothing to do: $PREFIX is what is here"
systemctl is-active --quiet topicd || echo "to start it, now and at each boot: systemctl enable --now topicd topicd-backup.timer"
