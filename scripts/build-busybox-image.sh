#!/bin/sh
# Builds a small OCI layout image from Debian's static busybox with umoci; the network is used only
# where there is no static busybox yet.
#
#   scripts/build-busybox-image.sh DIRECTORY [TAG]        (TAG is 1.36 when not given)
#
# DIRECTORY is made if it is missing; an image of that tag in it is replaced. The same busybox
# gives the same digests: times, owners and modes are set.
set -eu

fail() { echo "build-busybox-image: $*" >&2; exit 1; }

[ $# -ge 1 ] && [ $# -le 2 ] || fail "usage: $0 DIRECTORY [TAG]"
layout=$1
tag=${2:-1.36}
epoch=2023-01-01T00:00:00Z

command -v umoci >/dev/null || fail "umoci is missing: apt-get install umoci"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The static one needs no libraries in the image. Debian's plain busybox is linked dynamically.
busybox=${BUSYBOX:-/bin/busybox}
if [ ! -x "$busybox" ] || ldd "$busybox" >/dev/null 2>&1; then
    download() { (cd "$work" && apt-get download -qq busybox-static >/dev/null 2>&1); }
    { download || { apt-get update -qq >/dev/null 2>&1 && download; }; } &&
        (cd "$work" && dpkg-deb -x busybox-static_*.deb deb) ||
        fail "no static busybox: apt-get install busybox-static, or set BUSYBOX to one"
    busybox=$work/deb/bin/busybox
    [ -x "$busybox" ] || busybox=$work/deb/usr/bin/busybox
fi

root=$work/root
umask 022
mkdir -p "$root/bin" "$root/dev" "$root/etc" "$root/proc" "$root/root" "$root/sys" "$root/tmp" "$root/usr" \
    "$root/var/tmp" "$root/home/user"
chmod 1777 "$root/tmp" "$root/var/tmp"
cp "$busybox" "$root/bin/busybox"
chmod 755 "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
# Debian builds busybox without split, which batch work likes to begin with: its -l in a few lines.
if [ ! -e "$root/bin/split" ]; then
    cat >"$root/bin/split" <<'SPLIT'
#!/bin/sh
# split -l LINES [FILE|- [PREFIX]]
[ "$1" = -l ] && [ "${2:-0}" -gt 0 ] 2>/dev/null || { echo "usage: split -l LINES [FILE|- [PREFIX]]" >&2; exit 2; }
exec awk -v lines="$2" -v prefix="${4:-x}" '
    (NR - 1) % lines == 0 {
        if (part >= 676) { print "split: too many parts" > "/dev/stderr"; exit 1 }
        if (out) close(out)
        out = prefix substr(az, int(part / 26) + 1, 1) substr(az, part % 26 + 1, 1); part++
    }
    { print > out }
    BEGIN { az = "abcdefghijklmnopqrstuvwxyz" }' "${3:--}"
SPLIT
    chmod 755 "$root/bin/split"
fi
ln -s ../bin "$root/usr/bin"
printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\nstaff:x:50:user\nnogroup:x:65534:\n' >"$root/etc/group"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost\n' >"$root/etc/hosts"
chown -R 0:0 "$root"
chown 1000:1000 "$root/home/user"
find "$root" -exec touch -h -d "$epoch" {} +

# Built beside the target and put in place whole, so that a reader never meets half an image.
if [ ! -f "$layout/index.json" ]; then
    mkdir -p "$(dirname "$layout")"
    umoci init --layout "$work/layout"
else
    cp -a "$layout" "$work/layout"
    umoci rm --image "$work/layout:$tag" 2>/dev/null || true
fi
umoci new --image "$work/layout:$tag"
umoci insert --image "$work/layout:$tag" --history.created "$epoch" --history.author towline \
    --history.created_by busybox "$root" /
umoci config --image "$work/layout:$tag" --no-history --created "$epoch" --author towline \
    --config.cmd sh --config.env PATH=/bin --config.workingdir /
umoci gc --layout "$work/layout" >/dev/null
mkdir -p "$(dirname "$layout")"
rm -rf "$layout.new"
cp -a "$work/layout" "$layout.new"
rm -rf "$layout"
mv "$layout.new" "$layout"
echo "$layout:$tag"
