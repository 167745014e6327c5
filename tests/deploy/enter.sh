#!/bin/sh
# Run a command inside the tree of an image: enter.sh ROOT MODE PREFIX VOLUME DIRECTORY USER COMMAND...
#
# The caller has made namespaces for mounts and processes, so nothing here touches the machine. The system's own folders
# stand in for the image's base, read-only; PREFIX is where Python is, if elsewhere. With MODE `ro` the tree itself is
# read-only too, but for a folder that is mounted on VOLUME.
set -eu
root=$1 mode=$2 prefix=$3 volume=$4 directory=$5 user=$6
shift 6

if [ "$mode" = ro ]; then
    kept=$root.volume
    mkdir -p "$kept"
    mount --bind "$root$volume" "$kept"
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount --bind "$kept" "$root$volume"
fi
for place in usr bin sbin lib lib32 lib64 libx32 etc opt; do
    if [ -d "/$place" ] && [ ! -L "/$place" ]; then
        mount --rbind "/$place" "$root/$place"
        mount -o remount,bind,ro "$root/$place"
    fi
done
case $prefix in
/usr | /usr/local) ;;
*)
    mount --bind "$prefix" "$root$prefix"
    mount -o remount,bind,ro "$root$prefix"
    ;;
esac
mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
END
ln -s /proc/self/fd "$root/dev/fd"
if [ "$mode" = rw ]; then
    # A build has it, and may use it. The service does without.
    mkdir -m 1777 "$root/dev/shm"
fi
mount --rbind /sys "$root/sys"
mount -o remount,bind,ro "$root/sys"
mount -t proc proc "$root/proc"

if [ "$user" = 0 ]; then
    exec chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$directory" "$@"
fi
exec chroot "$root" setpriv --reuid="$user" --regid="$user" --clear-groups --bounding-set=-all --no-new-privs \
    -- /bin/sh -c 'cd "$0" && exec "$@"' "$directory" "$@"
