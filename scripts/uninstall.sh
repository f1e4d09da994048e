#!/bin/sh
# Take the service away that scripts/install.sh has put in place: sudo scripts/uninstall.sh [--dry-run]
# Never removes what people made or may want back: spool, output, settings, backups. It says where they are.
set -eu
dry=''

die() { echo "uninstall.sh: $*" >&2; exit 1; }
run() {
    echo "+ $*"
    [ -n "$dry" ] || "$@"
}

case "${1-}" in
    --dry-run) dry=yes ;;
    '') ;;
    *) die "usage: scripts/uninstall.sh [--dry-run]" ;;
esac
[ -n "$dry" ] || [ "$(id -u)" = 0 ] || die "run it as root; --dry-run shows what it would do"
command -v systemctl >/dev/null || die "systemd is not here"

for unit in topicd-backup.timer topicd-backup.service topicd.service; do
    file=/etc/systemd/system/$unit
    [ -e "$file" ] || continue
    run systemctl disable --now "$unit"
    run rm "$file"
done
run systemctl daemon-reload
run rm -f /usr/local/lib/systemd/catalog/topicd.catalog
run journalctl --update-catalog
[ "$(readlink /usr/local/bin/topicd)" != /opt/topicd/bin/topicd ] || run rm /usr/local/bin/topicd
run rm -rf /opt/topicd

echo "kept: /var/lib/topicd (input, spool, output, cache), /var/backups/topicd, /etc/topicd.env, drop-ins, user and group topicd"
echo "to remove them, too, for good:"
echo "    rm -r /var/lib/topicd /var/backups/topicd /etc/topicd.env /etc/systemd/system/topicd*.d"
echo "    userdel topicd"
