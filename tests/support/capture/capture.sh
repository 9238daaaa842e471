#!/bin/sh
# Merges the memory of two processes and copies what this kernel says about it: capture.sh DIRECTORY.
# The program on PATH is mergeable.c under QEMU's name. A POSIX shell is enough, so that it runs in a busybox guest, too.
# It puts no knob back: its caller does.
set -eu
out=$1 ksm=/sys/kernel/mm/ksm

keep() {
    for file; do
        mkdir -p "$out/${file%/*}"
        cat "$file" >"$out$file" 2>/dev/null || rm "$out$file"
    done
}

qemu-system-x86_64 -name guest=web -m 6 >/dev/null &
web=$!
qemu-system-x86_64 -name guest=db -m 6 >/dev/null &
db=$!
trap 'kill "$web" "$db"' EXIT

echo 5000 >$ksm/pages_to_scan
echo 1 >$ksm/run
patience=60
while [ "$(cat $ksm/pages_sharing)" -lt 1500 ] || [ "$(cat $ksm/full_scans)" -lt 5 ]; do # 1024 + 512 - 2 or 6
    patience=$((patience - 1))
    [ $patience -gt 0 ] || exit 1
    sleep 1
done

keep $ksm/* /proc/meminfo /proc/vmstat /proc/pressure/memory /proc/stat /proc/loadavg /proc/version
for process in /proc/[0-9]*; do
    [ "$(cat "$process/comm" 2>/dev/null)" != ksmd ] || ksmd=$process
done
for process in "$ksmd" "/proc/$web" "/proc/$db"; do
    for file in comm cmdline stat statm status schedstat ksm_stat ksm_merging_pages; do
        [ ! -e "$process/$file" ] || keep "$process/$file"
    done
done
